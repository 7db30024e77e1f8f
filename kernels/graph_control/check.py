"""Random runs of a step that is only a commit, held against the reference of the control.

The logits are the same at every step. Requests decode, end, and make room for others that wait; a
tight pool makes some of them run short of pages.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ..checking import CheckError, equal, on_host
from ..element import encode
from ..loop_control.mailbox import Mailbox, Reason
from ..loop_control.modes import Emitted, drain
from ..loop_control.record import Recorder
from ..loop_control.state import State
from ..verify_commit.launch import Slots as VerifySlots
from ..verify_commit.launch import verify_commit, workspace
from .launch import PARAMS, WAYS, Control, Repeat
from .reference import Reference

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..backend import Array, Backend
    from ..loop_control.record import Launch

NEW_TOKENS, PAGE_TOKENS, VOCABULARY = 3, 16, 64


def cases(small: bool) -> Iterator[dict[str, Any]]:
    """Runs to check; `spare` are free pages beyond what the first requests hold."""
    for way in ("while",) if small else WAYS:
        yield {"way": way, "turns": 7}
        for spare in (3, 40) if small else (60, 600):
            yield {"way": way, "slots": 3 if small else 40, "steps": 14, "spare": spare}


def check(backend: Backend, case: dict[str, Any], rng: np.random.Generator) -> float:
    """0.0; raises `CheckError` if tokens, lengths or pages are not the reference's."""
    stream = backend.xp.cuda.Stream(non_blocking=True) if backend.name == "gpu" else None
    if "turns" in case:
        return _check_turns(backend, case, stream)
    stand_in = StandIn(backend, case["slots"], case["spare"], rng)
    want = Reference(
        {name: on_host(backend, array) for name, array in stand_in.state.save().items()},
        NEW_TOKENS,
        PAGE_TOKENS,
    )
    mailbox = Mailbox(backend, case["slots"], NEW_TOKENS, outputs=64)
    control = Control(
        backend, stand_in.step, stand_in.state, mailbox, way=case["way"], stream=stream
    )
    got, tokens = Emitted(), dict[int, list[int]]()
    waiting = [
        (1000 + i, int(rng.integers(1, 60)), int(rng.integers(1, 30)))
        for i in range(case["slots"] + 1)
    ]
    backend.synchronize()
    for steps, requests in ((1, ()), (case["steps"] - 1, waiting)):
        for request in requests:
            mailbox.admit(*request)
        want.waiting.extend(requests)
        control.launch(steps)
        _wait(backend, stream)
        for _ in range(steps):
            want.serve()
            for who, new in want.step(stand_in.best, stand_in.draft).items():
                tokens.setdefault(who, []).extend(new)
        drain(mailbox, got)
        if mailbox.reason() not in (Reason.STEPS, Reason.IDLE, Reason.NO_PAGES):
            raise CheckError(f"left because of {mailbox.reason()!r}")
    if got.tokens != tokens:
        wrong = [r for r in {*tokens, *got.tokens} if got.tokens.get(r) != tokens.get(r)]
        raise CheckError(f"tokens of requests {wrong}")
    _same_state(stand_in.state, want)
    return 0.0


class StandIn:
    """Slots of *slots* requests, some idle, and a step that verifies and commits."""

    def __init__(
        self, backend: Backend, slots: int, spare: int, rng: np.random.Generator, steps: int = 40
    ) -> None:
        xp = backend.xp
        lengths = rng.integers(1, 70, slots)
        lengths[rng.random(slots) < 0.25] = -1
        used = sum(-(-(int(n) + NEW_TOKENS) // PAGE_TOKENS) for n in lengths if n >= 0)
        self.state = state = State(
            backend,
            slots=slots,
            new_tokens=NEW_TOKENS,
            max_pages=8,
            pages=used + spare,
            page_tokens=PAGE_TOKENS,
            sets=1,
        )
        state.fill(list(lengths), list(rng.integers(1, steps, slots)), rng)
        self.best = rng.integers(0, VOCABULARY, (slots, NEW_TOKENS)).astype(np.int32)
        missed = rng.random((slots, NEW_TOKENS - 1)) >= 0.6
        self.draft = (self.best[:, :-1] + missed).astype(np.int32) % VOCABULARY
        logits = rng.standard_normal((*self.best.shape, VOCABULARY)).clip(-5, 5)
        np.put_along_axis(logits, self.best[..., None], 9.0, axis=2)
        self._logits: Array = xp.asarray(encode(logits.astype(np.float32), "bf16"))
        self._draft: Array = xp.asarray(self.draft)
        self.step = self._record(backend)

    def _record(self, backend: Backend) -> Launch:
        state, recorder = self.state, Recorder(backend)
        slots = VerifySlots(
            lengths=state.lengths,
            remaining=state.remaining,
            page_counts=state.page_counts,
            table=state.table,
            free_ring=state.ring,
            free_head=state.free[:1],
            free_tail=state.free[1:],
            status=backend.xp.zeros(2, np.uint32),
        )
        verify_commit(
            recorder,
            self._logits,
            self._draft,
            state.tokens[0],
            state.emitted[0],
            slots,
            workspace(backend, state.slots, NEW_TOKENS, VOCABULARY),
            page_tokens=PAGE_TOKENS,
        )
        return recorder.launches[0]


def _check_turns(backend: Backend, case: dict[str, Any], stream: Any) -> float:
    """As many turns as ordered, each with its step."""
    steps = backend.xp.zeros(1, np.int32)
    probe = Recorder(backend)
    call = probe.function("loop_control", "probe_empty")
    call(1, 32, (steps,))
    repeat = Repeat(
        backend,
        probe.launches[0],
        np.zeros(1, PARAMS),
        kernel="probe_repeat",
        way=case["way"],
        stream=stream,
    )
    repeat.start(case["turns"])
    _wait(backend, stream)
    return equal(on_host(backend, repeat.words)[1:3], np.array([case["turns"], 0]), "turns")


def _wait(backend: Backend, stream: Any) -> None:
    if stream is not None:
        stream.synchronize()
    backend.synchronize()


def _same_state(state: State, want: Reference) -> None:
    got = {name: on_host(state.backend, array) for name, array in state.arrays().items()}
    equal(got["slab"][: state.slots], want.lengths, "lengths")
    live = want.lengths != -1
    equal(got["remaining"][live], want.remaining[live], "remaining")
    for slot in np.flatnonzero(live):
        row = got["table"][slot, : got["page_counts"][slot]]
        equal(row, np.array(want.rows[slot], np.int32), f"pages of slot {slot}")
    equal(state.all_pages(), np.arange(state.pages, dtype=np.int32), "all pages")


__all__ = ["StandIn", "cases", "check"]
