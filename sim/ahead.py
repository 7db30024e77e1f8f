"""Sums over a batch for every iteration to come, from what each request will do in it.

A request adds its own table when it begins and, if it leaves early, takes the rest away; so many
iterations at once are a slice, whoever takes part in them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from .steps import Counts

WIDTH = 8_192


class Ahead:
    """Tables of *height* rows, summed; column 0 is the next iteration."""

    def __init__(self, height: int) -> None:
        self._sums = np.zeros((height, WIDTH), np.int64)
        self._next = 0
        self._last = 0

    def add(self, table: Counts) -> None:
        """Somebody does *table* from the next iteration on."""
        self._slots(table.shape[1])[:] += table

    def subtract(self, table: Counts) -> None:
        """Somebody does not do the rest, *table*, of what was added."""
        self._slots(table.shape[1])[:] -= table

    def clear(self) -> None:
        """Nobody does anything any more."""
        self._sums[:, self._next : self._last] = 0
        self._last = self._next

    def now(self, row: int) -> int:
        """What the next iteration has in *row*."""
        return int(self._sums.item(row, self._next)) if self._next < self._sums.shape[1] else 0

    def next(self, iterations: int) -> Counts:
        """The sums of the next *iterations*; valid until something is added."""
        if self._next + iterations > self._sums.shape[1]:
            return self._slots(iterations)
        return self._sums[:, self._next : self._next + iterations]

    def advance(self, iterations: int) -> None:
        """So many iterations have been run."""
        self._next += iterations

    def _slots(self, iterations: int) -> Counts:
        first, height = self._next, len(self._sums)
        if first + iterations > self._sums.shape[1]:
            left = self._sums[:, first : self._last]
            self._sums = np.zeros((height, max(WIDTH, 2 * iterations, 2 * left.shape[1])), np.int64)
            self._sums[:, : left.shape[1]] = left
            self._last -= first
            self._next = first = 0
        self._last = max(self._last, first + iterations)
        return self._sums[:, first : first + iterations]
