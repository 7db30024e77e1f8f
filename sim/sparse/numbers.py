"""Arithmetic that is the same to the last bit for one number and for an array of them.

The one rule: only operations that IEEE 754 rounds exactly, so no logarithm and no library power.
"""

from __future__ import annotations

from typing import TypeVar, overload

import numpy as np

N = TypeVar("N", int, np.ndarray)
"""Whole numbers: of one request, or of many at once."""
Whole = int | np.ndarray
Real = float | np.ndarray


@overload
def least(a: int, b: int) -> int: ...
@overload
def least(a: np.ndarray, b: Real) -> np.ndarray: ...
@overload
def least(a: Real, b: Real) -> Real: ...
def least(a: Real, b: Real) -> Real:
    """The smaller of the two."""
    if isinstance(a, np.ndarray) or isinstance(b, np.ndarray):
        return np.minimum(a, b)
    return a if a < b else b


@overload
def most(a: int, b: int) -> int: ...
@overload
def most(a: np.ndarray, b: Real) -> np.ndarray: ...
@overload
def most(a: Real, b: Real) -> Real: ...
def most(a: Real, b: Real) -> Real:
    """The larger of the two."""
    if isinstance(a, np.ndarray) or isinstance(b, np.ndarray):
        return np.maximum(a, b)
    return a if a > b else b


def blocks(tokens: N, block_tokens: int) -> N:
    """Blocks that *tokens* tokens occupy."""
    return -(-tokens // block_tokens)


def power(base: Real, exponent: Whole) -> Real:
    """*base* to a whole power >= 0, by squaring."""
    result = base * 0.0 + 1.0
    while exponent.any() if isinstance(exponent, np.ndarray) else exponent:
        odd = exponent % 2
        result = result * (odd * base + (1 - odd))
        base = base * base
        exponent = exponent // 2
    return result
