"""Measuring grid of the page scores: requests, pages, heads, and how unequal the requests are.

The minima and maxima rotate over more than five times the L2 cache. Queries, page table and lengths
are the same in every call and so lie in L2, as in a step whose layers share them.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from ..checking import close, on_device, on_host, poisoned
from ..element import decode, encode
from ..work import Work
from . import launch, reference
from .check import TOLERANCE

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ..backend import Array, Gpu

COLD_BYTES, MOST_BYTES, MOST_CALLS = 320e6, 2.3e9, 300
HEADS = {1: (32, 128), 4: (8, 128), 8: (8, 128)}
"""KV heads and head size by group: 32/32/128, 32/8/128 and 64/8/128."""


def points() -> list[dict[str, Any]]:
    """About 95 points; the target is batch 16, 2048 pages, group 4."""
    grid = [_point(batch, pages) for pages in (2048, 256, 512, 1024, 4096, 8192, 16384)
            for batch in (16, 1, 4, 64, 256)]  # fmt: skip
    grid += [_point(b, p, group=8) for b in (1, 4, 16, 64) for p in (256, 1024, 2048, 4096, 16384)]
    grid += [_point(b, p, group=1) for b in (1, 4, 16) for p in (256, 1024, 2048, 4096)]
    grid += [_point(b, p, head_dim=64) for b in (1, 4, 16, 64) for p in (256, 2048, 8192)]
    grid += [_point(16, p, tokens=t) for p in (512, 2048) for t in (2, 4, 8)]
    grid += [_point(b, p, tokens=4) for b in (1, 4, 64) for p in (512, 2048)]
    grid += [_point(16, 2048, group=8, tokens=8), _point(16, 2048, element="fp16")]
    grid += [_point(16, p, page_tokens=64) for p in (512, 2048)]
    grid += [_point(b, p, lengths=kind) for b, p in ((16, 2048), (64, 512))
             for kind in ("one_long", "lognormal")]  # fmt: skip
    return [p for p in grid if _read_bytes(p) <= MOST_BYTES]


def _point(batch: int, pages: int, group: int = 4, **other: Any) -> dict[str, Any]:
    kv_heads, head_dim = HEADS[group]
    point = {"batch": batch, "pages": pages, "kv_heads": kv_heads, "group": group}
    point |= {"rows": batch * kv_heads, "head_dim": head_dim, "tokens": 1, "page_tokens": 16}
    return {**point, "lengths": "even", "element": "bf16", **other}


def _read_bytes(point: dict[str, Any]) -> int:
    return int(4 * point["batch"] * point["pages"] * point["kv_heads"] * point["head_dim"])


def prepare(gpu: Gpu, point: dict[str, Any], rng: np.random.Generator) -> Work:
    """See `Work`; baselines are a batched product over contiguous pages, without a page table."""
    xp, element, batch, heads = gpu.xp, point["element"], point["batch"], point["kv_heads"]
    pages = page_counts(point, rng)
    most, total, dim = int(pages.max()), int(pages.sum()), point["head_dim"]
    copies = min(int(COLD_BYTES / _read_bytes(point)) + 1, MOST_CALLS)
    minmax = _bounds(gpu, (copies, total, heads, 2, dim), element, rng)
    shape = (batch, point["tokens"], heads * point["group"], dim)
    host_q = encode(rng.standard_normal(shape, np.float32), element)
    table = np.zeros((batch, most), np.int32)
    table[np.arange(most) < pages[:, None]] = rng.permutation(total)
    lengths = (pages * point["page_tokens"] - point["tokens"]).astype(np.int32)
    q, ids = on_device(gpu, host_q), on_device(gpu, table)
    scores = poisoned(gpu, (batch, heads, most), np.float32)
    options = {"page_tokens": point["page_tokens"], "element": element}
    rest = (ids, on_device(gpu, lengths), scores)
    calls = [partial(launch.page_scores, gpu, q, part, *rest, **options) for part in minmax]

    def check() -> float:
        scores.view(np.uint8)[...] = 0xFF
        calls[0]()
        worst = 0.0
        for b in {0, int(pages.argmax()), batch - 1}:
            used = table[b, : pages[b]]
            for h in (0, heads - 1):
                part = decode(on_host(gpu, minmax[0][xp.asarray(used), h]), element)
                rows = decode(host_q[b].reshape(-1, heads, point["group"], dim)[:, h], element)
                want = reference.page_scores(rows.reshape(-1, dim), part[:, 0], part[:, 1])
                got = on_host(gpu, scores[b, h, : pages[b]])
                worst = max(worst, close(got, want, TOLERANCE, f"scores[{b}, {h}]"))
        return worst

    moved = 4 * total * heads * dim + q.nbytes + 4 * total * (heads + 1)
    flops = 4 * total * heads * dim * point["group"] * point["tokens"]
    return Work(calls, check, float(moved), float(flops), _baselines(gpu, point, minmax))


def page_counts(point: dict[str, Any], rng: np.random.Generator) -> np.ndarray[Any, Any]:
    """Pages of each request, int64 [batch]; `pages` is their mean whatever the distribution."""
    batch, mean = point["batch"], point["pages"]
    match point["lengths"]:
        case "even":
            return np.full(batch, mean)
        case "one_long":  # one request holds three quarters of all pages
            pages = np.full(batch, batch * mean // 4 // (batch - 1))
        case "lognormal":
            weight = rng.lognormal(0.0, 1.0, batch)
            pages = np.maximum(1, (weight / weight.sum() * batch * mean).astype(int))
        case other:
            raise ValueError(f"lengths {other!r}, expected even, one_long or lognormal")
    pages[pages.argmax()] += batch * mean - pages.sum()
    return pages


def _bounds(gpu: Gpu, shape: tuple[int, ...], element: str, rng: np.random.Generator) -> Array:
    """Random minima (negative) and maxima (positive) of magnitude 0.5 to 3."""
    low, high = (0x3F00, 0x4040) if element == "bf16" else (0x3800, 0x4200)
    flat = gpu.xp.empty(int(np.prod(shape)), np.uint16)
    block = on_device(gpu, rng.integers(low, high, min(flat.size, 8 << 20), np.uint16))
    for start in range(0, flat.size, block.size):
        part = flat[start : start + block.size]
        part[...] = gpu.xp.roll(block, int(rng.integers(block.size)))[: part.size]
    bounds = flat.reshape(shape)
    bounds[..., 0, :] |= np.uint16(0x8000)
    return bounds if element == "bf16" else bounds.view(np.float16)


def _baselines(
    gpu: Gpu, point: dict[str, Any], minmax: Array
) -> dict[str, Sequence[Callable[[], None]]]:
    """`torch_bmm` in bf16, at a few points: [kv_heads * batch, pages, 2 d] by [2 d, group]."""
    if not (point["group"] == 4 and point["tokens"] == 1 and point["head_dim"] == 128):
        return {}
    if (
        point["lengths"] != "even"
        or point["pages"] not in (512, 2048, 8192)
        or point["element"] != "bf16"
    ):
        return {}
    try:
        import torch
    except ImportError:
        return {}
    rows, width = point["rows"], 2 * point["head_dim"]
    # The same memory read as if each (request, head) had its pages in one piece.
    sources = [
        torch.as_tensor(part.reshape(-1).view(np.int16), device="cuda")
        .view(torch.bfloat16)
        .view(rows, point["pages"], width)
        for part in minmax
    ]
    q = torch.randn(rows, width, point["group"], device="cuda", dtype=torch.bfloat16)
    product = torch.empty(rows, point["pages"], point["group"], device="cuda", dtype=q.dtype)
    best = torch.empty(rows, point["pages"], device="cuda", dtype=q.dtype)

    def call(source: Any) -> None:
        stream = torch.cuda.ExternalStream(gpu.xp.cuda.get_current_stream().ptr)
        with torch.cuda.stream(stream):
            torch.bmm(source, q, out=product)
            torch.amax(product, dim=2, out=best)

    return {"torch_bmm_amax": [partial(call, source) for source in sources]}
