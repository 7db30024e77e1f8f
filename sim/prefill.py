"""Requests whose prompts are being computed: cut into chunks under a token budget, oldest first."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .cost import Chunk

if TYPE_CHECKING:
    from .request import Request

Chunks = dict["Request", Chunk]


class Prefilling:
    """The admitted requests that have no token yet, or none since they were preempted."""

    def __init__(self) -> None:
        self.requests: dict[Request, None] = {}  # in order of admission

    def __len__(self) -> int:
        return len(self.requests)

    def join(self, request: Request) -> None:
        """Adds *request*, just admitted."""
        self.requests[request] = None

    def leave(self, request: Request) -> None:
        """Removes *request*, preempted: what was computed is lost."""
        del self.requests[request]
        request.prefilled = 0

    @property
    def tokens_left(self) -> int:
        """Tokens still to prefill, over all requests."""
        return sum(r.prefill_tokens - r.prefilled for r in self.requests)

    def chunks(self, budget: int) -> Chunks:
        """The next chunks of at most *budget* tokens in all."""
        chunks: Chunks = {}
        for request in self.requests:
            if budget <= 0:
                break
            tokens = min(budget, request.prefill_tokens - request.prefilled)
            chunks[request] = Chunk(tokens, request.prefilled)
            budget -= tokens
        return chunks

    def completing(self, chunks: Chunks) -> int:
        """How many prompts *chunks* complete."""
        return sum(r.prefilled + c.tokens == r.prefill_tokens for r, c in chunks.items())

    def advance(self, chunks: Chunks) -> list[Request]:
        """Counts *chunks* as computed; returns the requests whose prompts are complete."""
        complete = []
        for request, chunk in chunks.items():
            request.prefilled += chunk.tokens
            if request.prefilled == request.prefill_tokens:
                del self.requests[request]
                request.prefilled = 0
                complete.append(request)
        return complete
