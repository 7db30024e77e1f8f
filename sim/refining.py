"""The steps in which a request decodes block by block, one at a time or its whole course.

The one rule: `step` is the specification, and `course` gives the same numbers. Both depend on the
request and its draws alone; the draw of an output position belongs to the request and the position.

A block begins with the newest committed token, whose KV is yet to be computed, and holds a place
for each token to come but the last.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from .rng import uniforms
from .steps import Course, Step

if TYPE_CHECKING:
    from .block_decode import BlockDecode, Steps
    from .request import Request
    from .steps import Counts, Whole


@dataclass(slots=True, eq=False)
class State:
    """Where a request stands in its block; lives as long as the request does."""

    request_id: int
    start: int = -1
    """Tokens that had been committed when its block began."""
    generated: int = -1
    """Tokens committed after its last step."""
    done: int = 0
    """Steps of the block so far."""
    finals: tuple[int, ...] = ()
    """In which step of the block each of its tokens becomes final; empty before the first."""
    age: int = 0
    """Steps since its cached KV was computed, where that is counted; kept while it is swapped."""

    def enter(self, generated: int) -> None:
        """Begins a block after *generated* tokens, unless that is where it stands."""
        if self.generated != generated:
            self.start = self.generated = generated
            self.done, self.finals = 0, ()


class Refiner:
    """Block-parallel decode of one scenario, as a `Speculator` that drafts nothing."""

    # Model: as in models tuned from autoregressive ones (Fast-dLLM v2, Dream), a place gives the
    # token that follows it: so a prefill gives the first token, and a block of B rows gives B.
    max_depth = 0
    stalls = True

    def __init__(self, given: BlockDecode, seed: int) -> None:
        self.block = given.block
        self.by_prefix = given.commit == "prefix"
        self.drawn = given.order == "drawn" or given.steps.rate is not None
        self.rate = given.steps.rate
        self.by_rank = by_rank(given.steps, given.block)
        # The token that waits t steps for its turn has a draw below 1 - (1 - rate)^t.
        self.below = [1.0 - (1.0 - (self.rate or 1.0)) ** t for t in range(1, self.block)]
        self.seed = seed
        self.most_rows = self.block
        # Model: a block is refined whole, whatever is left of the output; what is beyond is thrown
        # away, since the model does not know where it will end.
        self.overhang = self.block - 1

    def depth(self, proposed: Whole) -> Whole:
        """No drafts."""
        return proposed

    def cap(self, batch: int, mean_context: float, pressure: float) -> int:
        """No drafts."""
        return 0

    def begin(self, request: Request) -> State:
        """Before the first block."""
        return State(request.id)

    # ---------------------------------------------------------------- a step
    def step(self, state: State, generated: int, output_tokens: int, cap: int) -> Step:
        """The next step of the block; a block begins anew where a prefill has committed a token."""
        state.enter(generated)
        if not state.finals:
            state.finals = self.finals(state.request_id, state.start)
        state.done += 1
        before = generated - state.start
        ready = next((i for i, t in enumerate(state.finals) if t > state.done), self.block)
        if not self.by_prefix and ready < self.block:
            ready = 0
        if max(state.finals) == state.done:
            state.start, state.done, state.finals = state.start + self.block, 0, ()
        # Model: with commits by prefix, KV of what is committed stays as it is at that time.
        step = Step(self.block - before, min(ready - before, output_tokens - generated))
        state.generated = generated + step.commits
        return step

    def finals(self, request_id: int, start: int) -> tuple[int, ...]:
        """In which step of its block each token after *start* becomes final, counted from 1."""
        places = range(self.block)
        draws = [0.0 for _ in places]
        if self.drawn:
            draws = [uniforms(self.seed, "refine", request_id, start + i) for i in places]
        if self.rate is None:
            order = sorted(places, key=lambda i: draws[i])
            ranks = {place: rank for rank, place in enumerate(order)}
            return tuple(int(self.by_rank[ranks[i]]) for i in places)
        waits = [bisect_right(self.below, draw) + 1 for draw in draws]
        found, step = [0 for _ in places], 0
        while open_ := [i for i in places if not found[i]]:
            step += 1
            # Model: the leftmost goes if none would, which does not depend on the draws; so the
            # number that become final of m is binomial(m, rate), or 1 if that is 0.
            for i in [i for i in open_ if waits[i] <= step] or open_[:1]:
                found[i] = step
        return tuple(found)

    # ---------------------------------------------------------------- all of them
    def course(self, state: State, generated: int, output_tokens: int, cap: int) -> Course:
        """All steps that repeated `step` would give; *state* begins anew where it would then."""
        state.enter(generated)
        start, done = state.start, state.done
        tokens = output_tokens - start
        blocks = -(-tokens // self.block)
        finals = self._finals(state.request_id, start, blocks)
        lengths = finals.max(axis=1)
        ends = lengths.cumsum()
        if self.by_prefix:
            np.maximum.accumulate(finals, axis=1, out=finals)
            finals += (ends - lengths - 1)[:, None]
            commits = np.bincount(finals.ravel()[:tokens]).astype(np.int64)
            # Committed before each step, less what the blocks before its own hold.
            rows = self.block * np.repeat(np.arange(1, blocks + 1), lengths)[: len(commits)]
            rows -= commits.cumsum() - commits
        else:
            commits = np.zeros(ends[-1], np.int64)
            commits[ends - 1] = self.block
            commits[-1] = tokens - (blocks - 1) * self.block
            rows = np.full(len(commits), self.block)
        none = np.zeros(len(commits) - done, np.int64)
        return Course(rows[done:], commits[done:], none, none)

    def _finals(self, request_id: int, start: int, blocks: int) -> Counts:
        """`finals` of consecutive blocks, a row each."""
        if not self.drawn:
            return np.tile(self.by_rank, (blocks, 1))
        positions = np.arange(start, start + blocks * self.block)
        draws = uniforms(self.seed, "refine", request_id, positions).reshape(blocks, self.block)
        if self.rate is None:
            ranks = draws.argsort(axis=1, kind="stable").argsort(axis=1, kind="stable")
            return self.by_rank[ranks]
        return _settled(np.searchsorted(self.below, draws, side="right") + 1)

    def advance(self, state: State, course: Course, steps: int) -> None:
        """Brings *state* to after the first *steps* steps of its *course*."""
        if not steps:
            return
        committed = state.generated + course.commits[:steps].cumsum()
        last = int(committed[-1])
        start = state.start + (last - state.start) // self.block * self.block
        if start > state.start:
            state.done = steps - 1 - int(committed.searchsorted(start))
        else:
            state.done += steps
        state.start, state.generated, state.finals = start, last, ()


def by_rank(steps: Steps, block: int) -> Counts:
    """In which step, from 1, the first, second... of a block's tokens become final; of no use where
    each is drawn."""
    ranks = np.arange(block)
    if steps.count is not None:
        # Model: what does not divide goes to the first steps (LLaDA's schedule).
        each, more = divmod(block, steps.count)
        sizes = [each + (step < more) for step in range(steps.count)]
        return np.repeat(np.arange(1, steps.count + 1), sizes)
    return (ranks / (steps.tokens or 1.0)).astype(np.int64) + 1


def _settled(waits: Counts) -> Counts:
    """When tokens that wait for such steps become final, a row a block."""
    found = np.zeros_like(waits)
    step = 0
    while True:
        open_ = found == 0
        left = open_.any(axis=1)
        if not left.any():
            return found
        step += 1
        ready = open_ & (waits <= step)
        stuck = (left & ~ready.any(axis=1)).nonzero()[0]
        ready[stuck, open_[stuck].argmax(axis=1)] = True
        found[ready] = step
