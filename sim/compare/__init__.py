"""Two runs, and why they differ: keys, metrics, and where the time went.

The one rule: a cause is a number that is part of a sum; the parts of a difference add up to it.
"""

from __future__ import annotations

from .comparison import Comparison, compare

__all__ = ["Comparison", "compare"]
