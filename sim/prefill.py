"""Requests whose prompts are being computed: cut into chunks under a token budget, oldest first."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .cost import Chunk
from .schedule import NO_LIMITS

if TYPE_CHECKING:
    from .kv import BlockPool
    from .request import Request
    from .schedule import Limits

Chunks = dict["Request", Chunk]


class Filling:
    """An iteration while it is filled with prompts: of a budget of *full* tokens, *left* are left
    to them, and *limits* hold."""

    __slots__ = ("full", "left", "limits", "partial", "prompts")

    def __init__(self, left: int, full: int, limits: Limits = NO_LIMITS) -> None:
        self.limits = limits
        self.full = full
        self.left = left
        self.prompts = 0
        self.partial = 0

    def again(self) -> Filling:
        """The same, nothing of it filled."""
        return Filling(self.left, self.full, self.limits)

    def only(self, prompts: int) -> Filling:
        """The same for so many prompts at most."""
        limits = self.limits._replace(prompts=min(prompts, self.limits.prompts))
        return Filling(self.left, self.full, limits)

    def tokens(self, rest: int) -> int:
        """How many of the *rest* tokens of the next prompt are computed; 0 if none are, nor any of
        the prompts behind it."""
        longest, partial, prompts, chunked = self.limits
        if self.prompts >= prompts:
            return 0
        if not chunked:
            # Model: a prompt that is longer than the whole budget is computed nevertheless, with
            # no other prompt beside it.
            return rest if rest <= self.left or (rest > self.full and not self.prompts) else 0
        tokens = rest
        if tokens > longest:
            tokens = longest
        if tokens > self.left:
            tokens = self.left
        if tokens < rest and self.partial >= partial:
            return 0
        return tokens if tokens > 0 else 0

    def take(self, tokens: int, rest: int) -> None:
        """Computes *tokens* of a prompt's *rest*."""
        self.left -= tokens
        self.prompts += 1
        self.partial += tokens < rest


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

    def fill(self, filling: Filling, pool: BlockPool | None = None) -> int:
        """Gives *filling* the next chunk of every prompt; returns how many blocks they would take
        from *pool*."""
        blocks = 0
        for request in self.requests:
            rest = request.prefill_tokens - request.prefilled
            tokens = filling.tokens(rest)
            if not tokens:
                break
            filling.take(tokens, rest)
            if pool is not None:
                done = request.prefilled
                blocks += pool.blocks(done + tokens) - pool.blocks(done)
        return blocks

    def chunks(self, filling: Filling, pool: BlockPool | None = None, kept: int = 0) -> Chunks:
        """The next chunks, as far as *filling* has room for them.

        With a *pool*, each chunk takes its blocks there, and *kept* free ones stay.
        """
        # Model: a prompt that finds no blocks for its chunk is not overtaken.
        chunks: Chunks = {}
        for request in self.requests:
            rest = request.prefill_tokens - request.prefilled
            tokens = filling.tokens(rest)
            if not tokens or (pool is not None and not take(pool, request.prefilled, tokens, kept)):
                break
            filling.take(tokens, rest)
            chunks[request] = Chunk(tokens, request.prefilled)
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
