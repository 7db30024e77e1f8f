"""The kernels of the profile, in the order in which they are fitted."""

from __future__ import annotations

from .attention import DECODE, PREFILL, VERIFIED
from .cache_stages import APPEND, SCORE, TOPK
from .products import FP8, GEMV, INT4, LIBRARY
from .small_stages import ELEMENTWISE
from .speculation import VERIFY

RECIPES = (
    LIBRARY, FP8, INT4, GEMV, *DECODE, VERIFIED, PREFILL, *ELEMENTWISE, TOPK, SCORE, APPEND,
    *VERIFY,
)  # fmt: skip
"""Who borrows comes after whom it borrows from."""
