"""When requests that decode block by block compute their cached KV again: who refreshes now.

A refresh is due a number of steps after the one before. Where only some of those that are due may
go in an iteration, the others go on with what they have, and are the first later on: by the
iteration in which they became due, then by number. `Ages` is the specification, `Calendar` its
twin for many iterations.
"""

from __future__ import annotations

from heapq import heapify, heapreplace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .block_decode import Refresh
    from .request import Request
    from .steps import Counts

REQUESTS, TOKENS, SQUARES, LATE = range(4)
HEIGHT = 4
"""Counts of an iteration: requests that refresh, tokens that they compute, the sum of squares of
these, and steps by which the refreshes are late."""


class Rule(NamedTuple):
    """Who may refresh: keys of `block_decode.refresh`."""

    every: int
    prompt: bool
    """Whether the prompt alone is computed again."""
    most: int
    budget: int | None
    """Tokens of an iteration, decoding's own included; None: they do not count."""
    stagger: bool

    def age(self, request: Request) -> int:
        """Steps since its last refresh when *request* joins."""
        state = request.spec
        if state.generated == request.generated:  # swapped in
            return int(state.age)
        # Model: neighbours in the trace decode at the same time, so numbers spread them evenly.
        return request.id % self.every if self.stagger else 0

    def fits(self, taken: int, tokens: int, rows: int) -> bool:
        """Whether one more may go beside *taken* others: *tokens* are then computed again, beside
        *rows* of blocks."""
        if taken == 0:
            return True
        return taken < self.most and (self.budget is None or rows + tokens <= self.budget)


def rule_of(given: Refresh, token_budget: int) -> Rule:
    """The rule that *given* says, under `loop.token_budget`."""
    most = given.most if given.most is not None else 1 << 62
    budget = token_budget if given.budget else None
    return Rule(given.every, given.scope == "prompt", most, budget, given.stagger)


class Ages:
    """Steps since the last refresh of every request that decodes, one iteration at a time."""

    def __init__(self, rule: Rule) -> None:
        self.rule = rule
        self.ages: dict[Request, int] = {}

    def join(self, request: Request) -> None:
        self.ages[request] = self.rule.age(request)

    def leave(self, request: Request) -> None:
        request.spec.age = self.ages.pop(request)

    def now(self, rows: int) -> dict[Request, int]:
        """Who refreshes in this iteration of *rows* tokens, and how many tokens each."""
        rule = self.rule
        found: dict[Request, int] = {}
        due = [request for request, age in self.ages.items() if age >= rule.every]
        for request in sorted(due, key=lambda one: (-self.ages[one], one.id)):
            tokens = request.prompt_tokens if rule.prompt else request.context_tokens
            if not rule.fits(len(found), sum(found.values()) + tokens, rows):
                break
            found[request] = tokens
        return found

    def counts(self, rows: int) -> list[int]:
        """The counts of this iteration."""
        found = self.now(rows)
        late = sum(self.ages[request] - self.rule.every for request in found)
        squares = sum(tokens * tokens for tokens in found.values())
        return [len(found), sum(found.values()), squares, late]

    def advance(self, rows: int) -> None:
        """This iteration has been run."""
        for request in self.now(rows):
            self.ages[request] = 0
        for request in self.ages:
            self.ages[request] += 1


class Calendar:
    """The iterations in which requests become due, numbered by a set's own count.

    *context* says how many KV entries a request has before the iteration of a number.
    """

    def __init__(self, rule: Rule, context: Callable[[Request, int], int]) -> None:
        self.rule = rule
        self.context = context
        self.due: dict[Request, int] = {}
        self.first = 0  # number of the next iteration
        self.events: list[tuple[int, Request]] = []  # of what is planned, by iteration
        self.planned: Counts = np.zeros((HEIGHT, 0), np.int64)

    def join(self, request: Request) -> None:
        self.due[request] = self.first + self.rule.every - self.rule.age(request)
        self.forget()

    def leave(self, request: Request, finished: bool = False) -> None:
        due = self.due.pop(request)
        if not finished:
            request.spec.age = self.first + self.rule.every - due
        self.forget()

    def forget(self) -> None:
        """Nothing of what was planned holds any more."""
        self.events.clear()
        self.planned = self.planned[:, :0]

    def ahead(self, rows: Sequence[int] | Counts) -> Counts:
        """The counts of the next iterations, of so many *rows* each."""
        if len(rows) > self.planned.shape[1]:
            self._plan(rows)
        return self.planned[:, : len(rows)]

    def _plan(self, rows: Sequence[int] | Counts) -> None:
        rule, first, end = self.rule, self.first, self.first + len(rows)
        self.events, self.planned = [], np.zeros((HEIGHT, len(rows)), np.int64)
        heap = [(due, request.id, request) for request, due in self.due.items()]
        heapify(heap)
        now = first
        while heap and (now := max(now, heap[0][0])) < end:
            counts = [0, 0, 0, 0]
            while heap[0][0] <= now:
                due, number, request = heap[0]
                tokens = request.prompt_tokens if rule.prompt else self.context(request, now)
                if not rule.fits(counts[0], counts[1] + tokens, int(rows[now - first])):
                    break
                heapreplace(heap, (now + rule.every, number, request))
                self.events.append((now, request))
                for row, more in enumerate((1, tokens, tokens * tokens, now - due)):
                    counts[row] += more
            self.planned[:, now - first] = counts
            now += 1

    def advance(self, iterations: int) -> None:
        """So many of the planned iterations have been run."""
        self.first += iterations
        run = 0
        for now, request in self.events:
            if now >= self.first:
                break
            self.due[request] = now + self.rule.every
            run += 1
        del self.events[:run]
        self.planned = self.planned[:, iterations:]
