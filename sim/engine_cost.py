"""Seconds for an iteration from a profile of kernels inside an engine that was logged.

Decode steps are those of `Cost`, whose modes add what the engine does around them. The one rule:
what the kernels cost is asked of `Cost`; here stands only how this engine puts them into a step.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .accounting import Charge, Extra
from .cost import NOBODY, Cost
from .model_cost import layer_seconds
from .moe import fetch_of
from .stages import Stages
from .visited import Visited

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .cost import Chunk
    from .decode_cost import DecodeCost
    from .engine import Engine
    from .forms import Prompts
    from .node import Place
    from .profile import Profile
    from .scenario import Scenario


class EngineCost(Visited, Cost):
    """The cost model of a scenario whose profile has an engine over its kernels."""

    def __init__(self, scenario: Scenario, profile: Profile) -> None:
        super().__init__(scenario, profile)
        assert profile.engine is not None
        self.engine: Engine = profile.engine
        if scenario.loop.captured_batches is None and self.engine.captured:
            self.captured = self.engine.captured
        elif scenario.loop.captured_batches is not None:
            self.captured = scenario.loop.captured_batches
        if self.engine.prefill_kernels != scenario.loop.kernels:
            setup = self.model.setup
            self.stages = Stages(
                setup.shape, setup.weights, self.engine.prefill_kernels, profile, setup.experts
            )
        padded = 0 < len(self.captured) < max(self.captured, default=0)
        self.holds = scenario.loop.leaves and padded
        """Whether a decode batch stays as large as when the loop on the device was entered."""
        terms = self.engine.terms
        self.modes.relaunch = terms.get("enter_s", self.modes.relaunch)
        self.modes.exit = terms.get("leave_s", self.modes.exit)
        if self.engine.domain is not None:
            self.watch(self.engine.domain)
        if scenario.hardware.step_noise == "measured":
            self.ratios = self.engine.ratios

    def run_as(self, batch: int, rows: int) -> tuple[str, int, int]:
        """As `Cost.run_as`, padded to the engine's sizes in every mode."""
        padded = next((size for size in self.captured if size >= batch), None)
        if padded is None:
            return super().run_as(batch, rows)
        return self.loop.mode, padded, padded * -(-rows // batch)

    def more_for(self, held: int, batch: int, rows: int, context: int) -> float:
        """Seconds more than for *batch* requests because the loop runs on as for *held*."""
        tokens = held * -(-rows // batch)
        own, large = self.decode(batch, rows), self.decode(held, tokens)
        beside = self.modes.around(held) - self.modes.around(batch)
        return max(0.0, large.seconds(context) - beside - own.seconds(context))

    def mixed(
        self, batch: int, context: int, chunks: Sequence[Chunk], logits: int, slow: float = 1.0,
        rows: int | None = None, depth: int = 0, attended: int | None = None,
        pages: int | None = None, fetched: int | None = None, refreshed: Prompts | None = None,
    ) -> Charge:  # fmt: skip
        """As `Cost.mixed`, in the way in which this engine runs prompts beside decode."""
        around = self.modes.around(batch)
        if chunks:
            around += self.engine.term("prefill_step_s")
            around += self.engine.term("prefill_request_s") * len(chunks)
            around += self.engine.term("prefill_token_s") * sum(one.tokens for one in chunks)
        if not (self.engine.apart and chunks) or refreshed not in (None, NOBODY):
            own = super().mixed(
                batch, context, chunks, logits, slow, rows, depth, attended, pages, fetched,
                refreshed,
            )  # fmt: skip
            return own._replace(seconds=own.seconds + around)
        tokens = batch if rows is None else rows
        decode = alone = None
        first = submitted = 0.0
        if batch:
            alone = self.decode(batch, tokens, depth)
            decode = self.decode(batch, tokens, depth, slow=slow)
            first = decode.seconds(context, attended, pages, fetched) - self.modes.around(batch)
            submitted = _submitted(decode)
        prompts = max(0, logits - tokens)
        charge = self._prompts(chunks, prompts, slow, first, submitted)
        if alone is None:
            return charge._replace(seconds=charge.seconds + around)
        x = alone.reading(context, attended, pages)
        extra = charge.extra or Extra(0.0, 0.0, 0)
        extra = extra._replace(
            busy=extra.busy + alone.timing.busy(x), launches=extra.launches + alone.launches
        )
        return charge._replace(seconds=charge.seconds + around, extra=extra)

    def _prompts(
        self, chunks: Sequence[Chunk], logits: int, slow: float, first: float, submitted: float
    ) -> Charge:
        """A pass over *chunks* alone, behind a decode step of *first* seconds on the GPU that the
        host has submitted after *submitted* seconds."""
        work = self._pass(0, chunks, logits)
        queue = self.modes.queue(work, False, self._prefill(chunks))
        kernels = queue.kernel_seconds() + (slow - 1.0) * self._busy(queue)
        # Model: the host submits a prompt's launches while the GPU still decodes. Either the GPU
        # goes through decode and prompts without a gap, or it waits for launches as it would if
        # these were submitted behind the decode step's.
        alone = max(const for const, _ in queue.lines())
        seconds = max(first + kernels, submitted + alone)
        if self.wide.offloads:
            experts = self.wide.setup.experts
            fetch = fetch_of(self.profile, self.shape, self.weights, experts, work.body.tokens)
            seconds += fetch.wait(layer_seconds(work) + (queue.prefill or 0.0))
        extra = None
        if self.drafting is not None:
            extra = self._drafts(self.drafting, 0, 0, 0, chunks)
            seconds += extra.seconds + (slow - 1.0) * extra.busy
        return Charge(seconds, "host", queue, 0.0, slow, extra)

    def extrapolated(self) -> list[str]:
        """As `Cost.extrapolated`; also where the run left what the engine's log covers."""
        return [*self.engine.seams, *super().extrapolated(), *self.outside()]


def _submitted(decode: DecodeCost) -> float:
    """Seconds until the host has submitted the launches of a decode step."""
    queue = decode.timing.queue
    return 0.0 if queue is None else queue.launches * queue.submit


def faults(scenario: Scenario, engine: Engine) -> list[tuple[Place, str]]:
    """What of *scenario* the terms of *engine* do not hold for."""
    loop = scenario.loop
    found: list[tuple[Place, str]] = []
    pairs: list[tuple[str, str, str]] = [
        ("mode", loop.mode, engine.mode), ("kernels", loop.kernels, engine.kernels),
    ]  # fmt: skip
    if loop.mode == "host" == engine.mode:
        pairs.append(("host", loop.host, engine.host))
    for key, given, known in pairs:
        if given != known:
            what = f"{given}, and the engine was logged in {engine.words()}; write {known}"
            found.append((("loop", key), f"{what}, or fit a log of {given}"))
    if loop.mode == "resident" and loop.prefill == "partition":
        what = "partition: the engine's log has no prefill beside the loop; write exit"
        found.append((("loop", "prefill"), what))
    if scenario.schedule.asynchronous:
        what = "true: the engine's terms lie between its steps; write false"
        found.append((("schedule", "asynchronous"), what))
    return found
