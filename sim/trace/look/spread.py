"""How a quantity in seconds (or tokens) is spread: exact moments, and all values up to a bound.

One rule: memory does not grow with the number of values; above the bound they are binned, 1.2 %
wide each.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

_EXACT = 2_000_000
_BINS_PER_DECADE = 200
_EDGES = np.logspace(-9, 12, 21 * _BINS_PER_DECADE + 1)


class Spread:
    """Takes values of at least 0, in any order; negative ones count as 0."""

    def __init__(self, exact: int = _EXACT) -> None:
        self._limit = exact
        self._kept: list[NDArray[np.float64]] | None = []
        self._bins = np.zeros(len(_EDGES) + 1, dtype=np.int64)  # below, bins, above
        self.count = 0
        self.zero = 0
        self.most = 0.0
        self.mean = 0.0
        self._squares = 0.0

    def add(self, values: NDArray[np.float64]) -> None:
        """Take *values*, [n]."""
        if not len(values):
            return
        values = np.maximum(values, 0.0)
        # moments of two sets joined (Chan, Golub and LeVeque 1979)
        mean, total = float(values.mean()), self.count + len(values)
        shift = mean - self.mean
        self._squares += float(((values - mean) ** 2).sum())
        self._squares += shift * shift * self.count * len(values) / total
        self.mean += shift * len(values) / total
        self.count = total
        self.zero += int((values == 0).sum())
        self.most = max(self.most, float(values.max()))
        if self._kept is None:
            self._bin(values)
            return
        self._kept.append(values)
        if total > self._limit:
            for kept in self._kept:
                self._bin(kept)
            self._kept = None

    def _bin(self, values: NDArray[np.float64]) -> None:
        at = np.searchsorted(_EDGES, values, side="right")
        self._bins += np.bincount(at, minlength=len(self._bins))

    @property
    def exact(self) -> bool:
        """Whether quantiles are exact, or good to the 1.2 % of a bin."""
        return self._kept is not None

    @property
    def cv(self) -> float | None:
        """Standard deviation over mean; None without a positive mean."""
        if not self.count or self.mean <= 0:
            return None
        return float(np.sqrt(self._squares / self.count) / self.mean)

    def sorted(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Values, ascending, and the share of all values at or below each."""
        if self._kept is not None:
            values = np.sort(np.concatenate(self._kept)) if self._kept else np.zeros(0)
            self._kept = [values]
            return values, np.arange(1, len(values) + 1) / max(1, len(values))
        middles = np.concatenate([[0.0], np.sqrt(_EDGES[:-1] * _EDGES[1:]), _EDGES[-1:]])
        there = self._bins > 0
        return middles[there], np.cumsum(self._bins[there]) / self.count

    def quantiles(self, shares: Sequence[float]) -> list[float]:
        """The values at *shares*; there must be a value."""
        values, below = self.sorted()
        at = np.minimum(np.searchsorted(below, np.array(shares) - 1e-12), len(values) - 1)
        return [float(value) for value in values[at]]

    def summary(self) -> dict[str, float] | None:
        """p10, p50, mean, p90, p99 and max; None without a value."""
        if not self.count:
            return None
        p10, p50, p90, p99 = self.quantiles((0.1, 0.5, 0.9, 0.99))
        return {
            "p10": p10, "p50": p50, "mean": self.mean, "p90": p90, "p99": p99, "max": self.most,
        }  # fmt: skip
