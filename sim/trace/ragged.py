"""Rows of whole numbers of different lengths, as two flat arrays: block ids, predecessors.

A list of tuples of Python integers would take ten times the memory and the time.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from numpy.typing import NDArray


class Ragged:
    """n rows; row i is `values[offsets[i] : offsets[i + 1]]`.

    `values` int64, `offsets` int64 of shape [n + 1], from 0 and non-decreasing. Immutable by
    convention: parts share memory with the whole.
    """

    __slots__ = ("offsets", "values")

    def __init__(self, values: NDArray[np.int64], offsets: NDArray[np.int64]) -> None:
        self.values = values
        self.offsets = offsets

    @classmethod
    def of(cls, rows: Iterable[Sequence[int]]) -> Ragged:
        """*rows*, copied."""
        held = list(rows)
        offsets = np.zeros(len(held) + 1, dtype=np.int64)
        np.cumsum([len(row) for row in held], out=offsets[1:])
        flat = (value for row in held for value in row)
        return cls(np.fromiter(flat, dtype=np.int64, count=int(offsets[-1])), offsets)

    @classmethod
    def empty(cls, rows: int) -> Ragged:
        """*rows* rows without a value."""
        return cls(np.zeros(0, dtype=np.int64), np.zeros(rows + 1, dtype=np.int64))

    @classmethod
    def joined(cls, parts: Sequence[Ragged]) -> Ragged:
        """All rows of *parts*, one after another."""
        lengths = [part.lengths for part in parts]
        offsets = np.concatenate([[0], np.cumsum(np.concatenate([[], *lengths]))]).astype(np.int64)
        values = np.concatenate([np.zeros(0, dtype=np.int64), *(part.values for part in parts)])
        return cls(values, offsets)

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Values in each row, [n]."""
        return np.diff(self.offsets)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, row: int) -> tuple[int, ...]:
        if not -len(self) <= row < len(self):
            raise IndexError(row)
        row %= len(self)
        return tuple(self.values[self.offsets[row] : self.offsets[row + 1]].tolist())

    def __iter__(self) -> Iterator[tuple[int, ...]]:
        values, offsets = self.values.tolist(), self.offsets.tolist()
        for start, stop in itertools.pairwise(offsets):
            yield tuple(values[start:stop])

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Ragged):
            return NotImplemented
        same = np.array_equal(self.offsets, other.offsets)
        return same and np.array_equal(self.values, other.values)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Ragged({list(self)!r})" if len(self) <= 8 else f"Ragged({len(self)} rows)"

    def part(self, start: int, stop: int) -> Ragged:
        """The rows from *start* to before *stop*; the values are a view."""
        offsets = self.offsets[start : stop + 1]
        return Ragged(self.values[offsets[0] : offsets[-1]], offsets - offsets[0])

    def take(self, rows: NDArray[np.intp]) -> Ragged:
        """The rows that *rows* names, in its order."""
        lengths = self.lengths[rows]
        offsets = np.zeros(len(rows) + 1, dtype=np.int64)
        np.cumsum(lengths, out=offsets[1:])
        shift = np.repeat(self.offsets[:-1][rows] - offsets[:-1], lengths)
        return Ragged(self.values[np.arange(offsets[-1], dtype=np.int64) + shift], offsets)
