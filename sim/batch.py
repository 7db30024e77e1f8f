"""The requests inside the loop: admitted, prefilling, decoding, preempted, released.

Changes of membership and of KV blocks happen here and nowhere else, always at a boundary between
iterations. When each happens is the replica's business.
"""

from __future__ import annotations

from math import ceil, isnan
from typing import TYPE_CHECKING

from .cost import Chunk
from .prefill import Chunks, Filling, Prefilling
from .request import Request, Status

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np

    from .admission import Admission
    from .decoding import Decoding
    from .iteration_log import IterationLog
    from .memory.manager import Memory
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
        self.by_chunk = False  # whether prompts take their blocks chunk by chunk
        self.share = 0.0  # of what requests have still to make, for which admission keeps blocks
        self.freed = (0, 0)  # slots and blocks of those that have finished since the last look

    def admit(
        self, now: float, filling: Filling, reserved: int, held: int = 0, floor: float = 0.0
    ) -> None:
        """Takes in requests while *filling* has room for their prompts, and a slot and memory are
        left.

        *reserved* free blocks are kept for those that decode, *held* slots are not free yet, and
        with fewer than *floor* blocks nobody is taken in beside others.
        """
        admission, running, memory = self.admission, self.running, self.memory
        waiting, share = admission.waiting, self.share
        if share:
            reserved = max(reserved, self.to_come)
        while waiting and filling.tokens(waiting[0].prefill_tokens):
            if running and floor and self.room < floor:
                return
            if memory is not None and memory.is_swapped(waiting[0]):
                # It would not prefill but compete for blocks at once.
                reserved = max(reserved, self.decoding.blocks_needed())
            if share:
                reserved += self._more(waiting[0], waiting[0].prefill_tokens)
            request = admission.try_admit(len(running) + held, reserved)
            if request is None:
                return
            self._admitted(request, now)
            if memory is None or request not in memory.loading:
                self.prefilling.join(request)
            elif memory.resumes(request):
                continue
            rest = request.prefill_tokens - request.prefilled
            filling.take(filling.tokens(rest), rest)

    def admit_chunks(
        self, now: float, filling: Filling, reserved: int, held: int, floor: float, fits: bool
    ) -> Chunks:
        """As `admit`, where blocks are taken for the first chunks alone; returns these.

        If *fits*, blocks for a whole prompt must be free all the same.
        """
        chunks: Chunks = {}
        waiting = self.admission.waiting
        reserved = max(reserved, self.to_come)
        while waiting and not (self.running and self.pool.free < floor):
            head = waiting[0]
            rest = head.prefill_tokens
            tokens = filling.tokens(rest)
            more = self._more(head, tokens)
            if not tokens or not self.admission.try_begin(
                len(self.running) + held, reserved + more, tokens, fits
            ):
                break
            reserved += more
            self._admitted(head, now)
            self.prefilling.join(head)
            chunks[head] = Chunk(tokens, 0)
            filling.take(tokens, rest)
        return chunks

    def _more(self, request: Request, tokens: int) -> int:
        """Blocks beyond those of its first *tokens* that must be free for *request*, too."""
        if not self.share:
            return 0
        return self._until(request, request.prefill_tokens) - self.pool.blocks(tokens)

    def _until(self, request: Request, context: int) -> int:
        """Blocks of *request* when, of the tokens it has still to make at *context*, the share that
        counts is there."""
        rest = request.final_context_tokens - context
        return self.pool.blocks(context + ceil(self.share * rest))

    @property
    def to_come(self) -> int:
        """Blocks that those who run will still take, until the share of their output is there."""
        if not self.share:
            return 0
        total = 0
        for request in self.running:
            if request in self.decoding:
                context = self.decoding.context(request)
                held = self.pool.blocks(context)
            else:
                context = request.prefill_tokens
                held = self.pool.blocks(request.prefilled if self.by_chunk else context)
            total += self._until(request, context) - held
        return total

    def _admitted(self, request: Request, now: float) -> None:
        self.departures += 1
        if isnan(request.admitted):
            request.admitted = now
        self.running[request] = None

    def take_freed(self) -> tuple[int, int]:
        """Slots and blocks of those that have finished since this was asked last."""
        freed, self.freed = self.freed, (0, 0)
        return freed

    @property
    def memory(self) -> Memory | None:
        """Where KV is shared or moves."""
        return self.admission.memory

    @property
    def room(self) -> int:
        """KV blocks that decoding requests can have at once."""
        memory = self.admission.memory
        return self.pool.free if memory is None else memory.rooms.room

    def make_room(self) -> bool:
        """Preempts the youngest until every decoding request gets its next block."""
        memory = self.memory
        if memory is not None:
            return self._make_room(memory)
        preempted = False
        decoding, pool = self.decoding, self.pool
        while decoding.blocks_needed() > pool.free or decoding.overfull:
            self.preempt_youngest()
            preempted = True
        return preempted

    def _make_room(self, memory: Memory) -> bool:
        """The same where KV is shared: cached KV goes first, even if it is the only copy."""
        preempted = False
        while (needed := self.decoding.blocks_needed()) > self.room + memory.swapping.blocks:
            if not memory.drop_dirty(needed):
                self._preempt(next(filter(memory.may_preempt, reversed(self.running))))
                preempted = True
        return preempted

    @property
    def short(self) -> bool:
        """Whether decoding requests need more blocks than they can have at once."""
        return self.decoding.blocks_needed() > self.room

    @property
    def stalled(self) -> bool:
        """Whether the loop has to wait for swapped requests to be out before it can go on."""
        memory = self.memory
        return memory is not None and memory.stalled and self.short

    def join_loaded(self) -> None:
        """Requests whose KV has been loaded go on: to what is left to prefill, or to decode."""
        memory = self.memory
        assert memory is not None
        for request in memory.loaded():
            if memory.resumes(request):
                self.decoding.join(request)
                self.joined.append(request)
            else:
                self.prefilling.join(request)

    def preempt_youngest(self) -> None:
        """Preempts the request that was admitted last."""
        self._preempt(next(reversed(self.running)))

    def _preempt(self, request: Request) -> None:
        """Frees the blocks of *request*; all its tokens are computed again when it comes back."""
        del self.running[request]
        if request in self.decoding:
            self.decoding.leave(request)
            tokens = request.context_tokens
            blocks = self.decoding.blocks(tokens)
            if request in self.joined:
                self.joined.remove(request)
            elif not self.decoding.keeps_times:
                request.last_token = self.last_commit
            decoded = True
        else:
            decoded = False
            tokens = request.prefill_tokens
            blocks = self.pool.blocks(request.prefilled if self.by_chunk else tokens)
            if request in self.prefilling.requests:
                self.prefilling.leave(request)
            else:  # still waits for KV
                request.prefilled = 0
        if self.memory is None:
            self.pool.give_back(blocks)
        else:
            self.memory.preempt(request, tokens, self.decoding if decoded else None)
        request.preemptions += 1
        self.preemptions += 1
        self.departures -= 1
        self.admission.return_to_head(request)

    def advance_prefill(self, chunks: Chunks, end: float) -> None:
        """Counts *chunks* as computed at *end*; a complete prompt commits a token."""
        if self.memory is not None:
            self.memory.stirred = True
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
            if self.memory is not None:
                self.memory.prefilled(request)
            if request.generated == request.output_tokens:
                self._finish(request, self.pool.blocks(request.final_context_tokens))
            else:
                context = request.context_tokens
                # What decoding does not keep in HBM leaves it.
                self.pool.give_back(self.pool.blocks(context) - self.decoding.blocks(context))
                self.decoding.join(request)
                self.joined.append(request)
        self.prefilled.clear()

    def take_joined(self) -> tuple[float, ...]:
        """Times of the last tokens of those that are about to decode for the first time."""
        if not self.joined:
            return ()
        times = tuple(request.last_token for request in self.joined)
        self.joined.clear()
        return times if not self.decoding.keeps_times else ()

    def commit(self, ends: np.ndarray) -> Sequence[int]:
        """What decoding requests commit in the iterations that end at *ends*.

        Returns by how many KV blocks each changes what is in use while it runs.
        """
        (blocks, returned), finished = self.decoding.advance(ends)
        end = float(ends[-1])
        if self.memory is not None:
            blocks = self.memory.rooms.take(blocks, returned)
        elif returned is None:
            self.pool.take(sum(blocks))
        else:
            blocks = self.pool.pass_through(blocks, returned)
        self.last_commit = end
        if self.answered is not None:
            self.answered += finished
        for request in finished:
            request.last_token = end
            self._finish(request, self.decoding.blocks(request.final_context_tokens))
        return blocks

    def _finish(self, request: Request, blocks: int) -> None:
        """Releases the request's *blocks* and writes its row."""
        del self.running[request]
        self.freed = (self.freed[0] + 1, self.freed[1] + blocks)
        self.last_change = max(self.last_change, request.last_token)
        if self.memory is None:
            self.pool.give_back(blocks)
        else:
            self.memory.finish(request)
        request.status, request.finished = Status.FINISHED, request.last_token
        self.requests.add(request)

    def unfinished(self) -> list[Request]:
        """What still runs or waits, with its tokens counted; empties the decoding set."""
        self.join_prefilled()
        for request in self.running:
            if request in self.decoding:
                self.decoding.leave(request)
        return [*self.running, *self.admission.waiting]
