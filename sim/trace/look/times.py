"""Arrivals while a trace streams by: gaps, windows of many sizes, a time line, hours of a day.

One rule: memory does not grow with the number of requests.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .spread import Spread

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Gaps(Spread):
    """Inter-arrival times of arrivals in order."""

    _last: float | None = None

    def add(self, values: NDArray[np.float64]) -> None:
        """Take the next arrivals, in order."""
        before = values[0] if self._last is None else self._last
        gaps = np.diff(values, prepend=before)[1 if self._last is None else 0 :]
        self._last = float(values[-1])
        super().add(gaps)

    def grid_s(self) -> float | None:
        """The step of the grid that the time stamps lie on, if they plainly lie on one.

        Told by shared times together with positive gaps that are all alike (within 2 %), or, while
        gaps are exact, all whole multiples of the smallest one if that is 10 ms or more.
        """
        if self.zero < 0.05 * self.count or self.count - self.zero < 10:
            return None
        gaps, shares = self.sorted()
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
        self._used = 0
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
        self._used += len(counts)

    def _whole(self, duration_s: float) -> tuple[int, int, int, int]:
        """Of the whole windows: how many, their requests, the squares of these, how many used."""
        windows = int(duration_s // self.size_s)
        total, squares, used = self._sum, self._squares, self._used
        if self._open is not None and self._open[0] < windows:
            total += self._open[1]
            squares += self._open[1] ** 2
            used += 1
        return windows, total, squares, used

    def dispersion(self, duration_s: float, least: int = 2) -> float | None:
        """Variance over mean of the requests in whole windows (Poisson: 1).

        None with fewer than *least* whole windows.
        """
        windows, total, squares, _ = self._whole(duration_s)
        if windows < least or not total:
            return None
        mean = total / windows
        return (squares / windows - mean * mean) / mean

    def empty_share(self, duration_s: float) -> float | None:
        """Share of the whole windows without a request; None without a whole window."""
        windows, _, _, used = self._whole(duration_s)
        return 1.0 - used / windows if windows else None


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
        used = max(1, int(np.ceil(self._end / most)))
        bars = -(-self._end // used)
        sums = self.sums[:, : used * bars]
        if sums.shape[1] < used * bars:
            sums = np.pad(sums, ((0, 0), (0, used * bars - sums.shape[1])))
        return used * self.width_s, sums.reshape(len(sums), bars, used).sum(axis=2)


class Hours:
    """Requests by the hour of a day that begins with the trace's first request."""

    def __init__(self) -> None:
        self._counts = np.zeros(24, dtype=np.int64)

    def add(self, arrival_s: NDArray[np.float64]) -> None:
        """Take the next arrivals."""
        hours = (arrival_s // 3600.0).astype(np.int64) % 24
        self._counts += np.bincount(hours, minlength=24)

    def profile(self, duration_s: float) -> NDArray[np.float64] | None:
        """Rate in each of the 24 hours over the mean rate; None for less than a day."""
        if duration_s < 86400.0:
            return None
        days, rest_s = divmod(duration_s, 86400.0)
        covered_s = days * 3600.0 + np.clip(rest_s - 3600.0 * np.arange(24), 0.0, 3600.0)
        mean = self._counts.sum() / duration_s
        return np.asarray(self._counts / covered_s / mean, dtype=np.float64)
