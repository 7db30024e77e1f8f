"""Launchers of the page mover and of the kernel that holds a stream."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from ..backend import Struct, layout

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..backend import Array, Backend, Function

MOVE = layout(
    ("source", "u8"),
    ("target", "u8"),
    ("source_pages", "u8"),
    ("target_pages", "u8"),
    ("page_bytes", "i8"),
    ("count", "i4"),
)
BLOCKS, THREADS, LOADS = 32, 32, 8
"""As few bytes in flight as fill the link, spread thin: a kernel beside it loses least so."""


def move_pages(
    backend: Backend,
    source: Array,
    target: Array,
    source_pages: Array,
    target_pages: Array,
    blocks: int = BLOCKS,
    threads: int = THREADS,
    loads: int = LOADS,
) -> None:
    """Page `target_pages[i]` of *target* [pages, page_bytes] becomes `source_pages[i]` of *source*.

    Pools are uint8, in HBM or in pinned host memory; lists are int32 [count] on the device, and no
    index is checked there. *blocks* bounds the SMs used, *loads* are in flight a lane. Raises
    `ValueError` if a shape is off.
    """
    _check(source, target, source_pages, target_pages)
    if threads % 32 or not 32 <= threads <= 512 or blocks < 1:
        raise ValueError(f"move_pages: {blocks} blocks of {threads} threads; whole warps, <= 512")
    kernel = _mover(backend, (f"MOVE_LOADS={loads}",))
    params = Struct(
        backend,
        MOVE,
        source=source,
        target=target,
        source_pages=source_pages,
        target_pages=target_pages,
        page_bytes=source.shape[1],
        count=len(source_pages),
    )
    kernel(blocks, threads, (params,))


def _mover(backend: Any, defines: tuple[str, ...]) -> Function:
    if backend.name != "cpu":
        return _beside_others(backend, defines)
    function: Function = backend.function("tier_copy", "move_pages", defines)
    return function


@cache
def _beside_others(gpu: Any, defines: tuple[str, ...]) -> Function:
    """The kernel with an SM's memory set to shared memory as far as it goes.

    An SM cannot change that split while a block runs on it: with the default split, a block of this
    kernel keeps every kernel with a large ring of shared memory away from its SM.
    """
    raw = gpu.raw("tier_copy", "move_pages", defines)
    raw.preferred_shared_memory_carveout = 100

    def call(grid: int | tuple[int, ...], block: int, args: Sequence[Any], shared: int = 0) -> None:
        sizes = (grid,) if isinstance(grid, int) else grid
        raw(sizes, (block,), tuple(a.value for a in args), shared_mem=shared)

    return call


def hold(backend: Backend, flag: Array, limit_s: float) -> None:
    """Occupies the stream until *flag* (pinned uint32 [1]) is not 0, at most *limit_s*."""
    if flag.shape != (1,) or flag.dtype != np.uint32:
        raise ValueError(f"hold: flag {flag.dtype} {flag.shape}, expected uint32 (1,)")
    address: Any = np.uintp(backend.address(flag))
    kernel = backend.function("tier_copy", "hold", (f"MOVE_LOADS={LOADS}",))
    kernel(1, 32, (address, np.uint64(limit_s * 1e9)))


def _check(source: Array, target: Array, source_pages: Array, target_pages: Array) -> None:
    for name, pool in (("source", source), ("target", target)):
        if pool.dtype != np.uint8 or pool.ndim != 2 or not pool.flags.c_contiguous:
            raise ValueError(f"move_pages: {name} {pool.dtype} {pool.shape}, expected uint8 [p, b]")
    if source.shape[1] != target.shape[1] or source.shape[1] % 16:
        sizes = f"{source.shape[1]} and {target.shape[1]}"
        raise ValueError(f"move_pages: pages of {sizes} bytes; equal and % 16")
    for name, pages in (("source_pages", source_pages), ("target_pages", target_pages)):
        if pages.dtype != np.int32 or pages.shape != (len(source_pages),):
            raise ValueError(f"move_pages: {name} {pages.dtype} {pages.shape}, expected int32 [n]")
