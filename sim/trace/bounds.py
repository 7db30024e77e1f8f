"""The bounds of what counts as a trace, for readers, generators and scenarios alike.

One rule: a bound stands here once, so that `check` refuses what a run would refuse later. Nothing
heavy is imported, since every scenario is checked against these.
"""

from __future__ import annotations

MAX_TOKENS = 10_000_000
"""A longer prompt or output is a mistake, not a request."""
MAX_REQUESTS = 100_000_000
"""Of a generated trace."""
MAX_SECONDS = 1e9
"""From a trace's first request on (31 years): a float there still resolves 0.1 us."""
MAX_STAMP_S = 2.0**32
"""A time as a file has it, which may count from 1970 (to 2106); a float resolves 0.5 us."""
MAX_BLOCK_TOKENS = 65_536
MAX_REPLICAS = 1_000_000
MAX_SOURCES = 64
"""Of a merged trace."""

# least and largest value of what a generator takes
RATE_PER_S = (1e-6, 1e9)
RATE_SCALE = (1e-6, 1e6)
BURSTINESS = (1e-3, 1e6)
SIGMA = (0.0, 10.0)
ALPHA = (0.05, 1e3)
"""Exponent of a Pareto tail."""
MAX_PARTS = 32
"""Of a mixture of lengths."""
PERIOD_S = (1e-3, 1e9)
"""Mean length of an on or off period."""
