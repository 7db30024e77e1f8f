"""A decode step as a sum of kernels and of what its loop mode adds, over arrays of cells.

The simulator states the same once more (`sim/decoder.py`, `sim/modes.py`, `sim/stream.py`), in
closed form and one step at a time; a test holds the two against each other. Here a step is walked
through kernel by kernel.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..decoder.shape import SHAPES
from .decode_blocks import attention_kind
from .forms import FORMS, FloatArray

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .decode_blocks import Block

WEIGHT_BITS = {"bf16": 16, "w4a16": 4}
PRODUCT = {"bf16": "gemm.bf16", "w4a16": "gemm.int4"}
KV_BITS = {"bf16": 16.0, "int8": 8.0}
GROUPS = {
    "norm": "qkv", "rope": "qkv", "append": "qkv",
    "mlp_norm": "gate_up", "silu_mul": "gate_up", "final_norm": "head", "verify": "commit",
    "record": "commit",
}  # fmt: skip
"""The stage that a kernel's time is counted under in a record."""
Part = tuple[str, FloatArray, float]
"""A kernel: name, seconds in each cell, bytes of weights."""


@dataclass(frozen=True, slots=True)
class Layers:
    """The kernels of a step: once before the layers, around a layer's attention, once behind."""

    head: list[Part]
    before: list[Part]
    attend: FloatArray
    after: list[Part]
    tail: list[Part]
    layers: int

    def walk(self) -> list[FloatArray]:
        """Seconds of every kernel in order."""
        layer = [*self._times(self.before), self.attend, *self._times(self.after)]
        return [*self._times(self.head), *layer * self.layers, *self._times(self.tail)]

    def total(self) -> FloatArray:
        """Seconds of all kernels."""
        layer = sum(self._times([*self.before, *self.after]), self.attend)
        return sum(self._times([*self.head, *self.tail]), self.layers * layer)

    def stages(self) -> dict[str, FloatArray]:
        """Seconds of each stage of a record, over all layers."""
        found: dict[str, FloatArray] = {"attend": self.layers * self.attend}
        for parts, times in ((self.head, 1), (self.tail, 1)):
            self._add(found, parts, times)
        self._add(found, [*self.before, *self.after], self.layers)
        return found

    @staticmethod
    def _times(parts: Sequence[Part]) -> list[FloatArray]:
        return [seconds for _, seconds, _ in parts]

    @staticmethod
    def _add(found: dict[str, FloatArray], parts: Sequence[Part], times: int) -> None:
        for name, seconds, _ in parts:
            group = GROUPS.get(name, name)
            found[group] = found.get(group, 0.0) + times * seconds


def layers(block: Block, kernels: Mapping[str, Mapping[str, Any]], shift: float) -> Layers:
    """The kernels of *block*'s steps, each *shift* seconds longer than where it was timed."""
    return _Builder(block, kernels, shift).build()


class _Builder:
    def __init__(
        self, block: Block, kernels: Mapping[str, Mapping[str, Any]], shift: float
    ) -> None:
        cell = block.first.cell
        self.first = block.first
        self.kernels, self.shift = kernels, shift
        self.shape = SHAPES[cell["model"]]
        self.weights, self.kv = cell["weights"], cell["kv"]
        self.place = block.first.place
        self.page = cell["page_tokens"]
        self.batch, self.tokens = block.axis("batch"), block.axis("tokens")
        self.rows = self.batch * self.tokens
        context = np.array([point.context for point in block.points], np.float64)
        seen, budget = context + self.tokens, block.axis("budget_tokens")
        self.pages = np.ceil(seen / self.page)
        self.sparse = cell["budget_tokens"] > 0
        self.attended = np.minimum(seen, budget) if self.sparse else seen

    def build(self) -> Layers:
        shape = self.shape
        wide = shape.q_width + 2 * shape.kv_width
        chosen = [self.score(), self.select()] if self.sparse else []
        name = f"decode_attention.{self.kv}"
        several = self.tokens.max() > 1 and self.kv == "bf16"
        self.kind = attention_kind(self.first)
        own = ".".join(filter(None, (name, self.kind, self.place)))
        if several and own not in self.kernels:
            name = "verify_attention.bf16"
        if self.place != "library":
            return Layers(
                [self.small("begin", 2)],
                [self.product("qkv", shape.hidden, wide), *chosen],
                self.attention(name),
                [
                    self.product("out", shape.q_width, shape.hidden),
                    self.product("gate_up", shape.hidden, 2 * shape.ffn),
                    self.product("down", shape.ffn, shape.hidden),
                ],
                [
                    self.product("head", shape.hidden, shape.vocabulary),
                    self.verify("commit", 0),
                ],
                shape.layers,
            )
        before = [
            self.small("norm", 4 * shape.hidden),
            self.product("qkv", shape.hidden, wide),
            self.small("rope", 2 * wide),
            self.append(),
            *chosen,
        ]
        return Layers(
            [self.small("embed", 2 * shape.hidden)],
            before,
            self.attention(name),
            [
                self.product("out", shape.q_width, shape.hidden),
                self.small("mlp_norm", 4 * shape.hidden),
                self.product("gate_up", shape.hidden, 2 * shape.ffn),
                self.small("silu_mul", 3 * shape.ffn),
                self.product("down", shape.ffn, shape.hidden),
            ],
            [
                self.small("final_norm", 4 * shape.hidden),
                self.product("head", shape.hidden, shape.vocabulary),
                self.verify("verify", shape.vocabulary),
                self.small("record", 2),
            ],
            shape.layers,
        )

    def seconds(self, kernel: str, matrix: str = "", **axes: FloatArray | float) -> FloatArray:
        """Seconds of *kernel* in each cell, its gap in this loop included."""
        names = (f"{kernel}.{matrix}.{self.place}", f"{kernel}.{matrix}", f"{kernel}.{self.place}")
        entry = self.kernels[next((name for name in names if name in self.kernels), kernel)]
        like = np.ones_like(self.batch)
        found = FORMS[entry["form"]](entry["parameters"], {k: v * like for k, v in axes.items()})
        return found + self.shift

    def part(self, name: str, kernel: str, **axes: FloatArray | float) -> Part:
        return name, self.seconds(kernel, "", **axes), 0.0

    def small(self, name: str, elements: int) -> Part:
        kernel = f"elementwise.{name.removeprefix('mlp_').removeprefix('final_')}"
        kernel = kernel if kernel in self.kernels else "elementwise"
        return self.part(name, kernel, bytes=2.0 * self.rows * elements)

    def product(self, name: str, k: int, n: int) -> Part:
        streamed = k * n * WEIGHT_BITS[self.weights] / 8.0
        moved = streamed + 2.0 * self.rows * (k + n)
        kernel = PRODUCT[self.weights] if self.place == "library" else "gemv.bf16"
        seconds = self.seconds(
            kernel, f"{n}x{k}", bytes=moved, flops=2.0 * self.rows * n * k, inputs=self.rows * k
        )
        return name, seconds, streamed

    def attention(self, kernel: str) -> FloatArray:
        shape = self.shape
        return self.seconds(
            kernel, self.kind, batch=self.batch, total_context=self.batch * self.attended,
            heads=shape.q_heads * self.tokens, kv_heads=shape.kv_heads, head_dim=shape.head_dim,
        )  # fmt: skip

    def append(self) -> Part:
        shape, stored = self.shape, KV_BITS[self.kv] / 16.0
        pairs, token = self.batch * shape.kv_heads, 2.0 * shape.head_dim
        pages = 1.0 + (self.tokens - 1.0) / self.page
        moved = 2.0 * self.tokens * (1.0 + stored) + (self.page - 1.0) / 2.0 * stored + 2.0 * pages
        return self.part("append", "kv_append.bf16", bytes=pairs * token * moved, rows=pairs)

    def score(self) -> Part:
        shape, every = self.shape, self.batch * self.pages
        bounds = every * shape.kv_heads * 4.0 * shape.head_dim
        queries = 2.0 * self.rows * shape.q_width
        words = 4.0 * every * (shape.kv_heads + 1)
        pairs = self.batch * shape.kv_heads
        return self.part("score", "page_score", bytes=bounds + queries + words, rows=pairs)

    def select(self) -> Part:
        pairs = self.batch * self.shape.kv_heads
        return self.part("select", "topk_select", rows=pairs, entries=self.pages)

    def verify(self, name: str, vocabulary: int) -> Part:
        moved = 2.0 * self.rows * vocabulary
        return self.part(name, "verify_commit.greedy", bytes=moved, rows=self.rows)


def seconds(
    block: Block,
    kernels: Mapping[str, Mapping[str, Any]],
    loop: Mapping[str, float],
    gap: float,
) -> FloatArray:
    """Seconds of *block*'s steps with the constants *loop* of its mode.

    *gap* is the gap between two kernels that the times in *kernels* hold.
    """
    if block.first.mode == "resident":
        # Attention's kernel stands for its time between two meetings.
        return streamed(layers(block, kernels, -gap), block, loop)
    parts = layers(block, kernels, loop["node_s"] - gap)
    if "submit_s" not in loop:
        return loop["around_s"] + parts.total()
    times = parts.walk()
    end = np.zeros(len(block.points))
    for number, kernel in enumerate(times, 1):
        arrived = number * loop["submit_s"] + loop["latency_s"]
        end = np.maximum(end, arrived) + kernel
    return end + loop["around_s"]


def streamed(parts: Layers, block: Block, loop: Mapping[str, float]) -> FloatArray:
    """Seconds of resident steps: weights come ahead through a ring (see `sim/stream.py`)."""
    rows = block.axis("batch") * block.axis("tokens")
    rate, ring = loop["bytes_per_s"], loop["ring_bytes"] / loop["bytes_per_s"]
    meet = loop["meet_s"] + loop["row_s"] * rows + loop["tile_s"] * (np.ceil(rows / 8.0) - 1.0)
    end = np.full_like(rows, loop["around_s"])
    arrived = end - ring

    def stage(seconds: FloatArray, weights: float) -> None:
        nonlocal end, arrived
        begin = end + meet
        if weights:
            arrived = np.maximum(arrived, begin - ring) + weights / rate
            end = np.maximum(begin + weights / loop["consume_bytes_per_s"], arrived)
        else:
            end = begin + seconds
            arrived = arrived + np.maximum(seconds - loop["latency_s"], 0.0)

    for _ in range(parts.layers):
        for _, seconds, weights in [*parts.before, ("attend", parts.attend, 0.0), *parts.after]:
            stage(seconds, weights)
    for name, seconds, weights in parts.tail:
        if name != "commit":  # one block does that, the constant around a step holds it
            stage(seconds, weights)
    return end
