"""The engine's loop: arrivals, a plan, a step on the device, what it left; over and over.

Two loops. `Engine` runs one step after the other from the host. `ResidentEngine` lets a loop on the
device decode by itself, reads its tokens, and has it leave at a token boundary for a prompt.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import nan
from typing import TYPE_CHECKING, Protocol

from .records import Step

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .clock import Clock
    from .request import Request
    from .scheduler import Plan, Scheduler
    from .slots import Slots

MOST_ROWS = 1 << 20
"""Steps of a launch of a resident loop, if nothing ends it before."""


@dataclass(slots=True)
class Outcome:
    """What a step left: tokens of each decoding request, first tokens of completed prompts."""

    tokens: Sequence[list[int]]
    first: Sequence[int]
    submitted: float
    """When the device had been given everything, on the engine's clock."""
    padded: int = 0
    """Slots that the decode step computed, idle ones included."""
    gpu: float = nan


class Mover(Protocol):
    """Keeps the pages of preempted requests in DRAM."""

    def out(self, request: Request) -> None:
        """Copies the keys and values of *request* there; its pages may be given away next."""

    def back(self, request: Request) -> None:
        """Copies them to the pages that *request* has now."""


class Device(Protocol):
    """What runs steps."""

    slots: Slots
    path: str
    mover: Mover | None

    def step(self, plan: Plan, timed: bool) -> Outcome:
        """Runs *plan*, whose members sit in `slots`, to its end; takes the device's time if
        *timed*."""


class ResidentDevice(Device, Protocol):
    """What also decodes by itself."""

    def enter(self, most: int) -> None:
        """Starts the loop on the device over those in `slots`, for *most* steps at most."""

    def row(self, meanwhile: Callable[[], None]) -> tuple[list[int], list[list[int]]] | None:
        """The next step's emitted tokens by slot: counts and tokens; None if it has left.

        Calls *meanwhile* again and again as it waits.
        """

    def ask(self) -> None:
        """Wishes the loop to leave."""


@dataclass(slots=True)
class Engine:
    """Serves *requests*, sorted by arrival, in the time of *clock*.

    The device's own time is taken of every *timed_every*-th step, never at 0.
    """

    scheduler: Scheduler
    device: Device
    clock: Clock
    requests: Sequence[Request] = ()
    timed_every: int = 0
    steps: list[Step] = field(default_factory=list)
    idle_s: float = 0.0
    _next: int = 0

    def run(self, progress: Callable[[Engine], None] | None = None) -> None:
        """Until every request has been served or turned away."""
        while self.turn():
            if progress is not None:
                progress(self)

    @property
    def arrived(self) -> int:
        """Requests that have been seen."""
        return self._next

    def arrive(self, now: float) -> None:
        """Hands the scheduler what has arrived by *now*."""
        requests, at = self.requests, self._next
        while at < len(requests) and requests[at].arrival <= now:
            self.scheduler.arrive(requests[at])
            at += 1
        self._next = at

    def wait(self) -> bool:
        """Until the next arrival; False if there is none."""
        if self._next == len(self.requests):
            return False
        since = self.clock.now()
        self.clock.wait_until(self.requests[self._next].arrival)
        self.idle_s += self.clock.now() - since
        return True

    def turn(self) -> bool:
        """One step, or the wait for an arrival; False when all is done."""
        clock, scheduler, device = self.clock, self.scheduler, self.device
        start = clock.now()
        self.arrive(start)
        plan = scheduler.plan(start)
        seat(device, plan)
        if plan.idle:
            if scheduler.busy:
                raise AssertionError("requests wait, and nothing can run")
            return self.wait()
        self.finish(plan, start)
        return True

    def finish(self, plan: Plan, start: float) -> None:
        """Runs *plan*, which began at *start*, and notes what it left."""
        clock, scheduler, device = self.clock, self.scheduler, self.device
        planned = clock.now()
        timed = self.timed_every > 0 and len(self.steps) % self.timed_every == 0
        blocks, running = scheduler.account.used, len(scheduler.running)
        waiting = len(scheduler.waiting)
        outcome = device.step(plan, timed)
        committed = clock.now()
        scheduler.commit(plan, committed, outcome.tokens, outcome.first)
        one = scheduler.new_tokens == 1
        step = Step(
            path=device.path,
            start=start,
            planned=planned,
            submitted=outcome.submitted,
            committed=committed,
            decode=tuple([r.id for r in plan.decode]),
            commits=None if one else tuple([len(new) for new in outcome.tokens]),
            rows=scheduler.new_tokens,
            context=plan.context,
            chunks=tuple([(c.request.id, c.start, c.tokens) for c in plan.chunks]),
            complete=len(outcome.first),
            padded=outcome.padded,
            running=running,
            waiting=waiting,
            blocks=blocks,
            preempted=tuple([r.id for r in plan.preempted]),
            swapped_in=tuple([r.id for r in plan.resumed]),
            gpu=outcome.gpu,
        )
        self.steps.append(step)
        step.end = clock.now()


def seat(device: Device, plan: Plan) -> None:
    """Gives the members of *plan* their pages and slots, in the order in which they changed."""
    slots, mover = device.slots, device.mover
    for request in plan.answered:
        slots.release(request)
    for request in plan.joined:
        slots.place(request)
    for request in plan.preempted:
        if request.swapped:
            assert mover is not None
            mover.out(request)
        slots.release(request)
    for request in plan.admitted:
        slots.reserve(request, request.prefill_tokens)
    for request in plan.resumed:
        assert mover is not None
        slots.reserve(request, request.context_tokens)
        mover.back(request)
        slots.place(request)


@dataclass(slots=True)
class ResidentEngine(Engine):
    """The same over a device that decodes by itself between prompts."""

    inside: bool = False
    asked: bool = False
    entered: int = 0
    outside: int = 1
    """Steps since the loop has left, and one before it first began."""
    _since: float = nan
    _seen: float = nan
    _plan: Plan | None = None
    """What the loop was entered with, until its first step is noted."""

    def turn(self) -> bool:
        """See `Engine.turn`."""
        if self.inside:
            self._read()
            return True
        clock, scheduler, device = self.clock, self.scheduler, self.device
        now = clock.now()
        start = now if self._since != self._since else self._since
        self._since = nan
        self.arrive(now)
        plan = scheduler.plan(now)
        seat(device, plan)
        if plan.chunks:
            self.finish(plan, start)
            step = self.steps[-1]
            self._since = step.end
            step.seen = now
            step.turn = "left" if self.outside == 0 else ""
            self.outside += 1
            return True
        if plan.decode:
            self._seen = now
            device.enter(max(1, scheduler.horizon(MOST_ROWS)))  # type: ignore[attr-defined]
            self.inside, self.asked, self._since, self._plan = True, False, start, plan
            self.entered += 1
            self.outside = 0
            return True
        if scheduler.busy:
            raise AssertionError("requests wait, and nothing can run")
        return self.wait()

    def _meanwhile(self) -> None:
        """Looks for a reason to leave while the device decodes."""
        requests, at = self.requests, self._next
        if at < len(requests) and requests[at].arrival <= self.clock.now():
            self.arrive(self.clock.now())
            self._ask_if_wanted()

    def _ask_if_wanted(self) -> None:
        scheduler = self.scheduler
        if not self.asked and (scheduler.would_admit or not scheduler.decoding):
            self.device.ask()  # type: ignore[attr-defined]
            self.asked = True

    def _read(self) -> None:
        scheduler, device = self.scheduler, self.device
        late = self.asked
        found = device.row(self._meanwhile)  # type: ignore[attr-defined]
        committed = self.clock.now()
        if found is None:
            self.inside = False
            return
        blocks, running = scheduler.account.used, len(scheduler.running)
        emitted, tokens = found
        plan = self._plan
        decode = scheduler.decoding
        news = [tokens[request.slot] for request in decode]
        context = sum([r.context_tokens + scheduler.new_tokens for r in decode])
        device.slots.commit(emitted)
        scheduler.commit_decoded(decode, committed, news)
        commits = None if scheduler.new_tokens == 1 else tuple([len(new) for new in news])
        self.steps.append(
            Step(
                path=device.path,
                start=self._since,
                planned=self._since,
                submitted=self._since,
                committed=committed,
                decode=tuple([r.id for r in decode]),
                commits=commits,
                rows=scheduler.new_tokens,
                context=context,
                chunks=(),
                complete=0,
                padded=len(emitted),
                running=running,
                waiting=len(scheduler.waiting),
                blocks=blocks,
                preempted=tuple([r.id for r in plan.preempted]) if plan else (),
                swapped_in=tuple([r.id for r in plan.resumed]) if plan else (),
                end=committed,
                turn="entered" if plan else "",
                seen=self._seen,
                late=late,
            )
        )
        self._plan = None
        self._since = committed
        self.arrive(committed)
        self._ask_if_wanted()
        if not self.asked:
            self._seen = committed
