"""Functional forms: how long a kernel takes as a function of the bytes and flops it handles.

The profile holds their parameters, the cost model calls them. All quantities are SI (seconds,
bytes, bytes/s, flop/s). The one rule: a scalar method and its array twin perform the same
operations in the same order, so that both engines of the simulator see the same bits.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .dtypes import BITS

if TYPE_CHECKING:
    from collections.abc import Iterable

FloatArray = NDArray[np.float64]
Reals = float | FloatArray


def gemm_bytes(m: float, n: float, k: float, weights: str) -> float:
    """Bytes of an *m* x *k* by *k* x *n* product: weights in their format, activations in 16 bits.

    # Model: scales of quantised formats are not counted and fp8 activations count as 16 bit,
    # because the calibration rows were computed so (calibration/README.md).
    """
    return n * k * BITS[weights] / 8.0 + 2.0 * (m * k + m * n)


def gemm_flops(m: float, n: float, k: float) -> float:
    """Flops of an *m* x *k* by *k* x *n* product, a multiply-add counted as two."""
    return 2.0 * m * n * k


@dataclass(frozen=True, slots=True)
class Roofline:
    """t = t0 + ((bytes/bw)^q + (flops/F)^q)^(1/q); *gemv*, if any, replaces it where faster.

    Where a kernel has them, *ramp_s* * bytes / (bytes + *half_bytes*) is added, what filling the
    SMs and the last, uneven wave cost, and *input_s* * inputs: every SM reads all m * k inputs.

    # Model: the library picks the faster of a matrix-vector and a matrix-matrix kernel. Only the
    # weight-only formats show that switch in the calibration rows (m <= 4 against m >= 8).
    """

    t0_s: float
    bytes_per_s: float
    flops_per_s: float
    q: float
    gemv: Roofline | None = None
    ramp_s: float = 0.0
    half_bytes: float = 1.0
    input_s: float = 0.0

    def seconds(self, bytes_moved: float, flops: float, inputs: float = 0.0) -> float:
        """Duration of one product that moves *bytes_moved* bytes and computes *flops*.

        *inputs*, the m * k activations, matter to few kernels.
        """
        memory = math.pow(bytes_moved / self.bytes_per_s, self.q)
        compute = math.pow(flops / self.flops_per_s, self.q)
        ramp = self.ramp_s * (bytes_moved / (bytes_moved + self.half_bytes))
        ramp += self.input_s * inputs
        time = self.t0_s + ramp + math.pow(memory + compute, 1.0 / self.q)
        if self.gemv is None:
            return time
        return min(time, self.gemv.seconds(bytes_moved, flops, inputs))

    def fixed(self, bytes_moved: float, flops: float, inputs: float = 0.0) -> float:
        """The part of `seconds` that does not grow with the work: t0 of the kernel picked."""
        if self.gemv is None:
            return self.t0_s
        own = Roofline(self.t0_s, self.bytes_per_s, self.flops_per_s, self.q)
        slower = self.gemv.seconds(bytes_moved, flops, inputs) >= own.seconds(bytes_moved, flops)
        return self.t0_s if slower else self.gemv.t0_s


@dataclass(frozen=True, slots=True)
class SplitKv:
    """t = t0 + sqrt((bytes/bw + ramp)^2 + (cta * batch * kv_heads)^2), decode attention.

    bytes = 2 * total_context * kv_heads * head_dim * kv_bytes + 4 * batch * heads * head_dim,
    with *kv_bytes* for one element of the cache. *ramp_s* is the time lost while the SMs fill,
    *cta_s* the cost of one (request, KV head) pair. Where a kernel has it, *column_s* is added for
    every doubling of a KV head's query rows beyond eight, the narrow side of a tensor-core product.

    # Model: the exponent is fixed at 2 and not fitted, because IEEE 754 rounds a square root
    # exactly: scalar and array code then agree to the last bit on every machine. A free exponent
    # was between 1.8 and 2.0 in fits of other implementations.
    # Model: time depends on the sum of the contexts, not on their skew: a kernel that deals equal
    # shares of blocks to the SMs. The calibration rows have equal contexts only.
    """

    t0_s: float
    bytes_per_s: float
    ramp_s: float
    cta_s: float
    kv_bytes: float
    column_s: float = 0.0

    def fixed(self, heads: float, kv_heads: float) -> float:
        """The part that neither context nor batch changes."""
        return self.t0_s + self.column_s * math.log2(math.ceil(heads / kv_heads / 8.0))

    def seconds(
        self, batch: float, total_context: float, heads: float, kv_heads: float, head_dim: float
    ) -> float:
        """Duration for *batch* requests that read *total_context* tokens together (batch >= 1)."""
        per_token = 2.0 * kv_heads * head_dim * self.kv_bytes
        fixed = 4.0 * batch * heads * head_dim
        stream = (total_context * per_token + fixed) / self.bytes_per_s + self.ramp_s
        pairs = self.cta_s * (batch * kv_heads)
        return self.fixed(heads, kv_heads) + math.sqrt(stream * stream + pairs * pairs)

    def array(
        self,
        batch: Reals,
        total_context: FloatArray,
        heads: Reals,
        kv_heads: Reals,
        head_dim: Reals,
    ) -> FloatArray:
        """`seconds` for each element of *total_context* (float64), bit-identical to the scalar."""
        per_token = 2.0 * kv_heads * head_dim * self.kv_bytes
        fixed = 4.0 * batch * heads * head_dim
        stream = (total_context * per_token + fixed) / self.bytes_per_s + self.ramp_s
        pairs = self.cta_s * (batch * kv_heads)
        columns = np.log2(np.ceil(heads / kv_heads / 8.0))
        fixed_time = self.t0_s + self.column_s * columns
        time: FloatArray = fixed_time + np.sqrt(stream * stream + pairs * pairs)
        return time


class Prompts(NamedTuple):
    """Whole prompts in one launch: how many, their tokens, and the sum of squares of these."""

    requests: int
    tokens: int
    squares: int

    @classmethod
    def of(cls, lengths: Iterable[int]) -> Prompts:
        """Those of so many tokens each."""
        known = list(lengths)
        return cls(len(known), sum(known), sum(tokens * tokens for tokens in known))


@dataclass(frozen=True, slots=True)
class RampedFlops:
    """t = t0 + flops * (1 + half_tokens/context) / F, causal prefill attention of one chunk."""

    t0_s: float
    flops_per_s: float
    half_tokens: float

    def seconds(self, heads: float, head_dim: float, chunk: float, offset: float) -> float:
        """Duration for *chunk* >= 1 new tokens behind *offset* tokens that are already cached."""
        flops = attention_flops(heads, head_dim, chunk, offset)
        ramp = 1.0 + self.half_tokens / (chunk + offset)
        return self.t0_s + flops * ramp / self.flops_per_s

    def together(self, heads: float, head_dim: float, prompts: Prompts) -> float:
        """Duration for whole *prompts*, nothing of which is cached."""
        scores = ramped_scores(prompts, self.half_tokens)
        return self.t0_s + 4.0 * heads * head_dim * scores / self.flops_per_s


def ramped_scores(prompts: Prompts, half_tokens: float) -> float:
    """Products of a query and a key in causal attention, (n^2 + n) / 2 for n tokens, of each prompt
    times 1 + half_tokens/n."""
    requests, tokens, squares = prompts
    return (squares + tokens + half_tokens * (tokens + requests)) / 2.0


def attention_flops(heads: float, head_dim: float, chunk: float, offset: float) -> float:
    """Flops of both products of causal attention: each token sees itself and all before it."""
    return 4.0 * heads * head_dim * (chunk * offset + chunk * (chunk + 1.0) / 2.0)


@dataclass(frozen=True, slots=True)
class RampedScores:
    """t = t0 + scores * (4 head_dim/F + score) * (1 + half_tokens/context), causal attention.

    A score is one product of a query and a key; *score_s* is what it costs beside its flops, the
    exponential most of all.
    """

    t0_s: float
    flops_per_s: float
    score_s: float
    half_tokens: float

    def seconds(self, heads: float, head_dim: float, chunk: float, offset: float) -> float:
        """Duration for *chunk* >= 1 new tokens behind *offset* tokens that are already cached."""
        scores = heads * (chunk * offset + chunk * (chunk + 1.0) / 2.0)
        each = 4.0 * head_dim / self.flops_per_s + self.score_s
        ramp = 1.0 + self.half_tokens / (chunk + offset)
        return self.t0_s + scores * each * ramp

    def together(self, heads: float, head_dim: float, prompts: Prompts) -> float:
        """Duration for whole *prompts*, nothing of which is cached."""
        each = 4.0 * head_dim / self.flops_per_s + self.score_s
        return self.t0_s + heads * ramped_scores(prompts, self.half_tokens) * each


@dataclass(frozen=True, slots=True)
class ChunkedPrefill:
    """A prompt's first chunk takes *fresh*, a chunk behind cached tokens *cached*.

    # Model: libraries run another kernel when the mask's corner is moved, with its own times.
    """

    fresh: RampedScores
    cached: RampedScores

    @property
    def t0_s(self) -> float:
        """The part of a launch that does not grow with the work."""
        return self.fresh.t0_s

    def seconds(self, heads: float, head_dim: float, chunk: float, offset: float) -> float:
        """Duration for *chunk* >= 1 new tokens behind *offset* tokens that are already cached."""
        form = self.cached if offset > 0.0 else self.fresh
        return form.seconds(heads, head_dim, chunk, offset)

    def together(self, heads: float, head_dim: float, prompts: Prompts) -> float:
        """Duration for whole *prompts*, nothing of which is cached."""
        return self.fresh.together(heads, head_dim, prompts)


@dataclass(frozen=True, slots=True)
class LinearBytes:
    """t = t0 + bytes/bw: small elementwise nodes (norm, rotary, append, activation, add)."""

    t0_s: float
    bytes_per_s: float

    def seconds(self, bytes_moved: float) -> float:
        """Duration of one node that moves *bytes_moved* bytes, read plus written."""
        return self.t0_s + bytes_moved / self.bytes_per_s


@dataclass(frozen=True, slots=True)
class CachedBytes:
    """t = t0 + bytes/bw, where a share of the bytes that falls to 0 at *l2_bytes* comes from L2.

    # Model: a small stage finds what the stage before has just written in the cache.
    """

    t0_s: float
    bytes_per_s: float
    l2_bytes_per_s: float
    l2_bytes: float

    def seconds(self, bytes_moved: float) -> float:
        """Duration of one node that moves *bytes_moved* bytes, read plus written."""
        hits = max(0.0, 1.0 - bytes_moved / self.l2_bytes)
        each = hits / self.l2_bytes_per_s + (1.0 - hits) / self.bytes_per_s
        return self.t0_s + bytes_moved * each


@dataclass(frozen=True, slots=True)
class StreamRows:
    """t = t0 + sqrt((bytes/bw + ramp)^2 + (row * rows)^2): one pass over memory, *rows* results.

    Page scoring, verification and KV append: *ramp_s* is the time lost while the SMs fill, *row_s*
    the cost of one row beside its bytes.
    """

    t0_s: float
    bytes_per_s: float
    ramp_s: float
    row_s: float

    def seconds(self, bytes_moved: float, rows: float) -> float:
        """Duration of one call that moves *bytes_moved* bytes for *rows* rows."""
        stream = bytes_moved / self.bytes_per_s + self.ramp_s
        rest = self.row_s * rows
        return self.t0_s + math.sqrt(stream * stream + rest * rest)


@dataclass(frozen=True, slots=True)
class Waves:
    """t = t0 + ceil(rows/slots) * (row + entry * entries): each block works through whole rows.

    Selection of pages: a row is the candidates of one (request, KV head) pair, *slots* rows run at
    a time.
    """

    t0_s: float
    row_s: float
    entry_s: float
    slots: float

    def seconds(self, rows: float, entries: float) -> float:
        """Duration for *rows* rows of *entries* candidates each."""
        rounds = math.ceil(rows / self.slots)
        return self.t0_s + rounds * (self.row_s + self.entry_s * entries)
