"""The fused step's stages and whole steps against float64, and its ways to run against each other.

Cases with an `op`: `same` (launched again, as a CUDA graph, in the persistent kernel: the same
bits), `stages` (every launch by itself, then the whole step's logits), and on a GPU `drafts` (T > 1
emits what T = 1 does) and `library` (tokens of the library's step on the same inputs).

Tie rule: where two runs of different arithmetic choose different tokens, float64 must find the
logits of both within `decoder.reference.TIE` deviations of the best. Of equal logits the lowest
index wins.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ..checking import CheckError, close, equal, on_host
from ..decoder import check as decoder_check
from ..decoder.check_drafts import follow
from ..decoder.library import LibraryStep
from ..decoder.modes import Graph, new_stream, on_stream
from ..decoder.shape import LLAMA_8B, Shape
from ..decoder.state import DecoderState, Pool
from ..decoder.weights import Weights
from ..loop_control.mailbox import Mailbox, Reason
from .check_stages import check_stages, same_slots
from .launch import FusedStep, Model
from .reference import Reference, check_tokens, snapshot
from .resident import Resident

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ..backend import Backend
    from ..decoder.reference import Fields

Case = dict[str, Any]
SMALL = Shape("small", 2, 1024, 8, 2, 64, 512, 256)
WIDE = Shape("wide", 1, 2048, 16, 2, 64, 1024, 256)
"""Two units of a tape in a chunk, eight query heads of a KV head."""
SHORT = replace(LLAMA_8B, name="8b-short", layers=2, vocabulary=8192)
"""The 8B model's build."""
OWN_SHAPES = {shape.name: shape for shape in (SMALL, WIDE, SHORT)}
CPU_WORKERS = 4
CPU_WATCHDOG_S, WATCHDOG_S = 100.0, 2.0
LOOKS = 16
"""Ties that are looked at; float64 takes longer than all the rest."""
PAGE, SPACE = 16, 256
"""Tokens of a page; of the text beyond the context."""
POOL_PAGES = 16 * (4096 + SPACE) // PAGE
_kept: dict[tuple[str, str], tuple[Weights, Model, Pool | None]] = {}


def cases(small: bool) -> Iterator[Case]:
    """Shapes to check: two small ones on the CPU, the 1B model on a GPU."""
    if small:
        plain = {"model": "small", "batch": 2, "idle": 0, "tokens": 2, "budget": 5, "context": 120}
        yield {"op": "same", **plain, "steps": 2}
        yield {"op": "stages", **plain}
        yield {
            "op": "stages",
            **plain,
            "model": "wide",
            "batch": 1,
            "idle": None,
            "tokens": 1,
            "budget": 0,
        }
        return
    plain = {"model": "1b", "batch": 1, "idle": None, "tokens": 1, "budget": 0, "context": 1000}
    sparse = {**plain, "budget": 128, "context": 4096}
    three = {"batch": 3, "idle": 1}
    rows = (three, {"batch": 2, "tokens": 4}, {"batch": 1, "tokens": 8}, {"batch": 16})
    for one, base in zip(rows, (plain, sparse, plain, plain), strict=True):
        yield {"op": "stages", **base, **one}
    short = {**plain, "model": SHORT.name, "batch": 4, "tokens": 2}
    for budget in (0, 32):
        yield {"op": "stages", **short, "budget": budget}
        yield {"op": "same", **short, "budget": budget, "steps": 64}
    for one in ({}, {"batch": 8}, *rows):
        yield {"op": "same", **plain, **one, "steps": 64}
        if one is not three:
            yield {"op": "same", **sparse, **one, "steps": 64}
    for one in rows[1:3]:
        for guesses in ("true", "random"):
            yield {"op": "drafts", **plain, **one, "steps": 64, "guesses": guesses}
    yield {"op": "library", **plain, "steps": 256}
    yield {"op": "library", **plain, "batch": 8, "steps": 4}


def check(backend: Backend, case: Case, rng: np.random.Generator) -> float:
    """Largest relative error of *case*; raises `CheckError`."""
    match case["op"]:
        case "same":
            return _check_same(backend, case, rng)
        case "stages":
            return _check_stages(backend, case, rng)
        case "drafts":
            return _check_drafts(backend, case, rng)
    return _check_library(backend, case, rng)


# ---------------------------------------------------------------------------- what is checked
def parts_of(backend: Backend, name: str) -> tuple[Weights, Model, Pool | None]:
    """Weights with seed 1, their tapes, and on a GPU a pool of pages; made once."""
    key = (backend.name, name)
    if key not in _kept:
        own, cpu = OWN_SHAPES.get(name), backend.name == "cpu"
        weights = Weights(backend, own) if own else decoder_check.weights_of(backend, name)
        pool = None if cpu else Pool(backend, weights.shape, POOL_PAGES, PAGE)
        _kept[key] = weights, Model(backend, weights, CPU_WORKERS if cpu else None), pool
    return _kept[key]


def step_of(backend: Backend, case: Case, rng: np.random.Generator) -> FusedStep:
    """A step over a fresh state; nobody holds the slot that the case calls `idle`."""
    weights, model, pool = parts_of(backend, case["model"])
    context = case["context"]
    state = DecoderState(
        backend,
        weights.shape,
        case["batch"],
        case["tokens"],
        PAGE,
        text_size=-(-context // 64) * 64 + SPACE,
        sets=2,
        pool=pool,
    )
    lengths = [int(n) for n in rng.integers(context * 3 // 4, context + 1, case["batch"])]
    if case["op"] == "drafts":  # as many pages for any number of tokens, so that all is alike
        lengths = [n // PAGE * PAGE + 3 for n in lengths]
    if case["idle"] is not None:
        lengths[case["idle"]] = -1
    state.fill(lengths, [1 << 20] * case["batch"], rng)
    return FusedStep(backend, model, state, budget_pages=case["budget"], keep_logits=True)


def _reference(step: FusedStep) -> Reference:
    weights = parts_of(step.backend, step.model.shape.name)[0]
    return Reference(weights, budget_pages=step.budget_pages)


# ---------------------------------------------------------------------------- against float64
def _check_stages(backend: Backend, case: Case, rng: np.random.Generator) -> float:
    """Each stage on the device's own inputs; the logits and tokens of all of them in a row."""
    step = step_of(backend, case, rng)
    reference, before = _reference(step), snapshot(step.state)
    worst, told = check_stages(step, reference)
    exact = on_host(backend, told.step(step.state, before).logits)
    busy = np.repeat(before["lengths"] >= 0, step.state.tokens)
    got = on_host(backend, step.logits)
    worst = max(worst, close(got[busy], exact[busy], decoder_check.CHAIN, "logits"))
    tokens = snapshot(step.state)["tokens"].reshape(-1)
    check_tokens(exact, np.where(busy, tokens, -1))
    return worst


# ---------------------------------------------------------------------------- the same bits
def _check_same(backend: Backend, case: Case, rng: np.random.Generator) -> float:
    """Launches, the same once more, a graph and the persistent kernel leave equal bytes behind.

    With drafts there is a second round on a GPU, whose guesses are what the first one emitted.
    Where pages are selected they need not come true: all rows of a request share its pages, so
    that what a row computes hangs on the guesses beside it.
    """
    step, steps, batch = step_of(backend, case, rng), case["steps"], case["batch"]
    state = step.state
    if batch >= 8:
        state.slots.remaining[-1] = steps // 2  # a slot falls idle on the way
    saved = state.save(pages=True)
    truth = _all_ways(step, steps, saved)
    if state.tokens > 1 and backend.name == "gpu":
        saved["text"] = backend.xp.asarray(truth["text"])
        steps //= state.tokens
        after = _all_ways(step, steps, saved)
        grown = int((after["lengths"] - on_host(backend, saved["slab"])[:batch]).sum())
        if not step.budget_pages and grown <= steps * batch:
            raise CheckError(f"{grown} tokens in {steps} steps of {batch} with true guesses")
    return 0.0


def _all_ways(step: FusedStep, steps: int, saved: dict[str, Any]) -> Fields:
    """Runs *steps* steps from *saved* in each way; where all of them arrive."""
    backend, state = step.backend, step.state

    def launched() -> None:
        for _ in range(steps):
            step.launch()

    def replayed() -> None:
        Graph(step).run(steps)

    def resident() -> None:
        run_resident(step, steps)

    ways: dict[str, Callable[[], None]] = {"launches": launched, "resident": resident}
    if backend.name == "gpu":
        ways |= {"launches again": launched, "graph": replayed}
    found: list[Fields] = []
    for name, run in ways.items():
        state.load(saved)
        step.logits[...] = np.nan
        backend.synchronize()
        run()
        got = snapshot(state)
        arrays = {"cache": state.cache, "minmax": state.minmax, "logits": step.logits}
        if not found:
            found = [got, {key: array.copy() for key, array in arrays.items()}]
        same_slots(got, found[0], name)
        for key, array in arrays.items():
            if bool((array.view(np.uint8) != found[1][key].view(np.uint8)).any()):
                raise CheckError(f"{name}: other bytes in {key}")
        equal(state.slots.all_pages(), np.arange(state.slots.pages), f"{name}: pages")
    return found[0]


def run_resident(step: FusedStep, steps: int) -> None:
    """*steps* steps in the persistent kernel; what it sent must be what it put into the text."""
    backend, state = step.backend, step.state
    before = snapshot(state)["lengths"]
    box = Mailbox(backend, state.batch, state.tokens)
    watchdog = CPU_WATCHDOG_S if backend.name == "cpu" else WATCHDOG_S
    loop = Resident(step, box, watchdog_s=watchdog)
    stream: Any = new_stream(backend)
    backend.synchronize()
    with on_stream(stream):
        loop.launch(steps)
    if stream is not None:
        stream.synchronize()
    rows = box.read_all()
    if box.reason() is not Reason.STEPS or len(rows) != steps:
        raise CheckError(f"resident: {len(rows)} of {steps} steps, left because {box.reason()!r}")
    text = snapshot(state)["text"]
    for b in np.flatnonzero(before >= 0):
        sent = [token for row in rows for token in row.tokens[b, : row.emitted[b]]]
        begin = int(before[b]) + 1
        equal(np.array(sent), text[b, begin : begin + len(sent)], f"tokens sent for slot {b}")


# ---------------------------------------------------------------------------- the same tokens
def _check_drafts(backend: Backend, case: Case, rng: np.random.Generator) -> float:
    """Steps of several tokens emit what steps of one did, whether the guesses are true or random.

    Where they part, float64 must find a tie; then the first run's token is put in place.
    """
    seed, steps, batch = int(rng.integers(1 << 30)), case["steps"], case["batch"]
    one = step_of(backend, {**case, "tokens": 1}, np.random.default_rng(seed))
    many = step_of(backend, case, np.random.default_rng(seed))
    worst, apart = follow(one, many, _reference(many), case["guesses"], steps, rng)
    _few(apart, steps * batch)
    return worst


def _check_library(backend: Backend, case: Case, rng: np.random.Generator) -> float:
    """The library's step and ours from the same state choose the same tokens, up to ties."""
    step = step_of(backend, case, rng)
    state, reference = step.state, _reference(step)
    library = LibraryStep(backend, reference.weights, state)
    worst, apart = 0.0, 0
    for _ in range(case["steps"]):
        saved, before = state.save(), snapshot(state)
        library.launch()
        theirs = snapshot(state)["tokens"].reshape(-1)
        state.load(saved)
        step.launch()
        ours = snapshot(state)["tokens"].reshape(-1)
        if not np.array_equal(ours, theirs):
            apart += int((ours != theirs).sum())
            if apart > LOOKS:
                continue
            exact = on_host(backend, reference.step(state, before).logits)
            for who, tokens in (("ours", ours), ("the library's", theirs)):
                worst = max(worst, check_tokens(exact, tokens, who))
    _few(apart, case["steps"] * case["batch"])
    return worst


def _few(apart: int, tokens: int) -> None:
    """Ties stay rare: of 128,256 logits the best two are near at one step in eight."""
    if apart > max(2, tokens // 4):
        raise CheckError(f"{apart} of {tokens} tokens are ties")
