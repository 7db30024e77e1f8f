"""Decode iterations of the loops that a profile has as measured on a whole decoder.

The one rule: where a profile has no such loop for a scenario, or the scenario leaves what it was
measured on, nobody gets an answer here, and the cost model falls back on kernels timed one by one.
"""

from __future__ import annotations

from dataclasses import replace
from math import sqrt
from typing import TYPE_CHECKING

import numpy as np

from .decoder import DecoderStages
from .timing import scalars

if TYPE_CHECKING:
    from collections.abc import Callable

    from .forms import SplitKv
    from .models import ModelShape
    from .modes import Modes
    from .profile import Profile
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
        form.fixed(shape.heads, shape.kv_heads) + shift,
        per_token / form.bytes_per_s,
        per_request * requests / form.bytes_per_s + form.ramp_s,
        pairs * pairs,
    )


class MeasuredLoops:
    """What a profile's loops say of *scenario*'s decode iterations; *modes* schedules them."""

    def __init__(self, scenario: Scenario, profile: Profile, modes: Modes) -> None:
        self.scenario, self.profile, self.modes = scenario, profile, modes
        self.shape = scenario.model.shape
        self.kernels = scenario.loop.kernels
        formats = scenario.model.weights, scenario.kv.dtype
        # The fused kernels are built for 16 bits.
        built = self.kernels == "library" or formats == ("bf16", "bf16")
        known = any(name.endswith(f"/{self.kernels}") for name in profile.loops)
        self.usable = known and built and not self.shape.experts
        self.unmeasured: dict[str, None] = {}
        """Loops that were asked for and are not in the profile, or not for so many requests."""
        self.most: dict[str, int] = {}
        """The most requests that each loop was asked about."""

    def leave_as_measured(self) -> None:
        """Lets the modes enter and leave the scenario's loop as that loop was seen to do."""
        found = self.profile.loops.get(f"{self.scenario.loop.mode}/{self.kernels}")
        if self.usable and found is not None and found.leaving:
            self.modes.exit = found.leaving["exit_s"] + found.leaving["exit_to_idle_s"]
            self.modes.relaunch = found.leaving["relaunch_s"]

    def decode(
        self, mode: str, padded: int, batch: int, alone: Callable[[int], Timing]
    ) -> tuple[Timing, Attention] | None:
        """A decode iteration of *batch* requests run as *padded*; None if nothing is known of it.

        *alone* gives what kernels timed one by one say of so many requests.
        """
        host = self.scenario.loop.host
        name = f"{f'host-{host}' if mode == 'host' else mode}/{self.kernels}"
        loop = self.profile.loops.get(name)
        if loop is None:
            self.unmeasured.setdefault(f"loops.{name}")
        if not self.usable:
            return None
        modes = self.modes if loop is None else self.modes.measured(loop.parameters)
        self.most[name] = max(padded, self.most.get(name, 0))
        _, rows = (1, padded) if loop is None else loop.domain.get("rows", (1, padded))
        if self.kernels == "library" or padded <= rows:
            return self._measured(mode, modes, padded, batch)
        # Model: beyond the rows that the fused kernels are built for, steps grow as kernels timed
        # one by one say, from the last that was measured on.
        self.unmeasured.setdefault(f"loops.{name}")
        edge = int(rows)
        last, _ = self._measured(mode, modes, edge, edge)
        factor = last.lines[-1][0] / alone(edge).lines[-1][0]
        _, attention = self._measured(mode, modes, padded, batch)
        return scaled(alone(padded), factor), attention

    def _measured(
        self, mode: str, modes: Modes, padded: int, batch: int
    ) -> tuple[Timing, Attention]:
        scenario = self.scenario
        inside = mode == "resident" and modes.stream is not None
        stages = DecoderStages(
            self.profile, self.shape, "resident" if inside else self.kernels,
            scenario.model.weights, scenario.kv.dtype, modes.node, scenario.kv.block_tokens, "bf16",
        )  # fmt: skip
        timing = modes.run(mode, stages.work(padded), batch)
        return timing, attention_of(stages.attention(padded), self.shape, padded, stages.shift)

    def extrapolated(self) -> list[str]:
        """Where the run left what a loop was measured on, one phrase each."""
        found = []
        matrix = f".{2 * self.shape.ffn}x{self.shape.hidden}."
        known = any(matrix in f"{name}." for name in self.profile.in_step)
        for name, batch in self.most.items():
            if name in self.profile.loops:
                if not known:
                    found.append(f"loops.{name}: no step of a model of these widths was measured")
                low, high = self.profile.loops[name].domain.get("batch", (batch, batch))
                if not low <= batch <= high:
                    found.append(f"loops.{name}: batch {batch:g} outside {low:g} to {high:g}")
        return found


def scaled(timing: Timing, factor: float) -> Timing:
    """*timing* with all but attention *factor* times as long."""
    lines = tuple((const * factor, slope) for const, slope in timing.lines)
    busy, slope = timing.busy_line
    return replace(timing, lines=lines, busy_line=(busy * factor, slope))
