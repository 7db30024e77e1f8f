"""Decode iterations of the loops that a profile has as measured on a whole decoder.

The one rule: where a profile has no such loop for a scenario, or the scenario leaves what it was
measured on, nobody gets an answer here, and the cost model falls back on kernels timed one by one.
"""

from __future__ import annotations

from math import sqrt
from typing import TYPE_CHECKING

import numpy as np

from .decoder import DecoderStages
from .timing import scalars

if TYPE_CHECKING:
    from .forms import SplitKv
    from .models import ModelShape
    from .modes import Modes
    from .profile import Profile
    from .profile_loops import Loop
    from .scenario import Scenario
    from .timing import Timing


class Attention:
    """A layer's decode attention: base + sqrt((scale * context + offset)^2 + spread) seconds."""

    __slots__ = ("_arrays", "base", "offset", "scale", "spread")

    def __init__(self, base: float, scale: float, offset: float, spread: float) -> None:
        self.base, self.scale, self.offset, self.spread = base, scale, offset, spread
        self._arrays = scalars(base, scale, offset, spread)

    def seconds(self, context: float) -> float:
        """Time over *context* KV entries of all requests together."""
        streamed = self.scale * context + self.offset
        return self.base + sqrt(streamed * streamed + self.spread)

    def into(self, contexts: np.ndarray) -> np.ndarray:
        """`seconds` in place of each element of *contexts* (float64), equal to the last bit."""
        base, scale, offset, spread = self._arrays
        contexts *= scale
        contexts += offset
        contexts *= contexts
        contexts += spread
        np.sqrt(contexts, contexts)
        contexts += base
        return contexts


def attention_of(form: SplitKv, shape: ModelShape, requests: int, shift: float = 0.0) -> Attention:
    """*form* for *requests* requests, *shift* seconds longer, as a function of the context."""
    per_token = 2.0 * shape.kv_heads * shape.head_dim * form.kv_bytes
    per_request = 4.0 * shape.heads * shape.head_dim
    pairs = form.cta_s * requests * shape.kv_heads
    return Attention(
        form.t0_s + shift,
        per_token / form.bytes_per_s,
        per_request * requests / form.bytes_per_s + form.ramp_s,
        pairs * pairs,
    )


class MeasuredLoops:
    """What a profile's loops say of *scenario*'s decode iterations; *modes* schedules them."""

    def __init__(self, scenario: Scenario, profile: Profile, modes: Modes) -> None:
        self.scenario, self.profile, self.modes = scenario, profile, modes
        self.shape = scenario.model.shape
        self.left: dict[str, None] = {}
        """What was asked for and not answered."""
        self.answered: dict[str, int] = {}
        """The most requests that each loop was asked about."""

    def decode(self, mode: str, padded: int, batch: int) -> tuple[Timing, Attention] | None:
        """A decode iteration of *batch* requests run as *padded*; None if it was not measured."""
        loop = self._loop(mode, padded)
        if loop is None:
            return None
        modes = self.modes.measured(loop.parameters)
        scenario = self.scenario
        place = "resident" if mode == "resident" else scenario.loop.kernels
        stages = DecoderStages(
            self.profile, self.shape, place, scenario.model.weights,
            scenario.kv.dtype, modes.node, scenario.kv.block_tokens, "bf16",
        )  # fmt: skip
        work = stages.work(padded)
        run = {
            "graph": modes.graph, "control": modes.control, "resident": modes.resident
        }.get(mode, modes.host)  # fmt: skip
        attention = attention_of(stages.attention(), self.shape, padded, stages.shift)
        return run(work, batch), attention

    def _loop(self, mode: str, padded: int) -> Loop | None:
        loop = self.scenario.loop
        name = f"host-{loop.host}" if mode == "host" else mode
        name = f"{name}/{loop.kernels}"
        found = self.profile.loops.get(name)
        if found is None or self.shape.experts:
            self.left.setdefault(f"loops.{name}")
            return None
        if loop.kernels == "fused":
            # Its kernels are built for few rows and for 16 bits.
            formats = self.scenario.model.weights, self.scenario.kv.dtype
            if padded > found.domain["rows"][1] or formats != ("bf16", "bf16"):
                self.left.setdefault(f"loops.{name}")
                return None
        self.answered[name] = max(padded, self.answered.get(name, 0))
        return found

    def extrapolated(self) -> list[str]:
        """Where the run left what a loop was measured on, one phrase each."""
        found = []
        for name, batch in self.answered.items():
            low, high = self.profile.loops[name].domain.get("batch", (batch, batch))
            if not low <= batch <= high:
                found.append(f"loops.{name}: batch {batch:g} outside {low:g} to {high:g}")
        return found
