"""What tests of speculation share: speculators from keys, and requests played to their end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from sim.request import Request
from sim.speculation.build import speculator
from sim.speculative import Speculation
from sim.steps import Course, Step

if TYPE_CHECKING:
    from sim.speculation.caps import Seconds
    from sim.speculation.speculator import Speculator


def section(acceptance: Any, width: Any = 4, draft: Any = "mtp", **keys: Any) -> Speculation:
    data = {"draft": draft, "width": width, "acceptance": acceptance} | keys
    return Speculation.model_validate(data, context={"si": True})


def of(
    acceptance: Any, width: Any = 4, seed: int = 0, seconds: Seconds | None = None, **keys: Any
) -> Speculator:
    return speculator(section(acceptance, width, **keys), seed, seconds)


def request(number: int = 0, output_tokens: int = 100) -> Request:
    return Request(number, 0.0, 10, output_tokens)


def stepped(spec: Speculator, one: Request, generated: int = 1, cap: int = 64) -> list[Step]:
    """All steps of *one* by `step`."""
    state, steps = spec.begin(one), []
    while generated < one.output_tokens:
        steps.append(spec.step(state, generated, one.output_tokens, cap))
        generated += steps[-1].commits
    return steps


def steps_of(course: Course) -> list[Step]:
    return [Step(*row) for row in np.array(course).T.tolist()]


def full_steps(spec: Speculator, requests: int, output_tokens: int = 400) -> np.ndarray:
    """Accepted tokens of all steps whose draft had full width, over many requests."""
    most = spec.tree.nodes[-1]
    found = []
    for number in range(requests):
        one = request(number, output_tokens)
        course = spec.course(spec.begin(one), 1, output_tokens, 64)
        found.append(course.accepted[course.proposed == most])
    return np.concatenate(found)
