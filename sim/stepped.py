"""Requests whose steps take several tokens, one step at a time: the specification of `courses`.

Every request plans its next step, on a copy of its state until the step is run, because the width
cap may change before. The cap is decided when the set of requests has changed, and only then.
"""

from __future__ import annotations

from copy import deepcopy
from typing import TYPE_CHECKING, Any

import numpy as np

from .decoding import Change
from .measures import HELD, KEPT, LOWER, ROWS
from .refreshing import Ages

if TYPE_CHECKING:
    from array import array
    from collections.abc import Callable

    from .cost import Cost
    from .measures import Measures
    from .request import Request
    from .steps import Counts, Load, Step


class SteppedDecoding:
    """Requests with the steps of *measures*' speculator.

    *pressure* says which share of KV memory is in use. Where steps may commit nothing, times
    between commits go to *gaps*.
    """

    max_leap = 1

    def __init__(
        self, measures: Measures, pressure: Callable[[], float], gaps: array[float]
    ) -> None:
        self.measures = measures
        self.speculator = measures.speculator
        self.keeps_times = self.speculator.stalls
        self.pressure = pressure
        self.gaps = gaps
        self.requests: list[Request] = []
        self.planned: dict[Request, tuple[Any, Step]] = {}
        self.cap: int | None = None
        self.ages = None if measures.refresh is None else Ages(measures.refresh)
        self.changed = False  # the set of requests, since the cap was decided

    def __len__(self) -> int:
        return len(self.requests)

    def __contains__(self, request: Request) -> bool:
        return request in self.requests

    def join(self, request: Request) -> None:
        if request.spec is None:
            request.spec = self.speculator.begin(request)
        if self.ages is not None:
            self.ages.join(request)
        self.requests.append(request)
        self.changed = True

    def leave(self, request: Request) -> None:
        self.requests.remove(request)
        self.planned.pop(request, None)
        if self.ages is not None:
            self.ages.leave(request)
        self.changed = True

    def _plan(self) -> list[tuple[Request, Step]]:
        """The next step of every request."""
        requests, speculator = self.requests, self.speculator
        if self.changed and requests:
            mean = sum(request.context_tokens for request in requests) / len(requests)
            cap = speculator.cap(len(requests), mean, self.pressure())
            if cap != self.cap:
                self.cap = cap
                self.planned.clear()
            self.changed = False
        for request in requests:
            if request not in self.planned:
                assert self.cap is not None
                state = deepcopy(request.spec)
                step = speculator.step(state, request.generated, request.output_tokens, self.cap)
                self.planned[request] = state, step
        return [(request, self.planned[request][1]) for request in requests]

    def sums(self, iterations: int) -> Counts:
        assert iterations == 1
        sums = [0] * self.measures.height
        for request, step in self._plan():
            counts = self.measures.step(request.context_tokens, step)
            sums = [total + count for total, count in zip(sums, counts, strict=True)]
        if self.ages is not None:
            sums[self.measures.refreshed :] = self.ages.counts(sums[ROWS])
        return np.array(sums, np.int64).reshape(-1, 1)

    @property
    def rows(self) -> int:
        again = self.load.refreshed
        return sum(step.rows for _, step in self._plan()) + (again.tokens if again else 0)

    @property
    def load(self) -> Load:
        return self.measures.load_of(self.sums(1)[:, 0].tolist())

    def blocks_needed(self) -> int:
        if not self.requests:
            return 0
        held = int(self.sums(1)[HELD, 0])
        return held - sum(self.blocks(request.context_tokens) for request in self.requests)

    @property
    def overfull(self) -> bool:
        return int(self.sums(1)[LOWER, 0]) > self.measures.lower_capacity

    def context(self, request: Request) -> int:
        raise NotImplementedError("steps of several tokens: nobody may ask")

    def blocks(self, context: int) -> int:
        return int(self.measures.blocks(context))

    def horizon(self, free_blocks: int) -> int:
        return 1 if self.blocks_needed() <= free_blocks and not self.overfull else 0

    def steady(self, iterations: int, token_budget: int) -> int:
        return iterations

    def durations(self, cost: Cost, iterations: int, beside: bool, slow: float) -> np.ndarray:
        assert iterations == 1
        rows, context, depth, *read, again = self.load
        if again is not None and again.requests:
            return np.array([cost.refresh(len(self), self.load, slow).seconds])
        decode = cost.decode(len(self), rows, depth, beside_prefill=beside, slow=slow)
        return np.array([decode.seconds(context, *read)])

    def advance(self, ends: np.ndarray) -> tuple[Change, list[Request]]:
        assert len(ends) == 1
        sums, taken = self.sums(1), self.blocks_needed()
        returned = int(sums[HELD, 0] - sums[KEPT, 0])
        if self.ages is not None:
            self.ages.advance(int(sums[ROWS, 0]))
        finished = []
        for request, step in self._plan():
            request.spec, _ = self.planned.pop(request)
            request.generated += step.commits
            request.drafts += step.proposed > 0
            request.draft_tokens += step.proposed
            request.accepted_tokens += step.accepted
            if self.keeps_times and step.commits:
                self.gaps.append(float(ends[0]) - request.last_token)
                request.last_token = float(ends[0])
            if request.generated == request.output_tokens:
                finished.append(request)
        for request in finished:
            self.leave(request)
        finished.sort(key=lambda request: request.id)
        return Change([taken], [returned]), finished
