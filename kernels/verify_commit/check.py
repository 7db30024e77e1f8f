"""Random steps of verification and commit, checked against `reference`."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Any

import numpy as np

from ..checking import CheckError, equal, on_device, on_host, poisoned
from ..element import decode, encode
from . import launch, reference

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..backend import Backend

MAX_PAGES = 64


def cases(small: bool) -> Iterator[dict[str, Any]]:
    """Shapes to check: *small* ones for the CPU, a model's own for the GPU."""
    base = {"element": "bf16", "mode": "greedy", "q": False, "acceptance": 0.6, "grid": None}
    base |= {"threads": 512, "page_tokens": 16, "ties": False}
    if small:
        base |= {"batch": 5, "threads": 128, "vocabulary": 4160}
        yield base | {"tokens": 3, "ties": True}
        yield base | {"tokens": 1}
        yield base | {"tokens": 4, "mode": "logits"}
        yield base | {"tokens": 3, "mode": "logits", "q": True, "acceptance": 0.3}
        base |= {"element": "fp32", "vocabulary": 2088}
        yield base | {"tokens": 2, "grid": 1}
        yield base | {"tokens": 3, "mode": "logits", "q": True}
        yield base | {"tokens": 3, "mode": "probabilities", "q": True, "acceptance": 0.8}
        yield base | {"tokens": 2, "mode": "probabilities"}
        return
    base |= {"page_tokens": 64}
    for batch, tokens, vocabulary, acceptance in (
        (6, 4, 32000, 0.0),
        (1, 2, 32000, 0.5),
        (6, 4, 32000, 1.0),
        (9, 8, 151936, 0.7),
        (256, 4, 8, 0.6),
        (256, 2, 4000, 0.6),
        (32, 5, 128256, 0.7),
    ):
        shape = base | {"vocabulary": vocabulary, "batch": batch, "tokens": tokens}
        shape |= {"acceptance": acceptance}
        for element in ("bf16", "fp32"):
            point = shape | {"element": element}
            yield point | {"ties": True}
            yield point | {"mode": "logits"}
            yield point | {"mode": "logits", "q": True, "threads": 256}
        point = shape | {"element": "fp32", "mode": "probabilities"}
        yield point
        yield point | {"q": True, "grid": 17 if batch == 9 else None}


def random_slots(batch: int, tokens: int, page_tokens: int, rng: np.random.Generator) -> Any:
    """State before a step, as NumPy arrays by name: idle, short and finishing requests among it."""
    lengths = rng.integers(0, (MAX_PAGES - 2) * page_tokens - 2 * tokens, batch).astype(np.int32)
    held = -(-(lengths + tokens) // page_tokens) + rng.integers(0, 2, batch)
    remaining = rng.integers(1, 3 * tokens, batch)
    if batch > 4:
        lengths[1], held[1] = -1, 0
        held[2] = lengths[2] // page_tokens
        lengths[2] = -2 - lengths[2]
    capacity = 1 << int(batch * MAX_PAGES).bit_length()
    pages = rng.permutation(capacity).astype(np.int32)
    table = np.full((batch, MAX_PAGES), -1, np.int32)
    used = 0
    for b in range(batch):
        table[b, : held[b]] = pages[used : used + held[b]]
        used += int(held[b])
    free = int(rng.integers(0, max(2, batch // 4)))
    head = int(rng.integers(0, 2**32))
    ring = np.full(capacity, -1, np.int32)
    ring[(head + np.arange(free)) % capacity] = pages[used : used + free]
    return {
        "lengths": lengths,
        "remaining": remaining.astype(np.int32),
        "page_counts": held.astype(np.int32),
        "table": table,
        "free_ring": ring,
        "free_head": np.array([head], np.uint32),
        "free_tail": np.array([(head + free) % 2**32], np.uint32),
        "status": np.array([7, 0], np.uint32),
    }


def random_step(case: dict[str, Any], rng: np.random.Generator) -> dict[str, Any]:
    """Target, draft, draft probabilities and uniforms, such that about *acceptance* is accepted."""
    batch, tokens, vocabulary = case["batch"], case["tokens"], case["vocabulary"]
    logits: Any = 3 * rng.standard_normal((batch, tokens, vocabulary), np.float32)
    if case["ties"]:
        logits = np.round(logits * 2) / 2
    target = encode(logits, "bf16") if case["element"] == "bf16" else logits
    logits = decode(target, "bf16") if case["element"] == "bf16" else logits
    keep = rng.random((batch, tokens - 1)) < case["acceptance"]
    guess = rng.integers(0, vocabulary, (batch, tokens - 1))
    draft = np.where(keep, logits[:, :-1].argmax(axis=-1), guess).astype(np.int32)
    step = {"target": target, "draft": draft, "draft_probs": None, "uniforms": None}
    if case["mode"] == "greedy":
        return step
    uniforms = rng.random((batch, tokens), np.float32)
    uniforms[:, :-1] *= np.where(keep, 0, 1)
    step["uniforms"] = uniforms
    if case["q"]:
        noise = rng.standard_normal(logits[:, :-1].shape, np.float32)
        step["draft_probs"] = reference.softmax(logits[:, :-1] + noise, 1.0).astype(np.float32)
    if case["mode"] == "probabilities":
        step["target"] = reference.softmax(logits, 1.0).astype(np.float32)
    return step


def check(backend: Backend, case: dict[str, Any], rng: np.random.Generator) -> float:
    """Share of close calls decided otherwise than in float64; raises `CheckError` if wrong."""
    batch, tokens, temperature = case["batch"], case["tokens"], 0.8
    state = random_slots(batch, tokens, case["page_tokens"], rng)
    step = random_step(case, rng)
    slots = launch.Slots(**{name: on_device(backend, a.copy()) for name, a in state.items()})
    space = launch.workspace(backend, batch, tokens, case["vocabulary"])
    out = poisoned(backend, (batch, tokens), np.int32)
    emitted = poisoned(backend, batch, np.int32)
    launch.verify_commit(
        backend,
        on_device(backend, step["target"]),
        on_device(backend, step["draft"]),
        out,
        emitted,
        slots,
        space,
        mode=case["mode"],
        draft_probs=None
        if step["draft_probs"] is None
        else on_device(backend, step["draft_probs"]),
        uniforms=None if step["uniforms"] is None else on_device(backend, step["uniforms"]),
        temperature=temperature,
        page_tokens=case["page_tokens"],
        threads=case["threads"],
        grid=case["grid"],
    )
    got = on_host(backend, out)
    want, counts, odd = np.full((batch, tokens), -1, np.int32), np.full(batch, -1, np.int32), 0
    for b in range(batch):
        if state["lengths"][b] < 0:
            continue
        chain = _expected(case, step, b, temperature, got[b, got[b] >= 0], state["remaining"][b])
        odd += chain[1]
        counts[b] = len(chain[0])
        want[b, : counts[b]] = chain[0]
    reference.commit(state, counts, want, tokens, case["page_tokens"])
    equal(got, want, "tokens")
    equal(on_host(backend, emitted), counts, "emitted")
    for field in fields(slots):
        equal(on_host(backend, getattr(slots, field.name)), state[field.name], field.name)
    for name in ("best", "tickets"):
        if on_host(backend, getattr(space, name)).any():
            raise CheckError(f"{name} is not zero after the launch")
    return float(odd / batch)


def _expected(
    case: dict[str, Any],
    step: dict[str, Any],
    b: int,
    temperature: float,
    got: Any,
    remaining: int,
) -> tuple[list[int], bool]:
    """Tokens of request *b* before clipping; *got* where it is a close call."""
    target, draft = step["target"][b], step["draft"][b]
    if case["element"] == "bf16":
        target = decode(target, "bf16")
    if case["mode"] == "greedy":
        return reference.greedy(target, draft), False
    logits = case["mode"] == "logits"
    p = reference.softmax(target, temperature) if logits else target.astype(np.float64)
    q = None if step["draft_probs"] is None else step["draft_probs"][b].astype(np.float64)
    uniforms = step["uniforms"][b].astype(np.float64)
    want = reference.rejection(p, q, draft, uniforms)
    tokens = [int(token) for token in got]
    if tokens == want[:remaining]:
        return want, False
    if tokens and reference.is_close_call(p, q, draft, uniforms, tokens):
        return tokens, True
    return want, False
