"""The decoder's state in device memory: slots, their pages, the ring of free pages, step outputs.

One rule: every physical page is in exactly one table row or in the ring.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ..backend import layout
from ..checking import on_host

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..backend import Array, Backend

SLOTS = layout(
    ("lengths", "u8"),
    ("remaining", "u8"),
    ("page_counts", "u8"),
    ("table", "u8"),
    ("free_ring", "u8"),
    ("free_head", "u8"),
    ("free_tail", "u8"),
    ("slots", "i4"),
    ("max_pages", "i4"),
    ("ring_mask", "i4"),
    ("new_tokens", "i4"),
    ("page_tokens", "i4"),
)


class State:
    """Arrays of B slots with T new tokens a step and *sets* rotating outputs.

    `slab` int32 holds what a host copies back, in one piece: lengths [B], head and tail of the
    ring, two spare words, then for each set emitted [B] and tokens [B, T].
    """

    def __init__(
        self,
        backend: Backend,
        *,
        slots: int,
        new_tokens: int,
        max_pages: int,
        pages: int,
        page_tokens: int = 16,
        sets: int = 8,
    ) -> None:
        xp = backend.xp
        self.backend, self.slots, self.new_tokens = backend, slots, new_tokens
        self.max_pages, self.pages, self.page_tokens = max_pages, pages, page_tokens
        self.sets = sets
        step = slots * (1 + new_tokens)
        self.slab: Array = xp.zeros(slots + 4 + sets * step, np.int32)
        self.lengths: Array = self.slab[:slots]
        self.free: Array = self.slab[slots : slots + 2].view(np.uint32)
        rest = self.slab[slots + 4 :].reshape(sets, step)
        self.emitted: Array = rest[:, :slots]
        self.tokens: Array = rest[:, slots:].reshape(sets, slots, new_tokens)
        self.remaining: Array = xp.zeros(slots, np.int32)
        self.page_counts: Array = xp.zeros(slots, np.int32)
        self.table: Array = xp.zeros((slots, max_pages), np.int32)
        self.ring: Array = xp.zeros(1 << max(1, (pages - 1).bit_length()), np.int32)
        self.request: Array = xp.zeros((2, slots), np.uint32)

    def fill(
        self, lengths: Sequence[int], remaining: Sequence[int], rng: np.random.Generator
    ) -> None:
        """Puts request b into slot b with shuffled pages; a negative length leaves a slot idle.

        Raises `ValueError` if the pages do not suffice.
        """
        order = rng.permutation(self.pages).astype(np.int32)
        table = np.zeros((self.slots, self.max_pages), np.int32)
        counts = np.zeros(self.slots, np.int32)
        used = 0
        for slot, length in enumerate(lengths):
            if length >= 0:
                count = -(-(length + self.new_tokens) // self.page_tokens)
                if count > self.max_pages or used + count > self.pages:
                    raise ValueError(f"slot {slot}: {count} pages of {self.pages - used} left")
                table[slot, :count] = order[used : used + count]
                counts[slot], used = count, used + count
        ring = np.full(self.ring.shape, -1, np.int32)
        ring[: self.pages - used] = order[used:]
        held = np.zeros((2, self.slots), np.uint32)
        held[0] = np.where(np.asarray(lengths) < 0, 0xFFFFFFFF, np.arange(self.slots))
        for array, value in (
            (self.lengths, np.asarray(lengths, np.int32)),
            (self.remaining, np.asarray(remaining, np.int32)),
            (self.free, np.array([0, self.pages - used], np.uint32)),
            (self.table, table),
            (self.page_counts, counts),
            (self.ring, ring),
            (self.request, held),
        ):
            array[...] = self.backend.xp.asarray(value)

    def arrays(self) -> dict[str, Array]:
        """What a step changes, by name."""
        names = ("slab", "remaining", "page_counts", "table", "ring", "request")
        return {name: getattr(self, name) for name in names}

    def save(self) -> dict[str, Array]:
        """Copies of `arrays`."""
        return {name: array.copy() for name, array in self.arrays().items()}

    def load(self, saved: dict[str, Array]) -> None:
        """Goes back to what `save` returned."""
        for name, array in self.arrays().items():
            array[...] = saved[name]

    def fields(self) -> np.ndarray[Any, Any]:
        """The device's `loop::Slots`, as an array of one struct."""
        at = self.backend.address
        value = np.zeros(1, SLOTS)
        for name in ("lengths", "remaining", "page_counts", "table"):
            value[name] = at(getattr(self, name))
        value["free_ring"] = at(self.ring)
        value["free_head"], value["free_tail"] = at(self.free), at(self.free[1:])
        value["slots"], value["max_pages"] = self.slots, self.max_pages
        value["ring_mask"] = len(self.ring) - 1
        value["new_tokens"], value["page_tokens"] = self.new_tokens, self.page_tokens
        return value

    def all_pages(self) -> np.ndarray[Any, Any]:
        """Every page in a table row or in the ring, sorted: 0 .. pages - 1 if none was lost."""
        arrays = (self.lengths, self.page_counts, self.table, self.ring, self.free)
        lengths, counts, table, ring, ends = (on_host(self.backend, a) for a in arrays)
        head, tail = int(ends[0]), int(ends[1])
        rows = [table[b, : counts[b]] for b in range(self.slots) if lengths[b] != -1]
        free = ring[np.arange(head, head + (tail - head) % 2**32) % len(ring)]
        return np.sort(np.concatenate([*rows, free]))
