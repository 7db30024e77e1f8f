"""Block ids of all requests of a trace at once: numbered densely, and kept as runs.

A prompt that extends an earlier one repeats its ids. Numbered in order of first appearance, the ids
of a prompt are a few runs of consecutive numbers: a corpus of agent sessions with 85 million ids
takes some megabytes.
"""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING

import numpy as np

from .ragged import Ragged

if TYPE_CHECKING:
    from collections.abc import Hashable

    from numpy.typing import NDArray

# a table longer than this many numbers, and than so many a known id, gives way to a dictionary
_ROOM = 64
_SPARSE = 16
_BATCH = 2**16  # rows, or ids of them, that are cut into runs together
_NONE = np.zeros(0, dtype=np.int64)


class IdRuns:
    """Rows of block ids; a row is given once and comes back the same, and only its runs are kept.

    Ids without any runs take twice their memory.
    """

    def __init__(self) -> None:
        self._starts = array("q")
        self._counts = array("q")
        self._ends = array("q", [0])  # of each row, in runs
        self._sizes = array("q")
        self._waiting: list[NDArray[np.int64]] = []
        self._waiting_ids = 0

    def add(self, ids: NDArray[np.int64] | None) -> None:
        """Take the ids of the next row; None for none."""
        ids = _NONE if ids is None else ids
        self._waiting.append(ids)
        self._waiting_ids += len(ids)
        if self._waiting_ids > _BATCH or len(self._waiting) > _BATCH:
            self._pack()

    def _pack(self) -> None:
        """Cut the rows that are waiting into runs."""
        ends = np.cumsum([len(ids) for ids in self._waiting], dtype=np.int64)
        flat = np.concatenate([_NONE, *self._waiting])
        begins = np.ones(len(flat), dtype=bool)
        begins[1:] = np.diff(flat) != 1
        begins[ends[:-1][ends[:-1] < len(flat)]] = True
        firsts = np.flatnonzero(begins)
        runs = len(self._starts) + np.searchsorted(firsts, ends)
        self._starts.frombytes(flat[firsts].tobytes())
        self._counts.frombytes(np.diff(firsts, append=len(flat)).astype(np.int64).tobytes())
        self._ends.frombytes(runs.astype(np.int64).tobytes())
        self._sizes.frombytes(np.diff(ends, prepend=0).astype(np.int64).tobytes())
        self._waiting, self._waiting_ids = [], 0

    @property
    def sizes(self) -> NDArray[np.int64]:
        """How many ids each row has, [rows]."""
        self._pack()
        return np.array(self._sizes, dtype=np.int64)

    def rows(self) -> Rows:
        """The rows for taking; no further ones may be added while it is in use."""
        self._pack()
        return Rows(
            Ragged(_view(self._starts), _view(self._ends)),
            Ragged(_view(self._counts), _view(self._ends)),
        )


class Rows:
    """The finished rows of an `IdRuns`."""

    def __init__(self, starts: Ragged, counts: Ragged) -> None:
        self._starts = starts
        self._counts = counts

    def take(self, rows: NDArray[np.intp]) -> Ragged:
        """The ids of *rows*, in its order."""
        starts, counts = self._starts.take(rows), self._counts.take(rows)
        total = np.concatenate([[0], np.cumsum(counts.values)])
        shift = np.repeat(starts.values - total[:-1], counts.values)
        return Ragged(np.arange(total[-1], dtype=np.int64) + shift, total[starts.offsets])


def _view(numbers: array[int]) -> NDArray[np.int64]:
    return np.frombuffer(numbers, dtype=np.int64) if numbers else np.zeros(0, dtype=np.int64)


class Dense:
    """Numbers for ids that are unique within a space only: from 0, in order of first appearance."""

    def __init__(self) -> None:
        self._next = 0
        self._tables: dict[Hashable, NDArray[np.int64]] = {}
        self._met: dict[Hashable, int] = {}
        self._wide: dict[Hashable, dict[int, int]] = {}

    def ids(self, space: Hashable, local: NDArray[np.int64]) -> NDArray[np.int64]:
        """The numbers of the *local* ids (int64, at least 0) of *space*."""
        if not len(local):
            return np.zeros(0, dtype=np.int64)
        table = self._table(space, local)
        if table is None:
            return self._looked_up(self._wide[space], local)
        found: NDArray[np.int64] = table[local]
        new = np.flatnonzero(found < 0)
        if len(new):
            distinct, first, which = np.unique(local[new], return_index=True, return_inverse=True)
            rank = np.empty(len(distinct), dtype=np.int64)
            rank[np.argsort(first)] = self.fresh(len(distinct))
            table[distinct] = rank
            found[new] = rank[which]
            self._met[space] = self._met.get(space, 0) + len(distinct)
        return found

    def same(self, space: Hashable, local: NDArray[np.int64], numbers: NDArray[np.int64]) -> None:
        """Say that the *local* ids of *space* have the *numbers*, those not met yet at least."""
        if not len(local):
            return
        table = self._table(space, local)
        if table is None:
            known = self._wide[space]
            for id, number in zip(local.tolist(), numbers.tolist(), strict=True):
                known.setdefault(id, number)
            return
        new = table[local] < 0
        table[local[new]] = numbers[new]
        self._met[space] = self._met.get(space, 0) + int(new.sum())

    def fresh(self, count: int) -> NDArray[np.int64]:
        """*count* numbers that no id has had."""
        numbers = np.arange(self._next, self._next + count, dtype=np.int64)
        self._next += count
        return numbers

    def forget(self, space: Hashable) -> None:
        """Free what is known of *space*, whose ids will not be met again."""
        self._tables.pop(space, None)
        self._met.pop(space, None)
        self._wide.pop(space, None)

    def _table(self, space: Hashable, local: NDArray[np.int64]) -> NDArray[np.int64] | None:
        """The table of *space*, -1 for ids not met; None if its ids are too far apart for one."""
        if space in self._wide:
            return None
        table = self._tables.get(space, np.zeros(0, dtype=np.int64))
        top = int(local.max())
        if top >= len(table):
            if top >= _ROOM + _SPARSE * (self._met.get(space, 0) + len(local)):
                met = np.flatnonzero(table >= 0)
                pairs = zip(met.tolist(), table[met].tolist(), strict=True)
                self._wide[space] = dict(pairs)
                self._tables.pop(space, None)
                return None
            grown = np.full(max(2 * len(table), top + 1), -1, dtype=np.int64)
            grown[: len(table)] = table
            self._tables[space] = table = grown
        return table

    def _looked_up(self, known: dict[int, int], local: NDArray[np.int64]) -> NDArray[np.int64]:
        found = np.empty(len(local), dtype=np.int64)
        for place, id in enumerate(local.tolist()):
            if (number := known.get(id)) is None:
                number = known[id] = self._next
                self._next += 1
            found[place] = number
        return found
