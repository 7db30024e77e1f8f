"""Figures of a trace taken while it streams by: lengths, gaps, windows, a time line.

One rule: memory does not grow with the number of requests (lengths are counted by value, gaps
are kept up to a bound and binned above it).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

_EXACT_GAPS = 2_000_000
_BINS_PER_DECADE = 200
# edges of the gap histogram, s; a bin is 1.2 % wide
_EDGES = np.logspace(-9, 12, 21 * _BINS_PER_DECADE + 1)


class Lengths:
    """Counts of integer lengths by value: exact quantiles at any number of requests."""

    def __init__(self) -> None:
        self._counts: dict[int, int] = {}

    def add(self, lengths: NDArray[np.int64]) -> None:
        """Count *lengths*."""
        values, counts = np.unique(lengths, return_counts=True)
        for value, count in zip(values.tolist(), counts.tolist(), strict=True):
            self._counts[value] = self._counts.get(value, 0) + count

    def cdf(self) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """The values that occur, ascending, and the share of requests at or below each."""
        values = np.array(sorted(self._counts), dtype=np.int64)
        counts = np.array([self._counts[value] for value in values.tolist()], dtype=np.int64)
        return values, np.cumsum(counts) / max(1, int(counts.sum()))

    @property
    def total(self) -> int:
        """Sum of all lengths."""
        return sum(value * count for value, count in self._counts.items())

    def quantile(self, share: float) -> float:
        """The length at *share*, linear between ranks as `numpy.quantile` does it."""
        values = sorted(self._counts)
        ends = np.cumsum([self._counts[value] for value in values])
        rank = share * (int(ends[-1]) - 1)
        low, high = np.searchsorted(ends, [int(rank), int(rank) + 1], side="right")
        below, above = values[low], values[min(int(high), len(values) - 1)]
        return float(below + (rank - int(rank)) * (above - below))

    def summary(self) -> dict[str, float]:
        """p1, p50, mean, p90, p99 and max, in tokens."""
        count = sum(self._counts.values())
        return {
            "p1": self.quantile(0.01),
            "p50": self.quantile(0.5),
            "mean": self.total / count,
            "p90": self.quantile(0.9),
            "p99": self.quantile(0.99),
            "max": max(self._counts),
        }


class Gaps:
    """Inter-arrival times: exact moments, and all gaps up to a bound, then a fine histogram."""

    def __init__(self, exact: int = _EXACT_GAPS) -> None:
        self._limit = exact
        self._kept: list[NDArray[np.float64]] | None = []
        self._bins = np.zeros(len(_EDGES) + 1, dtype=np.int64)  # below, bins, above
        self._last: float | None = None
        self.count = 0
        self.zero = 0
        self._mean = 0.0
        self._squares = 0.0

    def add(self, arrival_s: NDArray[np.float64]) -> None:
        """Take the next arrivals, in order."""
        before = arrival_s[0] if self._last is None else self._last
        gaps = np.diff(arrival_s, prepend=before)[1 if self._last is None else 0 :]
        self._last = float(arrival_s[-1])
        if not len(gaps):
            return
        # moments of two sets joined (Chan, Golub and LeVeque 1979)
        mean, total = float(gaps.mean()), self.count + len(gaps)
        shift = mean - self._mean
        self._squares += float(((gaps - mean) ** 2).sum())
        self._squares += shift * shift * self.count * len(gaps) / total
        self._mean += shift * len(gaps) / total
        self.count = total
        self.zero += int((gaps == 0).sum())
        if self._kept is not None:
            self._kept.append(gaps)
            if total > self._limit:
                for kept in self._kept:
                    self._bin(kept)
                self._kept = None
        else:
            self._bin(gaps)

    def _bin(self, gaps: NDArray[np.float64]) -> None:
        at = np.searchsorted(_EDGES, gaps, side="right")
        self._bins += np.bincount(at, minlength=len(self._bins))

    @property
    def exact(self) -> bool:
        """Whether quantiles are exact, or good to the 1.2 % of a histogram bin."""
        return self._kept is not None

    @property
    def cv(self) -> float | None:
        """Standard deviation over mean; None without a positive mean."""
        if not self.count or self._mean <= 0:
            return None
        return float(np.sqrt(self._squares / self.count) / self._mean)

    def sorted(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Gaps in s, ascending, and the share of gaps at or below each."""
        if self._kept is not None:
            gaps = np.sort(np.concatenate(self._kept)) if self._kept else np.zeros(0)
            return gaps, np.arange(1, len(gaps) + 1) / max(1, len(gaps))
        middles = np.concatenate([[0.0], np.sqrt(_EDGES[:-1] * _EDGES[1:]), _EDGES[-1:]])
        there = self._bins > 0
        return middles[there], np.cumsum(self._bins[there]) / self.count

    def grid_s(self) -> float | None:
        """The step of the grid that the time stamps lie on, if they plainly lie on one.

        Told by shared times together with positive gaps that are all alike (within 2 %), or, while
        gaps are exact, all whole multiples of the smallest one if that is 10 ms or more.
        """
        gaps, shares = self.sorted()
        if self.zero < 0.05 * self.count or self.count - self.zero < 10:
            return None
        positive = gaps > 0
        ranks = (shares[positive] - self.zero / self.count) / (1 - self.zero / self.count)
        low, middle, high = np.interp([0.05, 0.5, 0.95], ranks, gaps[positive])
        if high - low <= 0.02 * middle:
            return float(middle)
        step = gaps[positive][0]
        steps = gaps[positive] / step
        if self.exact and step >= 0.01 and np.abs(steps - steps.round()).max() < 1e-3:
            return float(step)
        return None


class Windows:
    """Requests in consecutive windows of `size_s`, empty ones included, without storing them."""

    def __init__(self, size_s: float) -> None:
        self.size_s = size_s
        self.peak = 0
        self._sum = 0
        self._squares = 0
        self._open: tuple[int, int] | None = None  # the last window begun: number, requests

    def add(self, arrival_s: NDArray[np.float64]) -> None:
        """Take the next arrivals, in order."""
        numbers = np.floor(arrival_s / self.size_s).astype(np.int64)
        begins = np.flatnonzero(np.diff(numbers, prepend=numbers[0] - 1))
        counts = np.diff(begins, append=len(numbers))
        if self._open is not None:
            if self._open[0] == numbers[0]:
                counts[0] += self._open[1]
            else:
                self._close(np.array([self._open[1]]))
        self._close(counts[:-1])
        self._open = (int(numbers[-1]), int(counts[-1]))
        self.peak = max(self.peak, int(counts.max()))

    def _close(self, counts: NDArray[np.int64]) -> None:
        self._sum += int(counts.sum())
        self._squares += int((counts * counts).sum())

    def dispersion(self, duration_s: float, least: int = 2) -> float | None:
        """Variance over mean of the requests in whole windows (Poisson: 1).

        None with fewer than *least* whole windows.
        """
        windows = int(duration_s // self.size_s)
        total, squares = self._sum, self._squares
        if self._open is not None and self._open[0] < windows:
            total += self._open[1]
            squares += self._open[1] ** 2
        if windows < least or not total:
            return None
        mean = total / windows
        return (squares / windows - mean * mean) / mean


class Timeline:
    """Sums over time in at most 4,096 bins of equal width, which doubles as the trace grows."""

    BINS = 4096

    def __init__(self, columns: int, width_s: float = 0.125) -> None:
        self.width_s = width_s
        self.sums = np.zeros((columns, self.BINS), dtype=np.float64)
        self._end = 0

    def add(self, arrival_s: NDArray[np.float64], *columns: NDArray[np.int64]) -> None:
        """Add *columns* (one value a request) at the times of the requests."""
        while arrival_s[-1] >= self.width_s * self.BINS:
            halved = self.sums.reshape(len(self.sums), -1, 2).sum(axis=2)
            self.sums = np.concatenate([halved, np.zeros_like(halved)], axis=1)
            self.width_s *= 2
        at = (arrival_s / self.width_s).astype(np.int64)
        for row, values in zip(self.sums, columns, strict=True):
            row += np.bincount(at, weights=values, minlength=self.BINS)
        self._end = int(at[-1]) + 1

    def bars(self, most: int) -> tuple[float, NDArray[np.float64]]:
        """Width in s, and the sums in at most *most* bars, [columns, bars]."""
        used = max(1, int(np.ceil(self._last_bin() / most)))
        bars = -(-self._last_bin() // used)
        sums = self.sums[:, : used * bars]
        if sums.shape[1] < used * bars:
            sums = np.pad(sums, ((0, 0), (0, used * bars - sums.shape[1])))
        return used * self.width_s, sums.reshape(len(sums), bars, used).sum(axis=2)

    def _last_bin(self) -> int:
        return self._end
