"""Points of the small stages: 4 KB to 64 MB, hot as right after a product or, if large, cold."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ..checking import close, equal, on_host, poisoned
from ..element import decode, encode
from ..gemm_library.calls import copies, on_cupy_stream
from ..work import Work
from . import launch, reference
from .check import THETA, TOLERANCE, outside

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..backend import Array, Gpu

WIDTH, FEED_FORWARD, VOCABULARY = 4096, 14336, 128256
Q_HEADS, K_HEADS, HEAD_DIM = 32, 8, 128
SIZES = [4 << 10, 64 << 10, 512 << 10, 4 << 20, 16 << 20, 64 << 20]
"""Bytes of the largest array of a stage."""
SAMPLE_ROWS = 64


def points() -> list[dict[str, Any]]:
    """The grid: stage, rows, and whether the arrays come from HBM or from the L2 cache."""
    grid: list[dict[str, Any]] = []
    widths = {
        "rmsnorm": WIDTH,
        "rmsnorm_add": WIDTH,
        "silu_mul": 2 * FEED_FORWARD,
        "add": WIDTH,
        "rope": (Q_HEADS + K_HEADS) * HEAD_DIM,
    }
    for op, width in widths.items():
        for size in SIZES:
            rows = max(1, round(size / (2 * width)))
            for cold in (True, False):
                point = {"op": op, "rows": rows, "cold": cold}
                if size in (SIZES[2:] if cold else SIZES[:5]) and point not in grid:
                    grid.append(point)
    grid += [
        {"op": op, "rows": rows, "cold": True, "logits": "bf16"}
        for rows in (1, 4, 16, 64, 256)
        for op in ("greedy", "sampled")
    ]
    grid.append({"op": "sampled", "rows": 64, "cold": True, "logits": "fp32"})
    return grid


def prepare(gpu: Gpu, point: dict[str, Any], rng: np.random.Generator) -> Work:
    """Random data, in as many copies as it takes to be cold; see `Work`."""
    random = gpu.xp.random.default_rng(int(rng.integers(2**31)))
    rows, cold = int(point["rows"]), bool(point["cold"])
    match point["op"]:
        case "rmsnorm" | "rmsnorm_add":
            return prepare_rmsnorm(gpu, rows, cold, point["op"] == "rmsnorm_add", random)
        case "silu_mul":
            return prepare_silu_mul(gpu, rows, cold, random)
        case "add":
            return prepare_add(gpu, rows, cold, random)
        case "rope":
            return prepare_rope(gpu, rows, cold, random)
    return prepare_sample(gpu, rows, point["op"] == "sampled", point["logits"], random)


def prepare_rmsnorm(gpu: Gpu, rows: int, cold: bool, fused: bool, random: Any) -> Work:
    """x and y, with *fused* also the residual, which every call changes."""
    size = rows * WIDTH * 2
    count = copies(size * (3 if fused else 2)) if cold else 1
    x, y, residual = (normal(random, (count, rows, WIDTH)) for _ in range(3))
    weight = normal(random, (WIDTH,))

    def one(x: Array, y: Array, residual: Array | None) -> Callable[[], None]:
        return lambda: launch.rmsnorm(gpu, x, weight, y, residual=residual)

    def check() -> float:
        total = decode(x[0, :SAMPLE_ROWS], "bf16")
        if fused:
            total = total + decode(residual[0, :SAMPLE_ROWS], "bf16")
            total = decode(encode(total, "bf16"), "bf16")
        y[0] = poisoned(gpu, y[0].shape, y.dtype)
        calls[0]()
        want = reference.rmsnorm(total, decode(weight, "bf16"), 1e-5)
        return close(decode(y[0, :SAMPLE_ROWS], "bf16"), want, TOLERANCE)

    calls = [one(*each) for each in zip(x, y, residual if fused else [None] * count, strict=True)]
    total_bytes = size * (4 if fused else 2) + WIDTH * 2
    return Work(calls, check, float(total_bytes), 4.0 * rows * WIDTH)


def prepare_silu_mul(gpu: Gpu, rows: int, cold: bool, random: Any) -> Work:
    """The two halves of one projection's output."""
    size = rows * FEED_FORWARD * 2
    count = copies(3 * size) if cold else 1
    gate_up = normal(random, (count, rows, 2 * FEED_FORWARD))
    y = poisoned(gpu, (count, rows, FEED_FORWARD), np.uint16)

    def one(gate_up: Array, y: Array) -> Callable[[], None]:
        return lambda: launch.silu_mul(gpu, gate_up, y)

    def check() -> float:
        calls[0]()
        want = reference.silu_mul(gpu.xp, decode(gate_up[0, :SAMPLE_ROWS], "bf16"))
        return close(decode(y[0, :SAMPLE_ROWS], "bf16"), want, TOLERANCE)

    calls = [one(*pair) for pair in zip(gate_up, y, strict=True)]
    return Work(calls, check, float(3 * size), 5.0 * rows * FEED_FORWARD)


def prepare_add(gpu: Gpu, rows: int, cold: bool, random: Any) -> Work:
    """y = a + b, against PyTorch's."""
    import torch

    size = rows * WIDTH * 2
    count = copies(3 * size) if cold else 1
    a, b = (normal(random, (count, rows, WIDTH)) for _ in range(2))
    y = poisoned(gpu, a.shape, np.uint16)

    def one(a: Array, b: Array, y: Array) -> Callable[[], None]:
        return lambda: launch.add(gpu, a, b, y)

    def by_torch(a: Any, b: Any, y: Any) -> Callable[[], None]:
        return on_cupy_stream(lambda: torch.add(a, b, out=y))

    def check() -> float:
        calls[0]()
        return close(decode(y[0], "bf16"), decode(a[0], "bf16") + decode(b[0], "bf16"), TOLERANCE)

    calls = [one(*each) for each in zip(a, b, y, strict=True)]
    theirs = zip(*(torch.from_dlpack(each).view(torch.bfloat16) for each in (a, b, y)), strict=True)
    work = Work(calls, check, float(3 * size), float(rows * WIDTH))
    work.baselines["torch"] = [by_torch(*each) for each in theirs]
    return work


def prepare_rope(gpu: Gpu, rows: int, cold: bool, random: Any) -> Work:
    """q and k as they lie in the output of one projection, turned in place again and again."""
    heads = Q_HEADS + K_HEADS
    size = rows * heads * HEAD_DIM * 2
    count = copies(size) if cold else 1
    both = normal(random, (count, rows, heads, HEAD_DIM))
    positions = random.integers(0, 100_000, rows).astype(np.int32)
    turns = launch.rope_turns(gpu, HEAD_DIM, THETA)

    def one(each: Array) -> Callable[[], None]:
        q, k = each[:, :Q_HEADS], each[:, Q_HEADS:]
        return lambda: launch.rope(gpu, q, k, positions, turns)

    def check() -> float:
        before = decode(both[0, :SAMPLE_ROWS], "bf16")
        calls[0]()
        want = reference.rope(gpu.xp, before, positions[:SAMPLE_ROWS], THETA)
        return close(decode(both[0, :SAMPLE_ROWS], "bf16"), want, TOLERANCE)

    calls = [one(each) for each in both]
    return Work(calls, check, float(2 * size), 3.0 * rows * heads * HEAD_DIM)


def prepare_sample(gpu: Gpu, rows: int, draw: bool, element: str, random: Any) -> Work:
    """Logits of 128,256 tokens, the greedy case against PyTorch's arg-max."""
    import torch

    xp, wide = gpu.xp, 4 if element == "fp32" else 2
    size = rows * VOCABULARY * wide
    shape = (copies(size), rows, VOCABULARY)
    logits = 4 * random.standard_normal(shape, dtype=np.float32)
    logits = logits if element == "fp32" else encode(logits, "bf16")
    uniforms = random.random(rows, dtype=np.float32)
    temperatures = xp.full(rows, 0.8, np.float32)
    tokens = poisoned(gpu, rows, np.int32)
    space = launch.sample_space(gpu, rows, VOCABULARY)

    def one(logits: Array) -> Callable[[], None]:
        extra = (temperatures, uniforms) if draw else ()
        return lambda: launch.sample(gpu, logits, tokens, *extra, space=space)

    def by_torch(logits: Any) -> Callable[[], None]:
        return on_cupy_stream(lambda: torch.argmax(logits, dim=1, out=found))

    def check() -> float:
        calls[0]()
        values = logits[0] if element == "fp32" else decode(logits[0], "bf16")
        if draw:
            return outside(xp, values, temperatures, uniforms, tokens)
        return equal(on_host(gpu, tokens), values.argmax(axis=1).astype(np.int32).get(), "tokens")

    calls = [one(each) for each in logits]
    work = Work(calls, check, float(size + rows * 12), 2.0 * rows * VOCABULARY)
    if not draw:
        found = torch.empty(rows, device="cuda", dtype=torch.int64)
        theirs = torch.from_dlpack(logits).view(torch.bfloat16)
        work.baselines["torch_argmax"] = [by_torch(each) for each in theirs]
    return work


def normal(random: Any, shape: tuple[int, ...]) -> Array:
    """Normal bf16 values."""
    return encode(random.standard_normal(shape, dtype=np.float32), "bf16")
