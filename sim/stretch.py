"""Decode iterations under way: a stretch of them that may be cut at any boundary, or looked into.

One rule: what has been committed of it and what is still to come make the same records, wherever
between the two the line is drawn.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from .batch import Batch
    from .iteration_log import Iteration


class Trips(NamedTuple):
    """Where a loop on the device is during iterations, each an array of whether."""

    away: np.ndarray
    """It has left: before the first, and in each."""
    back: np.ndarray
    """It comes back for an iteration."""
    out: np.ndarray
    """It leaves for one."""

    @classmethod
    def of(cls, outside: bool, leaves: np.ndarray | None, iterations: int) -> Trips | None:
        """Those of a loop that is *outside* now and *leaves* for these; None if it is never away.

        It leaves for iterations in which cached KV is computed again.
        """
        if leaves is None and not outside:
            return None
        away = np.zeros(iterations + 1, np.bool_)
        away[0] = outside
        if leaves is not None:
            away[1:] = leaves[:iterations]
        return cls(away, away[:-1] & ~away[1:], ~away[:-1] & away[1:])


@dataclass(slots=True)
class Stretch:
    """*count* iterations, the values of the *first*, *ends* and *seconds* of each.

    `done` of them have been committed.
    """

    first: Iteration
    ends: np.ndarray
    seconds: np.ndarray
    count: int
    done: int = 0

    def ended(self, now: float, inclusive: bool) -> int:
        """How many end before *now*; those that end right then, too, if *inclusive*."""
        return int(self.ends.searchsorted(now, "right" if inclusive else "left"))

    def commit(self, batch: Batch, count: int) -> None:
        """Commits all up to the first *count*, which have ended."""
        first, done = self.first, self.done
        if done:
            first = first._replace(
                start=float(self.ends[done - 1]), context=first.context + done * first.batch,
                blocks=batch.pool.used, joined=(), last_commit=batch.last_commit,
                sums=None if first.sums is None else first.sums[:, done:],
            )  # fmt: skip
        ends = self.ends[done:count]
        blocks = batch.commit(ends)
        batch.iterations.add(first, ends, self.seconds[done:count], blocks)
        self.done = count
