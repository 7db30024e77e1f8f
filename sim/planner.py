"""What the next iteration computes: who is admitted, which chunks of prompts, whether one decodes.

The one rule: a plan depends on the requests, the free blocks and the time, never on what iterations
cost; so an engine's log can be followed with the same code (`SCHEDULER.md` says it in words).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from .batch import Batch
    from .prefill import Chunks
    from .request import Request
    from .scenario import Loop
    from .schedule import Schedule


class Plan(NamedTuple):
    """What an iteration computes."""

    chunks: Chunks
    decodes: bool
    """Whether the decoding requests have a part in it, if there are any."""
    preempted: bool
    """Whether somebody was preempted for it."""


class Planner:
    """Plans the iterations of *loop* over *batch* as *schedule* says."""

    def __init__(self, loop: Loop, schedule: Schedule, batch: Batch) -> None:
        self.batch = batch
        self.budget = loop.token_budget
        self.order = schedule.order
        if loop.mode in ("control", "resident"):  # prefill is outside the loop, or beside it
            self.order = "prefill_alone" if loop.leaves else "decode_first"
        self.floor = schedule.free_margin * batch.pool.capacity
        self.by_chunk = batch.by_chunk = schedule.reserve == "chunk"
        self.ahead = schedule.asynchronous
        self.held = (0, 0)
        """Slots and blocks freed since the plan before, of which this one cannot know."""
        self.unseen: list[Request] = []
        """Arrived after the plan was made that comes next."""

    def plan(self, now: float) -> Plan:
        """The next iteration, which begins at *now*; admits and preempts for it."""
        if self.ahead:
            freed = self.batch.take_freed()
            self.held = freed if self.batch.running else (0, 0)
        match self.order:
            case "decode_first":
                return self._decode_first(now)
            case "prefill_first":
                return self._prefill_first(now)
            case _:
                return self._prefill_alone(now)

    def _decode_first(self, now: float) -> Plan:
        """Decoding first, which may preempt; then chunks of prompts with what is left."""
        batch = self.batch
        preempted = batch.make_room()
        rest = self.budget - batch.decoding.rows
        return self._with_prompts(now, rest, True, preempted)

    def _prefill_first(self, now: float) -> Plan:
        """Prompts that have begun, then those that decode, then new prompts.

        # Model: all that decode or none, where what prompts leave of the budget is too little for
        all of them.
        """
        batch = self.batch
        decodes = batch.decoding.rows <= self.budget - min(
            self.budget, batch.prefilling.tokens_left
        )
        preempted = decodes and batch.make_room()
        rest = self.budget - (batch.decoding.rows if decodes else 0)
        plan = self._with_prompts(now, rest, decodes, preempted)
        if not decodes and not plan.chunks:
            return Plan(plan.chunks, True, batch.make_room())
        return plan

    def _prefill_alone(self, now: float) -> Plan:
        """Prompts and nothing else; decoding, which may preempt, where there are none."""
        chunks = self._with_prompts(now, self.budget, False, False).chunks
        if chunks:
            return Plan(chunks, False, False)
        return Plan(chunks, True, self.batch.make_room())

    def _with_prompts(self, now: float, budget: int, decodes: bool, preempted: bool) -> Plan:
        """*budget* tokens of prompts beside those that decode; none is admitted when one has just
        been *preempted*."""
        batch = self.batch
        reserved = batch.decoding.blocks_needed() if decodes else 0
        if self.by_chunk:
            chunks = self._by_chunk(now, budget, reserved, preempted)
            return Plan(chunks, decodes, preempted)
        if not preempted and batch.admission.waiting:
            slots, blocks = self.held
            left = budget - batch.prefilling.tokens_left
            batch.admit(now, left, reserved + blocks, slots, self.floor)
        return Plan(batch.prefilling.chunks(budget), decodes, preempted)

    def _by_chunk(self, now: float, budget: int, reserved: int, preempted: bool) -> Chunks:
        """Chunks whose blocks are taken one by one.

        Below the margin, only the oldest prompt goes on, and only where nothing decodes.
        """
        batch, pool = self.batch, self.batch.pool
        slots, blocks = self.held
        kept = reserved + blocks
        decoding = len(batch.decoding) > 0
        short = pool.free < self.floor
        chunks: Chunks = {}
        if not (short and decoding):
            chunks = batch.prefilling.chunks(budget, pool, kept, 1 if short else None)
        if not chunks and not decoding and len(batch.prefilling):
            chunks = batch.prefilling.chunks(budget, pool, 0, 1)
            while not chunks:  # all blocks are held by prompts of which none can go on
                batch.preempt_youngest()
                preempted = True
                chunks = batch.prefilling.chunks(budget, pool, 0, 1)
        begun = len(chunks) == len(batch.prefilling)
        left = budget - sum(chunk.tokens for chunk in chunks.values())
        if begun and not preempted:
            chunks |= batch.admit_chunks(now, left, kept, slots, self.floor)
        return chunks

    # ---------------------------------------------------------------- plans made ahead
    def see(self, begun: float) -> None:
        """What arrived by *begun*, when the iteration before this plan's began, is known to it;
        where nothing runs, so is the rest."""
        if not self.unseen:
            return
        batch = self.batch
        everything = not batch.running and not batch.admission.waiting
        known = [r for r in self.unseen if everything or r.arrival <= begun]
        self.unseen = self.unseen[len(known) :]
        if known:
            batch.admission.waiting.extend(known)
            if batch.memory is not None:
                batch.memory.stirred = True

    @property
    def late(self) -> bool:
        """Whether the next plan may know more than this one though nobody comes or goes."""
        if not self.ahead:
            return False
        return bool(self.unseen) or (any(self.held) and bool(self.batch.admission.waiting))
