"""Ceilings of this GPU: HBM read and copy, L2 read, and what one block can stream.

`bytes` counts what a call moves: for a copy the bytes read plus written, for `level` "l2" the bytes
read from L2 in all passes.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from ..checking import equal, poisoned
from ..work import Work
from . import launch, reference
from .check import same_sum

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..backend import Array, Gpu

GIB, MIB = 1 << 30, 1 << 20
ONE_BLOCK_BYTES, ONE_BLOCK_BUFFERS = 16 * MIB, 24


def points() -> list[dict[str, Any]]:
    """The grid; `blocks_per_sm` 0 is one block, or for a copy one tile a block."""
    return [*_hbm_points(), *_copy_points(), *_l2_points(), *_one_block_points()]


def _hbm_points() -> list[dict[str, Any]]:
    base = {"op": "read", "level": "hbm", "bytes": 4 * GIB, "threads": 512, "loads": 4}
    read = [{**base, "blocks_per_sm": blocks} for blocks in (4, 1, 2, 8, 32)]
    read += [{**base, "blocks_per_sm": 4, "loads": loads} for loads in (2, 8)]
    read += [{**base, "blocks_per_sm": 4, "fetch": 256}]
    bulk = {"op": "read_bulk", "level": "hbm", "bytes": 4 * GIB, "threads": 288}
    rings = [(6, 32768), (12, 16384), (8, 16384), (4, 16384), (2, 16384), (24, 8192), (48, 4096)]
    return [
        *read,
        *({**bulk, "blocks_per_sm": 1, "slots": s, "slot_bytes": size} for s, size in rings),
        {**bulk, "blocks_per_sm": 2, "slots": 4, "slot_bytes": 16384},
        {**bulk, "blocks_per_sm": 2, "slots": 16, "slot_bytes": 4096},
    ]


def _copy_points() -> list[dict[str, Any]]:
    base = {"op": "copy", "level": "hbm", "bytes": 4 * GIB}
    shapes = [(0, 1, 256), (0, 1, 512), (0, 4, 512), (4, 4, 512), (16, 4, 512)]
    return [{**base, "blocks_per_sm": b, "loads": n, "threads": t} for b, n, t in shapes]


def _l2_points() -> list[dict[str, Any]]:
    base = {"op": "read", "level": "l2", "threads": 512, "loads": 4, "blocks_per_sm": 4}
    return [{**base, "bytes": size * MIB, "passes": 32} for size in (16, 4, 8, 24, 32, 48)]


def _one_block_points() -> list[dict[str, Any]]:
    base = {"level": "one_block", "bytes": ONE_BLOCK_BYTES, "blocks_per_sm": 0}
    read = [(512, 4), (128, 4), (256, 4), (1024, 4), (512, 8), (1024, 8)]
    ring = [(6, 32768), (12, 16384), (4, 16384), (2, 16384), (24, 8192), (48, 4096)]
    return [
        *({**base, "op": "read", "threads": t, "loads": n} for t, n in read),
        *(
            {**base, "op": "read_bulk", "threads": 288, "slots": s, "slot_bytes": b}
            for s, b in ring
        ),
    ]


def prepare(gpu: Gpu, point: dict[str, Any], rng: np.random.Generator) -> Work:
    """See `Work`; allocates up to 8 GiB."""
    buffers = ONE_BLOCK_BUFFERS if point["level"] == "one_block" else 1
    sources = [noise(gpu, point["bytes"], rng) for _ in range(buffers)]
    if point["op"] == "copy":
        return _prepare_copy(gpu, point, sources[0])
    passes = point.get("passes", 1)
    sums = poisoned(gpu, max(1, point["blocks_per_sm"] * gpu.sms), np.uint32)
    calls = [_reader(gpu, point, source, sums, passes) for source in sources]

    def check() -> float:
        sums.view(np.uint8)[...] = 0xFF
        calls[0]()
        return same_sum(gpu, sums, reference.wrapped_sum(sources[0], passes))

    return Work(calls, check, float(point["bytes"] * passes), 0.0)


def _reader(
    gpu: Gpu, point: dict[str, Any], source: Array, sums: Array, passes: int
) -> Callable[[], None]:
    if point["op"] == "read":
        shape = (point["threads"], point["loads"], point.get("fetch", 0))
        return partial(launch.read, gpu, source, sums, passes, *shape)
    ring = (point["slots"], point["slot_bytes"])
    return partial(launch.read_bulk, gpu, source, sums, passes, point["threads"], *ring)


def _prepare_copy(gpu: Gpu, point: dict[str, Any], source: Array) -> Work:
    target = poisoned(gpu, source.shape, source.dtype)
    blocks = point["blocks_per_sm"] * gpu.sms
    call = partial(launch.copy, gpu, source, target, blocks, point["threads"], point["loads"])

    def check() -> float:
        target.view(np.uint8)[...] = 0xFF
        call()
        step = len(source) // 8
        for start in range(0, len(source), step):  # in parts: a comparison allocates
            part = slice(start, start + step)
            if not bool((source[part] == target[part]).all()):
                return equal(target[part].get(), source[part].get(), f"target from {start}")
        return 0.0

    def memcpy_node() -> None:
        """A copy node of a graph, which is slower than the same call in a stream."""
        stream = gpu.xp.cuda.get_current_stream()
        gpu.xp.cuda.runtime.memcpyAsync(
            target.data.ptr, source.data.ptr, source.nbytes, 3, stream.ptr
        )

    return Work([call], check, 2.0 * source.nbytes, 0.0, {"memcpy_node": [memcpy_node]})


def noise(gpu: Gpu, nbytes: int, rng: np.random.Generator) -> Array:
    """Random uint32 on the device: one random block from the host, scaled anew for each copy."""
    block = gpu.xp.asarray(rng.integers(0, 2**32, min(nbytes, 16 * MIB) // 4, np.uint32))
    array = gpu.xp.empty(nbytes // 4, np.uint32)
    for start in range(0, len(array), len(block)):
        part = array[start : start + len(block)]
        odd, offset = (np.uint32(x) for x in rng.integers(0, 2**32, 2, np.uint32))
        gpu.xp.multiply(block[: len(part)], odd | np.uint32(1), out=part)
        part += offset
    return array
