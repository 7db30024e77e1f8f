"""What the next iteration computes: who is admitted, which chunks of prompts, whether one decodes.

The one rule: a plan depends on the requests, the free blocks and the time, never on what iterations
cost; so an engine's log can be followed with the same code (`SCHEDULER.md` says it in words).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from .prefill import Filling

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
        self.prefill_budget = schedule.prefill_budget or loop.token_budget
        self.limits = schedule.limits
        self.order = schedule.order
        if loop.mode in ("control", "resident"):  # prefill is outside the loop, or beside it
            self.order = "prefill_alone" if loop.leaves else "decode_first"
        self.floor = schedule.free_margin * batch.pool.capacity
        self.by_chunk = batch.by_chunk = schedule.reserve != "prompt"
        self.fits = schedule.reserve == "chunk_if_fits" and not schedule.output_reserve
        self.gives_way = schedule.blocked_prompt == "preempt"
        batch.share = schedule.output_reserve
        self.ahead = schedule.asynchronous
        self.freed_late = schedule.freed_late
        self.alone = False
        """Whether the iteration before decoded and computed nothing of prompts."""
        self.held = (0, 0)
        """Slots and blocks freed since the plan before, of which this one cannot know."""
        self.unseen: list[Request] = []
        """Arrived after the plan was made that comes next."""

    def plan(self, now: float) -> Plan:
        """The next iteration, which begins at *now*; admits and preempts for it."""
        if self.ahead or self.freed_late:
            freed = self.batch.take_freed()
            unknown = self.batch.running and (self.ahead or self.alone)
            self.held = freed if unknown else (0, 0)
        plan = self._plan(now)
        self.alone = plan.decodes and not plan.chunks
        return plan

    def _plan(self, now: float) -> Plan:
        match self.order:
            case "decode_first":
                return self._with_prompts(now, True, self.batch.make_room())
            case "prefill_first":
                return self._prefill_first(now)
            case _:
                return self._prefill_alone(now)

    def _prefill_first(self, now: float) -> Plan:
        """Prompts that have begun, then those that decode, then new prompts.

        # Model: all that decode or none, where what prompts leave of the budget is too little for
        all of them.
        """
        batch = self.batch
        begun = Filling(self.budget, self.budget, self.limits)
        batch.prefilling.fill(begun)
        decodes = batch.decoding.rows <= begun.left
        plan = self._with_prompts(now, decodes, decodes and batch.make_room())
        return plan if decodes or plan.chunks else self._without_prompts(now, plan.preempted)

    def _prefill_alone(self, now: float) -> Plan:
        """Prompts and nothing else; decoding, which may preempt, where there are none."""
        plan = self._with_prompts(now, False, False)
        return plan if plan.chunks else self._without_prompts(now, plan.preempted)

    def _without_prompts(self, now: float, preempted: bool) -> Plan:
        """Decoding, which may preempt, and no prompt; but prompts, where nobody is left to decode.

        Whether somebody has been *preempted* already goes on with the plan.
        """
        preempted |= self.batch.make_room()
        if preempted and not len(self.batch.decoding):
            return self._with_prompts(now, False, True)
        return Plan({}, True, preempted)

    def _filling(self, decodes: bool) -> Filling:
        """What prompts have of an iteration in which somebody *decodes* or not."""
        rows = self.batch.decoding.rows if decodes else 0
        budget = self.budget if rows else self.prefill_budget
        return Filling(budget - rows, budget, self.limits)

    def _with_prompts(self, now: float, decodes: bool, preempted: bool) -> Plan:
        """Prompts beside those that decode; none is admitted when one has just been *preempted*."""
        batch, (slots, blocks) = self.batch, self.held
        admission, prefilling = batch.admission, batch.prefilling
        free = len(batch.running) + slots < admission.max_batch
        admits = free and not preempted and len(admission.waiting) > 0
        if not admits and not prefilling.requests:
            return Plan({}, decodes, preempted)
        if self.by_chunk:
            return self._by_chunk(now, decodes, preempted)
        filling = self._filling(decodes)
        if admits:
            begun = filling.again()
            prefilling.fill(begun)
            reserved = batch.decoding.blocks_needed() if decodes else 0
            batch.admit(now, begun, reserved + blocks, slots, self.floor)
        return Plan(prefilling.chunks(filling), decodes, preempted)

    def _by_chunk(self, now: float, decodes: bool, preempted: bool) -> Plan:
        """Chunks whose blocks are taken one by one.

        Below the margin, only the oldest prompt goes on, and only where nothing decodes.
        """
        batch, pool, prefilling = self.batch, self.batch.pool, self.batch.prefilling
        short = pool.free < self.floor
        kept, filling, preempted = self._room_for_prompts(decodes, preempted, short)
        decoding = len(batch.decoding) > 0
        chunks: Chunks = {}
        if not (short and decoding):
            chunks = prefilling.chunks(filling, pool, kept)
        if not chunks and not decoding and len(prefilling):
            filling = self._filling(False).only(1)
            chunks = prefilling.chunks(filling, pool)
            while not chunks:  # all blocks are held by prompts of which none can go on
                batch.preempt_youngest()
                preempted = True
                filling = filling.again()
                chunks = prefilling.chunks(filling, pool)
        begun = len(chunks) == len(prefilling)
        if begun and not preempted:
            slots = self.held[0]
            chunks |= batch.admit_chunks(now, filling, kept, slots, self.floor, self.fits)
        return Plan(chunks, decodes, preempted)

    def _room_for_prompts(
        self, decodes: bool, preempted: bool, short: bool
    ) -> tuple[int, Filling, bool]:
        """Blocks that are not for prompts, what prompts have of the iteration, and whether somebody
        was preempted: the youngest, until there are blocks for all chunks, if that is the rule."""
        batch = self.batch
        while True:
            kept = self.held[1] + (batch.decoding.blocks_needed() if decodes else 0)
            filling = self._filling(decodes)
            if short:
                filling = filling.only(1)
            if not self.gives_way or (short and len(batch.decoding)) or not batch.prefilling:
                return kept, filling, preempted
            # Where nobody decodes, a plan made ahead must do with what has just come free.
            room = batch.pool.free - (kept if len(batch.decoding) else 0)
            if batch.prefilling.fill(filling.again(), batch.pool) <= room:
                return kept, filling, preempted
            batch.preempt_youngest()
            preempted = True

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
        if not (self.ahead or self.freed_late):
            return False
        return bool(self.unseen) or (any(self.held) and bool(self.batch.admission.waiting))
