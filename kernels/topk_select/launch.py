"""Launcher of the page selection; it checks its arrays by name and returns nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ..backend import Struct, layout

if TYPE_CHECKING:
    from ..backend import Array, Backend

PARAMS = layout(
    ("scores", "u8"),
    ("lengths", "u8"),
    ("selected", "u8"),
    ("counts", "u8"),
    ("batch", "i4"),
    ("kv_heads", "i4"),
    ("new_tokens", "i4"),
    ("max_pages", "i4"),
    ("k_max", "i4"),
    ("budget", "i4"),
    ("sink", "i4"),
    ("recent", "i4"),
)
SCRATCH_BYTES = 32 * 20 * 4 + 128 * 4 + 16 * 4 + 2 * 16 * 4 + 4 * 4
"""sizeof(topk::Scratch)."""
MOST_PAGES = 16384


def defines(page_tokens: int) -> tuple[str, ...]:
    """Macros of the kernel."""
    return (f"PAGE_TOKENS={page_tokens}",)


def groups(threads: int, blocks: int, rows: int) -> int:
    """Rows that share a block, as `topk::groups` computes."""
    count = 1
    while (
        count < 2
        and count * blocks < rows
        and threads % (64 * count) == 0
        and threads // (2 * count) >= 256
    ):
        count *= 2
    return count


def shared_bytes(threads: int, blocks: int, rows: int) -> int:
    """Dynamic shared memory of the stage, as `topk::shared_bytes` computes."""
    return groups(threads, blocks, rows) * SCRATCH_BYTES + threads * 8 * 6


def topk_select(
    backend: Backend,
    scores: Array,
    lengths: Array,
    selected: Array,
    counts: Array,
    *,
    new_tokens: int,
    budget: int,
    sink: int = 1,
    recent: int = 1,
    page_tokens: int = 16,
    threads: int | None = None,
    grid: int | None = None,
) -> None:
    """Fills *selected* [B, Hkv, k_max] and *counts* [B, Hkv] from *scores* [B, Hkv, max_pages].

    *lengths* [B] are tokens before the step's *new_tokens*; *grid* limits the blocks. Raises
    `ValueError` if a shape, a dtype or a size is off.
    """
    batch, heads, max_pages = scores.shape
    for name, array, shape, dtype in (
        ("scores", scores, (batch, heads, max_pages), np.float32),
        ("lengths", lengths, (batch,), np.int32),
        ("selected", selected, (batch, heads, selected.shape[-1]), np.int32),
        ("counts", counts, (batch, heads), np.int32),
    ):
        if array.shape != shape or array.dtype != dtype or not array.flags.c_contiguous:
            raise ValueError(f"topk_select: {name} {array.dtype}{array.shape}, expected {shape}")
    if max_pages % 4 or not 0 < max_pages <= MOST_PAGES:
        raise ValueError(f"topk_select: max_pages {max_pages}, expected a multiple of 4 to 16384")
    if not 0 < budget <= selected.shape[2] or sink < 0 or recent < 0 or new_tokens < 1:
        raise ValueError(
            f"topk_select: budget {budget} of {selected.shape[2]}, sink {sink}, recent {recent}, "
            f"new_tokens {new_tokens}"
        )
    rows = batch * heads
    if threads is None:  # short rows share an SM when there are more of them than SMs
        threads = 256 if rows > backend.sms and max_pages <= 8192 else 512
    if threads % 32 or not 128 <= threads <= 512:
        raise ValueError(f"topk_select: {threads} threads, expected whole warps, 128 to 512")
    blocks = min(rows, grid or backend.sms * 2)
    params = Struct(
        backend,
        PARAMS,
        scores=scores,
        lengths=lengths,
        selected=selected,
        counts=counts,
        batch=batch,
        kv_heads=heads,
        new_tokens=new_tokens,
        max_pages=max_pages,
        k_max=selected.shape[2],
        budget=budget,
        sink=sink,
        recent=recent,
    )
    kernel = backend.function("topk_select", "topk_select", defines(page_tokens))
    kernel(blocks, threads, (params,), shared_bytes(threads, blocks, rows))
