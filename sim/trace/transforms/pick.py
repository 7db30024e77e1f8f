"""Fewer requests: a random share, one server's part, the first so many."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from sim.errors import InputError
from sim.rng import stream

from .held import CHUNK_ROWS, components, joined, peeked, picked
from .record import recorded

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from sim.trace.chunk import Chunk, Tally

    Keeps = Callable[[NDArray[np.int64]], NDArray[np.bool_]]
    """Whether to keep the requests at these positions; called with all of them, in order."""


@dataclass(frozen=True, slots=True)
class Replica:
    """The part of server `index` of `of`, dealt out by turns, at random, or by session name."""

    index: int
    of: int
    by: Literal["round_robin", "random", "session"] = "round_robin"


def thin(
    chunks: Iterator[Chunk], share: float, seed: int, tally: Tally, name: str = "trace.thin"
) -> Iterator[Chunk]:
    """Each session, or request without one, is kept with probability *share*.

    Requests that wait for each other stay or go together; *name* is that of the random stream.
    """
    given = {"share": share, "seed": seed}
    return recorded("thin", given, chunks, tally, lambda c, _: thinned(c, share, seed, name))


def thinned(chunks: Iterator[Chunk], share: float, seed: int, name: str) -> Iterator[Chunk]:
    """`thin` without a record."""
    random = stream(seed, name)
    return _kept(chunks, lambda positions: random.random(len(positions)) < share)


def replica(chunks: Iterator[Chunk], part: Replica, seed: int, tally: Tally) -> Iterator[Chunk]:
    """The requests that server `part.index` of `part.of` gets, whole sessions together.

    The parts of all servers make up the trace again, on the same clock. Raises `InputError` while
    reading if sessions are asked for and there are none.
    """
    given: dict[str, Any] = {"index": part.index, "of": part.of, "by": part.by}
    if part.by == "random":
        given["seed"] = seed

    def made(chunks: Iterator[Chunk], record: dict[str, Any]) -> Iterator[Chunk]:
        del record
        if part.by == "session":
            return _by_session(chunks, part)
        if part.by == "random":
            random = stream(seed, "trace.replica")
            return _kept(chunks, lambda at: _server(random.random(len(at)), part) == part.index)
        return _kept(chunks, lambda at: at % part.of == part.index)

    return recorded("replica", given, chunks, tally, made)


def _server(draws: NDArray[np.float64], part: Replica) -> NDArray[np.int64]:
    return np.minimum((draws * part.of).astype(np.int64), part.of - 1)


def _kept(chunks: Iterator[Chunk], keeps: Keeps) -> Iterator[Chunk]:
    """Each request that *keeps* keeps; where there are links, whole components by their number.

    *keeps* is asked about numbers from 0 on: of requests, or of components in the order of their
    first requests.
    """
    first, chunks = peeked(chunks)
    if first is None or first.links is None:
        position = 0
        for chunk in chunks:
            positions = np.arange(position, position + len(chunk), dtype=np.int64)
            yield picked(chunk, keeps(positions))
            position += len(chunk)
        return
    whole = joined(list(chunks))
    _, number = np.unique(components(whole), return_inverse=True)
    kept = keeps(np.arange(int(number.max()) + 1, dtype=np.int64))
    yield from picked(whole, kept[number]).split(CHUNK_ROWS)


def _by_session(chunks: Iterator[Chunk], part: Replica) -> Iterator[Chunk]:
    first, chunks = peeked(chunks)
    whole = None if first is None or first.links is None else joined(list(chunks))
    if whole is None or whole.links is None or not any(whole.links.session):
        raise InputError(
            "trace: replica by session: the trace has no sessions; deal out by round_robin or "
            "random"
        )
    # a component goes where its first request does, and one without a session by its position
    session = whole.links.session
    roots, number = np.unique(components(whole), return_inverse=True)
    names = [session[root] or f"\0{root}" for root in roots.tolist()]
    server = np.array([_hash(name) % part.of for name in names], dtype=np.int64)
    yield from picked(whole, (server == part.index)[number]).split(CHUNK_ROWS)


def _hash(name: str) -> int:
    return int.from_bytes(blake2b(name.encode(errors="surrogatepass"), digest_size=8).digest())


def limit(chunks: Iterator[Chunk], requests: int, tally: Tally) -> Iterator[Chunk]:
    """The first *requests* of them; the rest is not read, and not counted."""
    given = {"requests": requests}
    return recorded("limit", given, _first(chunks, requests), tally, lambda c, _: c)


def _first(chunks: Iterator[Chunk], requests: int) -> Iterator[Chunk]:
    left = requests
    for chunk in chunks:
        yield chunk.part(0, min(left, len(chunk)))
        left -= len(chunk)
        if left <= 0:
            return
