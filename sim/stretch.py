"""Decode iterations under way: a stretch of them that may be cut at any boundary, or looked into.

One rule: what has been committed of it and what is still to come make the same records, wherever
between the two the line is drawn.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

    from .batch import Batch
    from .iteration_log import Iteration


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
