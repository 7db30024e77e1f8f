"""Requests that know each other, held as one chunk: picked, retimed and put in order again.

One rule: positions in `after` are mapped with the requests they name, and always stay below those
of the requests that name them.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import chain
from typing import TYPE_CHECKING

import numpy as np

from sim.trace.chunk import Chunk, Links
from sim.trace.ragged import Ragged

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from numpy.typing import NDArray

CHUNK_ROWS = 16384


def peeked(chunks: Iterator[Chunk]) -> tuple[Chunk | None, Iterator[Chunk]]:
    """The first chunk, None if there is none, and all of them."""
    first = next(chunks, None)
    return first, iter(()) if first is None else chain((first,), chunks)


def joined(parts: Sequence[Chunk]) -> Chunk:
    """*parts* one after another, as they are; block ids and links if any part has them."""
    if len(parts) == 1:
        return parts[0]
    ids = links = None
    if any(part.block_ids is not None for part in parts):
        ids = Ragged.joined([part.block_ids or Ragged.empty(len(part)) for part in parts])
    if any(part.links is not None for part in parts):
        each = [part.links or no_links(len(part)) for part in parts]
        links = Links(
            [name for one in each for name in one.session],
            Ragged.joined([one.after for one in each]),
            np.concatenate([one.delay_s for one in each]),
            np.concatenate([one.recorded_s for one in each]),
        )
    return Chunk(
        np.concatenate([part.arrival_s for part in parts]),
        np.concatenate([part.prompt_tokens for part in parts]),
        np.concatenate([part.output_tokens for part in parts]),
        ids,
        links,
    )


def no_links(rows: int) -> Links:
    """Links of requests that belong to no session and wait for nobody."""
    return Links([""] * rows, Ragged.empty(rows), np.zeros(rows), np.full(rows, np.nan))


def taken(chunk: Chunk, rows: NDArray[np.intp]) -> Chunk:
    """The requests that *rows* names, in its order; `after` as it is."""
    links = chunk.links
    if links is not None:
        links = Links(
            [links.session[row] for row in rows.tolist()],
            links.after.take(rows),
            links.delay_s[rows],
            links.recorded_s[rows],
        )
    return Chunk(
        chunk.arrival_s[rows],
        chunk.prompt_tokens[rows],
        chunk.output_tokens[rows],
        None if chunk.block_ids is None else chunk.block_ids.take(rows),
        links,
    )


def waiting_for(chunk: Chunk, positions: NDArray[np.int64]) -> Chunk:
    """The requests of *chunk* with *positions* in place of the values of `after`, those below 0
    left out. Who then waits for nobody is free at its earliest time."""
    links = chunk.links
    if links is None:
        return chunk
    kept = positions >= 0
    offsets = np.concatenate([[0], np.cumsum(kept)])[links.after.offsets].astype(np.int64)
    after = Ragged(positions[kept], offsets)
    delay_s = np.where(after.lengths > 0, links.delay_s, 0.0)
    return replace(chunk, links=replace(links, after=after, delay_s=delay_s))


def mapped(chunk: Chunk, to: NDArray[np.int64]) -> Chunk:
    """*chunk* with `after` by the new positions `to[old]`, below 0 of a request that is gone."""
    if chunk.links is None:
        return chunk
    return waiting_for(chunk, to[chunk.links.after.values])


def picked(chunk: Chunk, keep: NDArray[np.bool_]) -> Chunk:
    """The requests of a whole trace that are to be kept, with new positions."""
    to = np.where(keep, np.cumsum(keep) - 1, -1)
    return mapped(taken(chunk, np.flatnonzero(keep)), to)


def waiting(chunk: Chunk) -> NDArray[np.bool_]:
    """Which requests wait for others, [n]."""
    if chunk.links is None:
        return np.zeros(len(chunk), dtype=np.bool_)
    return chunk.links.after.lengths > 0


def retimed(chunk: Chunk, free_s: NDArray[np.float64]) -> Chunk:
    """A whole trace with other times, in their order.

    *free_s* are the times of those that wait for nobody; the others keep their distance to the
    last of those they wait for (their delay, and more where they may not come before a time of
    their own). Recorded times move with the request.
    """
    links = chunk.links
    assert links is not None
    old, new = chunk.arrival_s.tolist(), free_s.tolist()
    for row, (after, delay) in enumerate(zip(links.after, links.delay_s.tolist(), strict=True)):
        if after:
            late = max(0.0, old[row] - max([old[other] for other in after]) - delay)
            new[row] = max([new[other] for other in after]) + delay + late
    arrival_s = np.array(new, dtype=np.float64)
    links = replace(links, recorded_s=links.recorded_s + (arrival_s - chunk.arrival_s))
    return in_order(replace(chunk, arrival_s=arrival_s, links=links))


def in_order(chunk: Chunk) -> Chunk:
    """A whole trace in order of time, ties as they were, `after` by the new positions."""
    order = np.argsort(chunk.arrival_s, kind="stable")
    to = np.empty(len(order), dtype=np.int64)
    to[order] = np.arange(len(order))
    return mapped(taken(chunk, order), to)


def components(chunk: Chunk) -> NDArray[np.int64]:
    """The lowest position among all requests that hang together with each one, [n].

    Two hang together if they have a session in common or one waits for the other.
    """
    parent = list(range(len(chunk)))
    if chunk.links is None:
        return np.array(parent, dtype=np.int64)

    def root(row: int) -> int:
        while parent[row] != row:
            parent[row] = parent[parent[row]]
            row = parent[row]
        return row

    first: dict[str, int] = {}
    rows = zip(chunk.links.session, chunk.links.after, strict=True)
    for row, (session, after) in enumerate(rows):
        others = (first.setdefault(session, row), *after) if session else after
        for other in others:
            low, high = sorted((root(row), root(other)))
            parent[high] = low
    return np.array([root(row) for row in range(len(chunk))], dtype=np.int64)


def whole_ticks(chunks: Iterable[Chunk]) -> Iterator[Chunk]:
    """The same requests in chunks that have no time in common."""
    open: list[Chunk] = []  # the requests of the last time so far
    for chunk in chunks:
        if not len(chunk):
            continue
        last = int(np.searchsorted(chunk.arrival_s, chunk.arrival_s[-1], side="left"))
        if open and chunk.arrival_s[0] == open[0].arrival_s[0]:
            if not last:
                open.append(chunk)
                continue
            yield joined([*open, chunk.part(0, last)])
        else:
            if open:
                yield joined(open)
            if last:
                yield chunk.part(0, last)
        open = [chunk.part(last, len(chunk))]
    if open:
        yield joined(open)
