"""What a decoder would hand to each step: queries, keys, values, logits and drafts, by input set.

One rule: a set's pointers never change, so that its launches can be recorded once. Acceptance is an
input: the arg-max of a row of logits equals the drafted token with a given probability.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..cache_layout import page_bytes
from ..element import encode
from ..kv_append.launch import append
from ..page_score.launch import page_scores
from ..paged_attention.launch import Shape as AttentionShape
from ..paged_attention.launch import paged_attention
from ..topk_select.launch import topk_select
from ..verify_commit.launch import Slots as VerifySlots
from ..verify_commit.launch import verify_commit, workspace
from .record import Launch, Recorder

if TYPE_CHECKING:
    from ..backend import Array, Backend
    from .state import State


@dataclass(frozen=True, slots=True)
class Model:
    """Sizes of the attention layer and the vocabulary; bf16."""

    kv_heads: int = 8
    group: int = 4
    head_dim: int = 128
    vocabulary: int = 32000
    budget: int = 128
    """Pages that a sparse step attends to."""


class Cache:
    """Random pages and their bounds on the device; the pages of a small pool, repeated.

    The bounds are random too, with minimum below maximum: they decide which pages are selected, not
    how long it takes.
    """

    POOL = 512

    def __init__(
        self, backend: Backend, model: Model, pages: int, page_tokens: int, rng: np.random.Generator
    ) -> None:
        xp = backend.xp
        bytes_ = page_bytes(page_tokens, model.head_dim, 16)
        pool = min(pages, self.POOL)
        values = rng.standard_normal((pool, model.kv_heads, bytes_ // 2), np.float32)
        bounds = np.abs(rng.standard_normal((pool, model.kv_heads, 2, model.head_dim), np.float32))
        bounds[:, :, 0] *= -1
        self.pages: Array = xp.empty((pages, model.kv_heads, bytes_), np.uint8)
        self.minmax: Array = xp.empty((pages, model.kv_heads, 2, model.head_dim), np.uint16)
        first = xp.asarray(encode(values, "bf16").view(np.uint8))
        first_bounds = xp.asarray(encode(bounds, "bf16"))
        for begin in range(0, pages, pool):
            count = min(pool, pages - begin)
            self.pages[begin : begin + count] = first[:count]
            self.minmax[begin : begin + count] = first_bounds[:count]


class Inputs:
    """Arrays of every set over *state*; set i works on layer i % *layers*, a stretch of *cache*.

    As in a model of that many layers, all have one page table. By default as many as *cache* holds.
    """

    def __init__(
        self,
        backend: Backend,
        model: Model,
        state: State,
        cache: Cache,
        rng: np.random.Generator,
        acceptance: float = 0.7,
        layers: int | None = None,
    ) -> None:
        xp, sets, slots, tokens = backend.xp, state.sets, state.slots, state.new_tokens
        self.backend, self.model, self.state, self.cache = backend, model, state, cache
        self.layers = layers or max(1, min(sets, len(cache.pages) // state.pages))
        heads = model.kv_heads * model.group
        self.q = self._random(rng, (sets, slots, tokens, heads, model.head_dim))
        self.k = self._random(rng, (sets, slots, tokens, model.kv_heads, model.head_dim))
        self.v = self._random(rng, (sets, slots, tokens, model.kv_heads, model.head_dim))
        self.out: Array = xp.full(self.q.shape, 0xFFFF, np.uint16)
        self.logits = self._random(rng, (sets, slots, tokens, model.vocabulary))
        self.best = rng.integers(0, model.vocabulary, (sets, slots, tokens)).astype(np.int32)
        drafts = self.best[:, :, :-1]
        missed = rng.random(drafts.shape) >= acceptance
        self.draft = np.where(missed, (drafts + 1) % model.vocabulary, drafts).astype(np.int32)
        at = np.ix_(*(np.arange(n) for n in self.best.shape))
        peak = encode(np.full(self.best.shape, 9.0, np.float32), "bf16")
        self.logits[(*(xp.asarray(i) for i in at), xp.asarray(self.best))] = xp.asarray(peak)
        self._draft: Array = xp.asarray(self.draft)
        rows = (slots, model.kv_heads)
        self.scores: Array = xp.full((*rows, -(-state.max_pages // 4) * 4), np.nan, np.float32)
        self.selected: Array = xp.zeros((*rows, model.budget), np.int32)
        self.counts: Array = xp.zeros(rows, np.int32)
        self.shape = AttentionShape(
            head_dim=model.head_dim,
            group=model.group,
            tokens=tokens,
            page_tokens=state.page_tokens,
        )
        self.space = workspace(backend, slots, tokens, model.vocabulary)
        self.status: Array = xp.zeros(2, np.uint32)
        self.buffers = self.shape.buffers(backend, slots, model.kv_heads)

    def record(self, sparse: bool) -> list[list[Launch]]:
        """The five launches of every set, in the stages' order, as their launchers make them."""
        recorder, state, model = Recorder(self.backend), self.state, self.model
        slots = VerifySlots(
            lengths=state.lengths,
            remaining=state.remaining,
            page_counts=state.page_counts,
            table=state.table,
            free_ring=state.ring,
            free_head=state.free[:1],
            free_tail=state.free[1:],
            status=self.status,
        )
        common = (state.table, state.lengths)
        for i in range(state.sets):
            begin = i % self.layers * state.pages
            pages = self.cache.pages[begin : begin + state.pages]
            minmax = self.cache.minmax[begin : begin + state.pages]
            size = state.page_tokens
            append(recorder, self.k[i], self.v[i], pages, minmax, *common, page_tokens=size)
            page_scores(recorder, self.q[i], minmax, *common, self.scores, page_tokens=size)
            topk_select(
                recorder,
                self.scores,
                state.lengths,
                self.selected,
                self.counts,
                new_tokens=state.new_tokens,
                budget=model.budget,
                page_tokens=size,
            )
            paged_attention(
                recorder,
                self.shape,
                self.q[i],
                pages,
                *common,
                self.out[i],
                self.buffers,
                selected=self.selected if sparse else None,
                counts=self.counts if sparse else None,
            )
            verify_commit(
                recorder,
                self.logits[i],
                self._draft[i],
                state.tokens[i],
                state.emitted[i],
                slots,
                self.space,
                page_tokens=size,
            )
        launches = recorder.launches
        return [launches[i : i + 5] for i in range(0, len(launches), 5)]

    def _random(self, rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
        """Standard normal bf16 values: a stretch of them, shifted from row to row."""
        size = int(np.prod(shape))
        some = encode(rng.standard_normal(min(size, 1 << 20) + 4096, np.float32), "bf16")
        xp: Any = self.backend.xp
        device = xp.asarray(some)
        flat = xp.empty(size, np.uint16)
        step = min(size, 1 << 20)
        for turn, begin in enumerate(range(0, size, step)):
            count = min(step, size - begin)
            shift = turn * 8 % 4096
            flat[begin : begin + count] = device[shift : shift + count]
        return flat.reshape(shape)
