"""The first slots of a decoder's state as a state of their own: what a captured step works on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ..decoder.state import DecoderState
from ..loop_control.state import State

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..backend import Array

SIZES = (1, 2, 4, 8, 12, 16, 24, 32, 48, 64)
"""Slots that a step is prepared for; a batch between two of them is padded."""


def sizes_up_to(most: int) -> tuple[int, ...]:
    """Those of `SIZES` below *most*, and *most*."""
    return (*(size for size in SIZES if size < most), most)


class FirstSlots(State):
    """Slots 0 to *count* - 1 of *whole*, in the same memory; who holds them is noted apart."""

    def __init__(self, whole: State, count: int) -> None:
        self.backend, self.slots, self.new_tokens = whole.backend, count, whole.new_tokens
        self.max_pages, self.pages = whole.max_pages, whole.pages
        self.page_tokens, self.sets = whole.page_tokens, whole.sets
        if whole.sets != 1:
            raise ValueError("a part of slots with one set of outputs only")
        self.slab: Array = whole.slab
        self.lengths: Array = whole.lengths[:count]
        self.free: Array = whole.free
        self.emitted: Array = whole.emitted[:, :count]
        self.tokens: Array = whole.tokens[:, :count]
        self.remaining: Array = whole.remaining[:count]
        self.page_counts: Array = whole.page_counts[:count]
        self.table: Array = whole.table[:count]
        self.ring: Array = whole.ring
        self.request: Array = whole.backend.xp.zeros((2, count), np.uint32)


class FirstRequests(DecoderState):
    """The same of a whole decoder state."""

    def __init__(self, whole: DecoderState, count: int) -> None:
        self.backend, self.shape = whole.backend, whole.shape
        self.batch, self.tokens = count, whole.tokens
        self.page_tokens, self.text_size = whole.page_tokens, whole.text_size
        self.kv_bits, self.pool = whole.kv_bits, whole.pool
        self.slots = FirstSlots(whole.slots, count)
        self.text: Array = whole.text[:count]


def fill_ring(state: DecoderState, order: Sequence[int]) -> None:
    """All slots idle, and the pages of *order* free, in this order."""
    slots, xp = state.slots, state.backend.xp
    ring = np.full(slots.ring.shape, -1, np.int32)
    ring[: len(order)] = order
    slots.lengths[...] = -1
    slots.remaining[...] = 0
    slots.page_counts[...] = 0
    slots.ring[...] = xp.asarray(ring)
    slots.free[...] = xp.asarray(np.array([0, len(order)], np.uint32))
    state.text[...] = 0
