"""Measuring grid of the append: requests, tokens a step, bits and page size.

Cache and bounds rotate over more than five times the L2 cache where a call touches enough of them;
below 16 requests they stay warm, which a step's other layers would not allow. Page table and
lengths are the same in every call and the new tokens too, as in a step that has just made them.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from ..checking import on_host
from ..work import Work
from .check import State, append

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ..backend import Gpu

COLD_BYTES, MOST_BYTES, MOST_CALLS = 320e6, 12e9, 400
HEADS = 8


def points() -> list[dict[str, Any]]:
    """About 55 points; the target is 64 requests of one token."""
    batches = (64, 1, 4, 16, 256)
    grid = [_point(b, t) for t in (1, 2, 4, 5, 8) for b in batches]
    grid += [_point(b, t, bits=bits) for bits in (8, 4) for t in (1, 4) for b in batches]
    grid += [_point(b, t, page_tokens=64) for t in (1, 5) for b in (1, 16, 64)]
    return [*grid, _point(64, 1, head_dim=64), _point(64, 1, element="fp16")]


def _point(batch: int, tokens: int, **other: Any) -> dict[str, Any]:
    point = {"batch": batch, "rows": batch * HEADS, "kv_heads": HEADS, "tokens": tokens}
    return {**point, "head_dim": 128, "page_tokens": 16, "bits": 16, "element": "bf16", **other}


def prepare(gpu: Gpu, point: dict[str, Any], rng: np.random.Generator) -> Work:
    """See `Work`; the baseline writes whole rows and takes bounds of whole pages, by indexing."""
    case = {**point, "requests": point["batch"], "max_pages": 3, "threads": 128, "idle": False}
    state = State(case, rng)
    arrays = state.on(gpu)
    moved = _bytes(state, point)
    held = sum(arrays[name].nbytes for name in ("cache", "minmax"))
    copies = max(1, int(min(COLD_BYTES / moved + 1, MOST_CALLS, MOST_BYTES / held)))
    sets = [arrays] + [
        {**arrays, **{name: arrays[name].copy() for name in ("cache", "minmax", "tail")
                      if name in arrays}}
        for _ in range(copies - 1)
    ]  # fmt: skip
    calls = [partial(append, gpu, case, one) for one in sets]

    def check() -> float:
        arrays["minmax"].view(np.uint8)[...] = 0xFF
        state.minmax = on_host(gpu, arrays["minmax"]).copy()
        calls[0]()
        return state.verify({name: on_host(gpu, array) for name, array in arrays.items()})

    return Work(calls, check, moved, 0.0, _baselines(gpu, point, state))


def _bytes(state: State, point: dict[str, Any]) -> float:
    """New rows read and written, committed keys of the touched page read, bounds written."""
    page, tokens, dim, bits = (point[k] for k in ("page_tokens", "tokens", "head_dim", "bits"))
    wide = 16 if bits == 4 else bits  # the tail is of 16 bits
    row = dim * wide / 8 + (4 if wide == 8 else 0)
    lengths = state.lengths.astype(np.int64)
    touched = -(-(lengths + tokens) // page) - lengths // page
    total = (lengths % page * row + tokens * 2 * (2 * dim + row) + touched * 4 * dim).sum()
    if bits == 4:
        packed = ((lengths >= page) & (lengths % page < tokens)).sum()
        total += packed * page * (4 * dim + dim + 4)
    return float(total * point["kv_heads"])


def _baselines(
    gpu: Gpu, point: dict[str, Any], state: State
) -> dict[str, Sequence[Callable[[], None]]]:
    """`torch_index` for one bf16 token: two indexed stores, a gather and two reductions."""
    if point["bits"] != 16 or point["tokens"] != 1 or point["element"] != "bf16":
        return {}
    try:
        import torch
    except ImportError:
        return {}
    heads, page, dim = point["kv_heads"], point["page_tokens"], point["head_dim"]
    cache = torch.randn(len(state.cache), heads, 2, page, dim, device="cuda").bfloat16()
    k, v = (torch.randn(point["batch"], heads, dim, device="cuda").bfloat16() for _ in range(2))
    bounds = torch.empty(len(state.cache), heads, 2, dim, device="cuda").bfloat16()
    ids = state.table[np.arange(point["batch"]), state.lengths // page].astype(np.int64)
    pages = torch.as_tensor(ids, device="cuda")
    rows = torch.as_tensor((state.lengths % page).astype(np.int64), device="cuda")

    def call() -> None:
        stream = torch.cuda.ExternalStream(gpu.xp.cuda.get_current_stream().ptr)
        with torch.cuda.stream(stream):
            cache[pages, :, 0, rows] = k
            cache[pages, :, 1, rows] = v
            keys = cache[pages, :, 0]
            bounds[pages] = torch.stack((keys.amin(2), keys.amax(2)), 2)

    return {"torch_index": [call]}
