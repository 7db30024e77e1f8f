"""Random cases for paged attention, checked against `reference`."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import cache_layout
from ..checking import close, on_device, on_host, poisoned
from ..element import decode, encode
from .launch import Shape, paged_attention
from .reference import attention_rows

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..backend import Array, Backend

TOLERANCE = 8e-3
"""Of the norm: queries, weights and the result are rounded to 16 bits (bf16: 4e-3 each)."""


def cases(small: bool) -> Iterator[dict[str, Any]]:
    """Cases for the CPU (few builds) or for the GPU (all head shapes, page sizes and bits)."""
    if small:
        builds = [
            {"kv_bits": 16, "group": 4, "tokens": 2, "page_tokens": 16, "head_dim": 64},
            {"kv_bits": 8, "group": 8, "tokens": 1, "page_tokens": 64, "head_dim": 128},
            {"kv_bits": 4, "group": 4, "tokens": 3, "page_tokens": 64, "head_dim": 64},
        ]
        for build in builds:
            for sparse in (False, True):
                yield {**build, "element": "bf16", "kv_heads": 2, "lengths": [70, -1, 0, 203],
                       "sparse": sparse, "workers": 4, "shared_kb": 60}  # fmt: skip
        return
    heads = [(8, 4, 128), (8, 4, 64), (32, 1, 128), (8, 8, 128)]
    for (kv_heads, group, width), page, bits in product(heads, (16, 64), (16, 8, 4)):
        for tokens, sparse in [(1, False), (1, True), (4, False), (4, True)]:
            yield {"kv_bits": bits, "group": group, "tokens": tokens, "page_tokens": page,
                   "head_dim": width, "element": "bf16" if tokens == 1 else "fp16",
                   "kv_heads": kv_heads, "sparse": sparse,
                   "lengths": [5000, 0, 17, -1, 63, 64, 1023, 12345]}  # fmt: skip


def check(backend: Backend, case: dict[str, Any], rng: np.random.Generator) -> float:
    """Relative error of *case*; raises `CheckError` if it is too large.

    Physical pages that no request uses, and tokens after a request's last, hold 0xff bytes: NaN.
    """
    names = ("head_dim", "group", "tokens", "page_tokens", "kv_bits", "element")
    extra = ("workers", "shared_kb", "blocks_per_sm")
    shape = Shape(**{k: case[k] for k in names}, **{k: case[k] for k in extra if k in case})
    cache = RandomCache(shape, case["kv_heads"], case["lengths"], rng, case["sparse"])
    arrays = {k: None if v is None else on_device(backend, v) for k, v in cache.arrays().items()}
    out = poisoned(backend, cache.q.shape, cache.q.dtype)
    buffers = shape.buffers(backend, len(cache.lengths), cache.kv_heads)
    for _ in range(2):  # the second launch finds the tickets as the first left them
        paged_attention(backend, shape, out=out, buffers=buffers, **arrays)
    if on_host(backend, buffers[1]).any():
        raise AssertionError("tickets are not zero after a launch")
    got, idle = on_host(backend, out), cache.lengths < 0
    if (got[idle].view(np.uint16) != 0xFFFF).any():
        raise AssertionError("an idle slot's output was written")
    return close(decode(got, shape.element)[~idle], cache.expected()[~idle], TOLERANCE)


class RandomCache:
    """Requests of *lengths* (negative: idle) with random tokens, packed into shuffled pages."""

    def __init__(
        self,
        shape: Shape,
        kv_heads: int,
        lengths: list[int],
        rng: np.random.Generator,
        sparse: bool,
    ) -> None:
        self.shape, self.kv_heads = shape, kv_heads
        self.lengths = np.array(lengths, np.int32)
        size, tokens = shape.page_tokens, shape.tokens
        self.pages = np.where(self.lengths < 0, 0, -(-(self.lengths + tokens) // size))
        total, self.max_pages = int(self.pages.sum()), int(self.pages.max())
        order = rng.permutation(total + 3)[:total]
        self.table = np.full((len(lengths), self.max_pages), total, np.int32)
        starts = np.cumsum(self.pages) - self.pages
        for b, (start, count) in enumerate(zip(starts, self.pages, strict=True)):
            self.table[b, :count] = order[start : start + count]
        width = (total + 3, kv_heads, size, shape.head_dim)
        self.k, self.v = (self._values(rng, width) for _ in "kv")
        self.k[..., 3] *= 4  # an outlier channel, as real keys have
        q_shape = (len(lengths), tokens, kv_heads * shape.group, shape.head_dim)
        self.q = encode(2 * rng.standard_normal(q_shape, np.float32), shape.element)
        self.selected: Array | None = None
        self.counts: Array | None = None
        if sparse:
            self.selected, self.counts = self._select(rng)
        self.tail: Array | None = None
        self._pack()

    def _values(self, rng: np.random.Generator, size: tuple[int, ...]) -> Array:
        plain = rng.standard_normal(size, np.float32)
        return decode(encode(plain, self.shape.element), self.shape.element)

    def _select(self, rng: np.random.Generator) -> tuple[Array, Array]:
        """A third of the pages, the last always; int32 [B, Hkv, k_max], [B, Hkv]."""
        rows = (len(self.lengths), self.kv_heads)
        k_max = max(2, self.max_pages // 3)
        selected, counts = np.full((*rows, k_max), -1, np.int32), np.zeros(rows, np.int32)
        for b, pages in enumerate(self.pages):
            for h in range(self.kv_heads):
                last = int(self.lengths[b]) // self.shape.page_tokens  # every row sees some of it
                n = min(k_max - 1, last)
                if pages:
                    some = np.sort(rng.choice(last, n, replace=False)) if n else np.zeros(0)
                    selected[b, h, : n + 1], counts[b, h] = [*some, last], n + 1
        return selected, counts

    def _pack(self) -> None:
        shape = self.shape
        if shape.kv_bits == 16:
            k, v = (encode(x, shape.element) for x in (self.k, self.v))
            self.cache = cache_layout.pack(k, v, 16)
        else:
            self.cache = cache_layout.pack(self.k, self.v, shape.kv_bits)
        size = (shape.page_tokens, shape.head_dim)
        if shape.kv_bits == 4:
            self._pack_tail()
            exact = self.k, self.v
            self.k, self.v = cache_layout.unpack(self.cache, *size, 4)
            self._restore_tail(*exact)
        elif shape.kv_bits == 8:
            self.k, self.v = cache_layout.unpack(self.cache, *size, 8)
        if shape.kv_bits != 4:
            self._poison()
        used = np.unique(np.concatenate([self.table[b, :n] for b, n in enumerate(self.pages)]))
        unused = np.setdiff1d(np.arange(len(self.cache)), used)
        self.cache[unused] = 0xFF

    def _poison(self) -> None:
        """Tokens after the last become 0xff in K, V and scales."""
        bits, size = self.shape.kv_bits, self.shape.page_tokens
        p = cache_layout.places(size, self.shape.head_dim, bits)
        for b, length in enumerate(self.lengths):
            used = (int(length) + self.shape.tokens) % size
            if length < 0 or used == 0:
                continue
            page = self.cache[self.table[b, self.pages[b] - 1]]
            values = page.view(np.uint16 if bits == 16 else np.uint8)
            for place in (p.k, p.v):
                values[:, place[used:]] = 0xFFFF if bits == 16 else 0xFF
            if bits == 8:
                for place in (p.k_scale, p.v_scale):
                    page.view(np.uint32)[:, place[used:, 0] // 4] = 0xFFFFFFFF

    def _tail_pages(self) -> Iterator[tuple[int, int]]:
        for b, length in enumerate(self.lengths):
            if length >= 0:
                for page in range(length // self.shape.page_tokens, self.pages[b]):
                    yield b, int(page)

    def _pack_tail(self) -> None:
        """Pages that are not full of committed tokens, in 16 bits; their cache pages are poison."""
        shape = self.shape
        page_bytes = cache_layout.page_bytes(shape.page_tokens, shape.head_dim, 16)
        size = (len(self.lengths), 2, self.kv_heads, page_bytes)
        tail = self.tail = np.full(size, 0xFF, np.uint8)
        for b, page in self._tail_pages():
            at = self.table[b, page]
            k, v = (encode(x[at], shape.element).view(np.uint16) for x in (self.k, self.v))
            used = self.lengths[b] + shape.tokens - page * shape.page_tokens
            k[:, used:], v[:, used:] = 0xFFFF, 0xFFFF
            tail[b, page % 2] = cache_layout.pack16(k, v)

    def _restore_tail(self, k: Array, v: Array) -> None:
        for b, page in self._tail_pages():
            at = self.table[b, page]
            self.k[at], self.v[at], self.cache[at] = k[at], v[at], 0xFF

    def arrays(self) -> dict[str, Array | None]:
        """The launcher's arrays, NumPy."""
        return {
            "q": self.q, "cache": self.cache, "tail": self.tail, "table": self.table,
            "lengths": self.lengths, "selected": self.selected, "counts": self.counts,
        }  # fmt: skip

    def expected(self) -> Array:
        """What attention gives, float64 [B, T, Hq, D]; idle slots are zero."""
        shape, q = self.shape, decode(self.q, self.shape.element).astype(np.float64)
        want = np.zeros(q.shape)
        for b, length in enumerate(self.lengths):
            if length < 0:
                continue
            for h in range(self.kv_heads):
                pages = np.arange(self.pages[b])
                if self.selected is not None and self.counts is not None:
                    pages = self.selected[b, h, : self.counts[b, h]]
                at = self.table[b, pages]
                positions = pages[:, None] * shape.page_tokens + np.arange(shape.page_tokens)
                seen = positions.ravel() < length + shape.tokens
                k, v = (x[at, h].reshape(-1, shape.head_dim)[seen] for x in (self.k, self.v))
                heads = slice(h * shape.group, (h + 1) * shape.group)
                want[b, :, heads] = attention_rows(
                    q[b, :, heads], k, v, positions.ravel()[seen], int(length), shape.head_dim**-0.5
                )
        return want
