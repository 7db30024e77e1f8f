"""Prefill beside a resident loop: a second process on some of the GPU's SMs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .clock import Alarm
from .iteration_log import Iteration
from .prefill import Filling

if TYPE_CHECKING:
    from collections.abc import Generator

    from simpy.events import Event

    from .replica import Replica


class Partition:
    """Prefill on some of the SMs, as a process beside the resident loop of *replica*.

    It only computes: admission, tokens that join and blocks that are freed wait for the loop's
    next boundary, which it brings near at the end of each chunk.
    """

    def __init__(self, replica: Replica) -> None:
        self.replica = replica
        self.alarm = Alarm(replica.clock, replica.alarm.priority)
        self.asleep = False
        self.rows: list[tuple[Iteration, float, float]] = []
        replica.clock.process(self.compute())

    def start(self) -> None:
        """Wakes the process if there is something to compute."""
        if self.asleep and len(self.replica.batch.prefilling):
            self.alarm.bring_forward(self.replica.clock.now)

    def record(self) -> None:
        """Hands on the rows of chunks that ended since the last boundary."""
        batch = self.replica.batch
        for iteration, end, seconds in self.rows:
            row = iteration._replace(blocks=batch.pool.used)
            batch.iterations.add_one(row, end, seconds, [0])
        self.rows.clear()

    def compute(self) -> Generator[Event, None, None]:
        """The process: chunk after chunk."""
        replica, batch = self.replica, self.replica.batch
        while True:
            budget = replica.loop.token_budget
            chunks = batch.prefilling.chunks(Filling(budget, budget))
            if not chunks:
                replica.mark_idle()
                self.asleep = True
                yield self.alarm.never()
                replica.mark_idle()
                self.asleep = False
                continue
            logits = batch.prefilling.completing(chunks)
            charge = replica.cost.partition(list(chunks.values()), logits, replica.slow)
            start = replica.clock.now
            end = start + charge.seconds
            if end > replica.stop_at:
                return
            iteration = Iteration(
                start, 0, 0, len(chunks), sum(c.tokens for c in chunks.values()),
                len(batch.running), batch.departures, 0, False, (), 0.0, logits, charge,
            )  # fmt: skip
            attempts = [request.preemptions for request in chunks]
            yield replica.clock.at(end)
            # A chunk of a request that was preempted meanwhile has been computed for nothing.
            tried = zip(chunks.items(), attempts, strict=True)
            kept = {r: c for (r, c), tries in tried if r.preemptions == tries}
            iteration = iteration._replace(complete=batch.prefilling.completing(kept))
            self.rows.append((iteration, end, charge.seconds))
            batch.advance_prefill(kept, end)
            replica.tell_answers()
            replica.wake()
