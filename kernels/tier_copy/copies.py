"""How long copies between pinned DRAM and HBM take, by size, page size, mover and direction."""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from ..checking import equal
from ..streams.bench import noise
from . import launch, movers
from .held import QUEUE, Held, wall_seconds

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..backend import Array, Gpu

KIB, MIB = 1 << 10, 1 << 20
POOL_BYTES = 2 << 30
"""Of each pool: far more than the caches of GPU and host."""
SIZES = tuple(4 * KIB << shift for shift in range(0, 19, 2))
"""4 KiB to 1 GiB."""
PAGES = (4 * KIB, 16 * KIB, 64 * KIB, 256 * KIB, MIB)
GRIDS = (
    (launch.BLOCKS, launch.THREADS), (8, 128), (2, 512), (4, 256), (8, 512), (16, 64), (32, 64),
    (64, 32), (132, 32),
)  # fmt: skip
"""Blocks and threads of the gather kernel."""
SAMPLES = 20
Record = dict[str, Any]


class Pools:
    """Two equal pools of random bytes, in pinned DRAM and in HBM, both written once already."""

    def __init__(self, gpu: Gpu, rng: np.random.Generator, nbytes: int = POOL_BYTES) -> None:
        self.gpu, self.rng, self.nbytes = gpu, rng, nbytes
        self.device: Array = noise(gpu, nbytes, rng).view(np.uint8)
        self.host = movers.pinned(gpu, (nbytes,), np.uint8)
        gpu.xp.cuda.runtime.memcpy(gpu.address(self.host), gpu.address(self.device), nbytes, 4)
        self.device[...] = noise(gpu, nbytes, rng).view(np.uint8)
        gpu.synchronize()

    def ends(self, direction: str, page_bytes: int) -> tuple[Array, Array]:
        """Source and target of *direction* ("h2d" or "d2h") as [pages, page_bytes]."""
        host = self.host[: self.nbytes // page_bytes * page_bytes].reshape(-1, page_bytes)
        device = self.device[: host.size].reshape(-1, page_bytes)
        return (host, device) if direction == "h2d" else (device, host)

    def lists(self, page_bytes: int, count: int, samples: int) -> list[np.ndarray[Any, Any]]:
        """*samples* pairs [2, count] of shuffled pages, no target twice within a pair."""
        pages = self.nbytes // page_bytes
        return [
            np.stack([self.rng.permutation(pages)[:count] for _ in range(2)]).astype(np.int32)
            for _ in range(samples)
        ]

    def verify(self, direction: str, page_bytes: int, pair: np.ndarray[Any, Any]) -> None:
        """Raises `CheckError` unless up to 64 of the moved pages hold their source's bytes."""
        self.gpu.synchronize()
        source, target = self.ends(direction, page_bytes)
        for start, to in pair[:, :: max(1, pair.shape[1] // 64)].T.tolist():
            got, want = (
                page.get() if hasattr(page, "get") else page for page in (target[to], source[start])
            )
            equal(got, want, f"{direction} page {to} of {page_bytes} bytes")


def measure(gpu: Gpu, deadline: float) -> Iterator[Record]:
    """Records until *deadline* (of `time.time`); allocates two pools of `POOL_BYTES`."""
    pools = Pools(gpu, np.random.default_rng(1))
    with Held(gpu) as held:
        for record in _records(pools, held):
            yield record
            if time.time() > deadline:
                return


def _records(pools: Pools, held: Held) -> Iterator[Record]:
    for direction in ("h2d", "d2h"):
        for page_bytes in PAGES:
            for grid in GRIDS:
                yield gathered(pools, held, direction, page_bytes, grid, 64 * MIB // page_bytes)
            for count in (1, 16, 256):
                if count * page_bytes < 64 * MIB:
                    yield gathered(pools, held, direction, page_bytes, GRIDS[0], count)
    for direction in ("h2d", "d2h"):
        for nbytes in SIZES:
            yield contiguous(pools, held, direction, nbytes, 1)
            yield contiguous(pools, held, direction, nbytes, 1, hold=False)
            if nbytes <= 16 * MIB:
                yield contiguous(pools, held, direction, nbytes, 16)
    for nbytes in SIZES[4:]:
        yield both_ways(pools, held, nbytes)
    for direction in ("h2d", "d2h"):
        for page_bytes in PAGES:
            count = min(4096, 64 * MIB // page_bytes)
            yield paged(pools, held, "copy_engine_pages", direction, page_bytes, count)
    reason = movers.why_no_batch()
    if reason:
        yield {"name": "copy_batch", "reason": reason, "seconds": []}
        return
    for direction in ("h2d", "d2h"):
        for page_bytes in PAGES:
            for count in sorted({16, 256, min(4096, 64 * MIB // page_bytes)}):
                yield paged(pools, held, "copy_batch", direction, page_bytes, count)


def contiguous(
    pools: Pools, held: Held, direction: str, nbytes: int, calls: int, hold: bool = True
) -> Record:
    """Copies of *nbytes* at shuffled places, *calls* of them back to back; seconds of one.

    With *hold* they follow a kernel in their stream, and the change from the one engine to the
    other is in the figure; without it they come to an idle stream.
    """
    spare = 1 if nbytes > 256 * MIB else calls
    source, target = pools.ends(direction, nbytes)
    samples = SAMPLES if nbytes <= 64 * MIB else 6
    lists = pools.lists(nbytes, min(spare, len(source)), 8)

    def work(sample: int) -> None:
        movers.engine(pools.gpu, source, target, *lists[sample % len(lists)])

    seconds, _ = held.seconds(work, samples, hold=hold)
    pools.verify(direction, nbytes, lists[(samples + 1) % len(lists)])
    seconds = [s / lists[0].shape[1] for s in seconds]
    axes = {"direction": direction, "calls": calls, "held": hold, "bytes": nbytes}
    return {"name": "copy_engine", **axes, "seconds": seconds}


def both_ways(pools: Pools, held: Held, nbytes: int) -> Record:
    """One copy of *nbytes* each way at once, from and to different halves of the pools."""
    gpu, half = pools.gpu, pools.nbytes // 2
    other: Any = gpu.xp.cuda.Stream(non_blocking=True)
    copy = gpu.xp.cuda.runtime.memcpyAsync
    nbytes = min(nbytes, half)
    host, device = gpu.address(pools.host), gpu.address(pools.device)

    def work(_: int) -> None:
        other.wait_event(held.event())
        copy(device, host, nbytes, 4, held.stream.ptr)
        copy(host + half, device + half, nbytes, 4, other.ptr)
        joined = gpu.xp.cuda.Event()
        joined.record(other)
        held.stream.wait_event(joined)

    seconds, _ = held.seconds(work, SAMPLES if nbytes <= 64 * MIB else 6)
    return {"name": "copy_engine", "direction": "both", "bytes": 2 * nbytes, "seconds": seconds}


def paged(
    pools: Pools, held: Held, name: str, direction: str, page_bytes: int, count: int
) -> Record:
    """*count* shuffled pages, by one call a page or by one batched call; `seconds` of the device.

    `wall_seconds` has the host's part in it, Python's included, and is what a Python host sees;
    `submit_seconds` is the host's part alone. Without a hold, `seconds` are the wall's.
    """
    gpu = pools.gpu
    move = movers.batch if name == "copy_batch" else movers.engine
    source, target = pools.ends(direction, page_bytes)
    lists = pools.lists(page_bytes, count, 4)

    def work(sample: int) -> None:
        move(gpu, source, target, *lists[sample % len(lists)])

    wall = wall_seconds(gpu, work, SAMPLES)
    pools.verify(direction, page_bytes, lists[(SAMPLES + 1) % len(lists)])
    axes = {"direction": direction, "page_bytes": page_bytes, "pages": count}
    record = {"name": name, **axes, "bytes": count * page_bytes, "wall_seconds": wall}
    if count > QUEUE:
        return {**record, "held": False, "seconds": wall}
    seconds, submit = held.seconds(work, SAMPLES)
    return {**record, "held": True, "seconds": seconds, "submit_seconds": submit}


def gathered(
    pools: Pools, held: Held, direction: str, page_bytes: int, grid: tuple[int, int], count: int
) -> Record:
    """*count* shuffled pages moved by the kernel with *grid* blocks and threads."""
    gpu = pools.gpu
    source, target = pools.ends(direction, page_bytes)
    lists = pools.lists(page_bytes, count, 4)
    on_device = [gpu.xp.asarray(pair) for pair in lists]
    seconds, _ = held.seconds(partial(_gather, gpu, source, target, on_device, grid), SAMPLES)
    pools.verify(direction, page_bytes, lists[(SAMPLES + 1) % len(lists)])
    axes = {"direction": direction, "page_bytes": page_bytes, "pages": count}
    axes |= {"blocks": grid[0], "threads": grid[1]}
    return {"name": "gather", **axes, "bytes": count * page_bytes, "seconds": seconds}


def _gather(
    gpu: Gpu, source: Array, target: Array, lists: list[Array], grid: tuple[int, int], sample: int
) -> None:
    pair = lists[sample % len(lists)]
    movers.gather(gpu, source, target, pair[0], pair[1], *grid)
