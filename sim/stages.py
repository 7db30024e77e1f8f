"""The stages of one forward pass and what each costs on the GPU.

A stage is one kernel launch, one graph node or one phase between two barriers, whichever way the
loop runs it: the three modes are compared on the same list. `library` is what a framework launches
(four matrix products, attention and nine small kernels a layer), `fused` folds the small kernels
into their neighbours (five stages a layer).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

from .dtypes import BITS
from .moe import Experts

if TYPE_CHECKING:
    from .cache_stages import CacheStages
    from .models import ModelShape
    from .profile import Profile
    from .setup import Setup

ELEMENT_BYTES = 2.0  # activations, embeddings and the LM head stay at 16 bits
SMALL = (
    "embed", "norm", "split", "rope_q", "rope_k", "append", "silu_mul", "add", "top_k", "combine",
    "sample",
)  # fmt: skip
KERNELS = {"rope_q": "rope", "rope_k": "rope"}
"""Kernel of a small stage in the profile, where it is named otherwise."""


class Stage(NamedTuple):
    """One stage but decode attention, whose time depends on the context."""

    name: str
    seconds: float
    """In steady graph replay, the gap between nodes included, as the profile's tables time it."""
    fixed: float = 0.0
    """The part of `seconds` that does not grow with the work: gap, ramp up, drain."""
    weight_bytes: float = 0.0
    """Weights it streams, which a resident loop may begin to fetch before the barrier."""


@dataclass(frozen=True, slots=True, eq=False)
class Body:
    """The layers' stages for *tokens* tokens; attention is between *before* and *after*."""

    tokens: int
    head: tuple[Stage, ...]
    before: tuple[Stage, ...]
    after: tuple[Stage, ...]
    layers: int
    chosen: tuple[Stage, ...] = ()
    """Scoring and selection of pages, just before attention."""
    selections: int = 0
    """Layers that have them: the last of each group of layers that attend to the same pages."""


class Pass(NamedTuple):
    """One forward pass: *body*, whose layers run one after the other, then *tail* once."""

    body: Body
    tail: tuple[Stage, ...]

    def stages(self) -> list[Stage]:
        """Every stage but attention; scoring and selection first, the others in order."""
        body = self.body
        layers = (body.before + body.after) * body.layers
        return [*body.head, *body.chosen * body.selections, *layers, *self.tail]


class Stages:
    """Builds the pass over a number of tokens, for one model and one stage list."""

    def __init__(
        self,
        shape: ModelShape,
        weights: str,
        kernels: str,
        profile: Profile,
        experts: Experts | None = None,
    ) -> None:
        self.shape = shape
        self.experts = experts or Experts(shape.experts, shape.experts_per_token)
        self.fused = kernels == "fused"
        self.weights = weights
        self.gemm = {name: profile.gemm(name) for name in (weights, "bf16")}
        self.small = {stage: profile.elementwise(KERNELS.get(stage, stage)) for stage in SMALL}
        self.products: set[tuple[str, int, int]] = set()
        """Weight format, k and n of every product so far: inputs and outputs of its matrix."""
        self.bodies: dict[int, Body] = {}
        self.samplers: dict[int, tuple[Stage, ...]] = {0: ()}

    def of(self, tokens: int, logits: int) -> Pass:
        """The pass over *tokens* tokens that samples from *logits* of them."""
        body = self.bodies.get(tokens)
        if body is None:
            body = self.bodies[tokens] = self._body(tokens)
        sampler = self.samplers.get(logits)
        if sampler is None:
            head = self._dense("lm_head", logits, self.shape.hidden, self.shape.vocab)
            sample = self._elementwise("sample", logits, self.shape.vocab)
            sampler = self.samplers[logits] = (head, sample)
        if self.fused:
            return Pass(body, sampler)
        return Pass(body, (self._elementwise("norm", tokens, 2 * self.shape.hidden), *sampler))

    def wide(self, cache: CacheStages, batch: int, rows: int, setup: Setup) -> Pass:
        """The pass of a decode step whose pages are selected or whose drafts are judged.

        *cache*: what the step does with its KV; scoring and selection over no page are in the pass.
        """
        work = self.of(rows, rows)
        body, tail = work.body, work.tail
        if setup.commit is not None:
            seconds = cache.verify(self.shape.vocab, *setup.commit)
            tail = (*tail[:-1], Stage("verify", seconds))
        tail += tuple(self.heads(batch, setup))
        selecting = setup.selecting
        if selecting is None or not selecting.selections:
            return Pass(body, tail)
        chosen = (Stage("score", cache.score(0.0)), Stage("select", cache.select(0.0)))
        return Pass(replace(body, chosen=chosen, selections=selecting.selections), tail)

    def heads(self, requests: int, setup: Setup) -> list[Stage]:
        """The products of *setup* behind the LM head, a row a request."""
        return [self._dense(name, requests, k, n) for name, k, n in setup.extra]

    def _body(self, tokens: int) -> Body:
        shape = self.shape
        after = [self._gemm("o", tokens, shape.heads * shape.head_dim, shape.hidden)]
        head: list[Stage] = []
        if not self.fused:
            head = [self._elementwise("embed", tokens, 2 * shape.hidden)]
            after += [self._elementwise("add", tokens, 3 * shape.hidden)]
            after += [self._elementwise("norm", tokens, 2 * shape.hidden)]
        after += self._experts(tokens) if shape.experts else self._mlp(tokens)
        return Body(
            tokens, tuple(head), tuple(self._projection(tokens)), tuple(after), shape.layers
        )

    def _projection(self, tokens: int) -> list[Stage]:
        """What comes before attention: norm, QKV, rotary embedding, KV append."""
        shape = self.shape
        query, key = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
        qkv = self._gemm("qkv", tokens, shape.hidden, query + 2 * key)
        if self.fused:
            return [qkv]
        return [
            self._elementwise("norm", tokens, 2 * shape.hidden),
            qkv,
            self._elementwise("split", tokens, 2 * (query + 2 * key)),
            self._elementwise("rope_q", tokens, 2 * query),
            self._elementwise("rope_k", tokens, 2 * key),
            self._elementwise("append", tokens, 4 * key),
        ]

    def _mlp(self, tokens: int) -> list[Stage]:
        shape = self.shape
        gate_up = self._gemm("gate_up", tokens, shape.hidden, 2 * shape.ffn)
        down = self._gemm("down", tokens, shape.ffn, shape.hidden)
        if self.fused:
            return [gate_up, down]
        silu = self._elementwise("silu_mul", tokens, 3 * shape.ffn)
        return [gate_up, silu, down, self._elementwise("add", tokens, 3 * shape.hidden)]

    def _experts(self, tokens: int) -> list[Stage]:
        """Router, top-k, and the two products over the experts that the tokens hit."""
        shape = self.shape
        k = shape.experts_per_token
        distinct = self.experts.distinct(tokens)
        router = self._dense("router", tokens, shape.hidden, shape.experts)
        top_k = self._elementwise("top_k", tokens, shape.experts)
        gate_up = self._grouped("gate_up", tokens * k, shape.hidden, 2 * shape.ffn, distinct)
        down = self._grouped("down", tokens * k, shape.ffn, shape.hidden, distinct)
        if self.fused:
            return [router, top_k, gate_up, down]
        silu = self._elementwise("silu_mul", tokens * k, 3 * shape.ffn)
        combine = self._elementwise("combine", tokens * k, 2 * shape.hidden)
        add = self._elementwise("add", tokens, 3 * shape.hidden)
        return [router, top_k, gate_up, silu, down, combine, add]

    def _gemm(self, name: str, m: int, k: int, n: int) -> Stage:
        return self._product(name, self.weights, m, k, n)

    def _grouped(self, name: str, m: int, k: int, n: int, matrices: float) -> Stage:
        """*m* rows in all, each times one of *matrices* matrices."""
        return self._product(name, self.weights, m, k, n, matrices)

    def _dense(self, name: str, m: int, k: int, n: int) -> Stage:
        """A product whose weights stay at 16 bits: LM head, router."""
        return self._product(name, "bf16", m, k, n)

    def _product(
        self, name: str, weights: str, m: int, k: int, n: int, matrices: float = 1.0
    ) -> Stage:
        self.products.add((weights, k, n))
        form = self.gemm[weights]
        streamed = matrices * k * n * BITS[weights] / 8.0
        moved = streamed + ELEMENT_BYTES * m * (k + n)
        flops = 2.0 * m * n * k
        work = moved, flops, float(m * k)
        return Stage(name, form.seconds(*work), form.fixed(*work), streamed)

    def _elementwise(self, name: str, tokens: int, elements: int) -> Stage:
        """*elements* read and written for each of *tokens* tokens."""
        form = self.small[name]
        return Stage(name, form.seconds(ELEMENT_BYTES * tokens * elements), form.t0_s)
