"""Every launch of a library step against float64, each on the inputs that the device gave it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ..checking import close, equal, on_host
from ..element import decode, encode
from ..page_score.reference import page_scores
from ..paged_attention.reference import attention_rows
from ..small_ops.reference import rmsnorm, silu_mul
from ..topk_select.reference import select
from .reference import Reference, snapshot

if TYPE_CHECKING:
    from ..backend import Array
    from .library import Item, LibraryStep
    from .reference import Fields

TOLERANCES = {
    "norm": 6e-3,
    "product": 8e-3,
    "split_rope": 6e-3,
    "append": 2e-2,
    "score": 2e-5,
    "attend": 1e-2,
    "silu_mul": 6e-3,
}
"""Relative errors of whole arrays; `append` counts for 8 bits only, 16 bits are copied."""


def check_stages(step: LibraryStep) -> float:
    """Runs *step* launch by launch; the largest relative error, or `CheckError`."""
    before = snapshot(step.state)
    reference = Reference(step.weights, step.weight_bits, step.budget_pages)
    watch = _Watch(step, reference, before)
    return max(watch.run(item) for item in step.items)


def sources(step: LibraryStep) -> dict[str, tuple[Array, Array]]:
    """Input and output of each stage's product."""
    attended = step.attended.reshape(len(step.h), -1)
    return {
        "qkv": (step.x, step.qkv),
        "out": (attended, step.product),
        "gate_up": (step.x, step.gate_up),
        "down": (step.activated, step.product),
        "head": (step.x, step.logits),
    }


class _Watch:
    def __init__(self, step: LibraryStep, reference: Reference, before: Fields) -> None:
        self.step, self.reference, self.before = step, reference, before
        self.state, self.shape = step.state, step.shape
        self.xp: Any = step.backend.xp
        self.busy = [int(b) for b in np.flatnonzero(before["lengths"] >= 0)]
        rows = np.arange(len(step.h)) // self.state.tokens
        self.rows = self.xp.asarray(np.isin(rows, self.busy))

    def run(self, item: Item) -> float:
        """Launches *item* and compares what it wrote."""
        residual = decode(self.step.h, "bf16")
        with self.step.products.stream():
            item.call()
        self.step.backend.synchronize()
        check = getattr(self, f"_{item.name}")
        if item.name == "norm":
            return float(check(item, residual))
        return float(check(item))

    def _close(self, got: Array, want: Array, item: Item) -> float:
        where = f"{item.stage} {item.name} of layer {item.layer}"
        rows = self.rows if len(got) == len(self.rows) else slice(None)
        return close(got[rows], want[rows], TOLERANCES[item.name], where)

    def _equal(self, got: Array, want: Any, what: str) -> float:
        return equal(on_host(self.step.backend, got), on_host(self.step.backend, want), what)

    def _embed(self, _: Item) -> float:
        lengths, text, tokens = self.before["lengths"], self.before["text"], self.state.tokens
        h, draft = on_host(self.step.backend, self.step.h), self.step.draft
        want = np.zeros_like(h)
        guesses = np.full(draft.shape, -1, np.int32)
        places = np.full((len(lengths), tokens), -1, np.int32)
        for b in self.busy:
            places[b] = lengths[b] + np.arange(tokens)
            inputs = self.xp.asarray(text[b, places[b]])
            rows = self.step.weights.embedding[inputs]
            want[b * tokens : (b + 1) * tokens] = on_host(self.step.backend, rows)
            guesses[b] = text[b, lengths[b] + 1 : lengths[b] + tokens]
        self._equal(self.step.positions, places.reshape(-1), "positions")
        self._equal(draft, guesses, "draft")
        return equal(h, want, "embedded rows")

    def _norm(self, item: Item, residual: Array) -> float:
        step, layers = self.step, self.step.weights.layers
        if (item.stage, item.layer) != ("qkv", 0):
            residual = encode(residual + decode(step.product, "bf16"), "bf16")
            self._equal(step.h, residual, "residual")
            residual = decode(residual, "bf16")
        weight = {
            "qkv": layers[item.layer].attention_norm,
            "gate_up": layers[item.layer].mlp_norm,
            "head": step.weights.final_norm,
        }[item.stage]
        want = rmsnorm(residual, decode(weight, "bf16"), self.shape.epsilon)
        return self._close(decode(step.x, "bf16"), want, item)

    def _product(self, item: Item) -> float:
        x, y = (decode(array, "bf16") for array in sources(self.step)[item.stage])
        matrix = self.reference.matrix(item.stage, item.layer)
        return self._close(y, x.astype(np.float64) @ matrix.T, item)

    def _split_rope(self, item: Item) -> float:
        step = self.step
        want = self.reference.rotated(decode(step.qkv, "bf16"), step.positions)
        rows = [decode(part, "bf16").reshape(len(step.h), -1) for part in (step.q, step.k, step.v)]
        pairs = zip(rows, want, strict=True)
        return max(self._close(got, part.reshape(got.shape), item) for got, part in pairs)

    def _append(self, item: Item) -> float:
        step, state, worst = self.step, self.state, 0.0
        for b in self.busy:
            length = int(self.before["lengths"][b])
            for got, new in zip(self._held(item.layer, b), (step.k[b], step.v[b]), strict=True):
                want = decode(new, "bf16").transpose(1, 0, 2)
                tolerance = TOLERANCES["append"] if state.kv_bits < 16 else 0.0
                worst = max(worst, close(got[:, length:], want, tolerance, "appended"))
        return worst

    def _held(self, layer: int, b: int) -> tuple[Array, Array]:
        """All keys and values of request *b*, this step's too."""
        state, length = self.state, int(self.before["lengths"][b]) + self.state.tokens
        pages = self.before["table"][b, : -(-length // state.page_tokens)].astype(np.int64)
        return self.reference.committed(state, layer, self.xp.asarray(pages), length)

    def _score(self, item: Item) -> float:
        step, state, worst = self.step, self.state, 0.0
        for b in self.busy:
            held = -(-(int(self.before["lengths"][b]) + state.tokens) // state.page_tokens)
            pages = self.xp.asarray(self.before["table"][b, :held].astype(np.int64))
            bounds = decode(state.minmax[item.layer][pages], "bf16")
            q = decode(step.q[b], "bf16").reshape(state.tokens, self.shape.kv_heads, -1)
            for head in range(self.shape.kv_heads):
                rows = q[:, head].reshape(-1, self.shape.head_dim)
                want = page_scores(rows, bounds[:, head, 0], bounds[:, head, 1])
                worst = max(worst, self._close(step.scores[b, head, :held], want, item))
        return worst

    def _select(self, _: Item) -> float:
        step, size = self.step, self.state.page_tokens
        scores, selected, counts = (
            on_host(step.backend, array) for array in (step.scores, step.selected, step.counts)
        )
        for b in self.busy:
            length = int(self.before["lengths"][b])
            held = -(-(length + self.state.tokens) // size)
            for head in range(self.shape.kv_heads):
                want = select(scores[b, head], held, held - length // size, step.budget_pages, 1, 1)
                got = selected[b, head, : counts[b, head]]
                equal(got, want, f"pages of request {b}, head {head}")
        return 0.0

    def _attend(self, item: Item) -> float:
        step, state, xp = self.step, self.state, self.xp
        want = xp.zeros(step.attended.shape, np.float64)
        q = decode(step.q, "bf16")
        for b in self.busy:
            length = int(self.before["lengths"][b])
            keys, values = self._held(item.layer, b)
            for head in range(self.shape.kv_heads):
                places = xp.arange(length + state.tokens)
                if step.budget_pages:
                    chosen = step.selected[b, head, : int(step.counts[b, head])]
                    places = places[xp.isin(places // state.page_tokens, chosen)]
                group = slice(head * self.shape.group, (head + 1) * self.shape.group)
                want[b, :, group] = attention_rows(
                    q[b, :, group], keys[head, places], values[head, places], places, length,
                    self.shape.head_dim**-0.5,
                )  # fmt: skip
        rows = (len(step.h), -1)
        got = decode(step.attended, "bf16").reshape(rows)
        return self._close(got, want.reshape(rows), item)

    def _silu_mul(self, item: Item) -> float:
        want = silu_mul(self.xp, decode(self.step.gate_up, "bf16"))
        return self._close(decode(self.step.activated, "bf16"), want, item)

    def _verify(self, _: Item) -> float:
        logits = decode(self.step.logits, "bf16")
        self.after = self.reference.committed_by(
            logits, self.before, self.state.tokens, self.state.page_tokens
        )
        got = snapshot(self.state)
        for name in ("lengths", "remaining", "page_counts", "free_head", "free_tail"):
            equal(got[name], self.after[name], name)
        for name in ("tokens", "emitted"):
            equal(got[name][self.busy], self.after[name][self.busy], name)
        return 0.0

    def _record(self, _: Item) -> float:
        return self._equal(self.state.text, self.after["text"], "text")
