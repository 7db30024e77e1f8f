"""Launchers of the fused step: its stages as kernels; resident.py has all of them in one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ..backend import layout
from ..checking import on_host
from ..decoder.nodes import EarlyLaunches
from ..loop_control.launch import Packed
from ..loop_control.record import Launch, Recorder
from ..page_score.launch import page_scores
from ..paged_attention.launch import PARAMS as ATTEND
from ..small_ops.launch import rope_turns
from ..topk_select.launch import topk_select
from ..verify_commit.launch import MODES
from ..verify_commit.launch import PARAMS as COMMIT
from .pack import tape, tape_bytes

if TYPE_CHECKING:
    from ..backend import Array, Backend
    from ..decoder.shape import Shape
    from ..decoder.state import DecoderState
    from ..decoder.weights import Weights

STEP = layout(
    *((name, "u8") for name in ("tape", "embedding", "gains", "turns", "text", "cache", "minmax")),
    *((name, "u8") for name in ("hidden", "q", "attended", "gated", "best", "draft")),
    ("scene", "u8"),
    *((name, "i8") for name in ("tape_bytes", "cache_bytes", "minmax_count")),
    *((name, "i4") for name in ("layers", "requests", "vocabulary", "text_size")),
    ("epsilon", "f4"),
)
PARAMS = np.dtype(
    [("step", STEP), ("attend", ATTEND), ("commit", COMMIT), ("logits", "u8")], align=True
)
THREADS = 512
STAGES = ("qkv", "attend", "out", "gate_up", "down")
SPARSE_STAGES = ("qkv", "score", "select", "attend", "out", "gate_up", "down")
MOST_ROWS = 16
ATTEND_WARPS = {1: 8, 2: 16}
"""Warps of a block that attend, by column tiles: few leave more shared memory to the weights."""


class Model:
    """Weights as the fused stages read them: tapes for *workers*, gains and rotary turns."""

    def __init__(
        self,
        backend: Backend,
        weights: Weights,
        workers: int | None = None,
    ) -> None:
        shape = weights.shape
        if shape.hidden % 1024 or shape.q_width % 512 or shape.ffn % 512 or shape.vocabulary % 16:
            raise ValueError(f"fused_step: {shape.name}: hidden % 1024, heads and ffn % 512")
        xp: Any = backend.xp
        self.backend, self.shape = backend, shape
        self.workers = workers or max(1, backend.sms - 1)
        self.tape: Array = tape(backend, weights, self.workers)
        self.embedding = weights.embedding
        norms = [n for layer in weights.layers for n in (layer.attention_norm, layer.mlp_norm)]
        self.gains: Array = xp.concatenate([*norms, weights.final_norm])
        self.turns: Array = rope_turns(backend, shape.head_dim, shape.theta)

    @property
    def bytes_streamed(self) -> int:
        """Bytes of weights that a step reads."""
        return sum(tape_bytes(self.shape, self.workers))


class FusedStep:
    """One decode step of *model* over *state* as a list of launches, one a stage and layer.

    Up to 16 token rows. *budget_pages* above 0 attends to so many pages of each KV head, selected
    by their scores; *script* tells how many tokens are emitted. With *keep_logits*, `logits`
    float32 [rows, vocabulary] receives the head's.
    """

    name = "fused"

    def __init__(
        self,
        backend: Backend,
        model: Model,
        state: DecoderState,
        *,
        budget_pages: int = 0,
        keep_logits: bool = False,
        script: Array | None = None,
    ) -> None:
        shape, rows = model.shape, state.batch * state.tokens
        if rows > 8 and shape.hidden > 2048:
            raise ValueError(f"fused_step: {rows} rows of {shape.hidden} values; at most 8")
        if state.batch * shape.kv_heads > model.workers:
            raise ValueError(
                f"fused_step: {state.batch} requests of {shape.kv_heads} heads, "
                f"{model.workers} workers"
            )
        if rows > MOST_ROWS or state.kv_bits != 16:
            raise ValueError(
                f"fused_step: {rows} rows of {state.kv_bits} bits; at most {MOST_ROWS} of 16"
            )
        xp: Any = backend.xp
        self.backend, self.model, self.state, self.rows = backend, model, state, rows
        self.budget_pages, self.script = budget_pages, script
        self.hidden: Array = xp.zeros((MOST_ROWS, shape.hidden), np.uint16)
        self.q: Array = xp.zeros((MOST_ROWS, shape.q_heads, shape.head_dim), np.uint16)
        self.attended: Array = xp.zeros_like(self.q)
        self.gated: Array = xp.zeros((MOST_ROWS, shape.ffn), np.uint16)
        self.best: Array = xp.zeros(MOST_ROWS, np.uint64)
        self.draft: Array = xp.zeros((state.batch, max(1, state.tokens - 1)), np.int32)
        self.status: Array = xp.zeros(2, np.uint32)
        self.logits: Array = xp.zeros((rows, shape.vocabulary), np.float32) if keep_logits else None
        items = (state.batch, shape.kv_heads)
        piece = -(-shape.group * state.tokens * (shape.head_dim + 2) // 4) * 4
        self.partial: Array = xp.zeros((model.workers, piece), np.float32)
        self.tickets: Array = xp.zeros(items, np.uint32)
        self.scores: Array = xp.full((*items, state.slots.max_pages), np.nan, np.float32)
        self.selected: Array = xp.zeros((*items, max(1, budget_pages)), np.int32)
        self.counts: Array = xp.zeros(items, np.int32)
        self.defines = (*defines(shape, state), f"SPARSE={int(budget_pages > 0)}")
        if script is not None:
            self.defines += ("SCRIPTED=1",)
        sizes: Array = xp.zeros(3, np.int32)
        backend.function("fused_step", "shared_sizes", self.defines)(1, 32, (sizes,))
        self.shared, self.commit_shared, scene = (int(size) for size in on_host(backend, sizes))
        self.scene: Array = xp.zeros(scene, np.uint8)
        self.params = Packed(self._params(), (model, state, self))
        self.launches = self._record()
        self._early: EarlyLaunches | None = None

    @property
    def stages(self) -> tuple[str, ...]:
        """Names of a layer's stages, in order."""
        return SPARSE_STAGES if self.budget_pages else STAGES

    @property
    def items(self) -> list[Launch]:
        """The launches of a step."""
        return self.launches

    def warm(self) -> None:
        """Nothing to do: recording the launches has loaded the kernels."""

    def launch(self) -> None:
        """Launches one whole step on the current stream."""
        for one in self.launches:
            one()

    def launch_early(self, stream: Any) -> None:
        """The same on *stream* from C: each kernel may start while the one before it ends."""
        if self._early is None or self._early.stream is not stream:
            self._early = EarlyLaunches(self.launches, stream)
        self._early()

    def _record(self) -> list[Launch]:
        recorder, workers = Recorder(self.backend), self.model.workers

        def stage(name: str, layer: int, grid: int = workers, shared: int = self.shared) -> None:
            kernel = recorder.function("fused_step", f"step_{name}", self.defines)
            kernel(grid, THREADS, (self.params, np.int32(layer)), shared)

        stage("begin", 0, 1, len(self.scene))
        for layer in range(self.model.shape.layers):
            for name in self.stages:
                if name in ("score", "select"):
                    own = self.selection(name, layer)
                    kernel = recorder.function("fused_step", f"step_{name}", self.defines)
                    kernel(workers, THREADS, (*own.args, np.int32(layer)), self.shared)
                else:
                    stage(name, layer)
        stage("head", 0)
        stage("commit", 0, 1, self.commit_shared)
        return recorder.launches

    def selection(self, name: str, layer: int) -> Launch:
        """What the folder's own launcher would do, for its parameters."""
        recorder, state = Recorder(self.backend), self.state
        tables = (state.slots.table, state.slots.lengths)
        if name == "score":
            q = self.q[: self.rows].reshape(state.batch, state.tokens, *self.q.shape[1:])
            page_scores(
                recorder, q, state.minmax[layer], *tables, self.scores,
                page_tokens=state.page_tokens,
            )  # fmt: skip
        else:
            topk_select(
                recorder, self.scores, state.slots.lengths, self.selected, self.counts,
                new_tokens=state.tokens, budget=self.budget_pages, page_tokens=state.page_tokens,
            )  # fmt: skip
        return recorder.launches[0]

    def _params(self) -> np.ndarray[Any, Any]:
        at, state, model, shape = self.backend.address, self.state, self.model, self.model.shape
        slots = state.slots
        value = np.zeros(1, PARAMS)
        step, attend, commit = value["step"], value["attend"], value["commit"]
        for name in ("tape", "embedding", "gains", "turns"):
            step[name] = at(getattr(model, name))
        for name in ("text", "cache", "minmax") if self.budget_pages else ("text", "cache"):
            step[name] = at(getattr(state, name))
        for name in ("hidden", "q", "attended", "gated", "best", "draft", "scene"):
            step[name] = at(getattr(self, name))
        step["tape_bytes"] = model.tape.nbytes // model.workers
        step["cache_bytes"] = state.cache[0].nbytes
        step["minmax_count"] = state.minmax[0].size
        for name in ("layers", "vocabulary", "epsilon"):
            step[name] = getattr(shape, name)
        step["requests"], step["text_size"] = state.batch, state.text_size
        for name, array in (
            ("q", self.q), ("cache", state.cache), ("table", slots.table),
            ("lengths", slots.lengths), ("out", self.attended), ("partial", self.partial),
            ("tickets", self.tickets),
        ):  # fmt: skip
            attend[name] = at(array)
        if self.budget_pages:
            attend["selected"], attend["counts"] = at(self.selected), at(self.counts)
            attend["k_max"] = self.selected.shape[-1]
        attend["requests"], attend["kv_heads"] = state.batch, shape.kv_heads
        attend["max_pages"], attend["scale"] = slots.max_pages, shape.head_dim**-0.5
        for name, array in (
            ("draft", self.draft), ("tokens", slots.tokens[0]), ("emitted", slots.emitted[0]),
            ("lengths", slots.lengths), ("remaining", slots.remaining),
            ("page_counts", slots.page_counts), ("table", slots.table), ("free_ring", slots.ring),
            ("free_head", slots.free[:1]), ("free_tail", slots.free[1:]),
            ("status", self.status), ("best", self.best),
        ):  # fmt: skip
            commit[name] = at(array)
        commit["batch"], commit["new_tokens"] = state.batch, state.tokens
        commit["vocabulary"], commit["max_pages"] = shape.vocabulary, slots.max_pages
        commit["ring_capacity"], commit["mode"] = len(slots.ring), MODES["greedy"]
        commit["scale"] = 1.0
        commit["uniforms"] = 0 if self.script is None else at(self.script)
        value["logits"] = 0 if self.logits is None else at(self.logits)
        return value


def defines(shape: Shape, state: DecoderState) -> tuple[str, ...]:
    """Macros of the build for *shape* and the rows of *state*."""
    columns = 1 if state.batch * state.tokens <= 8 else 2
    return (
        f"HEAD_DIM={shape.head_dim}",
        f"GROUP={shape.group}",
        f"KV_HEADS={shape.kv_heads}",
        f"TOKENS={state.tokens}",
        f"PAGE_TOKENS={state.page_tokens}",
        f"HIDDEN={shape.hidden}",
        f"HEADS_WIDTH={shape.q_width}",
        f"FFN={shape.ffn}",
        f"COLUMN_TILES={columns}",
        f"WORKERS={ATTEND_WARPS[columns]}",
    )
