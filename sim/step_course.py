"""What a replica's iterations take beyond their load: turns, held batches, and noise.

A profile of steps says how long a step takes by what it computes. Some of it depends on the steps
before (`step_turns`), and the scatter that is left is drawn from the log's ratios.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .rng import uniforms
from .step_cost import StepCost
from .step_form import Load, line

if TYPE_CHECKING:
    from .cost import Cost
    from .decoding import Decoding

    Lines = tuple[tuple[float, float], ...]


class Course:
    """The way of replica number *replica* through kinds of steps; asked of each of them once."""

    def __init__(self, cost: StepCost, seed: int, replica: int) -> None:
        self.cost = cost
        self.form = cost.steps.form
        self.ratios = cost.ratios
        self.key = seed, "step noise", replica
        self.after = ""
        """The kind of the iteration before, decode or prefill; none before the first."""
        self.idle = 0.0
        self.held = 0
        """Requests of the latest iteration that only decoded straight after prefill."""
        self.lines: dict[tuple[int, int, int], tuple[Lines, float]] = {}

    def prefill(self, seconds: float, number: int, batch: int, idle: float) -> float:
        """Seconds of iteration *number* with prefill beside *batch* decoding requests; nothing
        has run for *idle* seconds in all."""
        turned = self.after == "decode" and idle == self.idle
        self.after, self.idle = "prefill", idle
        turn = self.form.mixed.turn
        if turned and turn:
            seconds += line(turn, _load(batch, batch))[0]
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
        if self.form.held and self.held > batch:
            rows, context = decoding.load[:2]
            own, held = (self._known(size, batch, rows)[0] for size in (batch, self.held))
            seconds += max(0.0, _most(held, context) - _most(own, context))
        if turned and self.form.decode.turn:
            seconds[0] += self._known(batch, batch, decoding.rows)[1]
        return seconds if self.ratios is None else seconds * self._noise(number, seconds, turned)

    def _noise(self, number: int, seconds: np.ndarray, turned: bool) -> np.ndarray:
        assert self.ratios is not None
        drawn = uniforms(*self.key, np.arange(number, number + len(seconds)))
        found = self.ratios["decode"].draw(drawn)
        if turned:
            found[:1] = self.ratios["turned"].draw(drawn[:1])
        return found

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


def _most(lines: Lines, context: float) -> float:
    return float(max(const + slope * context for const, slope in lines))


def _load(requests: int, tokens: int) -> Load:
    return Load(float(requests), float(tokens), 0.0, 0.0, 0.0, 0.0)


def course_of(cost: Cost, seed: int, replica: int) -> Course | None:
    """The course of a replica's iterations, if *cost* is of steps."""
    return Course(cost, seed, replica) if isinstance(cost, StepCost) else None
