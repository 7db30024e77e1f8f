"""mooncake-conversation-like: chat of the Kimi service, whose prompts extend earlier prompts.

Shaped like `conversation_trace.jsonl` of the FAST'25 release of Mooncake (Moonshot AI, Apache-2.0;
Qin et al., FAST 2025): 12,031 requests in 3,537 s. Measured on the file itself.
"""

from __future__ import annotations

from sim.trace.gaps import gamma_gaps, minute_profile
from sim.trace.lengths import knots_of

from .arrivals import Renewal
from .chat_blocks import BLOCK_TOKENS, ChatBlocks
from .open_loop import Recipe

__all__ = ["BLOCK_TOKENS", "NAME", "recipe"]

NAME = "mooncake-conversation-like"

# Model: the file's time stamps lie on a 3 s grid; spread over the tick they are Poisson about their
# rate profile (gap CV 1.01), so the grid is taken for an artefact and not reproduced.
_SHAPE = 1.0
_RATE_PER_S = 3.40119

# Tables of lengths as for azure-conv-like.
# fmt: off
# requests in each of the 58 whole minutes, each the mean of three: chance alone moves a single one
# by 7 %
_PER_MINUTE = (
    170, 185, 190, 193, 175, 165, 164, 163, 175, 186, 194, 197, 192, 191, 183, 178, 173, 183, 193,
    204, 210, 209, 211, 199, 207, 197, 210, 202, 212, 220, 214, 209, 193, 202, 207, 227, 210, 217,
    213, 223, 225, 216, 221, 216, 219, 210, 214, 218, 231, 227, 234, 229, 228, 213, 218, 219, 227,
    222,
)
_PROMPT = (
    (891, 0.0), (894, 0.00607), (902, 0.05203), (913, 0.07464), (944, 0.09434), (979, 0.10348),
    (1388, 0.16898), (1935, 0.22633), (2798, 0.2782), (4205, 0.34652), (5318, 0.42258),
    (7142, 0.51085), (10172, 0.62073), (12618, 0.68872), (16346, 0.77259), (19482, 0.82661),
    (21186, 0.84781), (28220, 0.90707), (34448, 0.93858), (43239, 0.95861), (66485, 0.98005),
    (85402, 0.99003), (100887, 0.99501), (118462, 0.99801), (122767, 0.99934), (126196, 1.0),
)
_OUTPUT = (
    (1, 0.0), (3, 0.00657), (4, 0.02776), (19, 0.08229), (32, 0.12351), (43, 0.14546),
    (204, 0.28942), (273, 0.37046), (354, 0.50478), (469, 0.74508), (516, 0.81647), (553, 0.86202),
    (606, 0.90624), (675, 0.94257), (743, 0.96152), (894, 0.98013), (1121, 0.99003),
    (1571, 0.99501), (2001, 1.0),
)
# fmt: on


def recipe(seed: int) -> Recipe:
    """Lengths are independent of each other (rank correlation 0.07 in the file) and of time."""
    warp = minute_profile(_PER_MINUTE, _RATE_PER_S)
    arrivals = Renewal(seed, NAME, gamma_gaps(_SHAPE, 1.0), warp)
    return Recipe(arrivals, knots_of(_PROMPT), knots_of(_OUTPUT), blocks=ChatBlocks().assign)
