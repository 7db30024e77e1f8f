"""How much a copy between DRAM and HBM slows down decode work that runs beside it, and vice versa.

One rule: a sample counts only if the mover was busy before it began and after it ended, which the
mover's own events prove; and each measurement stands between two of the work alone.
"""

from __future__ import annotations

import importlib
import itertools
import time
from typing import TYPE_CHECKING, Any

import numpy as np

from ..streams import bench as streams
from . import movers
from .copies import GRIDS, MIB, Pools, Record
from .held import between

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from ..backend import Gpu

SAMPLES, LEAST = 15, 4
"""Samples of the work beside a mover; so many must end before the mover does."""
SAMPLE_S = 4e-3
PAGE_BYTES = 16 << 10
CHUNK_BYTES = 64 * MIB
"""What a mover queues at a time."""
LINK_BYTES_S = 60e9
"""More than the link can move in one direction."""
LASTS = 3.0
"""How much longer than the work alone the mover is to last; the work gets slower beside it."""
QUEUE = 450
"""Most chunks in a stream: with their events they must not fill it, or the host would wait."""
DECODE = {
    "requests": 64, "length": 8192, "heads": "32/8/128", "page": 16, "bits": 16, "tokens": 1,
    "budget": 0, "skew": "none",
}  # fmt: skip
MOVERS: tuple[tuple[str, str, int, int], ...] = (
    ("copy_engine", "h2d", 0, 0),
    ("copy_engine", "d2h", 0, 0),
    ("copy_engine", "both", 0, 0),
    *(("gather", "h2d", *grid) for grid in GRIDS),
    ("gather", "h2d", 8, 64),
    ("gather", "d2h", 32, 32),
    ("gather", "d2h", 8, 128),
    ("gather", "d2h", 8, 64),
    ("gather", "d2h", 132, 32),
)
"""Name, direction, and blocks and threads of the gather kernel."""


def victims(
    gpu: Gpu, rng: np.random.Generator
) -> Iterator[tuple[str, float, Sequence[Callable[[], None]]]]:
    """Name, bytes a call and calls of the work that is disturbed.

    `read_bulk` is shaped as decode attention is: one block an SM with a ring in shared memory and
    an equal share of the bytes. `read_stream` fills every SM with threads.
    """
    for name, op in (("read_bulk", "read_bulk"), ("read_stream", "read")):
        point = next(p for p in streams.points() if p["op"] == op and p["level"] == "hbm")
        work = streams.prepare(gpu, {**point, "bytes": 1024 * MIB}, rng)
        yield name, work.bytes, work.calls
    try:
        attention = importlib.import_module("..paged_attention.bench", __package__)
    except ModuleNotFoundError:
        return
    point = next(p for p in attention.points() if all(p.get(k) == v for k, v in DECODE.items()))
    work = attention.prepare(gpu, point, rng)
    yield "paged_attention", work.bytes, work.calls


def measure(gpu: Gpu, deadline: float) -> Iterator[Record]:
    """Records until *deadline* (of `time.time`)."""
    rng = np.random.default_rng(2)
    pools = Pools(gpu, rng)
    for name, nbytes, calls in victims(gpu, rng):
        victim = Victim(gpu, calls)
        for mover, direction, *grid in MOVERS:
            if time.time() > deadline:
                return
            record = disturbed(pools, victim, mover, direction, (grid[0], grid[1]))
            yield {"name": "interference", "victim": name, "bytes": nbytes, **record}


class Victim:
    """Work that is replayed as a CUDA graph of about `SAMPLE_S`."""

    def __init__(self, gpu: Gpu, calls: Sequence[Callable[[], None]]) -> None:
        self.gpu = gpu
        self.stream: Any = gpu.xp.cuda.Stream(non_blocking=True)
        with self.stream:
            for call in calls:
                call()
            self.stream.synchronize()
            begin = time.perf_counter()
            for call in calls:
                call()
            self.stream.synchronize()
            once = (time.perf_counter() - begin) / len(calls)
            self.count = max(len(calls), round(SAMPLE_S / once))
            self.stream.begin_capture()
            for index in range(self.count):
                calls[index % len(calls)]()
            self.graph = self.stream.end_capture()
            self.graph.upload(self.stream)
        self.samples_s = once * self.count * (SAMPLES + 2)

    def run(self) -> list[Any]:
        """Queues all samples and returns the events around them."""
        events = [self.gpu.xp.cuda.Event() for _ in range(SAMPLES + 3)]
        events[0].record(self.stream)
        for event in events[1:]:
            self.graph.launch(self.stream)
            event.record(self.stream)
        return events

    def seconds(self, events: list[Any]) -> list[float]:
        """Seconds a call of each sample, the first two left out as warm-up."""
        self.stream.synchronize()
        kept = itertools.pairwise(events[2:])
        return [between(self.gpu, start, end) / self.count for start, end in kept]


def disturbed(
    pools: Pools, victim: Victim, mover: str, direction: str, grid: tuple[int, int]
) -> Record:
    """One measurement: alone, under the mover, alone."""
    gpu = pools.gpu
    before = victim.seconds(victim.run())
    chunks = max(24, round(LASTS * victim.samples_s * LINK_BYTES_S / CHUNK_BYTES))
    streams_: list[Any] = []
    marks: list[list[Any]] = []
    for way in ("h2d", "d2h") if direction == "both" else (direction,):
        stream = gpu.xp.cuda.Stream(non_blocking=True)
        with stream:
            move = _chunk_mover(pools, mover, way, grid)
            marks.append(_queue(gpu, stream, move, min(chunks, QUEUE)))
        streams_.append(stream)
    for mark in marks:
        mark[1].synchronize()  # the mover is at work
    events = victim.run()
    under = victim.seconds(events)
    for stream in streams_:
        stream.synchronize()
    covered = [all(between(gpu, event, mark[-1]) >= 0 for mark in marks) for event in events[3:]]
    if sum(covered) < LEAST:
        raise RuntimeError(f"{mover} {direction} ended before the work it should disturb")
    after = victim.seconds(victim.run())
    rates = [_rate(gpu, mark, events) for mark in marks]
    return {
        "mover": mover,
        "direction": direction,
        "blocks": grid[0],
        "threads": grid[1],
        "page_bytes": CHUNK_BYTES if mover == "copy_engine" else PAGE_BYTES,
        "seconds": list(itertools.compress(under, covered)),
        "alone_seconds": before + after,
        "mover_bytes_s": sum(rates),
    }


def _queue(gpu: Gpu, stream: Any, move: Callable[[int], None], chunks: int) -> list[Any]:
    marks = [gpu.xp.cuda.Event() for _ in range(chunks + 1)]
    marks[0].record(stream)
    for index, mark in enumerate(marks[1:]):
        move(index)
        mark.record(stream)
    return marks


def _rate(gpu: Gpu, marks: list[Any], events: list[Any]) -> float:
    """Bytes a second over the chunks that lie within the work's samples."""
    inside = [
        mark
        for mark in marks
        if between(gpu, events[2], mark) >= 0 and between(gpu, mark, events[-1]) >= 0
    ]
    if len(inside) < 2:
        return 0.0
    return (len(inside) - 1) * CHUNK_BYTES / between(gpu, inside[0], inside[-1])


def _chunk_mover(
    pools: Pools, mover: str, direction: str, grid: tuple[int, int]
) -> Callable[[int], None]:
    """Moves chunk after chunk: in one piece by the copy engine, else in shuffled pages."""
    gpu = pools.gpu
    size = CHUNK_BYTES if mover == "copy_engine" else PAGE_BYTES
    source, target = pools.ends(direction, size)
    lists = pools.lists(size, CHUNK_BYTES // size, 8)
    if mover != "gather":
        return lambda index: movers.engine(gpu, source, target, *lists[index % len(lists)])
    on_device = [gpu.xp.asarray(pair) for pair in lists]

    def gather(index: int) -> None:
        pair = on_device[index % len(on_device)]
        movers.gather(gpu, source, target, pair[0], pair[1], *grid)

    return gather
