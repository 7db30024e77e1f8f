"""The requests inside the loop: admitted, prefilling, decoding, preempted, released.

Changes of membership and of KV blocks happen here and nowhere else, always at a boundary between
iterations. When each happens is the replica's business.
"""

from __future__ import annotations

from math import isnan
from typing import TYPE_CHECKING

from .prefill import Chunks, Prefilling
from .request import Request, Status

if TYPE_CHECKING:
    from .admission import Admission
    from .decoding import Decoding
    from .iteration_log import IterationLog
    from .request_log import RequestLog


class Batch:
    """Requests that hold KV blocks. `running` is in order of admission, the oldest first."""

    def __init__(
        self,
        admission: Admission,
        decoding: Decoding,
        requests: RequestLog,
        iterations: IterationLog,
    ) -> None:
        self.admission = admission
        self.pool = admission.pool
        self.decoding = decoding
        self.prefilling = Prefilling()
        self.requests = requests
        self.iterations = iterations
        self.running: dict[Request, None] = {}
        self.prefilled: list[Request] = []  # have a fresh token, to join at the next boundary
        self.joined: list[Request] = []  # decode, but no iteration has run with them yet
        self.last_commit = 0.0  # of the decoding requests, in seconds
        self.last_change = 0.0  # when a request last came or went
        self.departures = 0  # from the queue, less those that came back
        self.preemptions = 0
        self.answered: list[Request] | None = None  # since the last look, if anybody looks

    def admit(self, now: float, budget: int, reserved: int) -> None:
        """Takes in requests while *budget* tokens of prefill, a slot and memory are left.

        *reserved* free blocks are kept for those that decode.
        """
        admission, running = self.admission, self.running
        while budget > 0 and admission.waiting:
            request = admission.try_admit(len(running), reserved)
            if request is None:
                return
            self.departures += 1
            if isnan(request.admitted):
                request.admitted = now
            running[request] = None
            self.prefilling.join(request)
            budget -= request.prefill_tokens

    def make_room(self) -> bool:
        """Preempts the youngest until every decoding request gets its next block."""
        preempted = False
        while self.decoding.blocks_needed() > self.pool.free:
            self._preempt(next(reversed(self.running)))
            preempted = True
        return preempted

    def _preempt(self, request: Request) -> None:
        """Frees the blocks of *request*; all its tokens are computed again when it comes back."""
        del self.running[request]
        if request in self.decoding:
            self.decoding.leave(request)
            tokens = request.context_tokens
            if request in self.joined:
                self.joined.remove(request)
            else:
                request.last_token = self.last_commit
        else:
            self.prefilling.leave(request)
            tokens = request.prefill_tokens
        self.pool.give_back(self.pool.blocks(tokens))
        request.preemptions += 1
        self.preemptions += 1
        self.departures -= 1
        self.admission.return_to_head(request)

    def advance_prefill(self, chunks: Chunks, end: float) -> None:
        """Counts *chunks* as computed at *end*; a complete prompt commits a token."""
        for request in self.prefilling.advance(chunks):
            if isnan(request.first_token):
                request.first_token = end
            else:
                self.iterations.gap(end - request.last_token)
            request.generated += 1
            request.last_token = end
            self.prefilled.append(request)
            if self.answered is not None and request.generated == request.output_tokens:
                self.answered.append(request)

    def join_prefilled(self) -> None:
        """Requests with a fresh token begin to decode, or finish if it was all they asked."""
        for request in self.prefilled:
            if request.generated == request.output_tokens:
                self._finish(request)
            else:
                self.decoding.join(request)
                self.joined.append(request)
        self.prefilled.clear()

    def take_joined(self) -> tuple[float, ...]:
        """Times of the last tokens of those that are about to decode for the first time."""
        if not self.joined:
            return ()
        times = tuple(request.last_token for request in self.joined)
        self.joined.clear()
        return times

    def commit(self, iterations: int, end: float) -> list[int]:
        """A token a decoding request in each of *iterations*, the last of which ends at *end*.

        Returns the new KV blocks of each iteration.
        """
        blocks, finished = self.decoding.advance(iterations)
        self.pool.take(sum(blocks))
        self.last_commit = end
        if self.answered is not None:
            self.answered += finished
        for request in finished:
            request.last_token = end
            self._finish(request)
        return blocks

    def _finish(self, request: Request) -> None:
        """Releases the request's blocks and writes its row."""
        del self.running[request]
        self.last_change = max(self.last_change, request.last_token)
        self.pool.give_back(self.pool.blocks(request.final_context_tokens))
        request.status, request.finished = Status.FINISHED, request.last_token
        self.requests.add(request)

    def unfinished(self) -> list[Request]:
        """What still runs or waits, with its tokens counted; empties the decoding set."""
        self.join_prefilled()
        for request in self.running:
            if request in self.decoding:
                self.decoding.leave(request)
        return [*self.running, *self.admission.waiting]
