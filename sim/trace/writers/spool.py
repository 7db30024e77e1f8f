"""JSON rows whose beginnings are known only when all requests are: their ends wait in a file.

So of a trace with links only the times and links are held, and not its block ids.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from sim.trace.arrow import digits, joined, woven
from sim.trace.chunk import Links
from sim.trace.ragged import Ragged

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from sim.trace.chunk import Chunk

PART_ROWS = 16384


@dataclass(frozen=True, slots=True)
class Linked:
    """Times and links of a whole trace, [n]; positions count from its first request."""

    arrival_s: NDArray[np.float64]
    links: Links


def unlinked(rows: int) -> Links:
    """Links of requests that belong to no session and wait for nobody."""
    return Links([""] * rows, Ragged.empty(rows), np.zeros(rows), np.full(rows, np.nan))


def ends(part: Chunk, ids: Ragged) -> Sequence[Any]:
    """What follows the beginning of each row: lengths, ids and the end of the line, for `woven`."""
    return (
        ', "input_length": ', digits(part.prompt_tokens),
        ', "output_length": ', digits(part.output_tokens),
        ', "hash_ids": [', joined(ids, ", "), "]}\n",
    )  # fmt: skip


class Spool:
    """Takes the requests of a trace with links into *file*, which is for its use only.

    *before* requests have been written already; for those, none of the others can wait any more.
    """

    def __init__(self, file: IO[bytes], before: int = 0) -> None:
        self._before = before
        self._file = file
        self._arrival_s: list[NDArray[np.float64]] = []
        self._links: list[Links] = []

    def add(self, part: Chunk, ids: Ragged) -> None:
        """Take the next requests with their *ids*."""
        self._arrival_s.append(part.arrival_s)
        self._links.append(part.links or unlinked(len(part)))
        self._file.write(woven(*ends(part, ids)))

    def linked(self) -> Linked:
        """Times and links of all requests."""
        each = self._links
        links = Links(
            [name for one in each for name in one.session],
            _from(self._before, Ragged.joined([one.after for one in each])),
            np.concatenate([one.delay_s for one in each]),
            np.concatenate([one.recorded_s for one in each]),
        )
        return Linked(np.concatenate(self._arrival_s), links)

    def write(self, heads: Iterator[str], file: IO[bytes]) -> None:
        """Write all rows to *file*, each with its one of *heads*."""
        self._file.seek(0)
        for head, end in zip(heads, self._file, strict=True):
            file.write(head.encode() + end)


def _from(before: int, after: Ragged) -> Ragged:
    """Positions that count from *before* on, without those below."""
    if not before:
        return after
    there = after.values >= before
    kept = np.concatenate([[0], np.cumsum(there)])
    return Ragged(after.values[there] - before, kept[after.offsets])
