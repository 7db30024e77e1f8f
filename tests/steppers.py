"""Small speculators and selections whose every number can be worked out by hand."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import numpy as np

from sim.rng import uniforms
from sim.steps import Course, Step

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sim.request import Request


class Looped:
    """Makes a course by taking its steps, on a copy of the state, which is a list."""

    overhang = 0
    stalls = False

    def step(self, state: list[int], generated: int, output_tokens: int, cap: int) -> Step:
        raise NotImplementedError

    def course(self, state: list[int], generated: int, output_tokens: int, cap: int) -> Course:
        copy, steps = list(state), []
        while generated < output_tokens:
            steps.append(self.step(copy, generated, output_tokens, cap))
            generated += steps[-1].commits
        columns = zip(*steps, strict=True) if steps else ((), (), (), ())
        return Course(*(np.array(column, np.int64) for column in columns))

    def advance(self, state: list[int], course: Course, steps: int) -> None:
        for step in range(steps):
            self.follow(state, Step(*(int(column[step]) for column in course)))

    def follow(self, state: list[int], step: Step) -> None:
        """What a step leaves in *state*."""

    def depth(self, proposed: Any) -> Any:
        return proposed


@dataclass
class Widths(Looped):
    """Chains of *width* drafts, each accepted with probability *rate*; *grows* after full success.

    *by_batch*: not wider than that over the batch, so that the cap changes with it.
    """

    width: int
    rate: float
    grows: bool = False
    by_batch: int = 0
    uncut: bool = False
    """Whether drafts go on beyond what is left of the output."""

    def __post_init__(self) -> None:
        self.most_rows = self.width + 1
        self.max_depth = self.width
        self.overhang = self.width if self.uncut else 0

    def begin(self, request: Request) -> list[int]:
        return [request.id, 1 if self.grows else self.width]

    def cap(self, batch: int, mean_context: float, pressure: float) -> int:
        return max(1, self.by_batch // batch) if self.by_batch else self.width

    def step(self, state: list[int], generated: int, output_tokens: int, cap: int) -> Step:
        left = output_tokens - generated
        proposed = min(state[1], cap, self.width if self.uncut else left - 1)
        draws = [uniforms(1, "test", state[0], generated + i) for i in range(proposed)]
        accepted = next((i for i, u in enumerate(draws) if u >= self.rate), proposed)
        accepted = min(accepted, left - 1)
        step = Step(proposed + 1, accepted + 1, proposed, accepted)
        self.follow(state, step)
        return step

    def follow(self, state: list[int], step: Step) -> None:
        if self.grows and step.proposed:
            full = step.accepted == step.proposed
            state[1] = min(self.width, state[1] + 1) if full else 1


@dataclass
class Blocks(Looped):
    """Blocks of *size* tokens, committed at once after every *rounds* steps."""

    size: int
    rounds: int
    max_depth = 0
    stalls = True

    def __post_init__(self) -> None:
        self.most_rows = self.size
        self.overhang = self.size

    def begin(self, request: Request) -> list[int]:
        return [0]

    def cap(self, batch: int, mean_context: float, pressure: float) -> int:
        return 0

    def step(self, state: list[int], generated: int, output_tokens: int, cap: int) -> Step:
        last = state[0] == self.rounds - 1
        step = Step(self.size, min(self.size, output_tokens - generated) if last else 0)
        self.follow(state, step)
        return step

    def follow(self, state: list[int], step: Step) -> None:
        state[0] = (state[0] + 1) % self.rounds


@dataclass
class Budget:
    """Reads at most *tokens* KV entries, of pages of *page* tokens."""

    tokens: int
    page: int

    keep: int = 0
    """Blocks that stay in HBM; 0: all."""
    offload: bool = False
    drop: bool = False

    def attended(self, context: Any, rows: Any) -> Any:
        return np.minimum(context, self.tokens)

    def pages(self, context: Any, rows: Any) -> Any:
        return -(-context // self.page)

    def chosen(self, context: Any, rows: Any) -> Any:
        return -(-self.attended(context, rows) // self.page)

    def resident(self, context: Any, rows: Any) -> Any:
        blocks = -(-context // self.page)
        return np.minimum(blocks, self.keep) if self.keep else blocks

    def offloaded(self, context: Any, rows: Any) -> Any:
        return -(-context // self.page) - self.resident(context, rows)

    def fetched(self, context: Any, rows: Any, advance: Any) -> Any:
        return 0 * context + (self.offload and advance)

    def recall(self, context: Any, rows: Any) -> Any:
        return 1.0 + 0.0 * context


@contextmanager
def stepping(speculator: Any, selection: Any = None) -> Iterator[None]:
    """Runs inside decode with the steps of *speculator* and read what *selection* says."""
    with (
        patch("sim.wide.speculator_of", lambda scenario, seconds: speculator),
        patch("sim.wide.selection_of", lambda scenario: selection),
    ):
        yield
