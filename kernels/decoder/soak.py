"""A long run of the decode loop with requests that come, end, are cancelled and lack pages.

`python -m kernels.decoder.soak --mode resident --steps 10000` prints one line, and ends with 1 if a
request got another number of tokens than it asked for, if tokens came out of order or twice, if a
page is missing, or if the loop hung. Modes: `resident` (the fused step in one persistent kernel),
`control` (the fused step re-launched by the device), `graph` (replayed by a host that schedules).
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from ..checking import on_host
from ..loop_control.mailbox import NO_REQUEST, Mailbox, Reason, StepOutput

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..backend import Array, Backend
    from ..loop_control.state import State

PATIENCE_S = 5.0
"""Longer than the watchdog of a loop: a loop that says nothing for so long hangs."""
LAUNCH_STEPS = 400
"""Steps that a launch is given at most; fewer at random."""
ASK, CANCEL, SHORT = 1 / 300, 1 / 40, 0.3
"""Chances of a step to be followed by the wish to leave, by a cancellation; of a short launch."""


class Loop(Protocol):
    """What runs steps: returns at once on a GPU, when they are done on the CPU."""

    def launch(self, most: int) -> None:
        """Starts it for *most* steps at most."""

    def wait(self) -> None:
        """Until the launch has ended."""


class SoakError(AssertionError):
    """A token or a page was lost, or the loop hung."""


@dataclass(slots=True)
class Request:
    """What a request asked for, and what has come."""

    length: int
    wanted: int
    slot: int = -1
    tokens: list[int] = field(default_factory=list)
    cancelled: bool = False
    finished: bool = False


@dataclass(slots=True)
class Traffic:
    """Sizes of the requests: uniform, inclusive; *waiting* of them are kept in the queue."""

    lengths: tuple[int, int] = (16, 2000)
    wanted: tuple[int, int] = (1, 300)
    waiting: int = 4


class Soak:
    """Runs *loop* over *state* and *mailbox*, whose slots are all idle, with random requests."""

    def __init__(
        self,
        state: State,
        text: Array | None,
        mailbox: Mailbox,
        loop: Loop,
        rng: np.random.Generator,
        traffic: Traffic,
    ) -> None:
        self.state, self.text, self.box, self.loop = state, text, mailbox, loop
        self.rng, self.traffic = rng, traffic
        self.requests: list[Request] = []
        self.steps = self.launches = self.stalls = 0
        self.reasons: Counter[str] = Counter()
        self.seconds = 0.0

    def run(self, steps: int) -> str:
        """*steps* steps under load, then on until nobody is left; what happened, in one line."""
        begin = time.perf_counter()
        while self.steps < steps:
            self._post()
            self._launch(steps - self.steps, quiet=False)
        while any(not (one.finished or one.cancelled) for one in self.requests) or self._held():
            self._launch(10 * LAUNCH_STEPS, quiet=True)
        self.seconds = time.perf_counter() - begin
        self._check_end()
        return self.report()

    def report(self) -> str:
        """What happened, in one line."""
        cancelled = sum(one.cancelled and not one.finished for one in self.requests)
        tokens = sum(len(one.tokens) for one in self.requests)
        reasons = ", ".join(f"{name} {n}" for name, n in sorted(self.reasons.items()))
        return (
            f"{self.steps} steps, {self.launches} launches ({reasons}), "
            f"{len(self.requests)} requests, {cancelled} of them cancelled, {tokens} tokens, "
            f"{self.stalls} times a slot lacked pages: none lost, all pages back, "
            f"{self.seconds / max(1, self.steps) * 1e6:.0f} us a step"
        )

    # ------------------------------------------------------------------------ a launch
    def _launch(self, left: int, quiet: bool) -> None:
        """One launch of the loop, read to its end; *quiet*: no new requests, no wishes."""
        most = LAUNCH_STEPS if quiet or self.rng.random() > SHORT else int(self.rng.integers(1, 9))
        self.box.ask_to_leave(False)
        self.launches += 1
        self.loop.launch(min(most, left))
        last = time.perf_counter()
        while True:
            ended = self.box.reason()
            row = self.box.read()
            if row is not None:
                last = time.perf_counter()
                self._take(row)
                if not quiet:
                    self._disturb()
            elif ended is not None:
                break
            elif time.perf_counter() - last > PATIENCE_S:
                raise SoakError(f"nothing for {PATIENCE_S} s after step {self.steps}")
        self.loop.wait()
        self._check_halt(ended)

    def _check_halt(self, reason: Reason) -> None:
        """The loop stands still: what it sent is in the text, and nothing is missing."""
        self.reasons[reason.name.lower()] += 1
        if reason in (Reason.ABORTED, Reason.UNREAD):
            raise SoakError(f"left because of {reason!r} after step {self.steps}")
        if self.box.status[1] != self.steps:
            raise SoakError(f"{self.steps} steps read of {self.box.status[1]}")
        backend = self.state.backend
        holders = on_host(backend, self.state.request)[0]
        text = None if self.text is None else on_host(backend, self.text)
        for slot in np.flatnonzero(holders != NO_REQUEST):
            one = self.requests[int(holders[slot])]
            if text is not None:
                begin = one.length + 1
                got = text[slot, begin : begin + len(one.tokens)]
                if got.tolist() != one.tokens:
                    raise SoakError(f"request {holders[slot]}: the text has other tokens")
        self._check_pages()
        if reason is Reason.NO_PAGES:
            self._make_room(holders)

    def _make_room(self, holders: Any) -> None:
        """Nobody can go on: one of those who run has to end."""
        held = holders[holders != NO_REQUEST]
        if not len(held):
            raise SoakError("no pages, and nobody holds any")
        self._cancel(int(held[-1]))

    # ------------------------------------------------------------------------ requests
    def _post(self) -> None:
        box, traffic = self.box, self.traffic
        while box.posted - box.taken < traffic.waiting:
            length, wanted = (
                int(self.rng.integers(low, high + 1))
                for low, high in (traffic.lengths, traffic.wanted)
            )
            box.admit(len(self.requests), length, wanted)
            self.requests.append(Request(length, wanted))

    def _cancel(self, request: int) -> None:
        self.box.cancel(request)
        self.requests[request].cancelled = True

    def _disturb(self) -> None:
        """What a host may do between two steps."""
        self._post()
        if self.rng.random() < CANCEL:
            recent = range(max(0, len(self.requests) - 3 * self.state.slots), len(self.requests))
            self._cancel(int(self.rng.choice(recent)))
        if self.rng.random() < ASK:
            self.box.ask_to_leave()

    def _take(self, row: StepOutput) -> None:
        """Books one step's tokens."""
        if row.step != self.steps:
            raise SoakError(f"step {row.step} after {self.steps - 1}")
        self.steps += 1
        for slot in np.flatnonzero(row.request != NO_REQUEST):
            number, emitted = int(row.request[slot]), int(row.emitted[slot])
            if number >= len(self.requests):
                raise SoakError(f"step {row.step}: nobody asked for request {number}")
            one = self.requests[number]
            if one.finished or one.slot not in (-1, slot):
                raise SoakError(f"request {number}: in slot {slot} after it left {one.slot}")
            one.slot = int(slot)
            one.tokens += row.tokens[slot, :emitted].tolist()
            one.finished = bool(row.finished[slot])
            self.stalls += emitted == 0
            if len(one.tokens) > one.wanted or (one.finished and len(one.tokens) != one.wanted):
                raise SoakError(f"request {number}: {len(one.tokens)} tokens of {one.wanted}")

    # ------------------------------------------------------------------------ pages
    def _held(self) -> bool:
        return bool((on_host(self.state.backend, self.state.lengths) != -1).any())

    def _check_pages(self) -> None:
        pages = self.state.all_pages()
        if not np.array_equal(pages, np.arange(self.state.pages)):
            lost = np.setdiff1d(np.arange(self.state.pages), pages)
            raise SoakError(f"{len(pages)} pages of {self.state.pages}, lost {lost[:5].tolist()}")

    def _check_end(self) -> None:
        for number, one in enumerate(self.requests):
            if not one.cancelled and (not one.finished or len(one.tokens) != one.wanted):
                raise SoakError(f"request {number}: {len(one.tokens)} tokens of {one.wanted}")
        self._check_pages()
        head, tail = on_host(self.state.backend, self.state.free)
        if (int(tail) - int(head)) % 2**32 != self.state.pages:
            raise SoakError(f"{int(tail) - int(head)} free pages of {self.state.pages} at the end")


# ---------------------------------------------------------------------------- the command
def soak_decoder(backend: Backend, options: argparse.Namespace) -> str:
    """A soak of a model's fused step as *options* say; raises `SoakError`."""
    from ..fused_step.launch import FusedStep, Model
    from .shape import SHAPES
    from .soak_loops import HostLoop, control_loop, resident_loop
    from .state import DecoderState
    from .weights import Weights

    rng = np.random.default_rng(options.seed)
    shape = SHAPES[options.model]
    traffic = Traffic()
    room = -(-(traffic.lengths[1] + traffic.wanted[1] + options.tokens) // 64) * 64
    state = DecoderState(
        backend,
        shape,
        options.batch,
        options.tokens,
        text_size=room,
        pages=options.pages or max(50 * options.batch, room // 16),
        sets=4 if options.mode == "resident" else 1,
    )
    state.fill([-1] * options.batch, [0] * options.batch, rng)
    model = Model(backend, Weights(backend, shape))
    step = FusedStep(backend, model, state, budget_pages=options.budget_pages)
    box = Mailbox(backend, options.batch, options.tokens)
    loops: dict[str, Callable[[Any, Mailbox], Loop]] = {
        "resident": resident_loop,
        "control": control_loop,
        "graph": HostLoop,
    }
    loop = loops[options.mode](step, box)
    if options.mode == "graph":  # which reads no mail while it runs
        traffic.waiting = 8 * options.batch
    return Soak(state.slots, state.text, box, loop, rng, traffic).run(options.steps)


def main() -> int:
    """Runs the command line; 0 all went well, 1 something was lost."""
    from ..backend import Gpu

    parser = argparse.ArgumentParser("python -m kernels.decoder.soak", description=__doc__)
    parser.add_argument("--mode", choices=("resident", "control", "graph"), default="resident")
    parser.add_argument("--model", choices=("1b", "8b"), default="1b")
    parser.add_argument("--steps", type=int, default=10_000)
    parser.add_argument("--batch", type=int, default=8, help="slots")
    parser.add_argument("--tokens", type=int, default=1, help="of a request in a step, 1 + drafts")
    parser.add_argument("--budget-pages", type=int, default=0, help="0: dense attention")
    parser.add_argument("--pages", type=int, default=0, help="default: 50 a slot, few")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    try:
        print(f"{options.mode}: {soak_decoder(Gpu(), options)}")
    except SoakError as error:
        print(f"{options.mode}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
