"""Keys and values of preempted requests in pinned DRAM.

Copies go through the engine's stream: what follows there finds the pages free, or filled.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ..loop_control.mailbox import pinned

if TYPE_CHECKING:
    from ..backend import Backend
    from ..decoder.state import Pool
    from .request import Request


class SwapError(RuntimeError):
    """There is no room left in DRAM."""


class Arena:
    """Places of *count* pages: whole runs of them, the first that fits."""

    def __init__(self, count: int) -> None:
        self.holes = [(0, count)]

    def take(self, count: int) -> int:
        """The first of *count* places; raises `SwapError` if no hole is as long."""
        for i, (begin, length) in enumerate(self.holes):
            if length >= count:
                self.holes[i : i + 1] = [(begin + count, length - count)] if length > count else []
                return begin
        raise SwapError(f"no room for {count} pages in DRAM")

    def give(self, begin: int, count: int) -> None:
        """The places are free again."""
        self.holes = sorted([*self.holes, (begin, count)])
        merged: list[tuple[int, int]] = []
        for at, length in self.holes:
            if merged and merged[-1][0] + merged[-1][1] == at:
                merged[-1] = (merged[-1][0], merged[-1][1] + length)
            else:
                merged.append((at, length))
        self.holes = merged


class DramPages:
    """Keeps pages of *pool*, *count* of them at most; bounds go along if *bounds*."""

    def __init__(self, backend: Backend, pool: Pool, count: int, bounds: bool) -> None:
        self.backend = backend
        self.arrays = [pool.cache, pool.minmax] if bounds else [pool.cache]
        self.page_tokens = pool.page_tokens
        self.arena = Arena(count)
        self.held: dict[Request, tuple[int, int]] = {}
        self.moves = 0
        self.host = [
            pinned(backend, (count, len(array), *array.shape[2:]), array.dtype)
            for array in self.arrays
        ]

    def out(self, request: Request) -> None:
        """See `engine.Mover.out`."""
        count = -(-request.context_tokens // self.page_tokens)
        begin = self.arena.take(count)
        self.held[request] = begin, count
        pages = self._index(request, count)
        for array, host in zip(self.arrays, self.host, strict=True):
            kept = self.backend.xp.take(array, pages, axis=1).swapaxes(0, 1)
            self._copy(host[begin : begin + count], self.backend.xp.ascontiguousarray(kept), True)
        self.moves += 1

    def back(self, request: Request) -> None:
        """See `engine.Mover.back`."""
        begin, count = self.held.pop(request)
        pages, xp = self._index(request, count), self.backend.xp
        for array, host in zip(self.arrays, self.host, strict=True):
            kept = xp.empty((count, *host.shape[1:]), array.dtype)
            self._copy(host[begin : begin + count], kept, False)
            array[:, pages] = kept.swapaxes(0, 1)
        self.arena.give(begin, count)

    def _index(self, request: Request, count: int) -> Any:
        return self.backend.xp.asarray(np.array(request.pages[:count], np.int64))

    def _copy(self, host: Any, device: Any, out: bool) -> None:
        if self.backend.name == "cpu":
            host[...], device[...] = (device, device) if out else (host, host)
            return
        runtime = self.backend.xp.cuda.runtime
        stream = self.backend.xp.cuda.get_current_stream().ptr
        ends = (host.ctypes.data, device.data.ptr) if out else (device.data.ptr, host.ctypes.data)
        runtime.memcpyAsync(*ends, device.nbytes, 2 if out else 1, stream)
