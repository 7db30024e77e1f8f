"""A device without a GPU: its steps take as long as a formula says. For tests and for plans.

Everything else is the engine's own: slots, pages and their account, moved as the device would.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .engine import Outcome

if TYPE_CHECKING:
    from collections.abc import Callable

    from .clock import FakeClock
    from .engine import Mover
    from .request import Request
    from .scheduler import Plan
    from .slots import Slots


class FakeDevice:
    """Runs plans in the time of *clock*; *seconds* says how long one takes.

    A decoding request gets as many tokens a step as *accepted* says, one if it is not given; token
    n of request r is 1000 r + n.
    """

    path = "fake"

    def __init__(
        self,
        slots: Slots,
        clock: FakeClock,
        seconds: Callable[[Plan], float],
        accepted: Callable[[Request], int] | None = None,
    ) -> None:
        self.slots, self.clock, self.seconds, self.accepted = slots, clock, seconds, accepted
        self.mover: Mover | None = FakeMover()
        self.words = 0
        """Of packets that a real device would have been told."""

    def step(self, plan: Plan, timed: bool) -> Outcome:
        """See `engine.Device.step`."""
        size = self.slots.size() if plan.decode else 0
        self._tell()
        self._check(plan)
        submitted = self.clock.now()
        seconds = self.seconds(plan)
        self.clock.advance(seconds)
        first = [self._token(c.request, 1) for c in plan.chunks if c.completes]
        tokens = [self._news(request) for request in plan.decode]
        emitted = [0] * size
        for request, news in zip(plan.decode, tokens, strict=True):
            emitted[request.slot] = len(news)
        self.slots.commit(emitted)
        gpu = seconds if timed else float("nan")
        return Outcome(tokens, first, submitted, size, gpu)

    def _news(self, request: Request) -> list[int]:
        count = min(self.accepted(request) if self.accepted else 1, request.wanted)
        return [self._token(request, i + 1) for i in range(count)]

    @staticmethod
    def _token(request: Request, ahead: int) -> int:
        return 1000 * request.id + request.generated + ahead

    def _tell(self) -> None:
        import numpy as np

        if self.slots.dirty:
            self.words += self.slots.packet(np.zeros(1 << 20, np.int32))

    def _check(self, plan: Plan) -> None:
        """Every member has the pages that its tokens need."""
        size, new = self.slots.page_tokens, self.slots.new_tokens
        for request in plan.decode:
            if len(request.pages) != -(-(request.context_tokens + new) // size):
                raise AssertionError(f"request {request.id}: {len(request.pages)} pages")
        for chunk in plan.chunks:
            if len(chunk.request.pages) * size < chunk.start + chunk.tokens:
                raise AssertionError(f"request {chunk.request.id}: too few pages for its chunk")


class FakeResident(FakeDevice):
    """The same with a loop that decodes by itself, and leaves at the end of the step that is under
    way when it is asked: the next one once a step's tokens are there."""

    def __init__(
        self,
        slots: Slots,
        clock: FakeClock,
        seconds: Callable[[Plan], float],
        step_s: Callable[[int], float],
    ) -> None:
        super().__init__(slots, clock, seconds)
        self.step_s = step_s
        self.left = 0
        self._within = False

    def enter(self, most: int) -> None:
        """See `engine.ResidentDevice.enter`."""
        self.slots.size()
        self._tell()
        self.left = most

    def ask(self) -> None:
        """See `engine.ResidentDevice.ask`."""
        self.left = 0 if self._within else min(self.left, 1)

    def row(self, meanwhile: Callable[[], None]) -> tuple[list[int], list[list[int]]] | None:
        """See `engine.ResidentDevice.row`."""
        if self.left == 0 or self.slots.active == 0:
            return None
        self.left -= 1
        self.clock.advance(self.step_s(self.slots.active))
        self._within = True
        meanwhile()
        self._within = False
        tokens = [[] if r is None else self._news(r) for r in self.slots.holders]
        return [len(news) for news in tokens], tokens


class FakeMover:
    """Remembers whose keys lie in DRAM."""

    def __init__(self) -> None:
        self.held: set[Request] = set()
        self.moves = 0

    def out(self, request: Request) -> None:
        """See `engine.Mover.out`."""
        self.held.add(request)
        self.moves += 1

    def back(self, request: Request) -> None:
        """See `engine.Mover.back`."""
        self.held.remove(request)
