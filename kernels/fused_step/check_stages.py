"""Every launch of a fused step against float64, each on the inputs that the device gave it.

One rule: a stage's buffer is poisoned before the stage runs, so that an element that nobody wrote
is a NaN. Rows of idle slots stay poisoned, and nobody else may notice.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ..cache_layout import unpack
from ..checking import CheckError, close, equal, on_host
from ..element import decode
from ..page_score.reference import page_scores
from ..paged_attention.reference import attention_rows
from ..small_ops.reference import rmsnorm, silu_mul
from ..topk_select.reference import select
from .reference import Reference, snapshot

if TYPE_CHECKING:
    from ..backend import Array
    from ..decoder.reference import Fields
    from ..decoder.state import DecoderState
    from .launch import FusedStep

TOLERANCES = {"qkv": 8e-3, "score": 2e-5, "attend": 1e-2, "gate_up": 8e-3, "head": 5e-3}
"""Relative errors of whole arrays. Normed rows are rounded once, results once; logits are fp32."""
FEW = 8
"""Heads of all requests; where there are more, scores and attention are checked in two layers."""
ADDED, ROUNDING = 5e-3, 2.5e-3
"""Of what `out` and `down` add: relative to that, and to the residual stream that is rounded."""


def names_of(step: FusedStep) -> list[tuple[str, int]]:
    """(stage, layer) of each launch of *step*."""
    layers = range(step.model.shape.layers)
    middle = [(name, layer) for layer in layers for name in step.stages]
    return [("begin", -1), *middle, ("head", -1), ("commit", -1)]


class Told(Reference):
    """A reference that attends to the pages that *step* chose: of two that score nearly alike the
    device may take either, and then everything behind differs by more than rounding."""

    def __init__(self, step: FusedStep, reference: Reference) -> None:
        super().__init__(reference.weights, budget_pages=step.budget_pages)
        self._kept = reference._kept
        self._chosen: dict[tuple[int, int, int], Any] = {}

    def note(self, step: FusedStep, layer: int, table: Any) -> None:
        """Keeps what `step` has selected in *layer*; the first page tells the request."""
        selected, counts = (on_host(step.backend, a) for a in (step.selected, step.counts))
        for b, head in np.ndindex(counts.shape):
            key = layer, int(table[b, 0]), head
            self._chosen[key] = selected[b, head, : max(0, counts[b, head])].copy()

    def selection(
        self, state: DecoderState, layer: int, q: Array, pages: Array, length: int, head: int
    ) -> Any:
        """See `Reference.selection`."""
        return self._chosen[layer, int(pages[0]), head]


def check_stages(step: FusedStep, reference: Reference) -> tuple[float, Told]:
    """Runs *step*, which keeps its logits, launch by launch.

    The largest relative error, and a reference for the whole step.
    """
    watch, worst = _Watch(step, reference), 0.0
    for (name, layer), launch in zip(names_of(step), step.launches, strict=True):
        watch.poison(name)
        launch()
        step.backend.synchronize()
        if name != "begin":
            worst = max(worst, float(getattr(watch, f"_{name}")(layer)))
    return worst, watch.told


class _Watch:
    def __init__(self, step: FusedStep, reference: Reference) -> None:
        self.step, self.reference, self.told = step, reference, Told(step, reference)
        self.state, self.shape, self.weights = step.state, step.model.shape, reference.weights
        self.xp: Any = step.backend.xp
        self.before: Fields = snapshot(self.state)
        lengths, tokens = self.before["lengths"], self.state.tokens
        self.busy = [int(b) for b in np.flatnonzero(lengths >= 0)]
        places = np.where(lengths[:, None] < 0, -1, lengths[:, None] + np.arange(tokens))
        inputs = np.where(places < 0, 0, self.before["text"][range(len(places)), places.T].T)
        self.positions = self.xp.asarray(places.reshape(-1))
        self.rows = self.xp.asarray(np.flatnonzero(places.reshape(-1) >= 0))
        self.residual = self.weights.embedding[self.xp.asarray(inputs.reshape(-1))]
        """The residual stream as bf16, [rows, hidden]."""
        self._old: tuple[Array, Array] = self.state.cache[0].copy(), self.state.minmax[0].copy()

    def poison(self, name: str) -> None:
        """Nothing of what stage *name* is to write is left."""
        step = self.step
        buffers = {"qkv": "q", "score": "scores", "attend": "attended", "gate_up": "gated"}
        if name in buffers:
            getattr(step, buffers[name]).view(np.uint8)[...] = 0xFF
        if name == "select":
            step.selected[...] = step.counts[...] = -1
        if name == "head":
            step.logits[...] = np.nan

    def _near(self, got: Array, want: Array, name: str, layer: int) -> float:
        """Rows of busy slots agree."""
        got, want = (part.reshape(len(part), -1)[self.rows] for part in (got, want))
        return close(got, want, TOLERANCES[name], f"{name} of layer {layer}")

    def _normed(self, gains: Array) -> Array:
        return rmsnorm(decode(self.residual, "bf16"), decode(gains, "bf16"), self.shape.epsilon)

    def _pages(self, b: int) -> Array:
        """Physical pages of request *b*, this step's too."""
        held = -(-(int(self.before["lengths"][b]) + self.state.tokens) // self.state.page_tokens)
        return self.xp.asarray(self.before["table"][b, :held].astype(np.int64))

    # ------------------------------------------------------------------------ keys and values
    def _qkv(self, layer: int) -> float:
        step, state, tokens = self.step, self.state, self.state.tokens
        x = self._normed(self.weights.layers[layer].attention_norm)
        product = x @ self.reference.matrix("qkv", layer).T
        q, k, v = self.reference.rotated(product, self.positions)
        got_q = decode(step.q[: step.rows], "bf16")
        worst, touched = self._near(got_q, q, "qkv", layer), []
        for b in self.busy:
            length, pages = int(self.before["lengths"][b]), self._pages(b)
            mine = slice(b * tokens, (b + 1) * tokens)
            held = self.reference.committed(state, layer, pages, length + tokens)
            for got, new in zip(held, (k, v), strict=True):
                want = new[mine].transpose(1, 0, 2)
                worst = max(worst, close(got[:, length:], want, TOLERANCES["qkv"], "appended"))
            touched.append(pages[length // state.page_tokens :])
            self._kept(layer, b, pages, length)
            if step.budget_pages:
                self._bounds(layer, pages, length, held[0])
        self._untouched(layer, self.xp.concatenate(touched))
        return worst

    def _kept(self, layer: int, b: int, pages: Array, length: int) -> None:
        """The page that the step's first token joins keeps the tokens it had."""
        first, held = divmod(length, self.state.page_tokens)
        page = pages[first : first + 1]
        parts = [
            unpack(cache[page], self.state.page_tokens, self.shape.head_dim, 16)
            for cache in (self.state.cache[layer], self._old[0])
        ]
        for now, then in zip(*parts, strict=True):
            if bool((now[:, :, :held] != then[:, :, :held]).any()):
                raise CheckError(f"qkv of layer {layer}: the past of request {b} was written")

    def _untouched(self, layer: int, touched: Array) -> None:
        """Every other page of the layer is as it was; keeps the next layer's."""
        state = self.state
        for now, old in zip((state.cache, state.minmax), self._old, strict=True):
            changed = (now[layer] != old).reshape(len(old), -1).any(axis=1)
            changed[touched] = False
            if bool(changed.any()):
                raise CheckError(f"qkv of layer {layer}: pages of others were written")
        after = min(layer + 1, self.shape.layers - 1)
        self._old = state.cache[after].copy(), state.minmax[after].copy()

    def _bounds(self, layer: int, pages: Array, length: int, keys: Array) -> None:
        """The step's keys widen the bounds of the page they join, and begin those of new ones."""
        size, end = self.state.page_tokens, length + self.state.tokens
        old = decode(self._old[1][pages], "bf16").astype(np.float64)
        got = decode(self.state.minmax[layer][pages], "bf16").astype(np.float64)
        for page in range(length // size, -(-end // size)):
            begin = page * size
            new = keys[:, max(begin, length) : min(begin + size, end)]
            low, high = new.min(axis=1), new.max(axis=1)
            if begin < length:
                low, high = low.clip(None, old[page, :, 0]), high.clip(old[page, :, 1])
            for part, want in enumerate((low, high)):
                if bool((got[page, :, part] != want).any()):
                    raise CheckError(f"bounds of page {page} in layer {layer}")

    # ------------------------------------------------------------------------ pages, attention
    def _passed(self, layer: int) -> bool:
        """Whether the heads of *layer* are left out."""
        many = len(self.busy) * self.shape.kv_heads > FEW
        return many and layer not in (0, self.shape.layers - 1)

    def _score(self, layer: int) -> float:
        step, worst = self.step, 0.0
        if self._passed(layer):
            return worst
        for b in self.busy:
            pages = self._pages(b)
            bounds = decode(self.state.minmax[layer][pages], "bf16")
            q = decode(step.q[: step.rows], "bf16").reshape(
                self.state.batch, self.state.tokens, self.shape.kv_heads, self.shape.group, -1
            )
            for head in range(self.shape.kv_heads):
                rows = q[b, :, head].reshape(-1, self.shape.head_dim)
                want = page_scores(rows, bounds[:, head, 0], bounds[:, head, 1])
                got = step.scores[b, head, : len(pages)]
                worst = max(worst, close(got, want, TOLERANCES["score"], f"score of {b}, {head}"))
        return worst

    def _select(self, layer: int) -> float:
        step, size = self.step, self.state.page_tokens
        scores, selected, counts = (
            on_host(step.backend, array) for array in (step.scores, step.selected, step.counts)
        )
        for b in self.busy:
            held = len(self._pages(b))
            new = held - int(self.before["lengths"][b]) // size
            for head in range(self.shape.kv_heads):
                want = select(scores[b, head], held, new, step.budget_pages, 1, 1)
                got = selected[b, head, : counts[b, head]]
                equal(got, want, f"pages of request {b}, head {head}")
        self.told.note(step, layer, self.before["table"])
        return 0.0

    def _attend(self, layer: int) -> float:
        step, state, shape, xp = self.step, self.state, self.shape, self.xp
        if self._passed(layer):
            return 0.0
        q = decode(step.q[: step.rows], "bf16")
        want = xp.zeros(q.shape, np.float64)
        for b in self.busy:
            length = int(self.before["lengths"][b])
            mine = slice(b * state.tokens, (b + 1) * state.tokens)
            end = length + state.tokens
            keys, values = self.reference.committed(state, layer, self._pages(b), end)
            for head in range(shape.kv_heads):
                places = xp.arange(end)
                if step.budget_pages:
                    chosen = step.selected[b, head, : int(step.counts[b, head])]
                    places = places[xp.isin(places // state.page_tokens, chosen)]
                group = slice(head * shape.group, (head + 1) * shape.group)
                seen = (keys[head, places], values[head, places], places)
                want[mine, group] = attention_rows(
                    q[mine, group], *seen, length, shape.head_dim**-0.5
                )
        return self._near(decode(step.attended[: step.rows], "bf16"), want, "attend", layer)

    # ------------------------------------------------------------------------ products
    def _out(self, layer: int) -> float:
        return self._added(self.step.attended, "out", layer)

    def _down(self, layer: int) -> float:
        return self._added(self.step.gated, "down", layer)

    def _added(self, source: Array, name: str, layer: int) -> float:
        """What was added to the residual stream, up to the rounding of the sum."""
        rows, after = self.step.rows, self.step.hidden[: self.step.rows].copy()
        x = decode(source[:rows].reshape(rows, -1), "bf16").astype(np.float64)[self.rows]
        want = x @ self.reference.matrix(name, layer).T
        was, now = (
            decode(part, "bf16").astype(np.float64)[self.rows] for part in (self.residual, after)
        )
        self.residual = after
        share: float = float(((was + want) ** 2).sum() / (want**2).sum()) ** 0.5
        bound = ADDED + ROUNDING * share
        error: float = close(now - was, want, bound, f"{name} of layer {layer}")
        return error / share

    def _gate_up(self, layer: int) -> float:
        x = self._normed(self.weights.layers[layer].mlp_norm)
        want = silu_mul(self.xp, x @ self.reference.matrix("gate_up", layer).T)
        return self._near(decode(self.step.gated[: self.step.rows], "bf16"), want, "gate_up", layer)

    def _head(self, layer: int) -> float:
        want = self._normed(self.weights.final_norm) @ self.reference.matrix("head").T
        return self._near(self.step.logits, want, "head", layer)

    def _commit(self, _: int) -> float:
        """The commit that follows from the device's own logits."""
        state, step = self.state, self.step
        logits = step.logits.astype(np.float64)
        after = self.reference.committed_by(logits, self.before, state.tokens, state.page_tokens)
        same_slots(snapshot(state), after)
        got = snapshot(state)
        for name in ("tokens", "emitted"):
            equal(got[name][self.busy], after[name][self.busy], name)
        return equal(on_host(step.backend, step.best), np.zeros(len(step.best)), "best")


def same_slots(got: Fields, want: Fields, what: str = "commit") -> None:
    """Slots, pages and text of two snapshots are equal; raises `CheckError`."""
    for name in ("lengths", "remaining", "page_counts", "free_head", "free_tail", "text"):
        equal(got[name], want[name], f"{what}: {name}")
    for b in np.flatnonzero(want["lengths"] != -1):
        held = want["page_counts"][b]
        equal(got["table"][b, :held], want["table"][b, :held], f"{what}: pages of request {b}")
