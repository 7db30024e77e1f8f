"""Sessions replayed open: each request at its own time, whatever became of those before it.

Readers of files do it themselves (`Replay.sessions`); this is for traces that are generated.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from .chunk import Links
from .ragged import Ragged
from .transforms.held import CHUNK_ROWS, in_order, joined

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .chunk import Chunk, Tally


def unlinked(chunks: Iterator[Chunk], tally: Tally) -> Iterator[Chunk]:
    """The requests of *chunks* in order of their recorded times, the earliest where there is none.

    Sessions keep their names, but nobody waits. The whole trace is held, to be put in order.
    """
    whole = joined(list(chunks))
    links = whole.links
    if links is None:
        yield from whole.split(CHUNK_ROWS)
        return
    known = np.isfinite(links.recorded_s)
    times = np.where(known, links.recorded_s, whole.arrival_s)
    times -= times.min()
    waited = links.after.lengths > 0
    for which, times_of in (
        (waited & known, "recorded times"),
        (waited & ~known, "earliest times, as if answers took no time"),
    ):
        if which.any():
            tally.note(
                f"open loop: {int(which.sum()):,} requests that follow others in a session are "
                f"sent at their {times_of}"
            )
    rows = len(whole)
    free = Links(links.session, Ragged.empty(rows), np.zeros(rows), links.recorded_s)
    yield from in_order(replace(whole, arrival_s=times, links=free)).split(CHUNK_ROWS)
