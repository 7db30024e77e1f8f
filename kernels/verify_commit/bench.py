"""Measuring grid of verification and commit: requests, draft width, vocabulary, type, acceptance.

Rows are cold (rotated buffers). `acceptance` is the share of drafted tokens that stay; greedy
verification reads every row whatever it is. Each call starts from the same state of the slots: the
commit's few words are the same work whether a length grows or not, so lengths are left to grow and
the table is wide enough.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from ..checking import CheckError, on_host, poisoned
from ..work import Work
from . import launch, reference

if TYPE_CHECKING:
    from ..backend import Gpu

COLD_BYTES = 320e6
PAGE_TOKENS, MAX_PAGES = 16, 16384


def points() -> list[dict[str, Any]]:
    """About 70 points; the targets are 32 requests of 4 drafted tokens, vocabulary 128256."""
    base = {"mode": "greedy", "q": False, "acceptance": 0.6}
    grid = [
        base | {"batch": batch, "drafts": drafts, "vocabulary": vocabulary, "element": element}
        for vocabulary in (32000, 128256, 151936)
        for element in ("bf16", "fp32")
        for batch, drafts in ((1, 1), (1, 4), (8, 4), (32, 1), (32, 4), (64, 3), (32, 7))
    ]
    shape = base | {"batch": 32, "drafts": 4, "vocabulary": 128256}
    for acceptance in (0.0, 0.3, 0.6, 0.8, 1.0):
        point = shape | {"acceptance": acceptance}
        grid.append(point | {"element": "bf16", "mode": "logits"})
        grid.append(point | {"element": "bf16", "mode": "logits", "q": True})
        grid.append(point | {"element": "fp32", "mode": "probabilities", "q": True})
    for batch, drafts in ((1, 4), (8, 4), (64, 4), (32, 1), (32, 7)):
        point = shape | {"batch": batch, "drafts": drafts, "element": "fp32", "q": True}
        grid.append(point | {"mode": "logits"})
        grid.append(point | {"mode": "probabilities"})
    none = {"mode": "commit", "drafts": 4, "vocabulary": 8, "element": "bf16", "q": False}
    grid += [none | {"batch": batch, "acceptance": 0.6} for batch in (1, 32, 256)]
    return grid


def prepare(
    gpu: Gpu, point: dict[str, Any], rng: np.random.Generator, grid: int | None = None
) -> Work:
    """The calls of *point*; *grid* limits the blocks. The baseline is torch's arg-max, compared."""
    xp, batch, tokens = gpu.xp, point["batch"], point["drafts"] + 1
    vocabulary, mode, fp32 = point["vocabulary"], point["mode"], point["element"] == "fp32"
    xp.random.seed(int(rng.integers(2**31)))
    size = batch * tokens * vocabulary * (4 if fp32 else 2)
    q_size = batch * point["drafts"] * vocabulary * 4 if point["q"] else 0
    copies = min(64, 1 + int(COLD_BYTES / (size + q_size)))
    slots = _slots(gpu, batch, tokens)
    space = launch.workspace(gpu, batch, tokens, vocabulary)
    out, emitted = poisoned(gpu, (batch, tokens), np.int32), poisoned(gpu, batch, np.int32)
    if mode == "commit":
        emitted[...] = xp.asarray(rng.integers(1, tokens + 1, batch), np.int32)
        alone = partial(launch.commit, gpu, out, emitted, slots, page_tokens=PAGE_TOKENS)
        return Work([alone], lambda: 0.0, batch * tokens * 8.0, 0.0)
    steps = [_step(xp, point, rng) for _ in range(copies)]

    def call(step: dict[str, Any]) -> None:
        launch.verify_commit(
            gpu, step["target"], step["draft"], out, emitted, slots, space, mode=mode,
            draft_probs=step["q"], uniforms=step["uniforms"], page_tokens=PAGE_TOKENS, grid=grid,
        )  # fmt: skip

    def check() -> float:
        call(steps[0])
        got = on_host(gpu, out)
        for b in range(0, batch, max(1, batch // 4)):
            _check_request(gpu, point, steps[0], b, [int(t) for t in got[b] if t >= 0])
        return 0.0

    row = vocabulary * 4.0 * (1 + bool(point["q"]))
    total = batch * row if mode == "probabilities" else size + batch * (row / 2 if q_size else 0)
    calls = [partial(call, step) for step in steps]
    return Work(calls, check, total, 0.0, _baselines(gpu, point, steps))


def _slots(gpu: Gpu, batch: int, tokens: int) -> launch.Slots:
    """Slots far from their end, each call taking a page now and then from a ring that is full."""
    xp = gpu.xp
    capacity = 1 << (batch * MAX_PAGES - 1).bit_length()
    lengths = xp.asarray(np.arange(batch) % PAGE_TOKENS + 1, np.int32)
    return launch.Slots(
        lengths=lengths,
        remaining=xp.full(batch, 2**30, np.int32),
        page_counts=(lengths + tokens + PAGE_TOKENS - 1) // PAGE_TOKENS,
        table=xp.zeros((batch, MAX_PAGES), np.int32),
        free_ring=xp.arange(capacity, dtype=np.int32),
        free_head=xp.zeros(1, np.uint32),
        free_tail=xp.full(1, capacity, np.uint32),
        status=xp.zeros(2, np.uint32),
    )


def _step(xp: Any, point: dict[str, Any], rng: np.random.Generator) -> dict[str, Any]:
    """Random rows made on the device; the draft agrees with the target at the acceptance's rate."""
    batch, drafts, vocabulary = point["batch"], point["drafts"], point["vocabulary"]
    logits = 3 * xp.random.standard_normal((batch, drafts + 1, vocabulary), dtype=np.float32)
    keep = xp.asarray(rng.random((batch, drafts)) < point["acceptance"])
    guess = xp.asarray(rng.integers(0, vocabulary, (batch, drafts)))
    draft = xp.where(keep, logits[:, :-1].argmax(axis=-1), guess).astype(np.int32)
    # The tests are decided by the uniforms: 0 stays, 1 against a doubtful token does not.
    uniforms = xp.random.random((batch, drafts + 1), dtype=np.float32)
    uniforms[:, :-1] = xp.where(keep, np.float32(0), np.float32(1 - 2**-24))
    q = None
    if point["q"]:
        noise = xp.random.standard_normal(logits[:, :-1].shape, dtype=np.float32)
        q = _softmax(xp, logits[:, :-1] + 1e-2 * noise)
        b, t = xp.nonzero(~keep)
        q[b, t, draft[b, t]] = 0.5  # far above p: refused
    if point["mode"] == "probabilities":
        target = _softmax(xp, logits)
    elif point["element"] == "fp32":
        target = logits
    else:
        bits = logits.view(np.uint32)
        target = ((bits + np.uint32(0x8000)) >> np.uint32(16)).astype(np.uint16)
    return {"target": target, "draft": draft, "uniforms": uniforms, "q": q}


def _softmax(xp: Any, logits: Any) -> Any:
    power = xp.exp(logits - logits.max(axis=-1, keepdims=True))
    return power / power.sum(axis=-1, keepdims=True)


def _check_request(gpu: Gpu, point: dict[str, Any], step: dict[str, Any], b: int, got: Any) -> None:
    target, draft = on_host(gpu, step["target"][b]), on_host(gpu, step["draft"][b])
    if point["element"] == "bf16":
        target = (target.astype(np.uint32) << np.uint32(16)).view(np.float32)
    if point["mode"] == "greedy":
        good = got == reference.greedy(target, draft)
    else:
        logits = point["mode"] == "logits"
        p = reference.softmax(target, 1.0) if logits else target.astype(np.float64)
        q = on_host(gpu, step["q"][b]).astype(np.float64) if point["q"] else None
        uniforms = on_host(gpu, step["uniforms"][b]).astype(np.float64)
        good = got == reference.rejection(p, q, draft, uniforms) or reference.is_close_call(
            p, q, draft, uniforms, got
        )
    if not good:
        raise CheckError(f"verify_commit {point}: request {b} emits {got}")


def _baselines(gpu: Gpu, point: dict[str, Any], steps: list[dict[str, Any]]) -> dict[str, Any]:
    if point["mode"] != "greedy":
        return {}
    try:
        import torch
    except ImportError:
        return {}
    kind = torch.float32 if point["element"] == "fp32" else torch.bfloat16
    raw = [s["target"] if kind == torch.float32 else s["target"].view(np.int16) for s in steps]
    targets = [torch.as_tensor(array, device="cuda").view(kind) for array in raw]
    drafts = [torch.as_tensor(s["draft"], device="cuda").long() for s in steps]

    def call(target: Any, draft: Any) -> None:
        stream = torch.cuda.ExternalStream(gpu.xp.cuda.get_current_stream().ptr)
        with torch.cuda.stream(stream):
            best = torch.argmax(target, dim=-1)
            (best[:, :-1] == draft).long().cumprod(dim=-1).sum(dim=-1)

    pairs = zip(targets, drafts, strict=True)
    return {"torch_argmax": [partial(call, target, draft) for target, draft in pairs]}
