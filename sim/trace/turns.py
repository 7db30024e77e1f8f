"""Requests that know each other: from the turns of a file to chunks in order of time.

A file of sessions gives its turns in any order and names predecessors by key. Here they get their
earliest times, their order and their positions; the whole trace is held in memory for that.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import nan
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Iterator
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from .chunk import Chunk, Tally
    from .gaps import Arrivals
    from .rows import Findings


@dataclass(frozen=True, slots=True)
class Replay:
    """How sessions are to be replayed.

    `sessions` one of `names.SESSIONS`. The others say when sessions begin that a file gives no
    start for: *arrivals* at *rate_per_s* sessions a second (None: refuse such a file), gamma gaps
    of shape *burstiness*, drawn from *seed*. `shared_prefix` maps the blocks of tools and system
    prompt, which such files have as numbers of tokens only, to the same ids in all sessions.
    """

    sessions: Literal["auto", "open", "closed"] = "auto"
    rate_per_s: float | None = None
    arrivals: Arrivals = "poisson"
    burstiness: float = 1.0
    seed: int = 0
    shared_prefix: bool = False


@dataclass(frozen=True, slots=True)
class Turn:
    """One request of a file of sessions; `key` is what the `after` of others names.

    `time_s` is the file's time in seconds, nan where it has none; of a session without a start it
    counts from the session's (`free_start` is then true for its turns). `delay_s` nan: the file
    does not say, so `auto` replays the turn as recorded. `ids` are int64, global unless
    `local_ids`, which are unique within the session only.
    """

    key: Hashable
    line: int
    prompt: int
    output: int
    session: str = ""
    time_s: float = nan
    after: tuple[Hashable, ...] = ()
    delay_s: float = nan
    ids: NDArray[np.int64] | None = None
    local_ids: bool = False
    free_start: bool = False


def chunks(
    turns: Iterable[Turn],
    path: Path,
    findings: Findings,
    tally: Tally,
    replay: Replay,
    *,
    limit: int | None,
    chunk_rows: int,
) -> Iterator[Chunk]:
    """*turns* as chunks of at most *chunk_rows*; raises `InputError`."""
    raise NotImplementedError
