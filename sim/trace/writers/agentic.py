"""Agentic Mooncake, version 2: JSON lines of requests that wait for others by name.

Dynamo and AISimulate replay it: a header, then a row a request with its play, its earliest time
and its dependencies, each with a delay from completion on. Block ids are local to a play, so what
hangs together by sessions and dependencies is a play, unless plays share ids: then there is one.
"""

from __future__ import annotations

import json
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from sim.trace.formats.agentic import DEPENDENCIES, NAME, NOT_BEFORE, PLAY, SCHEMA

from .ids import GlobalIds
from .spool import PART_ROWS, Spool

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from numpy.typing import NDArray

    from sim.trace.chunk import Chunk, Links
    from sim.trace.ragged import Ragged

    from .spool import Linked
    from .target import Target

_ONE_PLAY = "trace"
_MODEL = "model"  # the format wants a name, and a trace has none


def write(chunks: Iterable[Chunk], file: IO[bytes], target: Target) -> int:
    """Write *chunks* to *file*; the number of requests."""
    ids: GlobalIds | None = None
    sharing = _Sharing()
    with target.scratch() as scratch:
        spool = Spool(scratch)
        for chunk in chunks:
            if ids is None:
                size = target.block_tokens or target.source_tokens
                ids = GlobalIds(target, size)
                file.write(_header(size))
            for part in chunk.split(PART_ROWS):
                numbered = ids.of(part)
                sharing.add(numbered)
                spool.add(part, numbered)
        if ids is None:
            return 0
        trace = spool.linked()
        spool.write(_heads(trace, _plays(trace.links, sharing, target)), file)
        return len(trace.arrival_s)


def _header(block_tokens: int) -> bytes:
    header = {
        "schema": SCHEMA,
        "version": 2,
        "block_size": block_tokens,
        "hash_id_scope": "local",
        "source": {"format": "residentsim", "digest": "none"},
    }
    return json.dumps(header).encode() + b"\n"


def _heads(trace: Linked, plays: list[str]) -> Iterator[str]:
    """What each row begins with: all but its lengths and ids."""
    links = trace.links
    times = (trace.arrival_s * 1e3).tolist()
    delays = (links.delay_s * 1e3).tolist()
    for row, (play, session, after) in enumerate(
        zip(plays, links.session, links.after, strict=True)
    ):
        record: dict[str, Any] = {
            NAME: str(row),
            PLAY: play,
            "session_id": session or f"request-{row}",
            "model": _MODEL,
            NOT_BEFORE: _short(times[row]),
        }
        if after:
            wait = {
                "trigger": "completion",
                "delay_ms": _short(delays[row]),
                "relation": _relation(links, row, after),
            }
            record[DEPENDENCIES] = [{NAME: str(other), **wait} for other in after]
        yield json.dumps(record)[:-1]


class _Sharing:
    """Which requests share block ids: by pairs of a request and the first that has an id of it."""

    def __init__(self) -> None:
        self._first = np.zeros(0, dtype=np.int64)  # request by id, ids being dense from 0
        self._rows = 0
        self._pairs: list[NDArray[np.int64]] = []

    def add(self, ids: Ragged) -> None:
        """Take the ids of the next requests."""
        owner = np.repeat(np.arange(self._rows, self._rows + len(ids)), ids.lengths)
        self._rows += len(ids)
        if not len(owner):
            return
        top, known = int(ids.values.max()) + 1, len(self._first)
        if top > known:  # numbered in order of appearance, so these follow the known ones
            new, at = np.unique(ids.values, return_index=True)
            self._first = np.concatenate([self._first, owner[at[new >= known]]])
        pairs = np.stack([self._first[ids.values], owner])
        pairs = pairs[:, np.concatenate([[True], (np.diff(pairs) != 0).any(axis=0)])]
        self._pairs.append(pairs[:, pairs[0] != pairs[1]])

    def between(self, group: NDArray[np.int64]) -> bool:
        """Whether requests of different groups share an id; *group* by request."""
        return any((group[one] != group[other]).any() for one, other in self._pairs)


def _short(milliseconds: float) -> int | float:
    """*milliseconds* to a nanosecond, whole if they are."""
    rounded = round(milliseconds, 6)
    return int(rounded) if rounded.is_integer() else rounded


def _relation(links: Links, row: int, after: tuple[int, ...]) -> str:
    if len(after) > 1:
        return "join"
    return "sequence" if links.session[after[0]] == links.session[row] else "spawn"


def _plays(links: Links, sharing: _Sharing, target: Target) -> list[str]:
    """The play of each request, named by its session, or all in one if plays share block ids."""
    group = _groups(links)
    named = {name for name in links.session if name}
    if sharing.between(np.array(group, dtype=np.int64)):
        if named:
            target.lose(
                "sessions are one play, since they share block ids, which are local to a play; "
                "their names are in session_id only"
            )
        return [_ONE_PLAY] * len(group)
    names = [links.session[first] or f"request-{first}" for first in group]
    target.lose(
        "# sessions are in the play of another, which they wait for or which waits for them",
        len(named) - len(named & set(names)),
    )
    target.lose(
        "recorded times of # requests that wait for others are not kept",
        int((np.isfinite(links.recorded_s) & (links.after.lengths > 0)).sum()),
    )
    return names


def _groups(links: Links) -> list[int]:
    """Of each request the first one of those it hangs together with."""
    root = list(range(len(links.session)))

    def found(row: int) -> int:
        while root[row] != row:
            root[row] = root[root[row]]
            row = root[row]
        return row

    first: dict[str, int] = {}
    for row, (name, after) in enumerate(zip(links.session, links.after, strict=True)):
        others = [*after, first.setdefault(name, row)] if name else list(after)
        for other in others:
            one, two = found(row), found(other)
            root[max(one, two)] = min(one, two)
    return [found(row) for row in range(len(root))]
