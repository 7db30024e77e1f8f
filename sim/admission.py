"""Who enters the loop: first in, first out, if there is a slot and room for the whole prompt.

A request that could never fit is turned away when it arrives, with the reason.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from .prefill import take
from .request import Reason

if TYPE_CHECKING:
    from collections.abc import Callable

    from .kv import BlockPool
    from .memory.manager import Memory
    from .request import Request


class Admission:
    """The waiting queue. *max_batch* slots, *pool* of KV blocks, *max_context* tokens a request."""

    def __init__(self, pool: BlockPool, max_batch: int, max_context: int) -> None:
        self.pool = pool
        self.max_batch = max_batch
        self.max_context = max_context
        self.waiting: deque[Request] = deque()
        self.overhang = 0
        """Tokens that a decode step may hold beyond those of the complete output."""
        self.lower: Callable[[int], bool] = lambda tokens: True
        """Whether DRAM has room for what HBM does not keep of so many tokens, if it is to."""
        self.memory: Memory | None = None
        """Where KV is shared or moves, it says who gets room."""

    def impossible(self, request: Request) -> Reason | None:
        """Why *request* can never be served, or None."""
        total = request.prompt_tokens + request.output_tokens
        if total > self.max_context:
            return Reason.EXCEEDS_MODEL_CONTEXT
        most = request.final_context_tokens + self.overhang
        if self.pool.blocks(most) > self.pool.capacity or not self.lower(most):
            return Reason.EXCEEDS_KV_CAPACITY
        return None

    def try_admit(self, running: int, reserved: int) -> Request | None:
        """The next request to run beside *running* others, its KV blocks taken; None if none may.

        *reserved* free blocks are left to those that decode. Nobody overtakes the queue's head.
        """
        if not self.waiting or running >= self.max_batch:
            return None
        # Model: blocks for the whole prompt are reserved at admission, so that a prefill, once
        # begun, never waits for memory (vLLM V1 allocates chunk by chunk: `try_begin`).
        request = self.waiting[0]
        if self.memory is not None:
            if not self.memory.try_take(request, reserved):
                return None
            return self.waiting.popleft()
        blocks = self.pool.blocks(request.prefill_tokens)
        if blocks > self.pool.free - reserved:
            return None
        self.pool.take(blocks)
        return self.waiting.popleft()

    def try_begin(self, running: int, reserved: int, tokens: int, fits: bool) -> Request | None:
        """As `try_admit`, but blocks are taken for its first *tokens* alone; free for its whole
        prompt they must be if it *fits* only then."""
        if not self.waiting or running >= self.max_batch:
            return None
        request = self.waiting[0]
        if fits and self.pool.blocks(request.prefill_tokens) > self.pool.free - reserved:
            return None
        if not take(self.pool, 0, tokens, reserved):
            return None
        return self.waiting.popleft()

    def return_to_head(self, request: Request) -> None:
        """Queues a preempted request before all others: it arrived before them."""
        self.waiting.appendleft(request)
