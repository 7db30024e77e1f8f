"""The requests that decode, many iterations at once: the fast twin of `decoding`.

While nobody joins or leaves, every request gains one token an iteration. So the set keeps one
counter of iterations and, for each request, only what does not change: its offset from that
counter, the iteration in which it ends, and the phase at which it needs new blocks. No work is
done per token or per request and iteration.
"""

from __future__ import annotations

from heapq import heappop, heappush
from typing import TYPE_CHECKING

import numpy as np

from .decoding import Change
from .steps import Load

if TYPE_CHECKING:
    from .cost import Cost
    from .request import Request

#: Most iterations computed at once; bounds the arrays that an arrival may cut short.
MAX_LEAP = 4096


class LeapDecoding:
    """Counters relative to `iteration`, the number of decode iterations run so far."""

    max_leap = MAX_LEAP
    overfull = False
    keeps_times = False

    def __init__(self, block_tokens: int) -> None:
        self.block_tokens = block_tokens
        self.iteration = 0
        self.context_tokens = 0
        self.offsets: dict[Request, int] = {}  # request -> context tokens - iteration
        self.ends: list[tuple[int, int, Request]] = []  # heap: last iteration, id, request
        self.phases = [0] * block_tokens  # offsets modulo block_tokens -> requests

    def __len__(self) -> int:
        return len(self.offsets)

    def __contains__(self, request: Request) -> bool:
        return request in self.offsets

    def join(self, request: Request) -> None:
        context = request.context_tokens
        offset = context - self.iteration
        self.offsets[request] = offset
        self.context_tokens += context
        self.phases[offset % self.block_tokens] += 1
        end = self.iteration + request.output_tokens - request.generated
        heappush(self.ends, (end, request.id, request))

    def leave(self, request: Request) -> None:
        context = self._remove(request)
        request.generated = context + 1 - request.prompt_tokens
        # It may come back, so its old end must not be mistaken for the new one.
        self.ends = [entry for entry in self.ends if entry[2] is not request]
        self.ends.sort()

    def _remove(self, request: Request) -> int:
        offset = self.offsets.pop(request)
        context = offset + self.iteration
        self.context_tokens -= context
        self.phases[offset % self.block_tokens] -= 1
        return context

    def context(self, request: Request) -> int:
        return self.offsets[request] + self.iteration

    def blocks(self, context: int) -> int:
        return -(-context // self.block_tokens)

    def blocks_needed(self) -> int:
        return self.phases[-self.iteration % self.block_tokens]

    def _phases_ahead(self, iterations: int) -> list[int]:
        """New blocks taken by each of the next *iterations*, at most `block_tokens`."""
        # A request needs a block when offset + iteration is a multiple of block_tokens, so the
        # phases come round in descending order.
        first = -self.iteration % self.block_tokens
        if iterations <= first:
            return self.phases[first : first - iterations : -1]
        rest = self.block_tokens - (iterations - first - 1)
        return self.phases[first::-1] + self.phases[: rest - 1 : -1]

    def horizon(self, free_blocks: int) -> int:
        iterations = min(self.ends[0][0] - self.iteration, MAX_LEAP)
        batch = len(self.offsets)
        if (iterations // self.block_tokens + 1) * batch <= free_blocks:
            return iterations
        return min(iterations, self._affordable(free_blocks))

    def _affordable(self, free_blocks: int) -> int:
        """Iterations until *free_blocks* are used up."""
        rounds, left = divmod(free_blocks, len(self.offsets))
        iterations = rounds * self.block_tokens
        for needed in self._phases_ahead(self.block_tokens):
            left -= needed
            if left < 0:
                break
            iterations += 1
        return iterations

    @property
    def rows(self) -> int:
        return len(self.offsets)

    @property
    def load(self) -> Load:
        batch = len(self.offsets)
        return Load(batch, self.context_tokens + batch)

    def steady(self, iterations: int, token_budget: int) -> int:
        return iterations

    def durations(self, cost: Cost, iterations: int, beside: bool, slow: float) -> np.ndarray:
        batch, first = len(self.offsets), self.context_tokens + len(self.offsets)
        contexts = np.arange(first, first + batch * iterations, batch, dtype=np.float64)
        decode = cost.decode(batch, beside_prefill=beside, slow=slow)
        return decode.seconds_into(contexts)

    def sums(self, iterations: int) -> None:
        return None

    def advance(self, ends: np.ndarray) -> tuple[Change, list[Request]]:
        iterations = len(ends)
        blocks = self._phases_ahead(min(iterations, self.block_tokens))
        if iterations > self.block_tokens:
            blocks *= iterations // self.block_tokens + 1
            del blocks[iterations:]
        self.iteration += iterations
        self.context_tokens += iterations * len(self.offsets)
        finished: list[Request] = []
        while self.ends and self.ends[0][0] == self.iteration:
            request = heappop(self.ends)[2]
            self._remove(request)
            request.generated = request.output_tokens
            finished.append(request)
        return Change(blocks), finished
