"""Requests whose steps take several tokens, many iterations at once: the fast twin of `stepped`.

What a request does until its end, its course, is known when it begins to decode, as long as the
width cap stands. So its counts go into sums for the iterations to come, and many iterations are a
slice of these. When the cap changes, all courses are made anew from where they stand.
"""

from __future__ import annotations

from array import array
from heapq import heapify, heappop, heappush
from operator import sub
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from .ahead import Ahead
from .decoding import Change
from .leap import MAX_LEAP
from .measures import CONTEXT, HELD, KEPT, LOWER, ROWS
from .refreshing import TOKENS, Calendar
from .steps import Course

if TYPE_CHECKING:
    from collections.abc import Callable

    from .cost import Cost
    from .measures import Measures
    from .request import Request
    from .steps import Counts, Load

LEAST = 16
"""Iterations that are planned at once when plans keep being cut short."""


class Run(NamedTuple):
    """A request's *course*, *first* of which is done in the iteration of that number."""

    first: int
    course: Course


class CourseDecoding:
    """Requests with the steps of *measures*' speculator; parameters as in `stepped`."""

    max_leap = MAX_LEAP

    def __init__(
        self, measures: Measures, pressure: Callable[[], float], gaps: array[float]
    ) -> None:
        self.measures = measures
        self.speculator = measures.speculator
        self.keeps_times = self.speculator.stalls
        self.pressure = pressure
        self.gaps = gaps
        self.iteration = 0
        self.runs: dict[Request, Run | None] = {}  # None: not planned yet
        self.fresh: list[Request] = []  # those of which nothing is planned
        self.ahead = Ahead(measures.height)
        self.ends: list[tuple[int, int, Request]] = []  # heap: last iteration, id, request
        self.planned = 0  # iterations of the latest horizon
        self.reach = LEAST  # most iterations that are planned at once
        self.kept = 0  # blocks of all between iterations
        self.cap: int | None = None
        self.changed = False
        self.calendar: Calendar | None = None
        if measures.refresh is not None:
            self.calendar = Calendar(measures.refresh, self._context)
        self.times = array("d")  # of the ends of all iterations, where they are kept

    def __len__(self) -> int:
        return len(self.runs)

    def __contains__(self, request: Request) -> bool:
        return request in self.runs

    # ---------------------------------------------------------------- who decodes
    def join(self, request: Request) -> None:
        if request.spec is None:
            request.spec = self.speculator.begin(request)
        if self.calendar is not None:
            self.calendar.join(request)
        self.runs[request] = None
        self.fresh.append(request)
        self.kept += self.blocks(request.context_tokens)
        self.changed = True

    def leave(self, request: Request) -> None:
        run = self.runs.pop(request)
        if run is None:
            self.fresh.remove(request)
        else:
            self._stop(request, run)
            done = self.iteration - run.first
            rest = Course(*(column[done:] for column in run.course))
            self.ahead.subtract(self.measures.table(request.context_tokens, rest))
            # It may come back, so its old end must not be mistaken for the new one.
            self.ends = [entry for entry in self.ends if entry[2] is not request]
            heapify(self.ends)
        if self.calendar is not None:
            self.calendar.leave(request)
        self.kept -= self.blocks(request.context_tokens)
        self.changed = True

    def _stop(self, request: Request, run: Run) -> None:
        """Brings *request* up to date with what it has done of *run*."""
        done = self.iteration - run.first
        self._count(request, run, done)
        self.speculator.advance(request.spec, run.course, done)

    def _count(self, request: Request, run: Run, done: int) -> None:
        _, commits, proposed, accepted = run.course
        if done == len(commits):
            request.generated = request.output_tokens
        else:
            request.generated += int(commits[:done].sum())
        if self.keeps_times:
            committed = run.first + commits[:done].nonzero()[0]
            times = np.frombuffer(self.times)[committed] if done else np.empty(0)
            self.gaps.frombytes(np.diff(times, prepend=request.last_token).tobytes())
            request.last_token = float(times[-1]) if len(times) else request.last_token
        if self.measures.levels:
            request.drafts += int(np.count_nonzero(proposed[:done]))
            request.draft_tokens += int(np.add.reduce(proposed[:done]))
            request.accepted_tokens += int(np.add.reduce(accepted[:done]))

    # ---------------------------------------------------------------- what they will do
    def _plan(self) -> None:
        """Sees to it that the sums ahead hold what everybody does."""
        if not self.changed:
            return
        self.changed = False
        if not self.runs:
            return
        cap = self.speculator.cap(len(self.runs), self._mean_context(), self.pressure())
        if cap != self.cap:
            self.cap = cap
            for request, run in self.runs.items():
                if run is not None:
                    self._stop(request, run)
            self.fresh = list(self.runs)
            self.ahead.clear()
            self.ends.clear()
        for request in self.fresh:
            course = self.speculator.course(
                request.spec, request.generated, request.output_tokens, cap
            )
            self.runs[request] = Run(self.iteration, course)
            self.ahead.add(self.measures.table(request.context_tokens, course))
            end = self.iteration + len(course.rows)
            heappush(self.ends, (end, request.id, request))
        self.fresh.clear()

    def _mean_context(self) -> float:
        context = self.ahead.now(CONTEXT) - self.ahead.now(ROWS)
        context += sum(request.context_tokens for request in self.fresh)
        return context / len(self.runs)

    def _context(self, request: Request, iteration: int) -> int:
        """KV entries of *request* before the iteration of that number."""
        run = self.runs[request]
        assert run is not None
        return request.context_tokens + int(run.course.commits[: iteration - run.first].sum())

    def sums(self, iterations: int) -> Counts:
        return self._sums(iterations).copy()

    def _sums(self, iterations: int) -> Counts:
        """`sums`, valid until something is added."""
        self._plan()
        sums = self.ahead.next(iterations)
        if self.calendar is not None:
            # Rows of `ahead` that no request adds to, written anew whenever they are asked for.
            sums[self.measures.refreshed :] = self.calendar.ahead(sums[ROWS])
        return sums

    @property
    def rows(self) -> int:
        self._plan()
        rows = self.ahead.now(ROWS)
        if self.calendar is not None:
            rows += int(self.calendar.ahead(self.ahead.next(1)[ROWS])[TOKENS, 0])
        return rows

    @property
    def load(self) -> Load:
        return self.measures.load_of(self._sums(1)[:, 0].tolist())

    def blocks_needed(self) -> int:
        self._plan()
        return self.ahead.now(HELD) - self.kept if self.runs else 0

    @property
    def overfull(self) -> bool:
        self._plan()
        lower = self.ahead.now(LOWER)
        return lower > 0 and lower > self.measures.lower_capacity

    def context(self, request: Request) -> int:
        raise NotImplementedError("steps of several tokens: nobody may ask")

    def blocks(self, context: int) -> int:
        return int(self.measures.blocks(context))

    def horizon(self, free_blocks: int) -> int:
        self._plan()
        iterations = min(self.ends[0][0] - self.iteration, self.reach)
        sums = self.ahead.next(iterations)
        over = sums[HELD] > free_blocks + self.kept
        if self.measures.lower_capacity:
            over |= sums[LOWER] > self.measures.lower_capacity
        first = int(over.argmax())
        self.planned = first if over[first] else iterations
        return self.planned

    def steady(self, iterations: int, token_budget: int) -> int:
        sums = self._sums(iterations)
        tokens, held = sums[ROWS], sums[HELD]
        if self.calendar is not None:
            tokens = tokens + sums[self.measures.refreshed + TOKENS]
        eases = held < held[0]
        if tokens[0] >= token_budget:
            eases |= tokens < token_budget
        return int(eases.argmax()) or iterations

    def durations(self, cost: Cost, iterations: int, beside: bool, slow: float) -> np.ndarray:
        self._plan()
        load = self.measures.load(self._sums(iterations))
        return cost.durations(len(self.runs), load, beside, slow)

    # ---------------------------------------------------------------- iterations
    def advance(self, ends: np.ndarray) -> tuple[Change, list[Request]]:
        self._plan()
        iterations = len(ends)
        self._adapt(iterations)
        held, kept = self.ahead.next(iterations)[HELD : KEPT + 1].tolist()
        taken = list(map(sub, held, [self.kept, *kept]))
        change = Change(taken, list(map(sub, held, kept)))
        self.kept = kept[-1]
        self.ahead.advance(iterations)
        self.iteration += iterations
        if self.calendar is not None:
            self.calendar.advance(iterations)
        if self.keeps_times:
            self.times.frombytes(ends.tobytes())
        finished: list[Request] = []
        while self.ends and self.ends[0][0] == self.iteration:
            request = heappop(self.ends)[2]
            run = self.runs.pop(request)
            assert run is not None
            self._count(request, run, len(run.course.rows))
            if self.calendar is not None:
                self.calendar.leave(request)
            self.kept -= self.blocks(request.context_tokens)
            self.changed = True
            finished.append(request)
        return change, finished

    def _adapt(self, iterations: int) -> None:
        """So many have been run of those planned: plans that are cut short cost time."""
        if iterations < self.planned:
            self.reach = max(LEAST, 2 * iterations)
        elif iterations == self.reach:
            self.reach = min(MAX_LEAP, 2 * self.reach)
