"""One replica: the way of a request through queue, admission, iterations and release.

`serve` is that way from top to bottom and the only place that knows all its parts. Everything
that changes state happens at iteration boundaries; between two of them the loop sleeps.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

import numpy as np

from .clock import AFTER_ARRIVALS, Alarm, Clock, Turns
from .iteration_log import Iteration
from .partition import Partition
from .planner import Planner
from .request import Request, Status
from .steps import NOTHING
from .stretch import Stretch, Trips

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from simpy.events import Event

    from .batch import Batch
    from .cost import Cost
    from .memory.manager import Memory
    from .planner import Plan
    from .scenario import Loop
    from .schedule import Schedule
    from .step_course import Course


class Replica:
    """A GPU with its decode loop over *batch*; ends at *stop_at* seconds at the latest.

    Of several it is number *number*, and they take turns at what happens at the same instant.
    """

    def __init__(
        self, clock: Clock, loop: Loop, schedule: Schedule, cost: Cost, batch: Batch,
        stop_at: float = inf, number: int = 0, turns: Turns | None = None,
    ) -> None:  # fmt: skip
        self.clock = clock
        self.loop = loop
        self.cost = cost
        self.plans = cost
        """Where plans, which may be cut short, ask: what they ask leaves no mark on the run."""
        self.refreshed: int | None = None
        """Where counts of decode iterations say how many requests compute cached KV again."""
        self.batch = batch
        self.stop_at = stop_at
        self.exits = loop.leaves
        self.planner = Planner(loop, schedule, batch)
        self.begun = 0.0  # when the latest iteration began
        self.done = 0  # iterations
        self.course: Course | None = None  # what they take beyond their load
        self.number = number
        self.turns = turns
        self.alarm = Alarm(clock, AFTER_ARRIVALS + number)
        self.asleep = False
        self.stalled = False  # until swapped requests' blocks are out
        self.outside = False  # a loop on the device that has left for prefill
        self.left = self.entered = 0  # how often such a loop has left and begun again
        self.stretch: Stretch | None = None  # of iterations, where it can be cut
        self.idle = 0.0
        self.idle_since = 0.0
        self.heard: Callable[[list[Request]], None] | None = None
        self.partition: Partition | None = None
        if loop.mode == "resident" and loop.prefill == "partition":
            self.partition = Partition(self)
        clock.process(self.serve())

    # ---------------------------------------------------------------- arrivals
    def submit(self, request: Request) -> None:
        """Takes *request*, which arrives now: into the queue, or away with the reason."""
        batch, admission = self.batch, self.batch.admission
        batch.last_change = request.arrival
        reason = admission.impossible(request)
        if reason is not None:
            request.status, request.reason, request.kv = Status.REJECTED, reason, None
            batch.requests.add(request)
            return
        batch.iterations.queued(request.arrival)
        first = not admission.waiting and not self.planner.unseen
        if self.planner.ahead and not self.asleep:
            self.planner.unseen.append(request)
        else:
            admission.waiting.append(request)
        memory = batch.memory
        if first and len(batch.running) < admission.max_batch:
            ahead = self.planner.ahead and not self.asleep  # the next plan is made already
            if memory is not None and not ahead:
                memory.stirred = True
            self.wake(int(ahead))
        if memory is not None and memory.queued(request):
            self.wake()

    def expect(self, request: Request) -> None:
        """*request* will be sent at a time that is known now."""
        if self.batch.memory is not None and self.batch.memory.expect(request):
            self.wake()

    def listen(self, heard: Callable[[list[Request]], None]) -> None:
        """From now on tells *heard* who has got a last token, at the time of that token."""
        self.heard = heard
        self.batch.answered = []

    def tell_answers(self) -> None:
        """Tells who has been answered since the last time; the clients may ask again at once."""
        if self.heard is not None and self.batch.answered:
            answered, self.batch.answered = self.batch.answered, []
            self.heard(answered)

    def wake(self, later: int = 0) -> None:
        """Brings the boundary *later* than the next at or after now, or now if the loop is idle."""
        now = self.clock.now
        if self.asleep or self.stalled:
            self.alarm.bring_forward(now)
        elif self.stretch is not None:
            last = self.ended(self.stretch) + later
            if last + 1 < self.stretch.count:
                self.stretch.count = last + 1
                self.alarm.bring_forward(float(self.stretch.ends[last]))

    def ended(self, stretch: Stretch) -> int:
        """How many iterations of *stretch* have had their end before what happens now."""
        now = self.clock.now
        # One that ends right now has still to come, unless it is another loop's turn already.
        return stretch.ended(now, self.turns is not None and self.turns.passed(now, self.number))

    def catch_up(self) -> None:
        """Commits what has been decoded before what happens now, for somebody who looks."""
        if self.stretch is not None:
            ended = self.ended(self.stretch)
            if self.stretch.done < ended < self.stretch.count:
                self.stretch.commit(self.batch, ended)

    def mark_idle(self) -> None:
        """Counts the time since the last mark if nothing was at work; called before a change."""
        now = self.clock.now
        if self.asleep and (self.partition is None or self.partition.asleep):
            self.idle += now - self.idle_since
        self.idle_since = now

    def idle_seconds(self, duration: float) -> float:
        """Seconds of a run of *duration* in which neither loop nor partition was at work."""
        if self.asleep and (self.partition is None or self.partition.asleep):
            return self.idle + max(0.0, duration - self.idle_since)
        return self.idle

    # ---------------------------------------------------------------- the loop
    def serve(self) -> Generator[Event, None, None]:
        """The process: boundary after boundary, until nobody waits or runs."""
        batch, partition = self.batch, self.partition
        while True:
            if self.turns is not None:
                self.turns.take(self.clock.now, self.number)
            if batch.memory is not None:
                self.settle(batch.memory)
            batch.join_prefilled()
            if partition is not None:
                partition.record()
            if batch.answered:
                self.tell_answers()
            if self.clock.now >= self.stop_at:
                return
            self.planner.see(self.begun)
            plan = self.planner.plan(self.clock.now)
            memory = batch.memory
            if memory is not None:
                if plan.decodes and batch.stalled:
                    yield from self.stall(memory)
                    continue
                self.tend(memory, plan.preempted)
                if plan.decodes and batch.short:
                    continue  # what was written down made other copies the only ones
            if partition is not None:
                partition.start()
            elif plan.chunks:
                yield from self.prefill_iteration(plan)
                continue
            if len(batch.decoding):
                alone = plan.preempted or self.planner.late
                yield from self.decode_iterations(1 if alone else batch.decoding.max_leap)
            else:
                self.mark_idle()
                self.asleep = True
                yield self.alarm.never()
                if memory is not None and memory.loading and not batch.prefilling:
                    memory.waited("load", self.since(self.idle_since))
                self.mark_idle()
                self.asleep = False

    # ---------------------------------------------------------------- KV that moves
    def settle(self, memory: Memory) -> None:
        """What has been moved by now is where it was to go."""
        now = self.clock.now
        if now < self.stop_at:
            memory.settle(now)
            if memory.ready:
                self.batch.join_loaded()

    def tend(self, memory: Memory, preempted: bool) -> None:
        """What may be moved in the background begins to move; not while memory is being fought
        for."""
        if memory.stirred and not preempted:
            batch = self.batch
            memory.tend(batch.admission.waiting, batch.decoding.blocks_needed())
            batch.iterations.occupancy(self.clock.now, *memory.occupancy())

    def stall(self, memory: Memory) -> Generator[Event, None, None]:
        """The loop stands still: it has nothing to decode with until swapped blocks are out."""
        since = self.clock.now
        self.stalled = True
        yield self.alarm.never()
        self.stalled = False
        memory.waited("swap", self.since(since))

    def since(self, time: float) -> float:
        """Seconds from *time* until now, or until the end of the run."""
        return max(0.0, min(self.clock.now, self.stop_at) - time)

    @property
    def slow(self) -> float:
        """How many times longer the GPU takes beside the transfers of now."""
        memory = self.batch.memory
        return 1.0 if memory is None else memory.slowdown

    def prefill_iteration(self, plan: Plan) -> Generator[Event, None, None]:
        """Prefill chunks, with every decoding request in the same iteration if planned so."""
        batch, chunks = self.batch, plan.chunks
        decoding = len(batch.decoding) if plan.decodes else 0
        complete = batch.prefilling.completing(chunks)
        load = batch.decoding.load if decoding else NOTHING
        sums = batch.decoding.sums(1) if decoding else None
        charge = self.cost.mixed(
            decoding, load.context, list(chunks.values()), load.rows + complete, self.slow,
            load.rows, *load[2:],
        )  # fmt: skip
        seconds = charge.seconds
        if self.course is not None:
            seconds = self.course.prefill(seconds, self.done, decoding, self.idle, plan)
        leaves = self.exits and not self.outside
        if leaves:
            seconds += self.cost.modes.exit
            self.outside = True
        self.begun = start = self.clock.now
        end = start + seconds
        if end > self.stop_at:
            yield self.alarm.set(self.stop_at)
            return
        self.left += leaves
        iteration = Iteration(
            start, decoding, load.context, len(chunks), sum(c.tokens for c in chunks.values()),
            len(batch.running), batch.departures, batch.pool.used, False,
            batch.take_joined() if decoding else (), batch.last_commit, complete, charge, sums,
        )  # fmt: skip
        yield self.alarm.set(end)
        self.done += 1
        blocks = batch.commit(np.array([end])) if decoding else [0]
        batch.iterations.add_one(iteration, end, seconds, blocks)
        batch.advance_prefill(chunks, end)

    @property
    def kept_out(self) -> bool:
        """Whether a prompt may wait for what decoding takes of the token budget or of memory."""
        batch, admission = self.batch, self.batch.admission
        if self.exits:
            return False
        free = len(batch.running) < admission.max_batch
        return len(batch.prefilling) > 0 or (free and len(admission.waiting) > 0)

    def decode_iterations(self, most: int) -> Generator[Event, None, None]:
        """One decode iteration or, while nothing but lengths changes, up to *most* at once."""
        batch, decoding, now = self.batch, self.batch.decoding, self.clock.now
        size = len(decoding)
        beside = self.partition is not None and len(batch.prefilling) > 0
        slow = self.slow
        count = min(decoding.horizon(batch.room), most)
        if count > 1 and self.kept_out:
            count = decoding.steady(count, self.loop.token_budget)
        seconds = decoding.durations(self.plans, count, beside, slow)
        if self.course is not None:
            seconds = self.course.decode(seconds, self.done, decoding)
        sums = decoding.sums(count)
        leaves = None
        if self.exits and self.refreshed is not None and sums is not None:
            leaves = sums[self.refreshed] > 0
        trips = Trips.of(self.outside, leaves, count)
        if trips is not None:
            seconds[trips.back] += self.cost.modes.relaunch
            seconds[trips.out] += self.cost.modes.exit
        ends = seconds.copy()
        ends[0] += now
        np.add.accumulate(ends, out=ends)
        if ends[-1] > self.stop_at:
            # An iteration that would outlast the run is not begun.
            count = int(ends.searchsorted(self.stop_at, "right"))
            if count == 0:
                yield self.alarm.set(self.stop_at)
                return
        context = decoding.load.context if sums is None else 0  # which is among the sums
        iteration = Iteration(
            now, size, context, 0, 0, len(batch.running), batch.departures, batch.pool.used, beside,
            batch.take_joined(), batch.last_commit, 0, None, sums, slow,
        )  # fmt: skip
        self.stretch = stretch = Stretch(iteration, ends, seconds, count)
        yield self.alarm.set(float(ends[count - 1]))
        self.stretch, count = None, stretch.count
        self.done += count
        self.begun = float(ends[count - 2]) if count > 1 else now
        if trips is not None:
            self.outside = bool(trips.away[count])
            self.entered += int(np.count_nonzero(trips.back[:count]))
            self.left += int(np.count_nonzero(trips.out[:count]))
        stretch.commit(batch, count)
