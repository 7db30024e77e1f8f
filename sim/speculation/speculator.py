"""The steps in which a request decodes under speculation, one at a time or its whole course.

The one rule: `step` is the specification, and `course` gives the same numbers. Both depend on the
request, its draws and the cap on widths alone, never on the order of events.

A step takes the last committed token and a draft of some levels through the model (`rows` tokens).
The longest accepted prefix of the draft becomes output and one token more, which the model itself
gives at the first rejected position or behind the last accepted one (`bonus`, apart from
`accepted`): `commits` = `accepted` + 1. Metrics follow from the columns as in vLLM:
`spec_decode_num_drafts` counts steps with `proposed` > 0, `_num_draft_tokens` is the sum of
`proposed`, `_num_accepted_tokens` of `accepted`; acceptance is the ratio of the last two, and mean
acceptance length 1 + accepted / drafts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from sim.steps import Course, Step

from .controllers import Controller, Fixed

if TYPE_CHECKING:
    from collections.abc import Callable

    from sim.request import Request
    from sim.steps import Whole

    from .acceptance import Law
    from .trees import Tree


@dataclass(slots=True, eq=False)
class State:
    """Where a request's speculation stands; lives as long as the request does."""

    request_id: int
    chances: tuple[float, ...]
    """Chance by level that one of its candidates is accepted."""
    alike: bool
    """Whether all levels have the same chance."""
    controller: Controller


class Speculator:
    """Speculation of one scenario.

    *law* decides about drafts of *tree*, *controller* makes a request's own, *cap* gives the
    greatest width from batch, mean context and the share of KV memory that is used.
    """

    stalls = False

    def __init__(
        self,
        law: Law,
        tree: Tree,
        controller: Callable[[], Controller],
        cap: Callable[[int, float, float], int],
        seed: int,
    ) -> None:
        self.law = law
        self.tree = tree
        self.controller = controller
        self.cap = cap
        self.seed = seed
        self.nodes = np.array(tree.nodes, dtype=np.int64)
        self.most_rows = 1 + tree.nodes[-1]
        self.overhang = tree.spare_tokens
        self.max_depth = tree.levels

    def depth(self, proposed: Whole) -> Whole:
        """Levels of a draft of *proposed* tokens."""
        if self.tree.is_chain:
            return proposed
        found = self.nodes.searchsorted(proposed)
        return found if isinstance(proposed, np.ndarray) else int(found)

    def begin(self, request: Request) -> State:
        """The state of *request* before its first step; raises `InputError` if a column of
        acceptance rates has no row for it."""
        chances = self.tree.passing(self.law.chances(request.id))
        return State(request.id, chances, len(set(chances)) == 1, self.controller())

    def step(self, state: State, generated: int, output_tokens: int, cap: int) -> Step:
        """The next step of a request with *generated* of its *output_tokens* committed."""
        # Model: nothing is drafted beyond what is asked, as if the number of tokens were known
        # (benchmarks ignore the end-of-sequence token and set a limit): the last token is always
        # the model's own, and an accepted draft token always becomes output.
        levels = min(state.controller.width, cap, output_tokens - generated - 1)
        if levels <= 0:
            return Step(1, 1, 0, 0)
        accepted = 0
        while accepted < levels and self._passes(state, generated + accepted, accepted):
            accepted += 1
        state.controller.observe(accepted, levels)
        proposed = self.tree.nodes[levels]
        return Step(1 + proposed, accepted + 1, proposed, accepted)

    def _passes(self, state: State, position: int, level: int) -> bool:
        return self.law.draw(self.seed, state.request_id, position) < state.chances[level]

    def course(self, state: State, generated: int, output_tokens: int, cap: int) -> Course:
        """All steps that repeated `step` would give; leaves *state* as it is."""
        drafted = output_tokens - generated - 1  # positions that may hold a draft token
        positions = np.arange(generated, generated + drafted)
        draws = self.law.draws(self.seed, state.request_id, positions)
        width = min(state.controller.width, max(0, cap))
        if state.alike and isinstance(state.controller, Fixed):
            rejected = (draws >= state.chances[0]).nonzero()[0]
            accepted = _chopped(rejected, drafted, width)
            levels = _drafted(accepted, width)
        else:
            accepted, levels = _walk(state.controller.twin(), _runs(state, draws), max(0, cap))
        proposed = levels if self.tree.is_chain else self.nodes[levels]
        return Course(proposed + 1, accepted + 1, proposed, accepted)

    def advance(self, state: State, course: Course, steps: int) -> None:
        """Brings *state* to after the first *steps* steps of its *course*."""
        if isinstance(state.controller, Fixed):
            return
        observe = state.controller.observe
        accepted, levels = course.accepted[:steps], self.depth(course.proposed[:steps])
        for tokens, drafted in zip(accepted.tolist(), levels.tolist(), strict=True):
            if drafted:
                observe(tokens, drafted)


def _chopped(rejected: np.ndarray, drafted: int, width: int) -> np.ndarray:
    """Levels that each step accepts, if one *width* holds and positions are *rejected* anyhow.

    A step never goes beyond the next rejected position, where the model gives the token; so what
    lies between two of them is cut into steps of *width* and one token more, and one for the rest.
    """
    bounds = np.empty(len(rejected) + 2, dtype=np.int64)
    bounds[0] = -1
    bounds[1:-1] = rejected
    bounds[-1] = drafted  # the last token is always the model's
    gaps = bounds[1:] - bounds[:-1]
    gaps -= 1
    steps = gaps // (width + 1)
    rest = gaps - steps * (width + 1)
    steps += 1
    ends = np.add.accumulate(steps)
    accepted = np.empty(ends[-1], dtype=np.int64)
    accepted.fill(width)
    ends -= 1
    accepted[ends] = rest
    return accepted


def _drafted(accepted: np.ndarray, width: int) -> np.ndarray:
    """Levels that each of all steps of *width* drafts: fewer where the output ends."""
    levels = np.empty(len(accepted), dtype=np.int64)
    levels.fill(width)
    left = -1
    for i in range(len(accepted) - 1, -1, -1):
        left += int(accepted[i]) + 1
        if left >= width:
            break
        levels[i] = left
    return levels


def _runs(state: State, draws: np.ndarray) -> list[int]:
    """Levels that the widest draft would have accepted, from each position on; 0 at the end."""
    count = len(draws)
    if state.alike:
        here = np.arange(count + 1)
        ends = here.copy()
        ends[:-1][draws < state.chances[0]] = count
        runs = np.minimum.accumulate(ends[::-1])[::-1] - here
    else:
        runs = np.zeros(count + 1, dtype=np.int64)
        alive = np.ones(count, dtype=bool)
        for level, chance in enumerate(state.chances[:count]):
            alive = alive[: count - level] & (draws[level:] < chance)
            runs[: count - level] += alive
    found: list[int] = runs.tolist()
    return found


def _walk(controller: Controller, runs: list[int], cap: int) -> tuple[np.ndarray, np.ndarray]:
    """Levels that each step accepts, and levels that it drafts.

    *runs* has the greatest accepted length from each position, 0 for the last.
    """
    left = len(runs) - 1
    taken: list[int] = []
    levels: list[int] = []
    observe = controller.observe
    while left >= 0:
        width = controller.width
        if width > cap:
            width = cap
        if width > left:
            width = left
        accepted = 0
        if width > 0:
            accepted = runs[-1 - left]
            if accepted > width:
                accepted = width
            observe(accepted, width)
        taken.append(accepted)
        levels.append(width)
        left -= accepted + 1
    return np.array(taken, dtype=np.int64), np.array(levels, dtype=np.int64)
