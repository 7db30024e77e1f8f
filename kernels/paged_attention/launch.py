"""Launcher of paged decode attention: checks arrays by name, knows the sizes of builds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from .. import cache_layout
from ..backend import Struct, layout
from ..element import C_TYPES

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..backend import Array, Backend

PARAMS = layout(
    ("q", "u8"), ("cache", "u8"), ("tail", "u8"), ("table", "u8"), ("lengths", "u8"),
    ("selected", "u8"), ("counts", "u8"), ("out", "u8"), ("partial", "u8"), ("tickets", "u8"),
    ("requests", "i4"), ("kv_heads", "i4"), ("max_pages", "i4"), ("k_max", "i4"), ("scale", "f4"),
)  # fmt: skip
MAX_REQUESTS = 1024


@dataclass(frozen=True, slots=True)
class Shape:
    """What a build is compiled for, and how it is launched.

    `workers`, `shared_kb` and `blocks_per_sm` of 0 take the tuned values; a persistent kernel that
    includes the stage gives its own.
    """

    head_dim: int = 128
    group: int = 4
    """Query heads of a KV head."""
    tokens: int = 1
    """New tokens of a request in this step."""
    page_tokens: int = 16
    kv_bits: int = 16
    element: str = "bf16"
    workers: int = 0
    shared_kb: int = 0
    blocks_per_sm: int = 0

    @property
    def launch(self) -> tuple[int, int, int]:
        """Warps of a block, KiB of shared memory for its rings, blocks of an SM."""
        workers = 8 if self.kv_bits == 16 or (self.kv_bits == 8 and self.rows > 8) else 16
        if self.kv_bits == 4 and 4 < self.rows <= 8:
            workers = 12  # more would not leave the rings two slots
        return self.workers or workers, self.shared_kb or 220, self.blocks_per_sm or 1

    @property
    def rows(self) -> int:
        """Query rows of a KV head."""
        return self.group * self.tokens

    @property
    def page_bytes(self) -> int:
        """Bytes of a page of one KV head."""
        return cache_layout.page_bytes(self.page_tokens, self.head_dim, self.kv_bits)

    @property
    def defines(self) -> tuple[str, ...]:
        """Macros of the build."""
        workers, shared_kb, blocks = self.launch
        return (
            f"ELEMENT={C_TYPES[self.element]}",
            f"HEAD_DIM={self.head_dim}",
            f"GROUP={self.group}",
            f"TOKENS={self.tokens}",
            f"PAGE_TOKENS={self.page_tokens}",
            f"KV_BITS={self.kv_bits}",
            f"WORKERS={workers}",
            f"SHARED_KB={shared_kb}",
            f"BLOCKS_PER_SM={blocks}",
        )

    @property
    def piece_floats(self) -> int:
        """Floats of one block's contribution to one item."""
        return (self.rows * (self.head_dim + 2) + 3) // 4 * 4

    @property
    def shared_bytes(self) -> int:
        """Dynamic shared memory of a block, by the arithmetic of shape.cuh."""
        workers, shared_kb, _ = self.launch
        columns = -(-self.rows // 8)
        teams = workers // -(-columns // (1 if self.kv_bits == 4 or columns == 1 else 2))
        tile = cache_layout.tile_tokens(self.page_tokens, self.kv_bits)
        slot = self.page_bytes * tile // self.page_tokens
        if self.kv_bits == 4:
            slot = max(slot, 16 * self.head_dim * 2)
        piece = -(-self.piece_floats * 4 // 128) * 128
        control = -(-(teams * (4 * 32 + 24) + 48) // 128) * 128
        fixed = control + (MAX_REQUESTS + 1) * 4 // 128 * 128 + 128 + teams * piece
        slots = min(4, max(2, (shared_kb * 1024 - fixed) // (teams * slot)))
        return fixed + teams * max(slots * slot, piece)

    def blocks(self, backend: Backend) -> int:
        """Blocks of a launch."""
        return backend.sms * self.launch[2]

    def buffers(self, backend: Backend, requests: int, kv_heads: int) -> tuple[Array, Array]:
        """Partial results (any contents) and tickets (zero); launches in turn may share them."""
        xp = backend.xp
        partial = xp.empty((self.blocks(backend), 2, self.piece_floats), np.float32)
        return partial, xp.zeros((requests, kv_heads), np.uint32)


def paged_attention(
    backend: Backend,
    shape: Shape,
    q: Array,
    cache: Array,
    table: Array,
    lengths: Array,
    out: Array,
    buffers: tuple[Array, Array],
    *,
    tail: Array | None = None,
    selected: Array | None = None,
    counts: Array | None = None,
    scale: float | None = None,
) -> None:
    """out [B, T, Hq, D] = attention of *q* over the pages of each request; see `prepared`."""
    prepared(
        backend, shape, q, cache, table, lengths, out, buffers,
        tail=tail, selected=selected, counts=counts, scale=scale,
    )()  # fmt: skip


def prepared(
    backend: Backend,
    shape: Shape,
    q: Array,
    cache: Array,
    table: Array,
    lengths: Array,
    out: Array,
    buffers: tuple[Array, Array],
    *,
    tail: Array | None = None,
    selected: Array | None = None,
    counts: Array | None = None,
    scale: float | None = None,
) -> Callable[[], None]:
    """A call that launches the kernel on these arrays; raises `ValueError` if one is off.

    *q* [B, T, Hq, D]; *cache* uint8 [pages, Hkv, page_bytes]; *tail* uint8 [B, 2, Hkv, 16-bit page
    bytes], 4 bits only; *table* int32 [B, max_pages]; *lengths* int32 [B]; *selected* int32
    [B, Hkv, k_max] with *counts* int32 [B, Hkv], or dense; *buffers* from `Shape.buffers`.
    """
    requests, tokens, heads, width = q.shape
    kv_heads, max_pages = cache.shape[1], table.shape[1]
    element = np.float16 if shape.element == "fp16" else np.uint16
    expected = {
        "q": (q, (requests, shape.tokens, kv_heads * shape.group, shape.head_dim), element),
        "out": (out, (requests, tokens, heads, width), element),
        "cache": (cache, (cache.shape[0], kv_heads, shape.page_bytes), np.uint8),
        "table": (table, (requests, max_pages), np.int32),
        "lengths": (lengths, (requests,), np.int32),
        "tickets": (buffers[1], (requests, kv_heads), np.uint32),
    }
    if shape.kv_bits == 4:
        page = cache_layout.page_bytes(shape.page_tokens, shape.head_dim, 16)
        expected["tail"] = (tail, (requests, 2, kv_heads, page), np.uint8)
    if selected is not None:
        expected["selected"] = (selected, (requests, kv_heads, selected.shape[-1]), np.int32)
        expected["counts"] = (counts, (requests, kv_heads), np.int32)
    for name, (array, size, dtype) in expected.items():
        if array is None or array.shape != size or array.dtype != dtype:
            found = None if array is None else (array.shape, array.dtype)
            raise ValueError(f"paged_attention: {name} is {found}, expected {size} {dtype}")
        if not array.flags.c_contiguous:
            raise ValueError(f"paged_attention: {name} is not contiguous")
    if requests > MAX_REQUESTS:
        raise ValueError(f"paged_attention: {requests} requests, at most {MAX_REQUESTS}")
    workers, _, _ = shape.launch
    kernel = backend.function("paged_attention", "paged_attention", shape.defines)
    params = Struct(
        backend, PARAMS, q=q, cache=cache, tail=tail, table=table, lengths=lengths,
        selected=selected, counts=counts, out=out, partial=buffers[0], tickets=buffers[1],
        requests=requests, kv_heads=kv_heads, max_pages=max_pages,
        k_max=0 if selected is None else selected.shape[-1],
        scale=shape.head_dim**-0.5 if scale is None else scale,
    )  # fmt: skip
    blocks, shared = shape.blocks(backend), shape.shared_bytes
    return lambda: kernel(blocks, 32 * workers, (params,), shared)
