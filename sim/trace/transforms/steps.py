"""Which changes a trace is to go through, and their fixed order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from .clip import Clip, clip_prompt
from .dither import Dither, dither
from .pick import Replica, limit, replica, thin
from .times import rate_scale, time_scale, window

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sim.trace.chunk import Chunk, Tally


@dataclass(frozen=True, slots=True)
class Steps:
    """The changes of one trace, each None (or 1) for none; merging comes between the two parts."""

    dither: Dither | None = None
    window: tuple[float, float | None] | None = None
    """Seconds of the trace's clock, the end None for its end."""
    time_scale: float = 1.0
    rate_scale: float = 1.0
    thin: float | None = None
    """Share that is kept."""
    replica: Replica | None = None
    clip: Clip | None = None
    limit: int | None = None

    def apply(self, chunks: Iterator[Chunk], seed: int, tally: Tally) -> Iterator[Chunk]:
        """*chunks* after all changes, in the order of the package's docstring."""
        if self.dither is not None:
            chunks = dither(chunks, self.dither, seed, tally)
        if self.window is not None:
            chunks = window(chunks, *self.window, tally)
        if self.time_scale != 1.0:
            chunks = time_scale(chunks, self.time_scale, tally)
        if self.rate_scale != 1.0:
            chunks = rate_scale(chunks, self.rate_scale, tally)
        if self.thin is not None and self.thin < 1.0:
            chunks = thin(chunks, self.thin, seed, tally)
        if self.replica is not None:
            chunks = replica(chunks, self.replica, seed, tally)
        if self.clip is not None:
            chunks = clip_prompt(chunks, self.clip, tally)
        if self.limit is not None:
            chunks = limit(chunks, self.limit, tally)
        return chunks
