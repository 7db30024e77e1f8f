"""Random runs of the decoder in every mode, held against the reference of the control.

Requests of several lengths decode, end, and make room for others that wait; a tight pool makes some
of them run short of pages.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import numpy as np

from ..checking import CheckError, close, equal, on_host
from ..element import decode
from .inputs import Cache, Inputs, Model
from .mailbox import Mailbox, Reason
from .modes import Decoder, Emitted, drain
from .reference import Reference
from .state import State

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..backend import Backend

SMALL = {"head_dim": 64, "vocabulary": 64, "budget": 2, "kv_heads": 1, "group": 4}
LARGE = {"head_dim": 128, "vocabulary": 32000, "budget": 8, "kv_heads": 8, "group": 4}
TOLERANCE = 1e-2


def cases(small: bool) -> Iterator[dict[str, Any]]:
    """Runs to check; `spare` are free pages beyond what the first requests hold."""
    slots, steps, sizes = (3, 12, SMALL) if small else (24, 40, LARGE)
    for sparse in (True, False):
        for spare in (3, 40) if small else (60, 600):
            yield {"slots": slots, "steps": steps, "sparse": sparse, "spare": spare, **sizes}


def check(backend: Backend, case: dict[str, Any], rng: np.random.Generator) -> float:
    """Largest relative error of attention between modes; raises `CheckError` if anything differs.

    Tokens, lengths, page tables and the ring must be those of the reference, in every mode.
    """
    decoder, waiting = build(backend, case, rng)
    state, inputs = decoder.state, decoder.inputs
    saved, pages, minmax = state.save(), inputs.cache.pages.copy(), inputs.cache.minmax.copy()
    first = {name: on_host(backend, array) for name, array in saved.items()}
    want = Reference(first, state.new_tokens, state.page_tokens)
    tokens = _reference(want, inputs, case["steps"], waiting)
    error, outs = 0.0, None
    for mode in ("host-python", "host-c", "graph", "resident", "dedicated"):
        if mode in ("host-c", "graph") and backend.name == "cpu":
            continue
        state.load(saved)
        inputs.cache.pages[...], inputs.cache.minmax[...] = pages, minmax
        inputs.out[...] = 0xFFFF
        decoder.rewind(first["request"][0])
        backend.synchronize()
        if mode in ("resident", "dedicated"):
            got = _resident(decoder, case["steps"], waiting, mode == "dedicated")
        else:
            got = _host(decoder, case["steps"], waiting, mode)
        if got.tokens != tokens:
            wrong = [r for r in tokens if got.tokens.get(r) != tokens[r]]
            raise CheckError(f"{mode}: tokens of requests {wrong}")
        _same_state(backend, state, want, mode)
        out = decode(on_host(backend, inputs.out), "bf16")
        if outs is None:
            outs = out
        equal(np.isnan(out), np.isnan(outs), f"{mode}: rows that were written")
        error = max(error, close(np.nan_to_num(out), np.nan_to_num(outs), TOLERANCE, mode))
    return error


def build(
    backend: Backend, case: dict[str, Any], rng: np.random.Generator, sets: int = 2
) -> tuple[Decoder, list[tuple[int, int, int]]]:
    """A decoder for *case* with some slots busy, and the requests that wait."""
    slots, new_tokens, page = case["slots"], 3, 16
    model = Model(**{name: case[name] for name in SMALL})
    lengths = rng.integers(1, 70, slots)
    lengths[rng.random(slots) < 0.25] = -1
    used = sum(-(-(int(n) + new_tokens) // page) for n in lengths if n >= 0)
    state = State(
        backend,
        slots=slots,
        new_tokens=new_tokens,
        max_pages=8,
        pages=used + case["spare"],
        page_tokens=page,
        sets=sets,
    )
    state.fill(list(lengths), list(rng.integers(1, 40, slots)), rng)
    cache = Cache(backend, model, state.pages * sets, page, rng)
    inputs = Inputs(backend, model, state, cache, rng, acceptance=0.6)
    waiting = [
        (1000 + i, int(rng.integers(1, 60)), int(rng.integers(1, 30))) for i in range(slots + 1)
    ]
    return Decoder(backend, inputs, case["sparse"]), waiting


def _reference(
    want: Reference, inputs: Inputs, steps: int, waiting: list[tuple[int, int, int]]
) -> dict[int, list[int]]:
    tokens: dict[int, list[int]] = {}
    for step in range(steps):
        index = step % inputs.state.sets
        for request, new in want.step(inputs.best[index], inputs.draft[index]).items():
            tokens.setdefault(request, []).extend(new)
        if step == 0:
            want.waiting.extend(waiting)
        if step + 1 < steps:
            want.serve()
    return tokens


def _host(decoder: Decoder, steps: int, waiting: list[tuple[int, int, int]], mode: str) -> Emitted:
    emitted, left = Emitted(), list(waiting)
    decoder.copy_back(None)
    runs = {"host-python": decoder.host_steps, "host-c": decoder.c_steps}
    run = runs.get(mode, decoder.graph_steps)
    with contextlib.ExitStack() as stack:
        stream = None
        if decoder.backend.name == "gpu":
            stream = stack.enter_context(decoder.backend.xp.cuda.Stream(non_blocking=True))
        for step in range(steps):
            before = decoder.host[: decoder.state.slots].copy()
            run(1, stream)
            decoder.schedule(before, left if step + 1 < steps else [], emitted)
        decoder.backend.synchronize()
    return emitted


def _resident(
    decoder: Decoder, steps: int, waiting: list[tuple[int, int, int]], dedicated: bool
) -> Emitted:
    mailbox = Mailbox(decoder.backend, decoder.state.slots, decoder.state.new_tokens, outputs=128)
    loop = decoder.loop(mailbox, dedicated=dedicated, watchdog_s=20.0)
    emitted = Emitted()
    loop.launch(1)
    decoder.backend.synchronize()
    for request in waiting:
        mailbox.admit(*request)
    loop.launch(steps - 1)
    decoder.backend.synchronize()
    drain(mailbox, emitted)
    if mailbox.reason() not in (Reason.STEPS, Reason.IDLE, Reason.NO_PAGES):
        raise CheckError(f"resident: left because of {mailbox.reason()!r}")
    return emitted


def _same_state(backend: Backend, state: State, want: Reference, mode: str) -> None:
    got = {name: on_host(backend, array) for name, array in state.arrays().items()}
    equal(got["slab"][: state.slots], want.lengths, f"{mode}: lengths")
    live = want.lengths != -1
    equal(got["remaining"][live], want.remaining[live], f"{mode}: remaining")
    for slot in np.flatnonzero(live):
        row = got["table"][slot, : got["page_counts"][slot]]
        equal(row, np.array(want.rows[slot], np.int32), f"{mode}: pages of slot {slot}")
    equal(state.all_pages(), np.arange(state.pages, dtype=np.int32), f"{mode}: all pages")
