"""Appends to random histories: every byte of cache, bounds and tail must be the expected one.

What stands behind a request's length is random too: rejected drafts of the step before.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..cache_layout import pack, unpack
from ..checking import equal, on_device, on_host
from ..element import decode, encode
from . import launch, reference

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..backend import Array, Backend

Host = np.ndarray[Any, Any]
BASE = {"head_dim": 128, "page_tokens": 16, "element": "bf16", "threads": 128}


def cases(small: bool) -> Iterator[dict[str, Any]]:
    """Shapes to check: *small* ones for the CPU, the models' own for the GPU."""
    names = ("requests", "tokens", "kv_heads", "max_pages")
    shapes = [(3, 1, 2, 3), (4, 5, 2, 3)] if small else [(64, 1, 8, 4), (33, 5, 8, 5), (5, 8, 3, 9)]
    for bits in (16, 8, 4):
        for shape in shapes:
            yield {**BASE, "bits": bits, **dict(zip(names, shape, strict=True))}
        last = {**BASE, "bits": bits, **dict(zip(names, shapes[-1], strict=True))}
        yield {**last, "element": "fp16", "head_dim": 64, "page_tokens": 64, "blocks": 3}
    yield {**last, "bits": 16, "tokens": 35, "max_pages": 4}


def check(backend: Backend, case: dict[str, Any], rng: np.random.Generator) -> float:
    """0.0; raises `CheckError` if any byte of *case* is wrong."""
    state = State(case, rng)
    arrays = state.on(backend)
    append(backend, case, arrays)
    return state.verify({name: on_host(backend, array) for name, array in arrays.items()})


def append(backend: Backend, case: dict[str, Any], arrays: dict[str, Array]) -> None:
    """Launches *case* on what `State.on` returned."""
    launch.append(
        backend,
        **arrays,
        page_tokens=case["page_tokens"],
        element=case["element"],
        bits=case["bits"],
        most_tokens=case.get("most_tokens"),
        blocks=case.get("blocks"),
        threads=case["threads"],
    )


@dataclass
class Plain:
    """Keys or values as a reader of the cache finds them, and their pages."""

    history: Host
    """Of ELEMENT, [requests, positions, kv_heads, head_dim]."""
    new: Host
    """[requests, tokens, kv_heads, head_dim]."""


class State:
    """The arrays of one launch, before it and as expected after it."""

    def __init__(self, case: dict[str, Any], rng: np.random.Generator) -> None:
        self.case, self.element, self.bits = case, case["element"], case["bits"]
        self.page, self.tokens = case["page_tokens"], case["tokens"]
        requests, heads, dim = case["requests"], case["kv_heads"], case["head_dim"]
        capacity = case["max_pages"] * self.page
        self.k, self.v = (
            Plain(*(self._random((requests, n, heads, dim), rng) for n in (capacity, self.tokens)))
            for _ in range(2)
        )
        self.lengths = some_lengths(requests, capacity - self.tokens, self.page, rng)
        if not case.get("idle", True):
            self.lengths[self.lengths < 0] = 0
        count = requests * case["max_pages"] + 2
        self.table = rng.permutation(count)[: count - 2].astype(np.int32).reshape(requests, -1)
        self.cache, self.tail = self._packed([self.k.history, self.v.history], rng)
        self.minmax = self._random((count, heads, 2, dim), rng)

    def on(self, backend: Backend) -> dict[str, Array]:
        """The arguments of `launch.append` on *backend*."""
        arrays = {"k": self.k.new, "v": self.v.new, "cache": self.cache.copy()}
        arrays |= {"minmax": self.minmax.copy(), "table": self.table, "lengths": self.lengths}
        if self.bits == 4:
            arrays["tail"] = self.tail.copy()
        return {name: on_device(backend, array) for name, array in arrays.items()}

    def verify(self, got: dict[str, Host]) -> float:
        """0.0; raises `CheckError`, naming the first byte, unless *got* is the expected state."""
        cache, tail, minmax = self.cache.copy(), self.tail.copy(), self.minmax.copy()
        for b in np.flatnonzero(self.lengths >= 0):
            length = int(self.lengths[b])
            after = [reference.append(x.history[b], x.new[b], length) for x in (self.k, self.v)]
            pages = [self._pages(x) for x in after]
            touched = range(length // self.page, -(-(length + self.tokens) // self.page))
            ids = self.table[b]
            if self.bits == 4:
                for p in touched:
                    tail[b, p % 2] = pack(pages[0][p], pages[1][p], 16)
                full = reference.packed_page(
                    length, self.page, self.case.get("most_tokens") or self.tokens
                )
                if full is not None:
                    cache[ids[full]] = self._pack(pages[0][full], pages[1][full])
            else:
                for p in touched:
                    cache[ids[p]] = self._pack(pages[0][p], pages[1][p])
            keys = self._as_read(after[0])
            for p, low, high in reference.bounds(keys, length, self.tokens, self.page):
                minmax[ids[p]] = encode(np.stack([low, high], axis=1), self.element)
        equal(got["cache"], cache, "cache")
        equal(got["minmax"].view(np.uint16), minmax.view(np.uint16), "minmax")  # NaNs too
        return equal(got["tail"], tail, "tail") if self.bits == 4 else 0.0

    def _random(self, shape: tuple[int, ...], rng: np.random.Generator) -> Host:
        values: Host = encode(rng.standard_normal(shape, np.float32), self.element)
        return values

    def _packed(self, plain: list[Host], rng: np.random.Generator) -> tuple[Host, Host]:
        """Cache and tail before the step; what is in neither is noise that must survive."""
        requests, pages = self.table.shape
        k, v = (np.stack([self._pages(x) for x in part]) for part in plain)
        if self.bits != 4:
            packed = self._pack(k, v)
            cache = rng.integers(0, 256, (len(self.table.ravel()) + 2, *packed.shape[2:]), np.uint8)
            cache[self.table] = packed
            return cache, np.zeros(0, np.uint8)
        heads, size = k.shape[2], self._pack(k[0, 0], v[0, 0]).shape[-1]
        cache = rng.integers(0, 256, (requests * pages + 2, heads, size), np.uint8)
        wide = pack(k, v, 16)
        tail = rng.integers(0, 256, (requests, 2, *wide.shape[2:]), np.uint8)
        most = self.case.get("most_tokens") or self.tokens
        for b, length in enumerate(self.lengths):
            page = length // self.page
            # The slot of the page ahead holds the page behind as long as that may be packed.
            other = page - 1 if length % self.page < most else page + 1
            for p in (page, other):
                if length >= 0 and 0 <= p < pages:
                    tail[b, p % 2] = wide[b, p]
        return cache, tail

    def _pages(self, plain: Host) -> Host:
        """[pages, kv_heads, page_tokens, head_dim] of *plain* [positions, kv_heads, head_dim]."""
        return plain.reshape(-1, self.page, *plain.shape[1:]).swapaxes(1, 2)

    def _pack(self, k: Host, v: Host) -> Host:
        if self.bits != 16:
            k, v = decode(k, self.element), decode(v, self.element)
        packed: Host = pack(k, v, self.bits)
        return packed

    def _as_read(self, keys: Host) -> Host:
        """float32 keys [positions, kv_heads, head_dim] as the cache or the tail returns them."""
        plain: Host = decode(keys, self.element)
        if self.bits != 8:
            return plain
        pages = self._pages(plain)
        read: Host = unpack(pack(pages, pages, 8), self.page, plain.shape[-1], 8)[0]
        return read.swapaxes(1, 2).reshape(plain.shape)


def some_lengths(requests: int, most: int, page: int, rng: np.random.Generator) -> Host:
    """int32 [requests] up to *most*: anywhere, around page ends, none at all, idle slots."""
    lengths = rng.integers(0, most + 1, requests)
    near = rng.integers(0, most // page + 1, requests) * page + rng.integers(-2, 3, requests)
    lengths = np.where(rng.random(requests) < 0.4, near.clip(0, most), lengths)
    lengths[rng.random(requests) < 0.1] = -1
    if (lengths < 0).all():
        lengths[0] = most
    result: Host = lengths.astype(np.int32)
    return result
