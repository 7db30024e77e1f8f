"""The requests that decode, token by token: the obvious version, and the specification of `leap`.

Every request has its own counters, and each iteration visits every request once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np

from .steps import Load

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .cost import Cost
    from .request import Request
    from .steps import Counts


class Decoding(Protocol):
    """What the loop asks of a set of decoding requests, whichever engine keeps it."""

    max_leap: int
    """Iterations that may be computed at once."""
    keeps_times: bool
    """Whether it keeps the times of last tokens and of gaps itself, because steps may commit
    nothing."""

    def __len__(self) -> int: ...

    @property
    def overfull(self) -> bool:
        """Whether DRAM has no room for what the next iteration does not keep in HBM."""

    def join(self, request: Request) -> None:
        """Adds *request*, whose prefill has just committed a token."""

    def leave(self, request: Request) -> None:
        """Removes *request* before its end and brings its `generated` up to date."""

    def __contains__(self, request: Request) -> bool: ...

    def context(self, request: Request) -> int:
        """KV entries of *request*, which decodes a token a step."""

    @property
    def rows(self) -> int:
        """Tokens that the next iteration puts through the model."""

    @property
    def load(self) -> Load:
        """What the next iteration puts through the model and reads."""

    def blocks(self, context: int) -> int:
        """Blocks that a request with *context* KV entries holds between two iterations."""

    def blocks_needed(self) -> int:
        """New blocks that the next iteration takes."""

    def horizon(self, free_blocks: int) -> int:
        """Iterations that can run before one finishes or *free_blocks* would not suffice."""

    def steady(self, iterations: int, token_budget: int) -> int:
        """How many of the next *iterations* leave a prompt that waits no more than the first.

        More would be part of *token_budget*, where the first uses all of it, or KV blocks.
        """

    def durations(self, cost: Cost, iterations: int, beside: bool, slow: float) -> np.ndarray:
        """Seconds of each of the next *iterations*, as float64.

        They run *beside* a prefill or not, on a GPU that takes *slow* times longer.
        """

    def sums(self, iterations: int) -> Counts | None:
        """`Measures` summed over requests for each of the next *iterations*.

        None where each request puts a token through the model and commits it.
        """

    def advance(self, ends: np.ndarray) -> tuple[Change, list[Request]]:
        """Runs the iterations that end at *ends*.

        Returns what they do to the blocks in use, and the requests that finished.
        """


class Change(NamedTuple):
    """Blocks that consecutive iterations take, each before it runs, and give back after it.

    *returned* is None where nothing is given back.
    """

    taken: Sequence[int]
    returned: Sequence[int] | None = None


class PlainDecoding:
    """Counters in the requests themselves, updated one token at a time."""

    max_leap = 1
    overfull = False
    keeps_times = False

    def __init__(self, block_tokens: int) -> None:
        self.block_tokens = block_tokens
        self.requests: list[Request] = []

    def __len__(self) -> int:
        return len(self.requests)

    def __contains__(self, request: Request) -> bool:
        return request in self.requests

    def join(self, request: Request) -> None:
        self.requests.append(request)

    def leave(self, request: Request) -> None:
        self.requests.remove(request)

    def context(self, request: Request) -> int:
        return request.context_tokens

    @property
    def rows(self) -> int:
        return len(self.requests)

    @property
    def load(self) -> Load:
        batch = len(self.requests)
        return Load(batch, sum(request.context_tokens for request in self.requests) + batch)

    def blocks(self, context: int) -> int:
        return -(-context // self.block_tokens)

    def blocks_needed(self) -> int:
        return sum(request.context_tokens % self.block_tokens == 0 for request in self.requests)

    def steady(self, iterations: int, token_budget: int) -> int:
        return iterations

    def durations(self, cost: Cost, iterations: int, beside: bool, slow: float) -> np.ndarray:
        assert iterations == 1
        decode = cost.decode(len(self.requests), beside_prefill=beside, slow=slow)
        return np.array([decode.seconds(self.load.context)])

    def horizon(self, free_blocks: int) -> int:
        return 1 if self.blocks_needed() <= free_blocks else 0

    def sums(self, iterations: int) -> None:
        return None

    def advance(self, ends: np.ndarray) -> tuple[Change, list[Request]]:
        assert len(ends) == 1
        blocks = self.blocks_needed()
        for request in self.requests:
            request.generated += 1
        finished = [r for r in self.requests if r.generated == r.output_tokens]
        self.requests = [r for r in self.requests if r.generated < r.output_tokens]
        return Change([blocks]), finished
