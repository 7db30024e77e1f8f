"""What one run alone says about its own error: batch means, with their correlation looked at.

The one rule: an interval that the run is too short for is not given; the reason is.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import sqrt
from typing import TYPE_CHECKING

import numpy as np

from sim.quantiles import percentile

from .student import quantile

if TYPE_CHECKING:
    from collections.abc import Callable

MOST, FEWEST = 20, 10
"""Batches that are tried: first many short ones, then few long ones."""
LEAST = 100
"""Requests that give ten batches of ten."""
_USUAL = 1.282
"""Standard errors of a lag-1 correlation that uncorrelated batches stay below nine times of ten."""
_STRONGEST = 0.5
"""Correlation between neighbours, of `FEWEST` batches, that can still be allowed for."""
_QUARTILE = 75.0
_FURTHEST = 0.75
"""How near to the end of all values a quantile's interval may reach, as a share of the way."""


@dataclass(frozen=True, slots=True)
class Spread:
    """The standard error of an estimate, or *why* there is none; *df* degrees of freedom."""

    error: float = 0.0
    df: float = 0.0
    why: str = ""


def of_batches(batches: Callable[[int], np.ndarray]) -> Spread:
    """The standard error of the mean of *batches* (a count) of a run, contiguous ones in time.

    # Model: batch means (Law, Simulation Modeling and Analysis, 9.5.3): 20 batches if their lag-1
    correlation is below its 90 % bound for independent ones, else 10, whose variance is multiplied
    by (1 + r)/(1 - r), r their lag-1 correlation, as Skart does (Tafazzoli and Wilson, IIE
    Transactions 43 (2), 2011). No interval if r is above 0.5: the run is too short for it.
    """
    values = batches(MOST)
    widened = 1.0
    if (correlation := _lag_1(values)) > _USUAL / sqrt(MOST):
        values = batches(FEWEST)
        correlation = _lag_1(values)
        if correlation > _STRONGEST:
            return Spread(why="the run is too short: its tenths still depend on one another")
        widened = (1 + max(correlation, 0.0)) / (1 - max(correlation, 0.0))
    count = len(values)
    return Spread(sqrt(widened * float(values.var(ddof=1)) / count), count - 1.0)


def _lag_1(values: np.ndarray) -> float:
    """Lag-1 correlation, without the bias of -1/n that a short series has."""
    apart = values - values.mean()
    square = float(np.dot(apart, apart))
    if square <= 1e-24 * float(np.dot(values, values)):
        return 0.0
    return float(np.dot(apart[1:], apart[:-1])) / square + 1.0 / len(values)


def of_mean(values: np.ndarray) -> Spread:
    """The standard error of the mean of *values*, which are in order of arrival."""
    if len(values) < LEAST:
        return Spread(why=f"too few requests for batches: {len(values)} of at least {LEAST}")
    return of_batches(lambda count: _means(values, count))


def _means(values: np.ndarray, count: int) -> np.ndarray:
    """Means of *count* batches of equal size; what is left over at the beginning is in none."""
    size = max(1, len(values) // count)
    means: np.ndarray = values[len(values) - size * count :].reshape(count, size).mean(axis=1)
    return means


@dataclass(frozen=True, slots=True)
class QuantileSpread:
    """A quantile's interval, and the density of values at it."""

    low: float = 0.0
    high: float = 0.0
    density: float = 0.0
    df: float = 0.0
    why: str = ""


def of_quantile(values: np.ndarray, percent: float, confidence: float) -> QuantileSpread:
    """The interval of a percentile of *values*, which are in order of arrival.

    # Model: Woodruff's interval (JASA 47, 1952): the share of values at or below the percentile is
    a mean, its error comes from batch means, and the ends are the percentiles at that share less
    and plus it. Beyond the upper quartile the error is at least what the dependence there makes of
    independent values' error, as the few in a tail hardly show theirs (our rule; how often such
    intervals hold is in tests/test_stats_coverage.py). None that reaches over three quarters of
    the way to the last value.
    """
    ordered = np.sort(values)
    if not len(ordered):
        return QuantileSpread(why="no values")
    spread = _of_share(values, ordered, percent)
    if not spread.why and percent > _QUARTILE:
        whole = _of_share(values, ordered, _QUARTILE)
        error = whole.error * sqrt(_scatter(percent) / _scatter(_QUARTILE))
        if whole.why or error > spread.error:
            spread = replace(whole, error=error)
    if spread.why:
        return QuantileSpread(why=spread.why)
    reach = 100.0 * quantile(confidence, spread.df) * spread.error
    if reach > _FURTHEST * min(percent, 100.0 - percent):
        return QuantileSpread(why=f"too few requests for the {percent:g}th percentile")
    low, high = percentile(ordered, percent - reach), percentile(ordered, percent + reach)
    density = 2 * reach / 100.0 / (high - low) if high > low else 0.0
    return QuantileSpread(low, high, density, spread.df)


def _of_share(values: np.ndarray, ordered: np.ndarray, percent: float) -> Spread:
    """The error of the share of *values* at or below their percentile."""
    return of_mean((values <= percentile(ordered, percent)).astype(float))


def _scatter(percent: float) -> float:
    """The variance of whether an independent value is below a percentile, times 10,000."""
    return percent * (100.0 - percent)
