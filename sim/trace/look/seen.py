"""Which block ids occurred before, in bounded memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

_DENSE = 2**26  # ids below are remembered in a bitmap, ids above in sorted arrays
_SPARSE = 2**23  # of those at most so many


class Seen:
    """The ids that occurred: at most 64 MiB of bitmap and 64 MiB of large ids.

    `full` once there were more of the large ids; what is asked afterwards is not answered well.
    """

    def __init__(self, sparse: int = _SPARSE) -> None:
        self.full = False
        self._most = sparse
        self._dense = np.zeros(1024, dtype=bool)
        self._levels: list[NDArray[np.int64]] = []  # sorted, each over twice as long as the next

    def has(self, ids: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which of *ids* occurred."""
        found = np.zeros(len(ids), dtype=bool)
        small = (ids >= 0) & (ids < len(self._dense))
        if small.all():
            return np.asarray(self._dense[ids], dtype=np.bool_)
        found[small] = self._dense[ids[small]]
        large = np.flatnonzero((ids < 0) | (ids >= _DENSE))
        if len(large) and self._levels:
            wanted = ids[large]
            for level in self._levels:
                at = np.minimum(np.searchsorted(level, wanted), len(level) - 1)
                found[large] |= level[at] == wanted
        return found

    def add(self, ids: NDArray[np.int64]) -> None:
        """Remember *ids*, none of which occurred; each at most once."""
        if not len(ids):
            return
        small = (ids >= 0) & (ids < _DENSE)
        dense = ids[small]
        if len(dense):
            top = int(dense.max())
            if top >= len(self._dense):
                grown = np.zeros(min(_DENSE, max(2 * len(self._dense), top + 1)), dtype=bool)
                grown[: len(self._dense)] = self._dense
                self._dense = grown
            self._dense[dense] = True
        large = ids[~small]
        if len(large):
            self._levels.append(np.sort(large))
            while len(self._levels) > 1 and len(self._levels[-2]) <= 2 * len(self._levels[-1]):
                joined = np.concatenate([self._levels.pop(), self._levels.pop()])
                self._levels.append(np.sort(joined, kind="stable"))
            if sum(map(len, self._levels)) > self._most:
                self.full = True
                self._levels = []
