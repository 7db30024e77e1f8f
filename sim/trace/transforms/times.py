"""Changes of a trace's clock: a stretch of it, more load, everything slower."""

from __future__ import annotations

from dataclasses import replace
from math import inf
from typing import TYPE_CHECKING, Any

import numpy as np

from sim.errors import InputError
from sim.trace.bounds import MAX_SECONDS

from .held import CHUNK_ROWS, joined, peeked, retimed, waiting, waiting_for
from .record import recorded

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sim.trace.chunk import Chunk, Tally


def window(
    chunks: Iterator[Chunk], from_s: float, to_s: float | None, tally: Tally
) -> Iterator[Chunk]:
    """The requests from *from_s* to before *to_s* (None: to the end); times start again at 0.

    By their earliest times where they wait for others. A turn whose predecessors are all outside
    is free at its earliest time; the record counts such turns. What comes after *to_s* is not
    read, and not counted.
    """

    def made(chunks: Iterator[Chunk], record: dict[str, Any]) -> Iterator[Chunk]:
        before, start = 0, None  # requests before the window, time of the first in it
        for chunk in chunks:
            low = int(np.searchsorted(chunk.arrival_s, from_s, side="left"))
            part = chunk.part(low, len(chunk))
            before += low
            if not len(part):
                continue
            start = float(part.arrival_s[0]) if start is None else start
            here = _starting_at(part, start)
            if part.links is not None:
                here = waiting_for(here, part.links.after.values - before)
            record["requests_changed"] += int((waiting(part) & ~waiting(here)).sum())
            yield here

    given = {"from_s": from_s, "to_s": to_s}
    return recorded("window", given, _until(chunks, to_s), tally, made)


def _until(chunks: Iterator[Chunk], to_s: float | None) -> Iterator[Chunk]:
    """*chunks* up to before *to_s*; no more are read than that takes."""
    for chunk in chunks:
        end = np.searchsorted(chunk.arrival_s, inf if to_s is None else to_s, side="left")
        yield chunk.part(0, int(end))
        if end < len(chunk):
            return


def _starting_at(chunk: Chunk, start: float) -> Chunk:
    """*chunk* on a clock that is 0 at *start*."""
    links = chunk.links
    if links is not None:
        links = replace(links, recorded_s=links.recorded_s - start)
    return replace(chunk, arrival_s=chunk.arrival_s - start, links=links)


def time_scale(chunks: Iterator[Chunk], factor: float, tally: Tally) -> Iterator[Chunk]:
    """All times and delays times *factor*: at 2 everything is half as fast."""

    def made(chunks: Iterator[Chunk], record: dict[str, Any]) -> Iterator[Chunk]:
        for chunk in chunks:
            record["requests_changed"] += len(chunk)
            links = chunk.links
            if links is not None:
                links = replace(
                    links, delay_s=links.delay_s * factor, recorded_s=links.recorded_s * factor
                )
            yield _in_bounds(replace(chunk, arrival_s=chunk.arrival_s * factor, links=links))

    return recorded("time_scale", {"factor": factor}, chunks, tally, made)


def rate_scale(chunks: Iterator[Chunk], factor: float, tally: Tally) -> Iterator[Chunk]:
    """The times of those that wait for nobody divided by *factor*: at 2, twice the load.

    Delays stay, since a tool or a user is no faster under load. So dependents keep their distance
    to those they wait for, and the trace is held and put in order again.
    """

    def made(chunks: Iterator[Chunk], record: dict[str, Any]) -> Iterator[Chunk]:
        first, chunks = peeked(chunks)
        if first is None or first.links is None:
            for chunk in chunks:
                record["requests_changed"] += len(chunk)
                yield _in_bounds(chunk.at(chunk.arrival_s / factor))
            return
        whole = joined(list(chunks))
        record["requests_changed"] = len(whole)
        whole = retimed(whole, whole.arrival_s / factor)
        yield from _in_bounds(whole).split(CHUNK_ROWS)

    return recorded("rate_scale", {"factor": factor}, chunks, tally, made)


def _in_bounds(chunk: Chunk) -> Chunk:
    """*chunk*; raises `InputError` if it ends too late."""
    if len(chunk) and (last := float(chunk.arrival_s[-1])) > MAX_SECONDS:
        raise InputError(
            f"trace: scaled, a request arrives after {last:g} s, beyond {MAX_SECONDS:g} s, where a "
            "clock no longer resolves microseconds; raise trace.rate_scale, lower "
            "trace.time_scale or cut the trace"
        )
    return chunk
