"""What a decode step computes, in float64 from end to end: NumPy, or CuPy for a real model.

One rule: nothing is rounded between the stages; only weights, cached keys and values and bounds
are what the device holds. A step's own keys and values are used as computed.

Tie rule: a token counts as right if its float64 logit lies within `TIE` times the standard
deviation of the row's logits below the largest one. Of logits that are equal on the device, the
lowest index wins.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..cache_layout import unpack
from ..checking import CheckError, on_host
from ..element import decode
from ..page_score.reference import page_scores
from ..paged_attention.reference import attention_rows
from ..small_ops.reference import rmsnorm, rope, silu_mul
from ..topk_select.reference import select
from ..verify_commit.reference import commit, greedy
from ..w4a16_gemv.pack import unpack as unpack_weights

if TYPE_CHECKING:
    from ..backend import Array, Backend
    from .state import DecoderState
    from .weights import Weights

TIE = 0.2
"""Of a row's standard deviation: five times what bf16 between the stages of 16 layers moves the
difference of two logits by (a whole row's relative error is about 0.03)."""
Fields = dict[str, Any]


@dataclass(slots=True)
class Result:
    """A reference step: intermediates by name and layer, logits, and what is committed.

    `stages` maps (name, layer) to float64 arrays of one row a token: `h` (layer -1: embedded;
    layer i: after layer i), `q`, `k`, `v` (after the rotation), `attended`, `h_out`, `activated`.
    """

    stages: dict[tuple[str, int], Array]
    logits: Array
    """float64 [rows, V]."""
    after: Fields
    """`text`, `emitted`, `tokens` and the fields of verify_commit's `Slots`, NumPy."""


class Reference:
    """A float64 twin of the step of *weights*; matrices are decoded when they are used."""

    def __init__(
        self,
        weights: Weights,
        weight_bits: int = 16,
        budget_pages: int = 0,
    ) -> None:
        self.weights, self.shape, self.bits = weights, weights.shape, weight_bits
        self.budget_pages = budget_pages
        self.backend: Backend = weights.backend
        self._kept: dict[tuple[str, int], Array] = {}

    def matrix(self, name: str, layer: int = -1) -> Array:
        """float64 [n, k] of a product; kept on the CPU, whose models are small."""
        if (name, layer) in self._kept:
            return self._kept[name, layer]
        weights, xp = self.weights, self.backend.xp
        if self.bits == 4:
            packed = weights.packed_head if name == "head" else getattr(weights.packed[layer], name)
            sizes = {**self.shape.products, "head": (self.shape.vocabulary, self.shape.hidden)}
            n, k = sizes[name]
            found = unpack_weights(xp, packed, 4)[:n, :k].astype(np.float64)
        else:
            source = weights.head if name == "head" else getattr(weights.layers[layer], name)
            found = decode(source, "bf16").astype(np.float64)
        if self.backend.name == "cpu":
            self._kept[name, layer] = found
        return found

    def step(self, state: DecoderState, before: Fields) -> Result:
        """The step that starts at *before*, from `snapshot`; *state* gives cache and bounds.

        *state* may have done the step already: only what was committed before is read.
        """
        xp, shape = self.backend.xp, self.shape
        lengths, text = before["lengths"], before["text"]
        tokens, batch = state.tokens, state.batch
        positions = np.where(lengths[:, None] < 0, -1, lengths[:, None] + np.arange(tokens))
        at = xp.asarray(positions.reshape(-1))
        rows = np.arange(batch)[:, None]
        inputs = np.where(positions < 0, 0, text[rows, np.maximum(positions, 0)])
        embedded = self.weights.embedding[xp.asarray(inputs.reshape(-1))]
        h = decode(embedded, "bf16").astype(np.float64) * (at >= 0)[:, None]
        stages: dict[tuple[str, int], Array] = {("h", -1): h}
        for i, layer in enumerate(self.weights.layers):
            x = rmsnorm(h, decode(layer.attention_norm, "bf16"), shape.epsilon)
            q, k, v = self.rotated(x @ self.matrix("qkv", i).T, at)
            attended = self.attention(state, before, i, q, k, v)
            stages[("q", i)], stages[("k", i)], stages[("v", i)] = q, k, v
            stages["attended", i] = attended
            h = h + attended.reshape(len(h), -1) @ self.matrix("out", i).T
            stages["h_out", i] = h
            x = rmsnorm(h, decode(layer.mlp_norm, "bf16"), shape.epsilon)
            activated = silu_mul(xp, x @ self.matrix("gate_up", i).T)
            h = h + activated @ self.matrix("down", i).T
            stages["activated", i], stages["h", i] = activated, h
        x = rmsnorm(h, decode(self.weights.final_norm, "bf16"), shape.epsilon)
        logits = x @ self.matrix("head").T
        after = self.committed_by(logits, before, tokens, state.page_tokens)
        return Result(stages, logits, after)

    def rotated(self, qkv: Array, positions: Array) -> tuple[Array, Array, Array]:
        """Queries [rows, Hq, D], keys and values [rows, Hkv, D] of *qkv*."""
        shape, xp = self.shape, self.backend.xp
        heads = qkv.reshape(len(qkv), -1, shape.head_dim)
        first, second = shape.q_heads, shape.q_heads + shape.kv_heads
        turned = rope(xp, heads[:, :second], positions, shape.theta)
        return turned[:, :first], turned[:, first:], heads[:, second:]

    def attention(
        self,
        state: DecoderState,
        before: Fields,
        layer: int,
        q: Array,
        k: Array,
        v: Array,
    ) -> Array:
        """Attention [rows, Hq, D] over the committed keys of the pages and the step's own."""
        xp, shape, tokens = self.backend.xp, self.shape, state.tokens
        out = xp.zeros(q.shape, np.float64)
        for b, length in enumerate(int(n) for n in before["lengths"]):
            if length < 0:
                continue
            mine = slice(b * tokens, (b + 1) * tokens)
            held = -(-(length + tokens) // state.page_tokens)
            pages = xp.asarray(before["table"][b, :held].astype(np.int64))
            old = self.committed(state, layer, pages, length)
            keys = xp.concatenate([old[0], k[mine].transpose(1, 0, 2)], axis=1)
            values = xp.concatenate([old[1], v[mine].transpose(1, 0, 2)], axis=1)
            for head in range(shape.kv_heads):
                group = slice(head * shape.group, (head + 1) * shape.group)
                places = xp.arange(length + tokens)
                if self.budget_pages:
                    chosen = self.selection(state, layer, q[mine, group], pages, length, head)
                    places = places[xp.isin(places // state.page_tokens, xp.asarray(chosen))]
                out[mine, group] = attention_rows(
                    q[mine, group],
                    keys[head, places],
                    values[head, places],
                    places,
                    length,
                    shape.head_dim**-0.5,
                )
        return out

    def selection(
        self, state: DecoderState, layer: int, q: Array, pages: Array, length: int, head: int
    ) -> Any:
        """Logical pages that one KV head attends to, ascending; *q* [T, group, D]."""
        size = state.page_tokens
        bounds = decode(state.minmax[layer][pages, head], "bf16")
        scores = page_scores(q.reshape(-1, q.shape[-1]), bounds[:, 0], bounds[:, 1])
        found = on_host(self.backend, scores)
        # The step's own pages are in whatever their score is: their bounds need not be read.
        return select(found, len(pages), len(pages) - length // size, self.budget_pages, 1, 1)

    def committed(
        self, state: DecoderState, layer: int, pages: Array, length: int
    ) -> tuple[Array, Array]:
        """Keys and values float64 [Hkv, length, D] as the cache holds them."""
        shape = self.shape
        found = []
        for part in unpack(
            state.cache[layer][pages], state.page_tokens, shape.head_dim, state.kv_bits
        ):
            rows = decode(part, "bf16") if part.dtype == np.uint16 else part
            rows = rows.transpose(1, 0, 2, 3).reshape(shape.kv_heads, -1, shape.head_dim)
            found.append(rows[:, :length].astype(np.float64))
        return found[0], found[1]

    def committed_by(self, logits: Array, before: Fields, tokens: int, page_tokens: int) -> Fields:
        """What *logits* [rows, V] make of *before*: slots, text, `emitted` and `tokens`, NumPy."""
        after = {name: value.copy() for name, value in before.items()}
        lengths, text = before["lengths"], after["text"]
        batch = len(lengths)
        host = on_host(self.backend, logits).reshape(batch, tokens, -1)
        for b, length in enumerate(lengths):
            if length >= 0:
                found = greedy(host[b], text[b, length + 1 : length + tokens])
                after["emitted"][b] = len(found)
                after["tokens"][b] = [*found, *[-1] * (tokens - len(found))]
        commit(after, after["emitted"], after["tokens"], tokens, page_tokens)
        for b, length in enumerate(lengths):
            if length >= 0:
                count = after["emitted"][b]
                text[b, length + 1 : length + 1 + count] = after["tokens"][b, :count]
        return after


def snapshot(state: DecoderState) -> Fields:
    """NumPy copies of slots and text, named as in verify_commit's `Slots`."""
    slots, backend = state.slots, state.backend
    arrays = {
        "lengths": slots.lengths,
        "remaining": slots.remaining,
        "page_counts": slots.page_counts,
        "table": slots.table,
        "free_ring": slots.ring,
        "free_head": slots.free[:1],
        "free_tail": slots.free[1:],
        "text": state.text,
        "tokens": slots.tokens[0],
        "emitted": slots.emitted[0],
    }
    found = {name: on_host(backend, array).copy() for name, array in arrays.items()}
    return {**found, "status": np.zeros(2, np.uint32)}


def check_tokens(logits: Any, tokens: Any, what: str = "tokens") -> float:
    """How far the logits of *tokens* [rows] lie below the largest, of a row's deviation, at most.

    Raises `CheckError` above `TIE`; a token below 0 is not looked at.
    """
    worst = 0.0
    for row, token in enumerate(int(one) for one in tokens):
        if token < 0:
            continue
        gap = float(logits[row].max() - logits[row, token]) / float(logits[row].std())
        if not gap <= TIE:
            raise CheckError(f"{what}: token {token} of row {row} is {gap:.3g} below the best")
        worst = max(worst, gap)
    return worst
