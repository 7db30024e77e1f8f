"""How wide the next draft is: controllers with the history of one request.

The one rule: a controller sees accepted and drafted levels of its own request's steps and nothing
else, so its widths do not depend on the order of events. Caps over the whole batch are in `caps`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, Self

if TYPE_CHECKING:
    from collections.abc import Sequence


class Controller(Protocol):
    """Decides the width of a request's next step."""

    width: int
    """Levels to draft next."""

    def observe(self, accepted: int, levels: int) -> None:
        """Takes note that *accepted* of *levels* >= 1 drafted levels were accepted."""

    def twin(self) -> Self:
        """An independent copy in the same state."""


class Fixed:
    """Always the same width."""

    __slots__ = ("width",)

    def __init__(self, width: int) -> None:
        self.width = width

    def observe(self, accepted: int, levels: int) -> None:
        pass

    def twin(self) -> Fixed:
        return self


class AsbsRule:
    """Adaptive speculative block sizing of gpu-resident-inference-lab.

    The average acceptance moves by *alpha* towards each step's, from *high* on; the next width is
    *most* at *high* or above, midway between *least* and *most* at *low* or above, else *least*.
    """

    __slots__ = ("alpha", "high", "initial", "keep", "least", "low", "middle", "most")

    def __init__(
        self,
        least: int = 1,
        most: int = 8,
        initial: int | None = None,
        alpha: float = 0.2,
        high: float = 0.8,
        low: float = 0.5,
    ) -> None:
        self.least, self.most = least, most
        self.middle = (least + most) // 2
        self.initial = most if initial is None else initial
        self.alpha, self.keep = alpha, 1.0 - alpha
        self.high, self.low = high, low


class Asbs:
    """`AsbsRule` at work."""

    __slots__ = ("average", "rule", "width")

    START = 0.8
    """The average before the first step."""

    def __init__(self, rule: AsbsRule) -> None:
        self.rule = rule
        self.average = self.START
        self.width = rule.initial

    def observe(self, accepted: int, levels: int) -> None:
        rule = self.rule
        self.average = average = rule.alpha * (accepted / levels) + rule.keep * self.average
        if average >= rule.high:
            self.width = rule.most
        elif average >= rule.low:
            self.width = rule.middle
        else:
            self.width = rule.least

    def twin(self) -> Asbs:
        other = Asbs(self.rule)
        other.average, other.width = self.average, self.width
        return other


class WindowedRule:
    """The adaptive controller of llm-inference-lab.

    Before each step the acceptance of all the request's drafts so far is noted (0 before the
    first). Once four are noted, the mean of the last four moves the width: *step* up above
    *target* + *margin*, *step* down below *target* - *margin*. Since what is noted is cumulative,
    it reacts the more slowly the longer a request runs.
    """

    __slots__ = ("high", "initial", "least", "low", "most", "step")

    def __init__(
        self,
        least: int = 1,
        most: int = 8,
        initial: int = 4,
        step: int = 1,
        target: float = 0.7,
        margin: float = 0.1,
    ) -> None:
        self.least, self.most, self.initial, self.step = least, most, initial, step
        self.high, self.low = target + margin, target - margin


class Windowed:
    """`WindowedRule` at work."""

    __slots__ = ("accepted", "drafted", "first", "notes", "rule", "second", "third", "width")

    def __init__(self, rule: WindowedRule) -> None:
        self.rule = rule
        self.width = rule.initial
        self.accepted = self.drafted = 0
        self.first = self.second = self.third = 0.0  # noted last, the third one latest
        self.notes = 1

    def observe(self, accepted: int, levels: int) -> None:
        self.accepted += accepted
        self.drafted += levels
        now = self.accepted / self.drafted
        mean = (self.first + self.second + self.third + now) / 4
        self.first, self.second, self.third = self.second, self.third, now
        if self.notes < 3:
            self.notes += 1
            return
        rule = self.rule
        if mean > rule.high:
            self.width = min(self.width + rule.step, rule.most)
        elif mean < rule.low:
            self.width = max(self.width - rule.step, rule.least)

    def twin(self) -> Windowed:
        other = Windowed(self.rule)
        other.width, other.notes = self.width, self.notes
        other.first, other.second, other.third = self.first, self.second, self.third
        other.accepted, other.drafted = self.accepted, self.drafted
        return other


def trajectory(controller: Controller, observed: Sequence[tuple[int, int]]) -> list[int]:
    """Widths after each of the *observed* (accepted, levels) steps; moves *controller* on."""
    widths = []
    for accepted, levels in observed:
        controller.observe(accepted, levels)
        widths.append(controller.width)
    return widths
