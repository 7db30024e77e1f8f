"""What a decode step reads and changes besides the weights: slots, text, paged keys and values."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ..cache_layout import pack, page_bytes
from ..element import decode, encode
from ..loop_control.state import State
from .weights import random_bf16

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..backend import Array, Backend
    from .shape import Shape

POOL = 512
"""Pages of random keys and values that are made; the others repeat them."""


class Pool:
    """Pages of all layers; any number of states may use one pool in turn.

    `cache` is uint8 [layers, pages, Hkv, page bytes], `minmax` bf16 [layers, pages, Hkv, 2, D].
    Every page is full of keys and values N(0, 1) with their right bounds.
    """

    def __init__(
        self,
        backend: Backend,
        shape: Shape,
        pages: int,
        page_tokens: int = 16,
        kv_bits: int = 16,
        seed: int = 1,
    ) -> None:
        xp: Any = backend.xp
        self.pages, self.page_tokens, self.kv_bits = pages, page_tokens, kv_bits
        heads, width = shape.kv_heads, shape.head_dim
        size = page_bytes(page_tokens, width, kv_bits)
        self.cache: Array = xp.empty((shape.layers, pages, heads, size), np.uint8)
        self.minmax: Array = xp.empty((shape.layers, pages, heads, 2, width), np.uint16)
        some, bounds = _random_pages(
            backend, (min(pages, POOL), heads, page_tokens, width), kv_bits, seed
        )
        for layer in range(shape.layers):
            for begin in range(0, pages, POOL):
                count = min(POOL, pages - begin)
                self.cache[layer, begin : begin + count] = some[:count]
                self.minmax[layer, begin : begin + count] = bounds[:count]


def _random_pages(
    backend: Backend, shape: tuple[int, ...], bits: int, seed: int
) -> tuple[Array, Array]:
    """Packed pages and the least and largest key of each channel."""
    xp = backend.xp
    k, v = (random_bf16(backend, shape, (seed << 20) - 1 - i, 0.0, 1.0) for i in range(2))
    keys, values = decode(k, "bf16"), decode(v, "bf16")
    bounds = xp.stack([keys.min(axis=2), keys.max(axis=2)], axis=2)
    if bits == 8:  # bounds hold what is read back
        scale = abs(keys).max(axis=3, keepdims=True) / np.float32(127)
        back = xp.rint(keys / scale) * scale
        bounds = xp.stack([back.min(axis=2), back.max(axis=2)], axis=2)
    packed = pack(k, v, 16) if bits == 16 else pack(keys, values, bits)
    return packed, encode(bounds, "bf16")


class DecoderState:
    """B requests of *tokens* new tokens a step, over a pool of pages.

    `slots` is the loop's `State`: lengths, remaining, pages, free ring and the slab that hosts copy
    back. `text` int32 [B, text_size]: text[b, p] for p <= lengths[b] is committed, and the token at
    lengths[b] is the step's input, whose key is not in the cache yet; what stands behind it are
    guesses. `cache` and `minmax` are the pool's.
    """

    def __init__(
        self,
        backend: Backend,
        shape: Shape,
        batch: int,
        tokens: int = 1,
        page_tokens: int = 16,
        pages: int | None = None,
        text_size: int = 1024,
        kv_bits: int = 16,
        sets: int = 1,
        pool: Pool | None = None,
    ) -> None:
        if text_size % (4 * page_tokens):
            raise ValueError(f"text_size {text_size}, expected a multiple of four pages")
        self.backend, self.shape, self.batch, self.tokens = backend, shape, batch, tokens
        self.page_tokens, self.text_size, self.kv_bits = page_tokens, text_size, kv_bits
        max_pages = text_size // page_tokens
        if pool is None:
            pool = Pool(backend, shape, pages or batch * max_pages, page_tokens, kv_bits)
        if (pool.page_tokens, pool.kv_bits) != (page_tokens, kv_bits):
            raise ValueError(f"pool of {pool.page_tokens}-token pages, {pool.kv_bits} bits")
        self.pool = pool
        self.slots = State(
            backend,
            slots=batch,
            new_tokens=tokens,
            max_pages=max_pages,
            pages=pool.pages,
            page_tokens=page_tokens,
            sets=sets,
        )
        self.text: Array = backend.xp.zeros((batch, text_size), np.int32)

    @property
    def cache(self) -> Array:
        """uint8 [layers, pages, Hkv, page bytes]."""
        return self.pool.cache

    @property
    def minmax(self) -> Array:
        """bf16 [layers, pages, Hkv, 2, D]: least and largest key of each page's channels."""
        return self.pool.minmax

    def fill(
        self, lengths: Sequence[int], remaining: Sequence[int], rng: np.random.Generator
    ) -> None:
        """Request b in slot b: *lengths* committed tokens with a cache, random text and guesses.

        A negative length leaves a slot idle. Raises `ValueError` if the text or the pages do not
        suffice.
        """
        if max(lengths, default=0) + self.tokens > self.text_size:
            raise ValueError(f"lengths up to {max(lengths)} in a text of {self.text_size}")
        self.slots.fill(lengths, remaining, rng)
        some = rng.integers(0, self.shape.vocabulary, (self.batch, self.text_size), np.int32)
        self.text[...] = self.backend.xp.asarray(some)

    def save(self, pages: bool = False) -> dict[str, Array]:
        """Copies of slots and text; with *pages* also of cache and bounds.

        Without them, going back is right as long as no page changed hands in between.
        """
        saved: dict[str, Array] = dict(self.slots.save())
        for name in ("text", "cache", "minmax") if pages else ("text",):
            saved[name] = getattr(self, name).copy()
        return saved

    def load(self, saved: dict[str, Array]) -> None:
        """Goes back to what `save` returned."""
        mine = {name: saved[name] for name in ("text", "cache", "minmax") if name in saved}
        self.slots.load({name: array for name, array in saved.items() if name not in mine})
        for name, array in mine.items():
            getattr(self, name)[...] = array
