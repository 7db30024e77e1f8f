"""Named random streams from one seed.

Each draw belongs to a name and to a key (a request's index, say), never to the order of events:
one draw more in one stream shifts no other, and both engines see the same numbers.
"""

from __future__ import annotations

import zlib
from functools import lru_cache
from typing import overload

import numpy as np


def stream(seed: int, name: str, *key: int) -> np.random.Generator:
    """The generator of *name* and *key* under the scenario's *seed* (a whole number >= 0)."""
    return np.random.Generator(
        np.random.PCG64(np.random.SeedSequence([seed, zlib.crc32(name.encode()), *key]))
    )


_MASK = (1 << 64) - 1
_GOLDEN = 0x9E3779B97F4A7C15
_MIX_1, _MIX_2 = 0xBF58476D1CE4E5B9, 0x94D049BB133111EB
# The same as NumPy scalars: making one takes as long as hashing a hundred positions with it.
_ARRAY_GOLDEN, _ARRAY_1, _ARRAY_2 = map(np.uint64, (_GOLDEN, _MIX_1, _MIX_2))
_11, _27, _30, _31 = map(np.uint64, (11, 27, 30, 31))


def _mixed(x: int) -> int:
    """The finaliser of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014)."""
    x = (x ^ (x >> 30)) * _MIX_1 & _MASK
    x = (x ^ (x >> 27)) * _MIX_2 & _MASK
    return x ^ (x >> 31)


@overload
def uniforms(seed: int, name: str, key: int, positions: int) -> float: ...
@overload
def uniforms(seed: int, name: str, key: int, positions: np.ndarray) -> np.ndarray: ...
def uniforms(seed: int, name: str, key: int, positions: int | np.ndarray) -> float | np.ndarray:
    """The draws in [0, 1) that belong to *positions* (whole numbers >= 0) of *name* and *key*.

    A function of its arguments alone: one position or many, in any order, give the same to the
    last bit.
    """
    base = _mixed(_named(seed, name) ^ key)
    if isinstance(positions, np.ndarray):
        x = positions.astype(np.uint64)
        x *= _ARRAY_GOLDEN
        x += np.uint64(base + _GOLDEN & _MASK)
        high = x >> _30
        x ^= high
        x *= _ARRAY_1
        np.right_shift(x, _27, high)
        x ^= high
        x *= _ARRAY_2
        np.right_shift(x, _31, high)
        x ^= high
        x >>= _11
        return x * 2.0**-53
    return (_mixed(base + (positions + 1) * _GOLDEN & _MASK) >> 11) * 2.0**-53


@lru_cache(maxsize=64)
def _named(seed: int, name: str) -> int:
    return _mixed(_mixed(seed + _GOLDEN & _MASK) ^ zlib.crc32(name.encode()))
