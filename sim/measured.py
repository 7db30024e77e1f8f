"""Decode iterations of the loops that a profile has as measured on a whole decoder.

The one rule: where a profile has no such loop for a model, or the model leaves what it was measured
on, nobody gets an answer here, and the cost model falls back on kernels timed one by one.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from .curve import Curve, Mix, Part
from .decoder import GREEDY, DecoderStages

if TYPE_CHECKING:
    from collections.abc import Callable

    from .cache_stages import CacheStages
    from .forms import SplitKv
    from .models import ModelShape
    from .modes import Modes
    from .profile import Prefill
    from .selecting import Selecting
    from .setup import Setup
    from .stages import Pass
    from .timing import Timing

Layer = Curve | Mix
"""Seconds of what a layer does with the KV that requests have."""
NARROW = 8
"""New tokens a request up to which attention is bound by the KV that it reads."""


def attention_of(
    form: SplitKv,
    shape: ModelShape,
    requests: int,
    rows: int,
    prefill: Prefill,
    shift: float = 0.0,
) -> Curve:
    """*form* for *rows* new tokens of *requests* requests, *shift* seconds longer, by context."""
    per_token = 2.0 * shape.kv_heads * shape.head_dim * form.kv_bytes
    per_request = 4.0 * shape.heads * shape.head_dim
    pairs = form.cta_s * requests * shape.kv_heads
    # Model: queries of all new tokens of a request share its keys and count as more heads; where
    # widths differ, by their mean.
    heads = shape.heads * (rows / requests)
    scale = per_token / form.bytes_per_s
    if rows > NARROW * requests:
        # Model: from some width on products of queries and keys take longer than reading the keys:
        # as long as those of a prefill chunk behind so much context.
        far = 1e9
        score = prefill.seconds(1.0, shape.head_dim, 1.0, far) - prefill.t0_s
        scale = max(scale, heads * score / far)
    return Curve(
        form.fixed(heads, shape.kv_heads) + shift,
        scale,
        per_request * rows / form.bytes_per_s + form.ramp_s,
        pairs * pairs,
    )


def mixed_layer(selecting: Selecting, dense: Curve, selected: Curve, cache: CacheStages) -> Mix:
    """The mean layer of a step that selects pages.

    What scoring and selection take over no page at all is left out: stages of their own have it.
    """
    share, some = selecting.sparse_share, selecting.selecting_share
    parts = [Part("attention", share, "attended", selected)]
    if selecting.dense:
        parts.append(Part("attention", 1.0 - share, "context", dense))
    if not selecting.selections:
        return Mix(parts, 0.0)
    parts.append(Part("score", some, "pages", cache.scoring(float(selecting.vectors))))
    parts.append(Part("select", some, "pages", cache.selecting()))
    return Mix(parts, some * (cache.score(0.0) + cache.select(0.0)))


class MeasuredLoops:
    """What a profile's loops say of decode iterations of *setup*; *modes* schedules them."""

    def __init__(self, setup: Setup, modes: Modes) -> None:
        self.setup, self.profile, self.modes = setup, setup.profile, modes
        self.shape = setup.shape
        self.kernels = setup.loop.kernels
        # The fused kernels are built for 16 bits.
        built = self.kernels == "library" or (setup.weights, setup.kv_dtype) == ("bf16", "bf16")
        known = any(name.endswith(f"/{self.kernels}") for name in self.profile.loops)
        self.usable = known and built and not self.shape.experts
        self.unmeasured: dict[str, None] = {}
        """Loops that were asked for and are not in the profile, or not for so many token rows."""
        self.most: dict[str, int] = {}
        """The most requests that each loop was asked about."""
        self.widest: dict[str, float] = {}
        """The most tokens a request that each loop was asked about."""
        self.by_name: dict[str, Modes] = {}
        self.factors: dict[tuple[str, int, int], float] = {}
        self.works: dict[tuple[bool, float, int, int], tuple[Pass, Layer]] = {}

    def leave_as_measured(self) -> None:
        """Lets the modes enter and leave the scenario's loop as that loop was seen to do."""
        found = self.profile.loops.get(f"{self.setup.loop.mode}/{self.kernels}")
        if self.usable and found is not None and found.leaving:
            self.modes.exit = found.leaving["exit_s"] + found.leaving["exit_to_idle_s"]
            self.modes.relaunch = found.leaving["relaunch_s"]

    def decode(
        self, mode: str, padded: int, rows: int, batch: int, alone: Callable[[int, int], Timing]
    ) -> tuple[Timing, Layer] | None:
        """A decode iteration of *batch* requests run as *padded* with *rows* tokens in all.

        None if nothing is known of it. *alone* gives what kernels timed one by one say of so many
        requests and rows.
        """
        found = self.loop_modes(mode, padded, rows)
        if found is None:
            return None
        modes, edge = found
        work, layer = self.work(mode, modes, padded, rows)
        if edge is None:
            return modes.run(mode, work, batch), layer
        factor = self.factor(mode, modes, edge, batch, alone)
        return scaled(alone(padded, rows), factor), layer

    def factor(
        self, mode: str, modes: Modes, edge: int, batch: int, alone: Callable[[int, int], Timing]
    ) -> float:
        """How many times longer a step of *edge* rows takes than its kernels one by one.

        *alone* schedules *batch* requests.
        """
        # Model: beyond the rows that the fused kernels are built for, steps grow as kernels timed
        # one by one say, from the last that was measured on.
        found = self.factors.get((mode, edge, batch))
        if found is None:
            last, _ = self.work(mode, modes, edge, edge)
            found = modes.run(mode, last, edge).lines[-1][0] / alone(edge, edge).lines[-1][0]
            self.factors[mode, edge, batch] = found
        return found

    def loop_modes(self, mode: str, padded: int, rows: int) -> tuple[Modes, int | None] | None:
        """The measured constants of *mode*; also the most rows of its kernels if *rows* are more.

        None if nothing is known of such steps.
        """
        host = self.setup.loop.host
        name = f"{f'host-{host}' if mode == 'host' else mode}/{self.kernels}"
        loop = self.profile.loops.get(name)
        if loop is None:
            self.unmeasured.setdefault(f"loops.{name}")
        if not self.usable:
            return None
        modes = self.by_name.get(name)
        if modes is None:
            modes = self.modes if loop is None else self.modes.measured(loop.parameters)
            modes = self.by_name[name] = modes.between() if self.setup.between else modes
        self.most[name] = max(padded, self.most.get(name, 0))
        self.widest[name] = max(rows / padded, self.widest.get(name, 1.0))
        _, most = (1, rows) if loop is None else loop.domain.get("rows", (1, rows))
        if self.kernels == "library" or rows <= most:
            return modes, None
        self.unmeasured.setdefault(f"loops.{name}")
        return modes, int(most)

    def work(self, mode: str, modes: Modes, padded: int, rows: int) -> tuple[Pass, Layer]:
        """The stages of such a step, and what a layer does with the KV."""
        inside = mode == "resident" and modes.stream is not None
        key = inside, modes.node, padded, rows
        found = self.works.get(key)
        if found is None:
            found = self.works[key] = self._work(*key)
        return found

    def _work(self, inside: bool, gap: float, padded: int, rows: int) -> tuple[Pass, Layer]:
        setup = self.setup
        stages = DecoderStages(
            self.profile, self.shape, "resident" if inside else self.kernels,
            setup.weights, setup.kv_dtype, gap, setup.page_tokens, "bf16",
        )  # fmt: skip
        commit = setup.commit or GREEDY
        prefill = self.profile.prefill_attention()

        def attends(selected: bool) -> Curve:
            form = stages.attention(padded, rows, selected)
            return attention_of(form, self.shape, padded, rows, prefill, stages.shift)

        selecting = setup.selecting
        if selecting is None:
            return stages.work(padded, rows, commit=commit, extra=setup.extra), attends(False)
        dense, selected = attends(selected=False), attends(selected=True)
        layer = mixed_layer(selecting, dense, selected, stages.cache(padded, rows))
        work = stages.work(padded, rows, 0.0, commit, selecting, setup.extra)
        return work, layer

    def extrapolated(self) -> list[str]:
        """Where the run left what a loop was measured on, one phrase each."""
        found = []
        matrix = f".{2 * self.shape.ffn}x{self.shape.hidden}."
        known = any(matrix in f"{name}." for name in self.profile.in_step)
        for name, batch in self.most.items():
            if name in self.profile.loops:
                domain = self.profile.loops[name].domain
                if not known:
                    found.append(f"loops.{name}: no step of a model of these widths was measured")
                low, high = domain.get("batch", (batch, batch))
                if not low <= batch <= high:
                    found.append(f"loops.{name}: batch {batch:g} outside {low:g} to {high:g}")
                tokens = self.widest[name]
                low, high = domain.get("tokens", (tokens, tokens))
                if not low <= tokens <= high:
                    found.append(f"loops.{name}: tokens {tokens:g} outside {low:g} to {high:g}")
        return found


def scaled(timing: Timing, factor: float) -> Timing:
    """*timing* with all but attention *factor* times as long."""
    lines = tuple((const * factor, slope) for const, slope in timing.lines)
    busy, slope = timing.busy_line
    return replace(timing, lines=lines, busy_line=(busy * factor, slope))
