"""The requests that decode, token by token: the obvious version, and the specification of `leap`.

Every request has its own counters, and each iteration visits every request once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import numpy as np

if TYPE_CHECKING:
    from .cost import DecodeCost
    from .request import Request


class Decoding(Protocol):
    """What the loop asks of a set of decoding requests, whichever engine keeps it."""

    max_leap: int
    """Iterations that may be computed at once."""

    @property
    def context_tokens(self) -> int:
        """KV entries over all requests, before the next iteration appends one to each."""

    def __len__(self) -> int: ...

    def join(self, request: Request) -> None:
        """Adds *request*, whose prefill has just committed a token."""

    def leave(self, request: Request) -> None:
        """Removes *request* before its end and brings its `generated` up to date."""

    def __contains__(self, request: Request) -> bool: ...

    def blocks_needed(self) -> int:
        """New blocks that the next iteration takes."""

    def horizon(self, free_blocks: int) -> int:
        """Iterations that can run before one finishes or *free_blocks* would not suffice."""

    def durations(self, cost: DecodeCost, iterations: int) -> np.ndarray:
        """Seconds of each of the next *iterations*, as float64."""

    def advance(self, iterations: int) -> tuple[list[int], list[Request]]:
        """Commits a token a request and iteration.

        Returns the new blocks that each iteration took, and the requests that finished.
        """


class PlainDecoding:
    """Counters in the requests themselves, updated one token at a time."""

    max_leap = 1

    def __init__(self, block_tokens: int) -> None:
        self.block_tokens = block_tokens
        self.requests: list[Request] = []

    @property
    def context_tokens(self) -> int:
        return sum(request.context_tokens for request in self.requests)

    def __len__(self) -> int:
        return len(self.requests)

    def __contains__(self, request: Request) -> bool:
        return request in self.requests

    def join(self, request: Request) -> None:
        self.requests.append(request)

    def leave(self, request: Request) -> None:
        self.requests.remove(request)

    def blocks_needed(self) -> int:
        return sum(request.context_tokens % self.block_tokens == 0 for request in self.requests)

    def durations(self, cost: DecodeCost, iterations: int) -> np.ndarray:
        assert iterations == 1
        return np.array([cost.seconds(self.context_tokens + len(self.requests))])

    def horizon(self, free_blocks: int) -> int:
        return 1 if self.blocks_needed() <= free_blocks else 0

    def advance(self, iterations: int) -> tuple[list[int], list[Request]]:
        assert iterations == 1
        blocks = self.blocks_needed()
        for request in self.requests:
            request.generated += 1
        finished = [r for r in self.requests if r.generated == r.output_tokens]
        self.requests = [r for r in self.requests if r.generated < r.output_tokens]
        return [blocks], finished
