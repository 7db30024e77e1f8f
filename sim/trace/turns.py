"""Requests that know each other: from the turns of a file to chunks in order of time.

A file of sessions gives its turns in any order and names predecessors by key. Here they get their
earliest times, their order and their positions; the whole trace is held in memory for that.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import nan
from typing import TYPE_CHECKING, Literal

import numpy as np

from sim.errors import InputError

from .blocks import Blocks
from .chunk import Chunk, Links
from .held import Held
from .naming import said
from .order import schedule
from .ragged import Ragged
from .rows import no_requests

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from .chunk import Tally
    from .gaps import Arrivals
    from .order import Schedule
    from .rows import Findings

_SHARED = ("weka", "")
_CHUNK_IDS = 2**21  # block ids in a chunk, 16 MiB of them, unless one request alone has more


@dataclass(frozen=True, slots=True)
class Replay:
    """How sessions are to be replayed.

    `sessions` one of `names.SESSIONS`. The others say when sessions begin that a file gives no
    start for: *arrivals* at *rate_per_s* sessions a second (None: refuse such a file), gamma gaps
    of shape *burstiness*, drawn from *seed*. `shared_prefix` maps the blocks of tools and system
    prompt, which such files have as numbers of tokens only, to the same ids in all sessions.
    `block_tokens` is the block size that the user states, for readers that put prompts together.
    """

    sessions: Literal["auto", "open", "closed"] = "auto"
    rate_per_s: float | None = None
    arrivals: Arrivals = "poisson"
    burstiness: float = 1.0
    seed: int = 0
    shared_prefix: bool = False
    block_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class Wait:
    """One turn that another waits for: *delay_s* after its completion, or after it was *sent*."""

    key: Hashable
    delay_s: float
    sent: bool = False


@dataclass(frozen=True, slots=True)
class Turn:
    """One request of a file of sessions; `key` is what the `after` of others names.

    `time_s` is the file's time in seconds, nan where it has none; of a session without a start it
    counts from the session's (`free_start` is then true for its turns). `delay_s` nan: the file
    does not say, so `auto` replays the turn as recorded. `ids` are int64, global unless
    `local_ids`, which are unique within the session only.

    `waits` stands in place of `after` and `delay_s` where each dependency has a delay of its own.
    A closed turn is not sent before `not_before_s`, on the clock of `time_s`. A `ghost` is no
    request but a row that was left out: those who wait for it wait for what it waits for.
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
    waits: tuple[Wait, ...] = ()
    not_before_s: float = 0.0
    ghost: bool = False

    def all_waits(self) -> tuple[Wait, ...]:
        """All that this turn waits for."""
        return self.waits or tuple(Wait(key, self.delay_s) for key in self.after)


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
    """*turns* as chunks of at most *chunk_rows*; raises `InputError`.

    A session is replayed `open`: every turn at its recorded time; or `closed`: each after those it
    waits for; `auto` closes the sessions whose turns have a delay, or wait for the sending of
    another. *limit* keeps the first requests in order of time. Chunks with very many block ids
    have fewer requests.
    """
    held = Held()
    for turn in turns:
        if turn.free_start and replay.rate_per_s is None:
            raise _no_starts(path)
        held.add(turn, findings)
    findings.check()
    if replay.shared_prefix and tally.format not in _SHARED:
        tally.note("the shared prefix is not used: the file has no lengths of tools and prompt")
    if held.with_ids:
        # a size that the reader knows is not to be found out again
        size = Blocks(path, tally, tally.block_tokens or replay.block_tokens)
        _check_ids(held, size, findings)
    found = schedule(held, path, findings, tally, replay)
    findings.check()
    total = len(found.turns)
    if not total:
        raise no_requests(path, tally)
    total = total if limit is None else min(total, limit)
    tally.rows += total
    yield from _cut(held, found, total, chunk_rows)


def _check_ids(held: Held, size: Blocks, findings: Findings) -> None:
    """Make ghosts of the turns with ids that are not as many as their prompt has blocks."""
    counts, prompt = held.ids.sizes, np.array(held.prompt, dtype=np.int64)
    offsets = np.concatenate([[0], np.cumsum(counts)])
    # only the numbers of ids are looked at
    ids = Ragged(np.broadcast_to(np.int64(0), int(offsets[-1])), offsets)
    for turn in np.flatnonzero(size.wrong(prompt, ids)).tolist():
        findings.add(held.line[turn], size.bad(int(prompt[turn]), int(counts[turn])))
        held.ghost[turn] = 1
    findings.check()


def _cut(held: Held, found: Schedule, total: int, chunk_rows: int) -> Iterator[Chunk]:
    """The first *total* requests of a schedule, chunk by chunk."""
    order = found.turns[:total]
    prompt = np.array(held.prompt, dtype=np.int64)[order]
    output = np.array(held.output, dtype=np.int64)[order]
    ends = np.concatenate([[0], np.cumsum(held.ids.sizes[order])])
    ids = held.ids.rows() if held.with_ids else None
    start = 0
    while start < total:
        stop = int(np.searchsorted(ends, ends[start] + _CHUNK_IDS, side="right")) - 1
        stop = min(max(stop, start + 1), start + chunk_rows, total)
        part = slice(start, stop)
        yield Chunk(
            found.arrival_s[part],
            prompt[part],
            output[part],
            None if ids is None else ids.take(order[part]),
            _links(held, found, part) if found.linked else None,
        )
        start = stop


def _links(held: Held, found: Schedule, part: slice) -> Links:
    """Sessions and dependencies of some requests of a schedule."""
    turns = found.turns[part].tolist()
    return Links(
        [held.names[held.session[turn]] for turn in turns],
        Ragged.of(sorted(found.position[i] for i in found.after.get(turn, ())) for turn in turns),
        found.delay_s[part],
        found.recorded_s[part],
    )


def _no_starts(path: Path) -> InputError:
    return InputError(
        f"{said(path)}: the sessions of this file have no start times; say how many begin a "
        "second: --session-rate (trace.session_arrivals in a scenario)"
    )
