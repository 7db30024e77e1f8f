"""A decode step of library products and one kernel a stage, prepared once and launched often."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from ..element import decode, encode
from ..kv_append.launch import append
from ..loop_control.record import Recorder
from ..page_score.launch import page_scores
from ..paged_attention.launch import Shape as AttentionShape
from ..paged_attention.launch import paged_attention
from ..small_ops.launch import rmsnorm, rope_turns, silu_mul
from ..topk_select.launch import topk_select
from ..verify_commit.launch import Slots, verify_commit, workspace
from ..w4a16_gemv.launch import gemv, plan
from ..w4a16_gemv.launch import workspace as gemv_workspace
from . import launch as own

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..backend import Array, Backend
    from .state import DecoderState
    from .weights import Weights

STAGES = ("embed", "qkv", "attend", "out", "gate_up", "down", "head", "commit")
"""In the order of a step; the five in the middle run once a layer."""
MOST_PACKED_ROWS = 16


@dataclass(frozen=True, slots=True)
class Item:
    """One launch of a step: a kernel, or a product of the library."""

    stage: str
    layer: int
    """-1 outside the layers."""
    name: str
    call: Callable[[], Any]


class LibraryStep:
    """One step over *state* as a list of launches, `items`; nothing is allocated in a launch.

    Products go to cuBLAS (`torch.mm`) or, with 4 *weight_bits*, to `w4a16_gemv`, which takes at
    most 16 rows. The residual is added in the norm that follows, so that `out` and `down` are
    products alone. *budget_pages* above zero attends to that many selected pages; *script* tells
    how many tokens are emitted (`verify_commit`). On the CPU NumPy multiplies. Raises `ValueError`
    at more rows than the products take.

    Buffers, rows = B * T: `h` [rows, hidden] the residual stream, `x` its normalised rows, `qkv`,
    `q`, `k`, `v`, `attended` [B, T, Hq, D], `product` [rows, hidden], `gate_up`, `activated`,
    `logits` [rows, V]; all bf16.
    """

    name = "library"
    stages = STAGES

    def __init__(
        self,
        backend: Backend,
        weights: Weights,
        state: DecoderState,
        *,
        weight_bits: int = 16,
        budget_pages: int = 0,
        script: Array | None = None,
    ) -> None:
        shape = state.shape
        self.backend, self.weights, self.state, self.shape = backend, weights, state, shape
        self.weight_bits, self.budget_pages, self.script = weight_bits, budget_pages, script
        rows = state.batch * state.tokens
        if weight_bits == 4:
            if rows > MOST_PACKED_ROWS:
                raise ValueError(f"{rows} rows of 4-bit weights, at most {MOST_PACKED_ROWS}")
            weights.pack()
        xp: Any = backend.xp
        lead, width = (state.batch, state.tokens), shape.head_dim

        def bf16(*size: int) -> Array:
            return xp.zeros(size, np.uint16)

        self.h, self.x, self.product = (bf16(rows, shape.hidden) for _ in range(3))
        self.qkv = bf16(rows, shape.q_width + 2 * shape.kv_width)
        self.q, self.attended = (bf16(*lead, shape.q_heads, width) for _ in range(2))
        self.k, self.v = (bf16(*lead, shape.kv_heads, width) for _ in range(2))
        self.gate_up, self.activated = bf16(rows, 2 * shape.ffn), bf16(rows, shape.ffn)
        self.logits = bf16(rows, shape.vocabulary)
        self.positions: Array = xp.zeros(rows, np.int32)
        self.draft: Array = xp.zeros((state.batch, state.tokens - 1), np.int32)
        self.status: Array = xp.zeros(2, np.uint32)
        pairs = (state.batch, shape.kv_heads)
        if budget_pages:
            scored = -(-state.slots.max_pages // 4) * 4
            self.scores: Array = xp.zeros((*pairs, scored), np.float32)
            self.selected: Array = xp.zeros((*pairs, budget_pages), np.int32)
            self.counts: Array = xp.zeros(pairs, np.int32)
        self._recorder = Recorder(backend)
        self.products = _Products(backend, weight_bits)
        self.items: list[Item] = []
        self._prepare()

    def launch(self) -> None:
        """Launches the step on CuPy's current stream; a capture may be under way."""
        with self.products.stream():
            for item in self.items:
                item.call()

    # ---------------------------------------------------------------------------- preparation
    def _add(self, stage: str, layer: int, name: str) -> None:
        """Keeps the launch that a launcher just made."""
        made = self._recorder.launches[-1]
        call: Callable[[], Any] = made
        if made.raw is not None:
            call = partial(made.raw, made.grid, (made.block,), made.values, shared_mem=made.shared)
        self.items.append(Item(stage, layer, name, call))

    def _multiply(self, stage: str, layer: int, x: Array, y: Array) -> None:
        """y = x times the transpose of the matrix called *stage*."""
        weights, head = self.weights, stage == "head"
        if self.weight_bits == 4:
            packed = weights.packed_head if head else getattr(weights.packed[layer], stage)
            self.products.packed(self._recorder, x, packed, y)
            self._add(stage, layer, "product")
        else:
            matrix = weights.head if head else getattr(weights.layers[layer], stage)
            self.items.append(Item(stage, layer, "product", self.products.plain(x, matrix, y)))

    def _prepare(self) -> None:
        state, shape, recorder = self.state, self.shape, self._recorder
        attention = AttentionShape(
            head_dim=shape.head_dim,
            group=shape.group,
            tokens=state.tokens,
            page_tokens=state.page_tokens,
            kv_bits=state.kv_bits,
        )
        buffers = attention.buffers(self.backend, state.batch, shape.kv_heads)
        turns = rope_turns(self.backend, shape.head_dim, shape.theta)
        lengths = state.slots.lengths
        own.embed(
            recorder, self.weights.embedding, state.text, lengths, self.h, self.positions,
            self.draft,
        )  # fmt: skip
        self._add("embed", -1, "embed")
        for i, layer in enumerate(self.weights.layers):
            self._norm("qkv", i, layer.attention_norm, first=i == 0)
            self._multiply("qkv", i, self.x, self.qkv)
            own.split_rope(recorder, self.qkv, self.positions, turns, self.q, self.k, self.v)
            self._add("qkv", i, "split_rope")
            self._attend(i, attention, buffers)
            rows = self.attended.reshape(len(self.h), shape.q_width)
            self._multiply("out", i, rows, self.product)
            self._norm("gate_up", i, layer.mlp_norm)
            self._multiply("gate_up", i, self.x, self.gate_up)
            silu_mul(recorder, self.gate_up, self.activated)
            self._add("gate_up", i, "silu_mul")
            self._multiply("down", i, self.activated, self.product)
        self._norm("head", -1, self.weights.final_norm)
        self._multiply("head", -1, self.x, self.logits)
        self._commit()

    def _norm(self, stage: str, layer: int, weight: Array, first: bool = False) -> None:
        x, residual = (self.h, None) if first else (self.product, self.h)
        rmsnorm(self._recorder, x, weight, self.x, self.shape.epsilon, residual=residual)
        self._add(stage, layer, "norm")

    def _attend(self, layer: int, attention: AttentionShape, buffers: tuple[Array, Array]) -> None:
        state, recorder, size = self.state, self._recorder, self.state.page_tokens
        cache, minmax = state.cache[layer], state.minmax[layer]
        common = (state.slots.table, state.slots.lengths)
        append(
            recorder, self.k, self.v, cache, minmax, *common, page_tokens=size, bits=state.kv_bits
        )
        self._add("qkv", layer, "append")
        if self.budget_pages:
            page_scores(recorder, self.q, minmax, *common, self.scores, page_tokens=size)
            self._add("attend", layer, "score")
            topk_select(
                recorder, self.scores, state.slots.lengths, self.selected, self.counts,
                new_tokens=state.tokens, budget=self.budget_pages, page_tokens=size,
            )  # fmt: skip
            self._add("attend", layer, "select")
        paged_attention(
            recorder, attention, self.q, cache, *common, self.attended, buffers,
            selected=self.selected if self.budget_pages else None,
            counts=self.counts if self.budget_pages else None,
        )  # fmt: skip
        self._add("attend", layer, "attend")

    def _commit(self) -> None:
        state, slots = self.state, self.state.slots
        held = Slots(
            lengths=slots.lengths,
            remaining=slots.remaining,
            page_counts=slots.page_counts,
            table=slots.table,
            free_ring=slots.ring,
            free_head=slots.free[:1],
            free_tail=slots.free[1:],
            status=self.status,
        )
        logits = self.logits.reshape(state.batch, state.tokens, self.shape.vocabulary)
        space = workspace(self.backend, state.batch, state.tokens, self.shape.vocabulary)
        verify_commit(
            self._recorder, logits, self.draft, slots.tokens[0], slots.emitted[0], held, space,
            page_tokens=state.page_tokens, script=self.script,
        )  # fmt: skip
        self._add("commit", -1, "verify")
        own.record(self._recorder, slots.tokens[0], slots.emitted[0], self.positions, state.text)
        self._add("commit", -1, "record")


class _Products:
    """Products y = x W^T on a backend: cuBLAS, NumPy, or the packed ones."""

    def __init__(self, backend: Backend, bits: int) -> None:
        self.backend, self._streams = backend, dict[int, Any]()
        self._plans: dict[tuple[int, int], tuple[Any, Any]] = {}
        self.torch: Any = None
        if backend.name == "gpu" and bits == 16:
            import torch

            self.torch = torch

    def stream(self) -> contextlib.AbstractContextManager[Any]:
        """PyTorch on CuPy's current stream."""
        if self.torch is None:
            return contextlib.nullcontext()
        pointer = int(self.backend.xp.cuda.get_current_stream().ptr)
        if pointer not in self._streams:
            cuda = self.torch.cuda  # which takes 0 for a wish for any stream of its own
            self._streams[pointer] = (
                cuda.ExternalStream(pointer) if pointer else cuda.default_stream()
            )
        context: contextlib.AbstractContextManager[Any] = self.torch.cuda.stream(
            self._streams[pointer]
        )
        return context

    def plain(self, x: Array, matrix: Array, y: Array) -> Callable[[], Any]:
        """A call of the library's product; *matrix* [n, k] bf16."""
        if self.torch is not None:
            torch = self.torch
            views = [torch.from_dlpack(array).view(torch.bfloat16) for array in (x, matrix, y)]
            return partial(torch.mm, views[0], views[1].T, out=views[2])
        values = decode(matrix, "bf16")

        def multiply() -> None:
            y[...] = encode(decode(x, "bf16") @ values.T, "bf16")

        return multiply

    def packed(self, recorder: Recorder, x: Array, weights: Array, y: Array) -> None:
        """Launches the 4-bit product; launches of one size share their workspace."""
        n, k = y.shape[1], x.shape[1]
        if (n, k) not in self._plans:
            cut = plan(n, k, len(x), 4, self.backend.sms)
            self._plans[n, k] = cut, gemv_workspace(self.backend, n, len(x), cut.pieces)
        cut, space = self._plans[n, k]
        gemv(recorder, x, weights, y, cut=cut, space=space)
