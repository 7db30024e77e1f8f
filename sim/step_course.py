"""What a replica's iterations take beyond their load: turns, held batches, and noise.

A profile of steps says how long a step takes by what it computes. Some of it depends on the steps
before (`step_turns`), and the scatter that is left is drawn from the log's ratios.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .engine_cost import EngineCost
from .rng import uniforms
from .step_cost import StepCost
from .step_form import Load, line

if TYPE_CHECKING:
    from .cost import Cost
    from .decoding import Decoding
    from .planner import Plan
    from .visited import Visited

    Lines = tuple[tuple[float, float], ...]


class Course:
    """The way of replica number *replica* through kinds of steps; asked of each of them once.

    By itself it adds noise; what turning and held batches take, those say that derive from it.
    """

    def __init__(self, cost: Visited, seed: int, replica: int) -> None:
        self.ratios = cost.ratios
        self.key = seed, "step noise", replica
        self.after = ""
        """The kind of the iteration before, decode or prefill; none before the first."""
        self.idle = 0.0
        self.held = 0
        """Requests of the latest iteration that only decoded straight after prefill."""

    def prefill(self, seconds: float, number: int, batch: int, idle: float, plan: Plan) -> float:
        """Seconds of iteration *number* with prefill as in *plan*, *batch* requests decoding beside
        it; nothing has run for *idle* seconds in all."""
        turned = self.after == "decode" and idle == self.idle
        self.after, self.idle = "prefill", idle
        if turned:
            seconds += self.turned_to_prefill(batch)
        seconds += self.new_shapes(plan)
        if self.ratios is not None:
            drawn = self.ratios["prefill"].draw(uniforms(*self.key, np.array([number])))
            seconds *= float(drawn[0])
        return seconds

    def decode(self, seconds: np.ndarray, number: int, decoding: Decoding) -> np.ndarray:
        """*seconds* of iterations from *number* on in which the requests of *decoding* decode, and
        what they take beyond that; *seconds* may be changed."""
        batch = len(decoding)
        turned, self.after = self.after == "prefill", "decode"
        if turned or not self.held:
            self.held = batch
        if self.held > batch:
            seconds += self.held_open(batch, decoding)
        if turned:
            seconds[0] += self.turned_to_decode(batch, decoding)
        return seconds if self.ratios is None else seconds * self._noise(number, seconds, turned)

    def new_shapes(self, plan: Plan) -> float:
        """More seconds of an iteration with chunks in *plan* whose shapes are new to the engine."""
        return 0.0

    def turned_to_prefill(self, batch: int) -> float:
        """More seconds of the first iteration with prefill beside *batch* requests."""
        return 0.0

    def turned_to_decode(self, batch: int, decoding: Decoding) -> float:
        """More seconds of the first iteration in which all of *decoding* do nothing else."""
        return 0.0

    def held_open(self, batch: int, decoding: Decoding) -> float:
        """More seconds of *batch* requests because the loop has room for those that have ended."""
        return 0.0

    def _noise(self, number: int, seconds: np.ndarray, turned: bool) -> np.ndarray:
        assert self.ratios is not None
        drawn = uniforms(*self.key, np.arange(number, number + len(seconds)))
        found = self.ratios["decode"].draw(drawn)
        if turned:
            found[:1] = self.ratios["turned"].draw(drawn[:1])
        return found


class StepCourse(Course):
    """That of a profile of steps."""

    def __init__(self, cost: StepCost, seed: int, replica: int) -> None:
        super().__init__(cost, seed, replica)
        self.cost = cost
        self.form = cost.steps.form
        self.lines: dict[tuple[int, int, int], tuple[Lines, float]] = {}
        self.met: set[tuple[int, ...]] = set()
        """Shapes of prompts that the replica has computed."""

    def new_shapes(self, plan: Plan) -> float:
        cold = self.form.cold
        if cold is None:
            return 0.0
        before = len(self.met)
        self.met.update(cold.shape(chunk) for chunk in plan.chunks.values())
        return cold.seconds * (len(self.met) - before)

    def turned_to_prefill(self, batch: int) -> float:
        turn = self.form.mixed.turn
        return float(line(turn, _load(batch, batch))[0]) if turn else 0.0

    def turned_to_decode(self, batch: int, decoding: Decoding) -> float:
        return self._known(batch, batch, decoding.rows)[1] if self.form.decode.turn else 0.0

    def held_open(self, batch: int, decoding: Decoding) -> float:
        if not self.form.held:
            return 0.0
        rows, context = decoding.load[:2]
        own, held = (self._known(size, batch, rows)[0] for size in (batch, self.held))
        return max(0.0, _most(held, context) - _most(own, context))

    def _known(self, size: int, batch: int, rows: int) -> tuple[Lines, float]:
        """Of *batch* requests with *rows* tokens, run as *size* would be: the straight lines in
        the context, and what turning to them takes."""
        key = size, batch, rows
        found = self.lines.get(key)
        if found is None:
            _, padded, _ = self.cost.run_as(size, size)
            regime = self.form.decode
            load = _load(padded, padded * -(-rows // batch) if padded > batch else rows)
            turn = line(regime.turn, regime.grained(load))[0]
            found = self.lines[key] = regime.lines(load), float(turn)
        return found


class EngineCourse(Course):
    """That of an engine over a profile of kernels."""

    def __init__(self, cost: EngineCost, seed: int, replica: int) -> None:
        super().__init__(cost, seed, replica)
        self.cost = cost
        # A loop on the device is entered and left where the replica says so.
        self.enters = 0.0 if cost.loop.leaves else cost.engine.term("enter_s")

    def turned_to_decode(self, batch: int, decoding: Decoding) -> float:
        return self.enters

    def held_open(self, batch: int, decoding: Decoding) -> float:
        if not self.cost.holds:
            return 0.0
        load = decoding.load
        return self.cost.more_for(self.held, batch, load.rows, load.context)


def _most(lines: Lines, context: float) -> float:
    return float(max(const + slope * context for const, slope in lines))


def _load(requests: int, tokens: int) -> Load:
    return Load(float(requests), float(tokens), 0.0, 0.0, 0.0, 0.0)


def course_of(cost: Cost, seed: int, replica: int) -> Course | None:
    """The course of a replica's iterations, if *cost* comes from an engine's log."""
    if isinstance(cost, StepCost):
        return StepCourse(cost, seed, replica)
    return EngineCourse(cost, seed, replica) if isinstance(cost, EngineCost) else None
