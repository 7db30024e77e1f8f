"""Seconds for an iteration from a step-level profile, in the place of the cost of kernels.

A batch that stands still costs the largest of a few straight lines in the context tokens, so the
machinery for many iterations at once (`decode_cost`, `cost_table`) serves here as it is: a layer's
time is the number of context tokens itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from .accounting import Accounts, Charge, account
from .cost import Cost
from .cost_table import CostTable
from .curve import Curve
from .decode_cost import DecodeCost
from .engine_cost import EngineCost
from .engine_cost import faults as engine_faults
from .step_form import Load as Counts
from .timing import LaunchQueue, Segment, Timing
from .visited import Visited
from .widening import Widening

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .cost import Chunk
    from .decode_cost import DecodeCost as Decode
    from .forms import Prompts
    from .node import Place
    from .profile import Profile
    from .scenario import Scenario
    from .step_form import Form
    from .step_profile import Steps

PATH = "engine"
_TOKENS = Curve(0.0, 1.0, 0.0, 0.0)
"""The context tokens themselves: the root of a square below 2^104 is exact."""
_NOTHING = Segment([])


@dataclass(frozen=True, slots=True)
class Apart:
    """What others ask of loop modes; an engine's steps hold all of it already."""

    exit: float = 0.0
    relaunch: float = 0.0
    node: float = 0.0
    asynchronous: bool = False


class StepCost(Visited, Cost):
    """The cost model of a scenario whose profile is of whole steps."""

    def __init__(self, scenario: Scenario, profile: Profile) -> None:
        assert profile.steps is not None
        self._made_of = scenario, profile
        self.steps: Steps = profile.steps
        self.shape = scenario.model.shape
        self.loop = scenario.loop
        self.profile = profile
        self.modes = Apart()  # type: ignore[assignment]
        self.wide = Widening(scenario, profile)
        self.drafting = None
        given = scenario.loop.captured_batches
        self.captured = self.steps.form.captured if given is None else given
        self.by_load = {}
        self.table = CostTable()
        self.places = {}
        self.watch(self.steps.domain)
        noisy = scenario.hardware.step_noise == "measured"
        self.ratios = self.steps.ratios if noisy else None

    def apart(self) -> StepCost:
        """Another one that nobody has asked anything yet; what it is asked leaves no mark here."""
        return StepCost(*self._made_of)

    def run_as(self, batch: int, rows: int) -> tuple[str, int, int]:
        """The path of all steps, and requests and tokens as they are padded."""
        padded = next((size for size in self.captured if size >= batch), None)
        if padded is None:
            return PATH, batch, rows
        return PATH, padded, padded * -(-rows // batch)

    def _decode(self, batch: int, rows: int, depth: int, beside_prefill: bool) -> Decode:
        _, padded, rows = self.run_as(batch, rows)
        load = Counts(float(padded), float(rows), 0.0, 0.0, 0.0, 0.0)
        lines = self.steps.form.decode.lines(load)
        busy = lines[-1]
        if self.steps.gpu is not None:
            busy = self.steps.gpu.decode.lines(load)[-1]
        timing = Timing(PATH, lines, busy, 0, 0, None)
        return DecodeCost(padded, rows, timing, _TOKENS)

    def mixed(
        self, batch: int, context: int, chunks: Sequence[Chunk], logits: int, slow: float = 1.0,
        rows: int | None = None, depth: int = 0, attended: int | None = None,
        pages: int | None = None, fetched: int | None = None, refreshed: Prompts | None = None,
    ) -> Charge:  # fmt: skip
        """Decode of *batch* requests over *context* KV entries together with prefill *chunks*."""
        load = Counts(
            float(batch), float(batch if rows is None else rows), float(context),
            float(len(chunks)), float(sum(c.tokens for c in chunks)),
            float(sum(c.offset for c in chunks)),
            float(sum(c.tokens * (c.offset + 0.5 * c.tokens) for c in chunks)),
        )  # fmt: skip
        seconds, busy = _both(self.steps.form, self.steps.gpu, load)
        extra = (slow - 1.0) * busy
        queue = LaunchQueue(0.0, 0.0, Segment([busy]), _NOTHING, False, None, _NOTHING, _NOTHING, 0)
        return Charge(seconds + extra, PATH, queue, 0.0, slow)

    def account(self, charges: Sequence[Charge]) -> Accounts:
        """Busy seconds of single iterations; launches and syncs are not known."""
        return account(charges, 0.0)

    def estimated(self) -> list[str]:
        """Nothing of a step's length is estimated where the log has steps of its kind."""
        return []

    def extrapolated(self) -> list[str]:
        """Where the run left what the step log covers, one phrase each."""
        return self.outside()


def _both(form: Form, gpu: Form | None, load: Counts) -> tuple[float, float]:
    """Seconds of a step with prefill, and of the GPU's work in it."""
    counted = load.counted(form.context_of)
    lines = form.mixed.lines(counted)
    seconds = max(const + slope * counted.context for const, slope in lines)
    const, slope = lines[-1] if gpu is None else gpu.mixed.lines(counted)[-1]
    return float(seconds), float(min(seconds, const + slope * counted.context))


def cost_of(scenario: Scenario, profile: Profile) -> Cost:
    """The cost model of *scenario*: of whole steps if its *profile* is, else of kernels, in the
    engine that the profile has over them, if any."""
    if profile.steps is not None:
        return StepCost(scenario, profile)
    return Cost(scenario, profile) if profile.engine is None else EngineCost(scenario, profile)


# ---------------------------------------------------------------- what steps cannot say
def faults(scenario: Scenario, profile: Profile) -> list[tuple[Place, str]]:
    """What of *scenario* its profile cannot say, or says only in another mode."""
    steps, mode = profile.steps, scenario.loop.mode
    if profile.engine is not None:
        return engine_faults(scenario, profile.engine)
    if steps is None:
        if mode != "engine":
            return []
        what = f"engine needs a profile of steps, and {profile.name} is of kernels"
        what += "; fit one with `residentsim profile fit`, or choose host, graph or resident"
        return [(("loop", "mode"), what)]
    found: list[tuple[Place, str]] = []
    if mode != steps.mode:
        what = f"{mode}, and profile {profile.name} is of steps in mode {steps.mode}"
        found.append((("loop", "mode"), f"{what}; write loop.mode: {steps.mode}"))
    if mode == "resident" and scenario.loop.prefill == "partition":
        what = "partition: a profile of steps knows no prefill beside the loop; write exit"
        found.append((("loop", "prefill"), what))
    hardware = scenario.hardware
    for key, given in (
        (("sparse",), scenario.sparse), (("block_decode",), scenario.block_decode),
        (("moe",), scenario.moe), (("hardware", "dram"), hardware.dram),
        (("hardware", "remote"), hardware.remote),
    ):  # fmt: skip
        if given is not None:
            what = "a profile of steps says nothing of it; remove it, or take a profile of kernels"
            found.append((key, what))
    most = steps.domain.ranges.get("tokens_each", (1.0, 1.0))[1]
    if scenario.speculation is not None and most <= 1.0:
        what = "the step log has a token a request; log an engine that speculates, or remove it"
        found.append((("speculation",), what))
    if scenario.kv.hbm_blocks is None and hardware.hbm.capacity is None:
        what = "missing; give the engine's number of KV blocks (or hardware.hbm.capacity)"
        found.append((("kv",), f"hbm_blocks: {what}"))
    return found
