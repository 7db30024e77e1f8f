"""Seconds for an iteration, from the profile: the only module the loop asks for time.

An iteration of b decode requests over c KV entries costs the same whichever requests they are, so
`Cost.decode(b)` is worked out once for each b and then evaluated at c, for one iteration or for
many at once with results equal to the last bit.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from .accounting import Accounts, account
from .measured import Attention, MeasuredLoops, attention_of
from .modes import Modes
from .profile import Profile, decode_kernel
from .stages import Pass, Stages
from .timing import slowed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .scenario import Scenario
    from .timing import LaunchQueue, Timing


class Chunk(NamedTuple):
    """A piece of one prompt: *tokens* to prefill after *offset* tokens that have KV already."""

    tokens: int
    offset: int


class Charge(NamedTuple):
    """A single iteration with prefill: its length, and what it is worked out from later.

    *attention* is decode attention's time in a layer, 0 if nothing decodes; *slow* how many times
    longer the GPU takes beside transfers of KV.
    """

    seconds: float
    path: str
    queue: LaunchQueue
    attention: float
    slow: float = 1.0


@dataclass(frozen=True, slots=True)
class DecodeCost:
    """An iteration in which all decode, run as *padded* requests."""

    padded: int
    timing: Timing
    attention: Attention

    def seconds(self, context: int) -> float:
        """Length of the iteration over *context* KV entries, those appended included."""
        return self.timing.seconds(self.attention.seconds(float(context)))

    def seconds_into(self, contexts: np.ndarray) -> np.ndarray:
        """`seconds` in place of each element of *contexts* (float64)."""
        return self.timing.seconds_into(self.attention.into(contexts))

    def account(self, contexts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """GPU-busy seconds and seconds of launches queued, for each of *contexts*."""
        x = self.attention.into(contexts.copy())
        return self.timing.busy(x), self.timing.tklqt(x, np.maximum)


class Cost:
    """The cost model of one scenario."""

    def __init__(self, scenario: Scenario, profile: Profile) -> None:
        loop, model = scenario.loop, scenario.model
        self.shape = model.shape
        self.loop = loop
        self.profile = profile
        self.stages = Stages(self.shape, model.weights, loop.kernels, profile)
        self.modes = Modes(profile, loop.host)
        self.measured = MeasuredLoops(scenario, profile, self.modes)
        self.measured.leave_as_measured()
        self.weights = model.weights
        self.kv_dtype = scenario.kv.dtype
        self.memory_of_profile = scenario.hardware.hbm.capacity is None
        self.split_kv = profile.decode_attention(scenario.kv.dtype)
        self.prefill_form = profile.prefill_attention()
        self.captured = loop.captures if loop.mode in ("graph", "control") else ()
        self.by_batch: dict[tuple[int, bool, float], DecodeCost] = {}
        self.by_requests: dict[int, Attention] = {}
        self.most_tokens = 0
        self.most_batch = 0
        self.most_context = 0
        self.least_context = 1 << 62

    def decode(self, batch: int, beside_prefill: bool = False, slow: float = 1.0) -> DecodeCost:
        """The cost of decoding *batch* requests, on fewer SMs when *beside_prefill*.

        The GPU takes *slow* times longer, because KV is moved meanwhile.
        """
        key = (batch, beside_prefill, slow)
        found = self.by_batch.get(key)
        if found is None:
            if slow == 1.0:
                found = self._decode(batch, beside_prefill)
            else:
                alone = self.decode(batch, beside_prefill)
                found = replace(alone, timing=slowed(alone.timing, slow))
            self.by_batch[key] = found
        return found

    def _decode(self, batch: int, beside_prefill: bool) -> DecodeCost:
        padded = next((size for size in self.captured if size >= batch), batch)
        replayed = self.loop.mode == "resident" or (self.captured and batch <= self.captured[-1])
        mode = self.loop.mode if replayed else "host"

        def alone(rows: int) -> Timing:
            return self.modes.run(mode, self.stages.of(rows, rows), batch)

        found = self.measured.decode(mode, padded, batch, alone)
        timing, attention = found or (alone(padded), self.attention(padded))
        if beside_prefill:
            timing = self.modes.beside_prefill(timing, self.loop.prefill_share)
        self.most_batch = max(self.most_batch, padded)
        self.most_tokens = max(self.most_tokens, padded)
        return DecodeCost(padded, timing, attention)

    def attention(self, requests: int) -> Attention:
        """A layer's decode attention for *requests* requests."""
        found = self.by_requests.get(requests)
        if found is None:
            found = self.by_requests[requests] = self._attention(requests)
        return found

    def _attention(self, requests: int) -> Attention:
        return attention_of(self.split_kv, self.shape, requests)

    def mixed(
        self, batch: int, context: int, chunks: Sequence[Chunk], logits: int, slow: float = 1.0
    ) -> Charge:
        """Decode of *batch* requests over *context* KV entries together with prefill *chunks*.

        *logits* of all tokens are sampled from. Runs as single launches in every mode: no graph
        is captured for it, and a resident loop has left before. The GPU takes *slow* times longer.
        """
        queue = self.modes.queue(
            self._pass(batch, chunks, logits), batch > 0, self._prefill(chunks)
        )
        x = self.attention(batch).seconds(float(context)) if batch else 0.0
        lines = queue.lines()
        if slow != 1.0:
            const, slope = lines[0]
            const += (slow - 1.0) * self._busy(queue)
            lines = ((const, slope * slow), *lines[1:])
        launched = max(const + slope * x for const, slope in lines)
        seconds = launched + self.modes.host_overhead(batch + len(chunks))
        return Charge(seconds, "host", queue, x, slow)

    def _busy(self, queue: LaunchQueue) -> float:
        """Seconds of all kernels but decode attention."""
        return queue.kernel_seconds() - queue.launches * self.modes.node

    def partition(self, chunks: Sequence[Chunk], logits: int, slow: float = 1.0) -> Charge:
        """Prefill *chunks* on their share of the SMs, beside the resident loop.

        The GPU takes *slow* times longer.
        """
        work = self._pass(0, chunks, logits)
        queue = self.modes.queue(work, False, self._prefill(chunks))
        seconds = self.modes.partition_seconds(queue, self.loop.prefill_share)
        if slow != 1.0:
            seconds += (slow - 1.0) * self._busy(queue) / self.loop.prefill_share
        return Charge(seconds, "partition", queue, 0.0, slow)

    def _pass(self, batch: int, chunks: Sequence[Chunk], logits: int) -> Pass:
        tokens = batch + sum(chunk.tokens for chunk in chunks)
        self.most_tokens = max(self.most_tokens, tokens)
        return self.stages.of(tokens, logits)

    def _prefill(self, chunks: Sequence[Chunk]) -> float:
        """Seconds of one layer's prefill attention: all chunks in one launch."""
        form, shape = self.prefill_form, self.shape
        seconds = form.t0_s
        for tokens, offset in chunks:
            self.most_context = max(self.most_context, tokens + offset)
            self.least_context = min(self.least_context, tokens + offset)
            seconds += (
                form.seconds(
                    heads=shape.heads, head_dim=shape.head_dim, chunk=tokens, offset=offset
                )
                - form.t0_s
            )
        return seconds

    def account(self, charges: Sequence[Charge]) -> Accounts:
        """Busy and queueing seconds, launches and syncs of single iterations, in bulk."""
        return account(charges, self.modes.node)

    def estimated(self) -> list[str]:
        """Names of the estimated constants and kernels that this scenario's loop depends on."""
        used = set(self.modes.uses(self.loop.mode, self.loop.prefill))
        used |= {f"gemm.{self.weights}", "gemm.bf16", "elementwise", "prefill_attention.bf16"}
        used.add(decode_kernel(self.kv_dtype))
        estimated = [
            name
            for name in self.profile.estimated()
            if name in used or name.rpartition(".")[0] in used
        ]
        attention = f"decode_attention.{self.kv_dtype}"
        if self.profile.kind(attention) == "estimated" and attention not in estimated:
            estimated.append(attention)
        estimated += self.measured.unmeasured
        kinds = self.profile.device.get("kinds", {})
        if self.memory_of_profile and kinds.get("hbm_bytes") == "estimated":
            estimated.append("hbm_bytes")
        return estimated

    def extrapolated(self) -> list[str]:
        """Where the run left the domain in which a kernel's form was fitted, one phrase each."""
        profile, shape = self.profile, self.shape
        attention = profile.kernel(decode_kernel(self.kv_dtype))
        prefill = profile.kernel("prefill_attention.bf16")
        found = profile.kernel(f"gemm.{self.weights}").outside(m=self.most_tokens)
        found += self.measured.extrapolated()
        for weights, k, n in sorted(self.stages.products):
            found += profile.kernel(f"gemm.{weights}").outside(k=k, n=n)
        if self.most_batch:
            found += attention.outside(
                batch=self.most_batch, heads=shape.heads, kv_heads=shape.kv_heads,
                head_dim=shape.head_dim,
            )  # fmt: skip
        if self.most_context:
            found += prefill.outside(context=self.least_context)
            found += prefill.outside(context=self.most_context)
        return list(dict.fromkeys(found))
