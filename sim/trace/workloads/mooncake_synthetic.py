"""mooncake-synthetic-like: short questions, and documents that are asked about again and again.

Shaped like `synthetic_trace.jsonl` of the FAST'25 release of Mooncake (Apache-2.0; Qin et al., FAST
2025), which its authors put together from public data sets with Poisson arrivals: 3,993 requests in
1,022 s. Its rows were not at hand: all was fitted to statistics of the file (quantiles, distances
of fitted families, most common lengths, reuse), which leave the lengths of prompts open by up to
0.05 in share.
"""

from __future__ import annotations

from sim.trace.gaps import gamma_gaps
from sim.trace.lengths import knots_of

from .arrivals import Renewal
from .chat_blocks import BLOCK_TOKENS, ChatBlocks, Chats
from .open_loop import Recipe

__all__ = ["BLOCK_TOKENS", "NAME", "recipe"]

NAME = "mooncake-synthetic-like"

_RATE_PER_S = 3.90597
_RANK_CORRELATION = -0.517  # documents have short answers
# fmt: off
_PROMPT = (
    (13, 0.0), (16, 0.01038), (19, 0.032), (25, 0.06877), (33, 0.10857), (43, 0.14635),
    (53, 0.17536), (87, 0.19763), (135, 0.21732), (195, 0.23377), (272, 0.24865), (380, 0.26359),
    (530, 0.27844), (923, 0.30372), (1439, 0.32455), (2084, 0.34191), (3250, 0.36274),
    (4707, 0.3801), (6331, 0.41692), (7907, 0.44552), (11453, 0.49619), (13783, 0.56278),
    (16589, 0.6294), (19965, 0.696), (23176, 0.74962), (27868, 0.80671), (33540, 0.86408),
    (38612, 0.9), (48905, 0.95038), (58471, 0.984), (66457, 0.99), (90000, 0.9965),
    (191370, 0.9985), (191379, 1.0),
)
_OUTPUT = (
    (1, 0.0), (2, 0.0015), (3, 0.0596), (4, 0.09842), (5, 0.13098), (7, 0.17833), (8, 0.19759),
    (10, 0.22942), (13, 0.26637), (16, 0.29533), (19, 0.31915), (26, 0.36235), (35, 0.40305),
    (46, 0.44031), (56, 0.46705), (81, 0.52525), (105, 0.57075), (136, 0.61605), (168, 0.65302),
    (207, 0.68953), (235, 0.73035), (275, 0.78237), (339, 0.8526), (407, 0.91394), (464, 0.93714),
    (588, 0.96243), (769, 0.99), (814, 0.999), (894, 1.0),
)
# fmt: on
# Model: 0.45 of the requests have prefix hits, of 0.97 of their blocks in the median, nearly all of
# them long ones. The gaps are those between turns of the sessions inferred from the file (p1 to
# p99.9), times 2.8: often no document is left that was last asked about so long ago, and a later
# one is taken. Shares and factor were fitted to the hit rates of LRU caches of 1,000, 10,000 and
# 100,000 blocks (8.4, 42.4 and 64.0 %) and to the time between uses of a block (p50 59 s).
_DOCUMENTS = Chats(
    common_block=False,
    continues=((8, 0.03), (16, 0.35), (10**9, 0.695)),
    short_turn=1.0,
    one_block=0.9,
    gap_share=(0.0, 0.01, 0.05, 0.10, 0.25, 0.50, 0.75, 0.90, 0.95, 0.99, 0.999, 1.0),
    gap_s=(0.003, 1.0, 5.6, 11.7, 40.3, 150.0, 414.0, 838.0, 1184.0, 1704.0, 2213.0, 2301.0),
)


def recipe(seed: int) -> Recipe:
    """Poisson arrivals at one rate."""
    return Recipe(
        Renewal(seed, NAME, gamma_gaps(1.0, 1.0 / _RATE_PER_S)),
        knots_of(_PROMPT),
        knots_of(_OUTPUT),
        _RANK_CORRELATION,
        ChatBlocks(_DOCUMENTS).assign,
    )
