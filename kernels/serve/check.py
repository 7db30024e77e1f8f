"""Prompts, slots and whole served runs against what they must be.

Cases with an `op`: `prompt` (keys, values, bounds and first tokens of prompts in chunks), and
`served` (requests through engine and scheduler, in too little memory; every token of every answer
is held to a float64 model of the whole text, and host and device must agree on every page).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ..cache_layout import unpack
from ..checking import CheckError, close, equal, on_host
from ..decoder.reference import TIE, check_tokens
from ..decoder.shape import SHAPES
from ..decoder.state import Pool
from ..decoder.weights import Weights
from ..element import decode
from .blocks import Account
from .clock import RealClock
from .device import LOOPS, ModelDevice, Setup
from .engine import Engine, ResidentEngine
from .prefill import Piece, Prefill
from .reference import Sequence
from .request import Request
from .scheduler import Scheduler
from .script import counts
from .streams import engine_stream

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..backend import Backend

Case = dict[str, Any]
ROUNDED = 4e-2
"""Relative error of a layer's keys and values, with bf16 between all stages."""
WORST_SHARE = 0.02
"""Share of tokens that may lie below the best by more than `TIE`, never by more than twice that:
a long answer's later tokens meet many near ties of random weights."""
_kept: dict[tuple[str, str], Weights] = {}


def cases(small: bool) -> Iterator[Case]:
    """A tiny model on the CPU; also the 1B model, in every mode, on a GPU."""
    yield {"op": "prompt", "model": "tiny", "lengths": [5, 33, 20], "budget": 30}
    tiny: Case = {"op": "served", "model": "tiny", "kernels": "library", "mode": "host-python"}
    tiny |= {"requests": [(30, 5), (30, 5)], "blocks": 4, "batch": 2, "budget": 48}
    yield {**tiny, "preemption": "recompute"}
    yield {**tiny, "preemption": "recompute", "tokens": 2}
    if small:
        return
    yield {"op": "prompt", "model": "1b", "lengths": [5, 370, 2000, 16], "budget": 512}
    asked = [(150 - 7 * i, 40 - i) for i in range(12)]
    real = {**tiny, "model": "1b", "requests": asked, "blocks": 40, "batch": 8, "budget": 128}
    for mode in ("host-python", "host-c", "graph", "control"):
        yield {**real, "mode": mode, "preemption": "recompute"}
    yield {**real, "mode": "graph", "preemption": "swap"}
    for mode in ("host-python", "host-c", "graph", "control", "resident"):
        yield {**real, "kernels": "fused", "mode": mode, "preemption": "swap"}
    drafts = {**real, "kernels": "fused", "tokens": 2, "batch": 4, "preemption": "recompute"}
    for mode, tokens in (("graph", 2), ("resident", 2), ("resident", 4)):
        yield {**drafts, "mode": mode, "tokens": tokens, "blocks": 24}
    yield {**real, "mode": "graph", "tokens": 4, "preemption": "swap"}
    yield {"op": "prompt", "model": "8b", "lengths": [37, 300], "budget": 128}
    yield {**real, "model": "8b", "mode": "graph", "preemption": "swap"}
    # With as many pages as there are, selection must change nothing.
    yield {**real, "mode": "graph", "preemption": "swap", "budget_pages": 16}


def check(backend: Backend, case: Case, rng: np.random.Generator) -> float:
    """The largest error of *case*; raises `CheckError`."""
    if case["op"] == "prompt":
        return _check_prompt(backend, case, rng)
    return _check_served(backend, case, rng)


def weights_of(backend: Backend, model: str) -> Weights:
    """The model's weights with seed 1, made once for a kind of backend."""
    key = (backend.name, model)
    if key not in _kept:
        _kept[key] = Weights(backend, SHAPES[model])
    return _kept[key]


# ------------------------------------------------------------------------------------ prompts
def _check_prompt(backend: Backend, case: Case, rng: np.random.Generator) -> float:
    weights = weights_of(backend, case["model"])
    shape, budget, size = weights.shape, case["budget"], 16
    texts = [rng.integers(0, shape.vocabulary, n).astype(np.int32) for n in case["lengths"]]
    held = [-(-len(text) // size) for text in texts]
    pool = Pool(backend, shape, sum(held) + 3, size)
    order = rng.permutation(pool.pages).tolist()
    pages = [[order.pop() for _ in range(n)] for n in held]
    pool.minmax.view(np.uint8)[...] = 0xFF
    prefill = Prefill(
        backend, weights, pool, most_tokens=budget, most_keys=sum(map(len, texts)), bounds=True
    )
    first: list[int] = []
    done = [0] * len(texts)
    while any(at < len(text) for at, text in zip(done, texts, strict=True)):
        pieces, left = [], budget
        for i, text in enumerate(texts):
            count = min(left, len(text) - done[i])
            if count:
                end = done[i] + count
                pieces.append(Piece(text[done[i] : end], done[i], pages[i], end == len(text)))
                done[i], left = end, left - count
        last = prefill.launch(pieces)
        backend.synchronize()
        first += prefill.first(last)
    worst = 0.0
    twin = Sequence(weights)
    for i, text in enumerate(texts):
        logits = twin.logits(text, len(text) - 1)
        worst = max(worst, check_tokens(logits, first[i : i + 1], "first token"))
        worst = max(worst, _check_pages(backend, twin, pool, text, pages[i]))
    return worst


def _check_pages(backend: Backend, twin: Sequence, pool: Pool, text: Any, pages: Any) -> float:
    """Keys and values of the first layer, whose inputs are exact, and bounds of the last."""
    xp, shape = backend.xp, twin.shape
    from ..small_ops.reference import rmsnorm

    weights, size = twin.weights, pool.page_tokens
    h = decode(weights.embedding[xp.asarray(text)], "bf16").astype(np.float64)
    x = rmsnorm(h, decode(weights.layers[0].attention_norm, "bf16"), shape.epsilon)
    _, k, v = twin.twin.rotated(x @ twin.twin.matrix("qkv", 0).T, xp.arange(len(text)))
    index = xp.asarray(np.array(pages))
    worst = 0.0
    for name, want, part in zip(
        "kv", (k, v), unpack(pool.cache[0][index], size, shape.head_dim, 16), strict=True
    ):
        got = decode(xp.ascontiguousarray(part), "bf16").transpose(0, 2, 1, 3)
        got = got.reshape(-1, shape.kv_heads, shape.head_dim)[: len(text)]
        worst = max(worst, close(got, want, ROUNDED, name))
    keys = unpack(pool.cache[-1][index], size, shape.head_dim, 16)[0]
    values = decode(xp.ascontiguousarray(keys), "bf16")  # [pages, Hkv, size, D]
    for n in range(len(pages)):
        count = min(size, len(text) - n * size)
        bounds = decode(pool.minmax[-1][int(pages[n])], "bf16")
        some = values[n, :, :count]
        want = xp.stack([some.min(axis=1), some.max(axis=1)], axis=1)
        equal(on_host(backend, bounds), on_host(backend, want), f"bounds of page {n}")
    return worst


# ------------------------------------------------------------------------------------ served
def _check_served(backend: Backend, case: Case, rng: np.random.Generator) -> float:
    weights = weights_of(backend, case["model"])
    engine, texts = served(backend, weights, case, rng)
    device: Any = engine.device
    device.settle()
    device.check()
    scheduler = engine.scheduler
    if scheduler.account.used or scheduler.busy or len(scheduler.ended) != len(case["requests"]):
        raise CheckError("requests or blocks are left over")
    if not scheduler.preemptions:
        raise CheckError("nobody was preempted: the case has too much memory")
    if case.get("tokens", 1) > 1:
        return _check_script(engine, case["tokens"], device.setup)
    twin, gaps = Sequence(weights), []
    for request in engine.requests:
        if len(request.tokens) != request.output_tokens:
            raise CheckError(f"request {request.id}: {len(request.tokens)} tokens")
        text = np.concatenate([texts[request.id], np.array(request.tokens, np.int32)])
        logits = twin.logits(text[:-1], len(texts[request.id]) - 1)
        rows = np.arange(len(request.tokens))
        host = on_host(backend, logits)
        below = host.max(axis=1) - host[rows, request.tokens]
        gaps.append(below / host.std(axis=1))
    found = np.concatenate(gaps)
    if (found > TIE).mean() > WORST_SHARE or found.max() > 2 * TIE:
        raise CheckError(f"tokens up to {found.max():.3g} below the best, {(found > TIE).sum()}")
    return float(found.max())


def _check_script(engine: Engine, tokens: int, setup: Setup) -> float:
    """Every step emitted what the script says where its request stood."""
    at = {r.id: r.prompt_tokens for r in engine.requests}
    wanted = {r.id: r.output_tokens - 1 for r in engine.requests}
    rows = {r: counts(setup.seed, r, 1024, tokens, setup.acceptance) for r in at}
    begun: set[int] = set()
    for step in engine.steps:
        for request, _, _ in step.chunks[: step.complete]:
            if request in begun:  # prefilled again, which gave one more
                at[request] += 1
                wanted[request] -= 1
            begun.add(request)
        for request, count in zip(step.decode, step.commits or (), strict=True):
            if count != min(rows[request][at[request]], wanted[request]):
                raise CheckError(f"request {request}: {count} tokens at {at[request]}")
            at[request] += count
            wanted[request] -= count
    return 0.0


def served(
    backend: Backend, weights: Weights, case: Case, rng: np.random.Generator
) -> tuple[Engine, dict[int, Any]]:
    """The engine of *case* after its run, and the prompts."""
    requests = [Request(i, 1e-3 * i, *one) for i, one in enumerate(case["requests"])]
    texts = {
        r.id: rng.integers(0, weights.shape.vocabulary, r.prompt_tokens).astype(np.int32)
        for r in requests
    }
    loops = case["mode"] in LOOPS
    setup = Setup(
        mode=case["mode"], kernels=case["kernels"], blocks=case["blocks"],
        max_batch=case["batch"], max_context=512, token_budget=case["budget"],
        budget_pages=case.get("budget_pages", 0), new_tokens=case.get("tokens", 1),
        swap_pages=4 * case["blocks"] if case["preemption"] == "swap" else 0,
    )  # fmt: skip
    scheduler = Scheduler(
        Account(case["blocks"], 16), max_batch=case["batch"], token_budget=case["budget"],
        max_context=512, preemption=case["preemption"], prompts_first=loops,
        new_tokens=case.get("tokens", 1),
    )  # fmt: skip
    with engine_stream(backend) as stream:
        clock = RealClock()
        device = ModelDevice(backend, weights, setup, clock, lambda r: texts[r.id], stream)
        kind = ResidentEngine if loops else Engine
        engine = kind(scheduler, device, clock, requests, timed_every=2)
        engine.run()
    return engine, texts
