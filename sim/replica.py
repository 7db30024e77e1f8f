"""One replica: the way of a request through queue, admission, iterations and release.

`serve` is that way from top to bottom and the only place that knows all its parts. Everything
that changes state happens at iteration boundaries; between two of them the loop sleeps.
"""

from __future__ import annotations

from collections.abc import Generator
from math import inf, isnan

import numpy as np
from simpy.events import Event

from .admission import Admission
from .clock import Alarm, Clock
from .cost import Chunk, Cost
from .decoding import Decoding
from .iteration_log import Iteration, IterationLog
from .kv import BlockPool
from .request import Request, Status
from .request_log import RequestLog
from .scenario import Loop


class Replica:
    """A GPU, its KV blocks and its decode loop; ends at *stop_at* seconds at the latest."""

    def __init__(
        self,
        clock: Clock,
        loop: Loop,
        cost: Cost,
        admission: Admission,
        decoding: Decoding,
        requests: RequestLog,
        iterations: IterationLog,
        stop_at: float = inf,
    ) -> None:
        self.clock = clock
        self.loop = loop
        self.cost = cost
        self.admission = admission
        self.pool: BlockPool = admission.pool
        self.decoding = decoding
        self.requests = requests
        self.iterations = iterations
        self.stop_at = stop_at
        self.exits = loop.mode == "resident" and loop.prefill == "exit"
        self.partitioned = loop.mode == "resident" and loop.prefill == "partition"
        self.running: dict[Request, None] = {}  # in order of admission
        self.prefilling: dict[Request, None] = {}
        self.prefilled: list[Request] = []  # by the partition, to join at the next boundary
        self.beside: list[tuple[Iteration, np.ndarray, np.ndarray, list[int]]] = []
        """Prefill rows of the partition, recorded at the next boundary to keep their order."""
        self.joined: list[Request] = []  # have a token, but none of a decode iteration yet
        self.alarm = Alarm(clock)
        self.asleep = False
        self.outside = False  # a resident loop that has left for prefill
        self.ends: np.ndarray | None = None  # of the iterations under way, where they can be cut
        self.leap = 0
        self.last_commit = 0.0
        self.queue_departures = 0
        self.preemptions = 0
        self.last_change = 0.0
        clock.process(self.serve())
        if self.partitioned:
            self.prefill_alarm = Alarm(clock)
            self.prefill_asleep = False
            clock.process(self.prefill_beside())

    # ---------------------------------------------------------------- arrivals
    def submit(self, request: Request) -> None:
        """Takes *request*, which arrives now: into the queue, or away with the reason."""
        reason = self.admission.impossible(request)
        self.last_change = self.clock.now
        if reason is not None:
            request.status, request.reason = Status.REJECTED, reason
            self.requests.add(request)
            return
        self.iterations.queued(request.arrival)
        first = not self.admission.waiting
        self.admission.waiting.append(request)
        if first and len(self.running) < self.admission.max_batch:
            self.wake()

    def wake(self) -> None:
        """Brings the next boundary at or after now, or now itself if the loop is idle."""
        now = self.clock.now
        if self.asleep:
            self.alarm.bring_forward(now)
        elif self.ends is not None:
            boundary = int(self.ends.searchsorted(now))
            if boundary + 1 < self.leap:
                self.leap = boundary + 1
                self.alarm.bring_forward(float(self.ends[boundary]))

    # ---------------------------------------------------------------- the loop
    def serve(self) -> Generator[Event, None, None]:
        """The process: boundary after boundary, until nobody waits or runs."""
        while True:
            self.join_prefilled()
            if self.clock.now >= self.stop_at:
                return
            if self.exits:
                prefill = self.plan_prefill(self.loop.token_budget, admit=True)
                preempted = not prefill and self.make_room()
            else:
                preempted = self.make_room()
                budget = self.loop.token_budget - len(self.decoding)
                prefill = self.plan_prefill(budget, admit=not preempted)
            if prefill and not self.partitioned:
                yield from self.prefill_iteration(prefill)
            elif len(self.decoding):
                yield from self.decode_iterations(1 if preempted else self.decoding.max_leap)
            else:
                yield from self.sleep()

    def sleep(self) -> Generator[Event, None, None]:
        """Until an arrival, or the partition, wakes the loop."""
        self.asleep = True
        yield self.alarm.never()
        self.asleep = False

    def unfinished(self) -> list[Request]:
        """What still waits or runs, with its tokens counted; empties the decoding set."""
        self.join_prefilled()
        for request in self.running:
            if request in self.decoding:
                self.decoding.leave(request)
        return [*self.running, *self.admission.waiting]

    def stop(self) -> Generator[Event, None, None]:
        """An iteration that would outlast the run is not begun: it sleeps to the end."""
        yield self.alarm.set(self.stop_at)

    def make_room(self) -> bool:
        """Preempts the youngest until each decoding request gets its next block."""
        preempted = False
        while self.decoding.blocks_needed() > self.pool.free:
            self.preempt(next(reversed(self.running)))
            preempted = True
        return preempted

    def preempt(self, request: Request) -> None:
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
            self.prefilling.pop(request, None)
            tokens = request.prefill_tokens
        self.pool.give_back(self.pool.blocks(tokens))
        request.prefilled = 0
        request.preemptions += 1
        self.preemptions += 1
        self.queue_departures -= 1
        self.admission.return_to_head(request)

    def plan_prefill(self, budget: int, admit: bool) -> dict[Request, Chunk]:
        """Chunks for this iteration: those begun before, then new admissions, within *budget*."""
        chunks: dict[Request, Chunk] = {}
        for request in self.prefilling:
            if budget <= 0:
                break
            budget -= self._chunk(request, budget, chunks)
        # A loop that leaves for prefill makes room for decoding when it comes back.
        reserved = 0 if self.exits else self.decoding.blocks_needed()
        while admit and budget > 0:
            admitted = self.admission.try_admit(len(self.running), reserved)
            if admitted is None:
                break
            self.queue_departures += 1
            if isnan(admitted.admitted):
                admitted.admitted = self.clock.now
            self.running[admitted] = None
            self.prefilling[admitted] = None
            budget -= self._chunk(admitted, budget, chunks)
        if chunks and self.partitioned and self.prefill_asleep:
            self.prefill_alarm.bring_forward(self.clock.now)
        return chunks

    def _chunk(self, request: Request, budget: int, chunks: dict[Request, Chunk]) -> int:
        tokens = min(budget, request.prefill_tokens - request.prefilled)
        chunks[request] = Chunk(tokens, request.prefilled)
        return tokens

    # ---------------------------------------------------------------- iterations
    def prefill_iteration(self, chunks: dict[Request, Chunk]) -> Generator[Event, None, None]:
        """Prefill chunks, with every decoding request in the same iteration unless it exits."""
        batch = 0 if self.exits else len(self.decoding)
        context = self.decoding.context_tokens + batch if batch else 0
        logits = batch + self._completing(chunks)
        charge = self.cost.mixed(batch, context, list(chunks.values()), logits)
        seconds = charge.seconds
        if self.exits and not self.outside:
            seconds += self.cost.modes.exit
            self.outside = True
        start = self.clock.now
        end = start + seconds
        if end > self.stop_at:
            yield from self.stop()
            return
        iteration = Iteration(
            start, batch, batch, context, len(chunks), sum(c.tokens for c in chunks.values()),
            len(self.running), self.queue_departures, self.pool.used, False, self._joined(batch),
            self.last_commit, logits, charge,
        )  # fmt: skip
        yield self.alarm.set(end)
        blocks = self.commit(1, end) if batch else [0]
        self.iterations.add(iteration, np.array([end]), np.array([seconds]), blocks)
        self.advance_prefill(chunks, end)

    def decode_iterations(self, most: int) -> Generator[Event, None, None]:
        """One decode iteration or, while nothing but lengths changes, up to *most* at once."""
        decoding, now = self.decoding, self.clock.now
        batch, context = len(decoding), decoding.context_tokens
        beside = self.partitioned and bool(self.prefilling)
        cost = self.cost.decode(batch, beside)
        count = min(decoding.horizon(self.pool.free), most)
        seconds = decoding.durations(cost, count)
        if self.outside:
            seconds[0] += self.cost.modes.relaunch
            self.outside = False
        ends = np.empty(count + 1)
        ends[0] = now
        ends[1:] = seconds
        ends = np.add.accumulate(ends)[1:]
        if ends[-1] > self.stop_at:
            count = int(ends.searchsorted(self.stop_at, "right"))
            if count == 0:
                yield from self.stop()
                return
        iteration = Iteration(
            now, batch, cost.padded, context + batch, 0, 0, len(self.running),
            self.queue_departures, self.pool.used, beside, self._joined(batch), self.last_commit,
            batch, None,
        )  # fmt: skip
        self.ends, self.leap = ends, count
        yield self.alarm.set(float(ends[count - 1]))
        self.ends, count = None, self.leap
        blocks = self.commit(count, float(ends[count - 1]))
        self.iterations.add(iteration, ends[:count], seconds[:count], blocks)

    def commit(self, count: int, end: float) -> list[int]:
        """A token a decoding request in each of *count* iterations, the last of which ends now.

        Returns the new KV blocks of each iteration.
        """
        blocks, finished = self.decoding.advance(count)
        self.pool.take(sum(blocks))
        self.last_commit = end
        for request in finished:
            request.last_token = end
            self.finish(request)
        return blocks

    def finish(self, request: Request) -> None:
        """Releases the request's blocks and writes its row."""
        del self.running[request]
        self.last_change = self.clock.now
        self.pool.give_back(self.pool.blocks(request.final_context_tokens))
        request.status, request.finished = Status.FINISHED, request.last_token
        self.requests.add(request)

    def advance_prefill(self, chunks: dict[Request, Chunk], end: float) -> None:
        """Counts *chunks* as computed; a request whose prompt is complete commits a token."""
        for request, chunk in chunks.items():
            request.prefilled += chunk.tokens
            if request.prefilled == request.prefill_tokens:
                del self.prefilling[request]
                self.prefilled.append(request)
                if isnan(request.first_token):
                    request.first_token = end
                else:
                    self.iterations.gap(end - request.last_token)
                request.generated += 1
                request.prefilled = 0
                request.last_token = end

    def join_prefilled(self) -> None:
        """Requests with a fresh token begin to decode, or finish if it was all they asked."""
        for iteration, *columns in self.beside:
            self.iterations.add(iteration._replace(blocks=self.pool.used), *columns)
        self.beside.clear()
        for request in self.prefilled:
            if request.generated == request.output_tokens:
                self.finish(request)
            else:
                self.decoding.join(request)
                self.joined.append(request)
        self.prefilled.clear()

    def _completing(self, chunks: dict[Request, Chunk]) -> int:
        return sum(r.prefilled + c.tokens == r.prefill_tokens for r, c in chunks.items())

    def _joined(self, batch: int) -> tuple[float, ...]:
        """Times of the last tokens of those that decode for the first time in this iteration."""
        if not batch or not self.joined:
            return ()
        times = tuple(request.last_token for request in self.joined)
        self.joined.clear()
        return times

    # ---------------------------------------------------------------- prefill beside the loop
    def prefill_beside(self) -> Generator[Event, None, None]:
        """The process of `prefill: partition`: chunks on some SMs while the loop stays resident."""
        while True:
            if not self.prefilling:
                self.prefill_asleep = True
                yield self.prefill_alarm.never()
                self.prefill_asleep = False
                continue
            start = self.clock.now
            chunks = self._chunks_beside()
            logits = self._completing(chunks)
            charge = self.cost.partition(list(chunks.values()), logits)
            end = start + charge.seconds
            if end > self.stop_at:
                return
            iteration = Iteration(
                start, 0, 0, 0, len(chunks), sum(c.tokens for c in chunks.values()),
                len(self.running), self.queue_departures, self.pool.used, False, (), 0.0, logits,
                charge,
            )  # fmt: skip
            attempts = [request.preemptions for request in chunks]
            yield self.clock.at(end)
            self.beside.append((iteration, np.array([end]), np.array([charge.seconds]), [0]))
            # A chunk of a request that was preempted meanwhile has been computed for nothing.
            kept = zip(chunks.items(), attempts, strict=True)
            self.advance_prefill({r: c for (r, c), tries in kept if r.preemptions == tries}, end)
            self.wake()

    def _chunks_beside(self) -> dict[Request, Chunk]:
        chunks: dict[Request, Chunk] = {}
        budget = self.loop.token_budget
        for request in self.prefilling:
            if budget <= 0:
                break
            budget -= self._chunk(request, budget, chunks)
        return chunks
