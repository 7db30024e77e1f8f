"""Lengths of prompts and outputs while a trace streams by: counted by value, so exact.

One rule: memory does not grow with the number of requests.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

_DENSE = 2**18  # lengths below are counted in an array, those above in a dictionary
_PER_OCTAVE = 4  # bins of a density


class Lengths:
    """Counts of whole numbers by value: exact quantiles at any number of requests."""

    def __init__(self) -> None:
        self._dense = np.zeros(1024, dtype=np.int64)
        self._large: dict[int, int] = {}

    def add(self, lengths: NDArray[np.int64]) -> None:
        """Count *lengths*, each at least 0."""
        if not len(lengths):
            return
        large = lengths >= _DENSE
        if large.any():
            values, counts = np.unique(lengths[large], return_counts=True)
            for value, count in zip(values.tolist(), counts.tolist(), strict=True):
                self._large[value] = self._large.get(value, 0) + count
            lengths = lengths[~large]
        counts = np.bincount(lengths)
        if len(counts) > len(self._dense):
            grown = np.zeros(min(_DENSE, max(len(counts), 2 * len(self._dense))), dtype=np.int64)
            grown[: len(self._dense)] = self._dense
            self._dense = grown
        self._dense[: len(counts)] += counts

    def counts(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The values that occur, ascending, and how often each does."""
        dense = np.flatnonzero(self._dense)
        large = np.array(sorted(self._large), dtype=np.int64)
        often = np.array([self._large[value] for value in large.tolist()], dtype=np.int64)
        return np.concatenate([dense, large]), np.concatenate([self._dense[dense], often])

    def cdf(self) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """The values that occur, ascending, and the share of requests at or below each."""
        values, counts = self.counts()
        return values, np.cumsum(counts) / max(1, int(counts.sum()))

    @property
    def count(self) -> int:
        """How many lengths were counted."""
        return int(self.counts()[1].sum())

    @property
    def total(self) -> int:
        """Sum of all lengths."""
        values, counts = self.counts()
        return int(values @ counts)

    def quantile(self, share: float) -> float:
        """The length at *share*, linear between ranks as `numpy.quantile` does it."""
        values, counts = self.counts()
        ends = np.cumsum(counts)
        rank = share * (int(ends[-1]) - 1)
        low, high = np.searchsorted(ends, [int(rank), int(rank) + 1], side="right")
        below, above = int(values[low]), int(values[min(int(high), len(values) - 1)])
        return float(below + (rank - int(rank)) * (above - below))

    def summary(self) -> dict[str, float]:
        """p1, p50, mean, p90, p99 and max, in tokens."""
        values, counts = self.counts()
        return {
            "p1": self.quantile(0.01),
            "p50": self.quantile(0.5),
            "mean": self.total / int(counts.sum()),
            "p90": self.quantile(0.9),
            "p99": self.quantile(0.99),
            "max": int(values[-1]),
        }

    def density(self) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Edges of logarithmic bins, four an octave, [bins + 1], and the requests in each."""
        values, counts = self.counts()
        if not len(values):
            return np.ones(1), np.zeros(0, dtype=np.int64)
        numbers = np.floor(np.log2(np.maximum(values, 1)) * _PER_OCTAVE).astype(np.int64)
        first = int(numbers[0])
        sums = np.bincount(numbers - first, weights=counts).astype(np.int64)
        return 2.0 ** (np.arange(first, first + len(sums) + 1) / _PER_OCTAVE), sums


class Pairs:
    """A bounded sample of (prompt, output), every 2^k-th request, for their rank correlation."""

    def __init__(self, most: int = 2**16) -> None:
        self._most = most
        self._stride = 1
        self._seen = 0
        self._kept: list[NDArray[np.int64]] = []  # [2, n] each
        self._held = 0

    def add(self, prompt: NDArray[np.int64], output: NDArray[np.int64]) -> None:
        """Take the next requests."""
        start = -self._seen % self._stride
        self._seen += len(prompt)
        part = np.stack([prompt[start :: self._stride], output[start :: self._stride]])
        self._kept.append(part)
        self._held += part.shape[1]
        while self._held > self._most:
            self._kept = [np.concatenate(self._kept, axis=1)[:, ::2]]
            self._held = self._kept[0].shape[1]
            self._stride *= 2

    def spearman(self) -> float | None:
        """Spearman's rank correlation; None where one of the two does not vary."""
        if not self._kept:
            return None
        ranks = [_ranks(row) for row in np.concatenate(self._kept, axis=1)]
        if min(float(np.ptp(rank)) for rank in ranks) == 0:
            return None
        return float(np.corrcoef(ranks[0], ranks[1])[0, 1])


def _ranks(values: NDArray[np.int64]) -> NDArray[np.float64]:
    """Ranks from 0, ties at their mean."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    return np.asarray((ends - 0.5 * (counts + 1))[inverse], dtype=np.float64)
