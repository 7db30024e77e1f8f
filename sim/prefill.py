"""Requests whose prompts are being computed: cut into chunks under a token budget, oldest first."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .cost import Chunk

if TYPE_CHECKING:
    from .kv import BlockPool
    from .request import Request

Chunks = dict["Request", Chunk]


def take(pool: BlockPool, offset: int, tokens: int, kept: int) -> bool:
    """Whether *pool* had blocks for *tokens* more after *offset* of a prompt; they are taken, and
    *kept* stay free."""
    blocks = pool.blocks(offset + tokens) - pool.blocks(offset)
    if blocks > pool.free - kept:
        return False
    pool.take(blocks)
    return True


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

    def chunks(
        self, budget: int, pool: BlockPool | None = None, kept: int = 0, most: int | None = None
    ) -> Chunks:
        """The next chunks of at most *budget* tokens in all, of *most* prompts.

        With a *pool*, each chunk takes its blocks there, and *kept* free ones stay.
        """
        # Model: a prompt that finds no blocks for its chunk is not overtaken.
        chunks: Chunks = {}
        for request in self.requests:
            if budget <= 0 or len(chunks) == most:
                break
            tokens = min(budget, request.prefill_tokens - request.prefilled)
            if pool is not None and not take(pool, request.prefilled, tokens, kept):
                break
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
