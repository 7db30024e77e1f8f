"""Means and percentiles of many values, weighted ones too, without scipy.

Quantiles are exact and lie between neighbours, as `numpy.percentile` takes them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

PERCENTILES = (50.0, 90.0, 95.0, 99.0, 99.9)

Summary = dict[str, Any]


def statistics(name: str, seconds: np.ndarray) -> Summary:
    """mean, median, std and percentiles in ms over the finite *seconds*; None if there are none."""
    values = seconds[np.isfinite(seconds)] * 1e3
    if not len(values):
        return dict.fromkeys(_keys(name))
    values.sort()
    quantiles = [percentile(values, percent) for percent in PERCENTILES]
    return dict(
        zip(
            _keys(name),
            [float(values.mean()), quantiles[0], float(values.std()), *quantiles],
            strict=True,
        )
    )


def percentile(ordered: np.ndarray, percent: float) -> float:
    """A percentile of values in ascending order, of which there is at least one."""
    return _between(lambda rank: float(ordered[rank]), percent, len(ordered))


def _between(ordered: Callable[[int], float], percent: float, count: int) -> float:
    """A percentile of *count* values, linear between neighbours; *ordered* gives them by rank.

    As `numpy.percentile`, whose call would import much.
    """
    place = percent / 100.0 * (count - 1)
    below = int(place)
    low, high = ordered(below), ordered(min(below + 1, count - 1))
    return low + (high - low) * (place - below)


def weighted_statistics(
    name: str, slices: Sequence[np.ndarray], weights: Sequence[np.ndarray], singles: np.ndarray
) -> Summary:
    """`statistics` in which each value of *slices* counts as often as its weight says.

    *singles* count once. Percentiles lie between neighbours, as if all values stood there in full.
    """
    parts = [*zip(slices, weights, strict=True), (singles, np.ones(len(singles), np.int64))]
    count = float(sum(w.sum() for _, w in parts))
    if not count:
        return dict.fromkeys(_keys(name))
    mean = sum(float(np.dot(v, w)) for v, w in parts) / count
    variance = sum(float(np.dot((v - mean) ** 2, w)) for v, w in parts) / count
    quantiles = [q * 1e3 for q in _weighted_quantiles(parts, int(count))]
    return dict(
        zip(_keys(name), [mean * 1e3, quantiles[0], variance**0.5 * 1e3, *quantiles], strict=True)
    )


def _weighted_quantiles(parts: Sequence[tuple[np.ndarray, np.ndarray]], count: int) -> list[float]:
    """Exact, without sorting all: count in coarse bins, then sort the one bin that matters.

    The upper 20 bits of a positive float64 grow with its value, so they number the bins.
    """
    keys = [(v.view(np.int64) >> 44) for v, _ in parts]
    least = min(int(key.min()) for key in keys if len(key))
    keys = [key - least for key in keys]
    length = 1 + max(int(key.max()) for key in keys if len(key))
    bins = np.zeros(length)
    for key, (_, weight) in zip(keys, parts, strict=True):
        bins += np.bincount(key, weights=weight, minlength=length)
    below = np.cumsum(bins)
    opened: dict[int, tuple[np.ndarray, np.ndarray]] = {}

    def ordered(rank: int) -> float:
        """The value at *rank*, from 0."""
        chosen = int(np.searchsorted(below, rank, side="right"))
        if chosen not in opened:
            picked = [
                (v[k == chosen], w[k == chosen]) for k, (v, w) in zip(keys, parts, strict=True)
            ]
            values, weights = joined([v for v, _ in picked]), joined([w for _, w in picked])
            order = np.argsort(values, kind="stable")
            reached = below[chosen] - bins[chosen] + np.cumsum(weights[order])
            opened[chosen] = (values[order], reached)
        values, reached = opened[chosen]
        return float(values[np.searchsorted(reached, rank, side="right")])

    return [_between(ordered, percent, count) for percent in PERCENTILES]


def _keys(name: str) -> list[str]:
    names = [f"mean_{name}_ms", f"median_{name}_ms", f"std_{name}_ms"]
    return names + [f"p{percent:g}_{name}_ms" for percent in PERCENTILES]


def joined(parts: Iterable[np.ndarray]) -> np.ndarray:
    parts = list(parts)
    return np.concatenate(parts) if parts else np.empty(0)
