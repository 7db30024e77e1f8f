"""Launchers of this folder's kernels; each checks its arrays by name and returns nothing.

Their sizes stand in *meta* on the device (`Layout`), so that a recorded launch serves any step.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..backend import Struct, layout

if TYPE_CHECKING:
    from ..backend import Array, Backend
    from ..decoder.state import DecoderState

EMBED = layout(("table", "u8"), ("meta", "u8"), ("h", "u8"), ("ids", "i4"), ("width", "i4"))
STORE = layout(
    ("qkv", "u8"), ("meta", "u8"), ("turns", "u8"), ("q", "u8"), ("cache", "u8"),
    ("positions", "i4"), ("places", "i4"), ("q_heads", "i4"), ("k_heads", "i4"),
)  # fmt: skip
BOUNDS = layout(
    ("meta", "u8"), ("cache", "u8"), ("minmax", "u8"), ("pages", "i4"), ("k_heads", "i4")
)
GATHER = layout(
    ("meta", "u8"), ("cache", "u8"), ("k", "u8"), ("v", "u8"), ("places", "i4"), ("k_heads", "i4")
)
EDIT = layout(
    ("packet", "u8"), ("lengths", "u8"), ("remaining", "u8"), ("page_counts", "u8"),
    ("table", "u8"), ("text", "u8"), ("ring", "u8"), ("free", "u8"),
    ("max_pages", "i4"), ("text_size", "i4"), ("ring_mask", "i4"), ("unused", "i4"),
)  # fmt: skip
BLOCKS = 8
"""Blocks an SM of a kernel that does not know its size."""


@dataclass(frozen=True, slots=True)
class Layout:
    """Where each part of *meta* begins, in words, for so many tokens, prompts and keys a step."""

    tokens: int
    prompts: int
    keys: int
    page_tokens: int

    @property
    def ids(self) -> int:
        """int32 [tokens]."""
        return 8

    @property
    def positions(self) -> int:
        """int32 [tokens]."""
        return self.ids + self.tokens

    @property
    def places(self) -> int:
        """int32 [tokens]: page * page_tokens + offset."""
        return self.positions + self.tokens

    @property
    def last(self) -> int:
        """int32 [prompts]: rows whose tokens complete a prompt."""
        return self.places + self.tokens

    @property
    def query_ends(self) -> int:
        """int32 [prompts + 1]: where each prompt's tokens begin, and the end."""
        return self.last + self.prompts

    @property
    def key_ends(self) -> int:
        """int32 [prompts + 1]: the same of its keys."""
        return self.query_ends + self.prompts + 4

    @property
    def pages(self) -> int:
        """int32 [2 * touched]: page, tokens in it."""
        return self.key_ends + self.prompts + 4

    @property
    def touched(self) -> int:
        """Pages that a step writes to at most."""
        return self.tokens // self.page_tokens + 2 * self.prompts

    @property
    def key_places(self) -> int:
        """int32 [keys]; last, so that only what is used travels."""
        return self.pages + 2 * self.touched

    @property
    def words(self) -> int:
        """In all."""
        return self.key_places + self.keys


def embed(backend: Backend, table: Array, meta: Array, ids: int, h: Array) -> None:
    """Rows of *table* [V, width] for the ids at *ids* of *meta* -> *h* [tokens, width]."""
    width = table.shape[1]
    if h.shape[1] != width or width % 8:
        raise ValueError(f"prompt_embed: table {table.shape}, h {h.shape}")
    params = Struct(backend, EMBED, table=table, meta=meta, h=h, ids=ids, width=width)
    backend.function("serve", "prompt_embed")(_grid(backend), 256, (params,))


def store(
    backend: Backend, at: Layout, qkv: Array, meta: Array, turns: Array, q: Array, cache: Array
) -> None:
    """*qkv* [tokens, (Hq + 2 Hkv) D] -> rotated queries *q* [tokens, Hq, D]; the rest to *cache*.

    *cache* uint8 [pages, Hkv, page bytes] of 16 bits. Raises `ValueError` if a shape is off.
    """
    (_, q_heads, size), k_heads = q.shape, cache.shape[1]
    if qkv.shape[1] != (q_heads + 2 * k_heads) * size or turns.shape != (size // 2, 2):
        raise ValueError(f"prompt_store: qkv {qkv.shape}, q {q.shape}, cache {cache.shape}")
    params = Struct(
        backend, STORE, qkv=qkv, meta=meta, turns=turns, q=q, cache=cache,
        positions=at.positions, places=at.places, q_heads=q_heads, k_heads=k_heads,
    )  # fmt: skip
    kernel = backend.function("serve", "prompt_store", _macros(at, size))
    kernel(2 * _grid(backend), 128, (params,))


def bounds(backend: Backend, at: Layout, meta: Array, cache: Array, minmax: Array) -> None:
    """Bounds of the pages that *meta* names -> *minmax* bf16 [pages, Hkv, 2, D]."""
    size, heads = minmax.shape[3], minmax.shape[1]
    params = Struct(
        backend, BOUNDS, meta=meta, cache=cache, minmax=minmax, pages=at.pages, k_heads=heads
    )
    kernel = backend.function("serve", "prompt_bounds", _macros(at, size))
    kernel(_grid(backend), 128, (params,))


def gather(backend: Backend, at: Layout, meta: Array, cache: Array, k: Array, v: Array) -> None:
    """Keys and values at the places that *meta* names -> *k*, *v* [keys, Hkv, D]."""
    if k.shape != v.shape or k.shape[1] != cache.shape[1]:
        raise ValueError(f"prompt_gather: k {k.shape}, v {v.shape}, cache {cache.shape}")
    params = Struct(
        backend, GATHER, meta=meta, cache=cache, k=k, v=v, places=at.key_places, k_heads=k.shape[1]
    )
    kernel = backend.function("serve", "prompt_gather", _macros(at, k.shape[2]))
    kernel(_grid(backend), 256, (params,))


def edit(backend: Backend, packet: Array, state: DecoderState) -> None:
    """Brings *state* up to what *packet* (int32, pinned; see `slots.Slots.packet`) says."""
    slots = state.slots
    params = Struct(
        backend, EDIT, packet=packet, lengths=slots.lengths, remaining=slots.remaining,
        page_counts=slots.page_counts, table=slots.table, text=state.text, ring=slots.ring,
        free=slots.free, max_pages=slots.max_pages, text_size=state.text_size,
        ring_mask=len(slots.ring) - 1, unused=0,
    )  # fmt: skip
    backend.function("serve", "edit_slots")(16, 128, (params,))


def _macros(at: Layout, size: int) -> tuple[str, ...]:
    return (f"HEAD_DIM={size}", f"PAGE_TOKENS={at.page_tokens}")


def _grid(backend: Backend) -> int:
    return BLOCKS * backend.sms if backend.name == "gpu" else backend.sms
