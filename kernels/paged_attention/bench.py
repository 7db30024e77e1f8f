"""Measuring grid of paged decode attention: dense, sparse, skewed, and several new tokens.

A point's `length` is the mean context with the new tokens; `budget` tokens are attended a KV head
(0: all). Floors count K and V with scales, page lists, queries and outputs; not the splits' partial
results, which stay in L2.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import cache_layout
from ..checking import close, poisoned
from ..element import decode, encode
from ..work import Work
from .launch import Shape, prepared
from .reference import attention_rows

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ..backend import Array, Gpu

COLD_BYTES = 320e6
"""Calls rotate over at least this much, five times the L2 cache."""
LARGEST_BYTES = 40e9
BASE_BYTES = 64e6
"""Random bytes made once; a larger cache repeats them page by page."""
HEADS = {"32/8/128": (8, 4, 128), "32/8/64": (8, 4, 64), "32/32/128": (32, 1, 128),
         "64/8/128": (8, 8, 128)}  # fmt: skip
K = 1024


def points() -> list[dict[str, Any]]:
    """About 270 points of at most 40 GB."""
    batches = (1, 2, 4, 8, 16, 32, 64, 128, 256)
    some, others = (1, 4, 16, 64), ("32/8/64", "32/32/128", "64/8/128")
    grid = [_point(b, n) for b, n in product(batches, (128, 512, 2 * K, 8 * K, 32 * K, 128 * K))]
    grid += [_point(b, n, page=64) for b, n in product(some, (512, 2 * K, 8 * K, 32 * K, 128 * K))]
    grid += [
        _point(b, n, page=page, bits=bits)
        for bits, page, b, n in product((8, 4), (16, 64), some, (2 * K, 8 * K, 32 * K, 128 * K))
    ]
    grid += [
        _point(b, n, heads) for heads, b, n in product(others, (1, 8, 64), (512, 4 * K, 32 * K))
    ]
    grid += [
        _point(b, n, heads, 64, bits)
        for heads, bits, b, n in product(others, (8, 4), (4, 32), (4 * K, 32 * K))
    ]
    grid += [
        _point(b, 4 * K, bits=bits, skew=skew)
        for bits, b, skew in product((16, 8), (16, 64), ("long", "lognormal"))
    ]
    grid += [
        _point(b, 32 * K, page=page, budget=budget)
        for page, b, budget in product((16, 64), some, (512, 1 * K, 2 * K, 4 * K, 8 * K))
    ]
    grid += [
        _point(b, n, page=page, budget=2 * K)
        for page, b, n in product((16, 64), (1, 16), (8 * K, 128 * K))
    ]
    grid += [
        _point(16, 32 * K, page=page, bits=bits, budget=budget)
        for page, bits, budget in product((16, 64), (8, 4), (512, 2 * K, 8 * K))
    ]
    grid += [
        _point(b, n, tokens=tokens)
        for tokens, b, n in product((2, 4, 8), (1, 4, 16, 64), (2 * K, 8 * K, 32 * K))
    ]
    grid += [
        _point(b, n, page=page, tokens=4, budget=2 * K)
        for page, b, n in product((16, 64), (1, 16, 64), (8 * K, 32 * K))
    ]
    return [point for point in grid if _cache_bytes(point) <= LARGEST_BYTES]


def _point(
    requests: int,
    length: int,
    heads: str = "32/8/128",
    page: int = 16,
    bits: int = 16,
    tokens: int = 1,
    budget: int = 0,
    skew: str = "none",
) -> dict[str, Any]:
    return {"requests": requests, "length": length, "heads": heads, "page": page, "bits": bits,
            "tokens": tokens, "budget": budget, "skew": skew}  # fmt: skip


def _token_bytes(point: dict[str, Any]) -> float:
    kv_heads, _, width = HEADS[point["heads"]]
    page: int = point["page"]
    return kv_heads * cache_layout.page_bytes(page, width, point["bits"]) / page


def _cache_bytes(point: dict[str, Any]) -> float:
    return float(point["requests"] * point["length"] * _token_bytes(point))


def prepare(gpu: Gpu, point: dict[str, Any], rng: np.random.Generator) -> Work:
    """The calls of *point*, each on its own pages or its own selection of pages."""
    return _Case(gpu, point, rng).work()


class _Case:
    """Arrays of one point."""

    def __init__(self, gpu: Gpu, point: dict[str, Any], rng: np.random.Generator) -> None:
        self.gpu, self.point, self.rng = gpu, point, rng
        self.kv_heads, group, width = HEADS[point["heads"]]
        # A point may name its build, to compare launches.
        build = {k: point[k] for k in ("workers", "shared_kb", "blocks_per_sm") if k in point}
        self.shape = Shape(
            width, group, point["tokens"], point["page"], point["bits"], **build
        )  # fmt: skip
        self.totals = _lengths(point, rng)  # with the new tokens
        self.pages = -(-self.totals // point["page"])
        budget = point["budget"]
        self.attended = np.minimum(self.totals, budget) if budget else self.totals
        per_call = float(self.attended.sum()) * _token_bytes(point)
        copies = min(int(COLD_BYTES / per_call) + 1, 64)
        self.copies, pools = copies, 1 if budget else copies
        self.cache = _random_cache(gpu, self.shape, self.kv_heads, int(self.pages.sum()) * pools)
        self.tables = [self._table(i % pools, pools) for i in range(copies)]
        xp = gpu.xp
        self.lengths = xp.asarray((self.totals - point["tokens"]).astype(np.int32))
        q_shape = (len(self.totals), point["tokens"], self.kv_heads * group, width)
        self.q = encode(xp.asarray(rng.standard_normal(q_shape, np.float32)), "bf16")
        self.tail = self._tail() if point["bits"] == 4 else None
        self.selections = [self._select() for _ in range(copies)] if budget else [None] * copies

    def _table(self, index: int, pools: int) -> Array:
        """A shuffled table over this call's share of the pages, int32 [B, max_pages]."""
        total = int(self.pages.sum())
        if index == 0:
            self.order = self.rng.permutation(total * pools).astype(np.int32)
        order = self.order[index * total : (index + 1) * total]
        table = np.zeros((len(self.pages), int(self.pages.max())), np.int32)
        table[np.arange(table.shape[1]) < self.pages[:, None]] = order
        return self.gpu.xp.asarray(table)

    def _tail(self) -> Array:
        page = self.shape.page_tokens * self.shape.head_dim
        size = (len(self.totals), 2, self.kv_heads, 2 * page)
        plain = self.gpu.xp.asarray(self.rng.standard_normal(size, np.float32))
        return encode(plain, "bf16").view(np.uint8)

    def _select(self) -> tuple[Array, Array]:
        """Ascending random pages, the last one always: int32 [B, Hkv, k], [B, Hkv]."""
        k = self.point["budget"] // self.point["page"]
        rows = (len(self.totals), self.kv_heads)
        selected, counts = np.zeros((*rows, k), np.int32), np.zeros(rows, np.int32)
        for b, pages in enumerate(self.pages):
            n = min(k, int(pages))
            for h in range(self.kv_heads):
                some = self.rng.permutation(int(pages) - 1)[: n - 1]
                selected[b, h, :n] = np.sort(np.append(some, pages - 1))
                counts[b, h] = n
        xp = self.gpu.xp
        return xp.asarray(selected), xp.asarray(counts)

    def work(self) -> Work:
        """See `Work`."""
        shape, point = self.shape, self.point
        buffers = shape.buffers(self.gpu, len(self.totals), self.kv_heads)
        out = poisoned(self.gpu, self.q.shape, np.uint16)
        calls = []
        for table, chosen in zip(self.tables, self.selections, strict=True):
            selected, counts = chosen or (None, None)
            calls.append(
                prepared(
                    self.gpu,
                    shape,
                    self.q,
                    self.cache,
                    table,
                    self.lengths,
                    out,
                    buffers,
                    tail=self.tail,
                    selected=selected,
                    counts=counts,
                )
            )

        def check() -> float:
            out.view(np.uint8)[...] = 0xFF
            calls[0]()
            return max(self._row_error(out) for _ in range(4))

        tokens = float(self.attended.sum())
        heads = self.kv_heads * shape.group * point["tokens"]
        lists = tokens / point["page"] * 4 * (self.kv_heads if point["budget"] else 1)
        return Work(
            calls=calls,
            check=check,
            bytes=tokens * _token_bytes(point)
            + lists
            + 4.0 * len(self.totals) * heads * shape.head_dim,
            flops=4.0 * tokens * heads * shape.head_dim,
            baselines=self._baselines(),
        )

    def _row_error(self, out: Array) -> float:
        """Error of one request and KV head, chosen at random, against float64."""
        b, h = (int(self.rng.integers(n)) for n in (len(self.totals), self.kv_heads))
        shape, xp = self.shape, self.gpu.xp
        size, width = shape.page_tokens, shape.head_dim
        chosen = self.selections[0]
        pages = xp.arange(int(self.pages[b]))
        if chosen is not None:
            pages = chosen[0][b, h, : int(chosen[1][b, h])]
        packed = self.cache[self.tables[0][b, pages], h]
        k, v = cache_layout.unpack(packed, size, width, shape.kv_bits)
        if shape.kv_bits == 16:
            k, v = decode(k, "bf16"), decode(v, "bf16")
        length = int(self.totals[b]) - shape.tokens
        if self.tail is not None:
            for i in range(len(pages) - 2, len(pages)):
                page = int(pages[i]) if i >= 0 else -1
                if page >= length // size:
                    tail = cache_layout.unpack(self.tail[b, page % 2, h], size, width, 16)
                    k[i], v[i] = (decode(x, "bf16") for x in tail)
        positions = (pages[:, None] * size + xp.arange(size)).ravel()
        seen = positions < int(self.totals[b])
        k, v = (x.reshape(-1, width)[seen] for x in (k, v))
        heads = slice(h * shape.group, (h + 1) * shape.group)
        q = decode(self.q[b, :, heads], "bf16")
        want = attention_rows(q, k, v, positions[seen], length, width**-0.5)
        return close(decode(out[b, :, heads], "bf16"), want, 2e-2)

    def _baselines(self) -> dict[str, Sequence[Callable[[], None]]]:
        """PyTorch's attention over contiguous K and V, query heads of a KV head as its queries."""
        point, shape = self.point, self.shape
        plain = (point["bits"], point["tokens"], point["budget"], point["skew"])
        if plain != (16, 1, 0, "none") or point["length"] % point["page"]:
            return {}
        try:
            import torch
        except ImportError:
            return {}
        requests, length = point["requests"], point["length"]
        half = requests * self.kv_heads * length * shape.head_dim
        words = self.cache.view(np.uint16).ravel()
        size = (requests, self.kv_heads, length, shape.head_dim)
        q = torch.as_tensor(self.q.view(np.int16), device="cuda").view(torch.bfloat16)
        q = q.view(requests, self.kv_heads, shape.group, shape.head_dim)

        def baseline(index: int) -> Callable[[], None]:
            start = index * 2 * half
            both = torch.as_tensor(words[start : start + 2 * half].view(np.int16), device="cuda")
            k, v = (both[i * half : (i + 1) * half].view(torch.bfloat16).view(size) for i in (0, 1))

            def call() -> None:
                stream = torch.cuda.ExternalStream(self.gpu.xp.cuda.get_current_stream().ptr)
                with torch.cuda.stream(stream):
                    torch.nn.functional.scaled_dot_product_attention(q, k, v)

            return call

        return {"torch_sdpa": [baseline(i) for i in range(self.copies)]}


def _lengths(point: dict[str, Any], rng: np.random.Generator) -> np.ndarray[Any, Any]:
    """Tokens of each request, the new ones included; their mean is the point's length."""
    requests, mean = point["requests"], point["length"]
    match point["skew"]:
        case "long":  # one request has half of all tokens
            totals = np.full(requests, max(1, requests * mean // (2 * (requests - 1))))
            totals[requests // 3] = requests * mean // 2
        case "lognormal":
            totals = rng.lognormal(0, 1, requests)
            totals = np.maximum(point["tokens"], totals / totals.mean() * mean).astype(np.int64)
        case _:
            totals = np.full(requests, mean)
    return totals.astype(np.int64)


def _random_cache(gpu: Gpu, shape: Shape, kv_heads: int, pages: int) -> Array:
    """Random pages, uint8 [pages, Hkv, page_bytes]: repeats of a block of `BASE_BYTES`."""
    xp = gpu.xp
    base = _base_pages(gpu, shape, kv_heads)
    cache = xp.empty((pages, kv_heads, shape.page_bytes), np.uint8)
    for start in range(0, pages, len(base)):
        count = min(len(base), pages - start)
        cache[start : start + count] = base[:count]
    return cache


@lru_cache(maxsize=2)
def _base_pages(gpu: Gpu, shape: Shape, kv_heads: int) -> Array:
    """Random packed pages: the order inside a block does not matter, but scales have places."""
    xp, bits = gpu.xp, shape.kv_bits
    xp.random.seed(1234)
    pages = int(BASE_BYTES / (kv_heads * shape.page_bytes)) + 1
    if bits == 16:
        size = (pages, kv_heads, shape.page_bytes // 2)
        return encode(xp.random.standard_normal(size, np.float32), "bf16").view(np.uint8)
    size = (pages, kv_heads, shape.page_bytes)
    block = xp.random.randint(1, 256, size, dtype=np.uint8)
    p = cache_layout.places(shape.page_tokens, shape.head_dim, bits)
    if bits == 8:
        at = xp.asarray(np.concatenate([p.k_scale, p.v_scale]).ravel() // 4)
        block.view(np.float32)[..., at] = xp.random.uniform(0.01, 0.02, (*size[:2], at.size))
        return block
    at = xp.asarray(np.unique(np.concatenate([p.k_scale.ravel(), p.v_scale.ravel()])) // 2)
    scale = xp.random.uniform(0.1, 0.3, (*size[:2], at.size)).astype(np.float16)
    block.view(np.float16)[..., at] = scale
    block.view(np.float16)[..., at + 4] = -7.5 * scale
    return block
