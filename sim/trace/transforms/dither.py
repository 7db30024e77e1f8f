"""Time stamps that lie on a grid, spread over the steps that they stand for.

One rule: the order of the file stays, and no request passes the next stamp of the grid.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np

from sim.rng import stream

from .held import CHUNK_ROWS, joined, peeked, retimed, waiting, whole_ticks
from .record import recorded

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from sim.trace.chunk import Chunk, Tally

HEAD_ROWS = 65536
"""By so many requests it is told whether there is a grid."""


@dataclass(frozen=True, slots=True)
class Dither:
    """How to spread: over `step_s`, or over the step that is found (None)."""

    step_s: float | None = None


def dither(chunks: Iterator[Chunk], how: Dither, seed: int, tally: Tally) -> Iterator[Chunk]:
    """Each request that waits for nobody comes at a uniform time within its step of the grid.

    Without a step in *how*, only where the first requests plainly lie on a grid, else all stays as
    it is and the record says so. Requests of one time stamp keep their order.
    """
    given = {"step_s": "auto" if how.step_s is None else how.step_s, "seed": seed}

    def made(chunks: Iterator[Chunk], record: dict[str, Any]) -> Iterator[Chunk]:
        step_s, chunks = (how.step_s, chunks) if how.step_s else found(chunks)
        record["step_s"] = step_s
        if step_s is None:
            record["remark"] = "no grid of time stamps found, so nothing changed"
            yield from chunks
            return
        if how.step_s is None:
            record["remark"] = f"grid of {step_s:.6g} s"
        first, chunks = peeked(chunks)
        random = stream(seed, "trace.dither")
        if first is None or first.links is None:
            for chunk, next_s in _with_next(whole_ticks(chunks)):
                record["requests_changed"] += len(chunk)
                yield chunk.at(_spread(chunk.arrival_s, step_s, next_s, random))
            return
        whole = joined(list(chunks))
        free = ~waiting(whole)
        record["requests_changed"] = len(whole)
        times = whole.arrival_s.copy()
        times[free] = _spread(times[free], step_s, np.inf, random)
        yield from retimed(whole, times).split(CHUNK_ROWS)

    return recorded("dither", given, chunks, tally, made)


def found(chunks: Iterator[Chunk]) -> tuple[float | None, Iterator[Chunk]]:
    """The step in s of the grid that the first requests lie on, None for no grid, and all chunks.

    Looks at the first `HEAD_ROWS` requests, wherever chunks end, and among them at those that wait
    for nobody.
    """
    head: list[Chunk] = []
    times: list[NDArray[np.float64]] = []
    left = HEAD_ROWS
    for chunk in chunks:
        head.append(chunk)
        part = chunk.part(0, min(left, len(chunk)))
        times.append(part.arrival_s[~waiting(part)])
        left -= len(part)
        if not left:
            break
    return grid_s(np.concatenate([np.zeros(0), *times])), chain(head, chunks)


def grid_s(times: NDArray[np.float64]) -> float | None:
    """The step of the grid that *times*, ascending, plainly lie on; None if they do not.

    Plainly: some times are shared, and the positive gaps are all alike, or all whole multiples of
    the smallest one, that being 10 ms or more.
    """
    gaps = np.diff(times)
    positive = gaps[gaps > 0]
    if len(positive) < 10 or len(gaps) - len(positive) < 0.05 * len(gaps):
        return None
    low, middle, high = np.quantile(positive, [0.05, 0.5, 0.95])
    if high - low <= 0.02 * middle:
        return float(middle)
    step = float(positive.min())
    steps = positive / step
    return step if step >= 0.01 and np.abs(steps - steps.round()).max() < 1e-3 else None


def _with_next(chunks: Iterator[Chunk]) -> Iterator[tuple[Chunk, float]]:
    """Each chunk with the time of the first request after it, infinite at the end."""
    before = None
    for chunk in chunks:
        if before is not None:
            yield before, float(chunk.arrival_s[0])
        before = chunk
    if before is not None:
        yield before, np.inf


def _spread(
    times: NDArray[np.float64], step_s: float, next_s: float, random: np.random.Generator
) -> NDArray[np.float64]:
    """*times*, ascending, each moved up by less than *step_s* and not beyond the next one.

    *next_s* is the first time after them. Uniform within the step; requests of one time stamp are
    as good as each other, so the draws are sorted and their order stays.
    """
    # Model: a stamp is the begin of its step: a logger that rounds down, or a batch sent out at it.
    stamps, rank = np.unique(times, return_inverse=True)
    width = np.minimum(step_s, np.diff(stamps, append=next_s))
    draws = random.random(len(times))
    draws = draws[np.lexsort((draws, rank))]
    # rounding may bring a time up to the next stamp, never beyond
    return np.minimum(times + draws * width[rank], (stamps + width)[rank])
