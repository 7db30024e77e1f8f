"""Random cases for the small stages, checked against `reference`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ..checking import CheckError, close, equal, on_device, on_host, poisoned
from ..element import decode, encode
from . import launch, reference

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..backend import Backend

Case = dict[str, Any]
TOLERANCE = 6e-3
THETA = 500_000.0


def cases(small: bool) -> Iterator[Case]:
    """Shapes to check: *small* ones for the CPU, the models' own for the GPU."""
    wide = [(1, 8), (3, 264), (6, 4104)] if small else [(1, 2048), (7, 4096), (300, 14336)]
    wide += [] if small else [(5, 28672), (4096, 4096)]
    for element in ("bf16", "fp16"):
        for rows, width in wide:
            for op in ("rmsnorm", "rmsnorm_add", "silu_mul", "add"):
                yield {"op": op, "rows": rows, "width": width, "element": element}
    heads = [(64, 3, 1), (128, 8, 2)] if small else [(64, 32, 8), (128, 64, 8)]
    for size, q_heads, k_heads in heads:
        for rows in (1, 5) if small else (1, 64, 4096):
            yield {
                "op": "rope", "rows": rows, "size": size, "q_heads": q_heads, "k_heads": k_heads,
                "element": "bf16",
            }  # fmt: skip
    for element in ("bf16", "fp32"):
        for rows, vocabulary in [(3, 2056)] if small else [(1, 128256), (64, 32000), (300, 151936)]:
            for op in ("greedy", "tied", "sampled", "mixed"):
                yield {"op": op, "rows": rows, "vocabulary": vocabulary, "element": element}


def check(backend: Backend, case: Case, rng: np.random.Generator) -> float:
    """Relative error of *case*; raises `CheckError` if it is too large."""
    match case["op"]:
        case "rmsnorm" | "rmsnorm_add":
            return check_rmsnorm(backend, case, rng)
        case "silu_mul" | "add":
            return check_pointwise(backend, case, rng)
        case "rope":
            return check_rope(backend, case, rng)
    return check_sample(backend, case, rng)


def check_rmsnorm(backend: Backend, case: Case, rng: np.random.Generator) -> float:
    """With `rmsnorm_add`, also the residual that is left."""
    shape, element = (case["rows"], case["width"]), case["element"]
    x, old = (encode(rng.standard_normal(shape, np.float32), element) for _ in range(2))
    weight = encode(rng.standard_normal(shape[1], np.float32), element)
    y = poisoned(backend, shape, x.dtype)
    residual = on_device(backend, old.copy()) if case["op"] == "rmsnorm_add" else None
    launch.rmsnorm(
        backend, on_device(backend, x), on_device(backend, weight), y,
        element=element, residual=residual,
    )  # fmt: skip
    total = decode(x, element)
    if residual is not None:
        total = decode(encode(total + decode(old, element), element), element)
        equal(decode(on_host(backend, residual), element), total, "residual")
    want = reference.rmsnorm(total, decode(weight, element), 1e-5)
    return close(decode(on_host(backend, y), element), want, TOLERANCE)


def check_pointwise(backend: Backend, case: Case, rng: np.random.Generator) -> float:
    """`silu_mul` and `add`."""
    rows, width, element = case["rows"], case["width"], case["element"]
    y = poisoned(backend, (rows, width), np.float16 if element == "fp16" else np.uint16)
    parts = [encode(3 * rng.standard_normal(y.shape, np.float32), element) for _ in range(2)]
    values = [decode(part, element) for part in parts]
    if case["op"] == "add":
        a, b = (on_device(backend, part) for part in parts)
        launch.add(backend, a, b, y, element=element)
        return close(decode(on_host(backend, y), element), values[0] + values[1], TOLERANCE)
    gate_up = np.concatenate(parts, axis=1)
    launch.silu_mul(backend, on_device(backend, gate_up), y, element=element)
    want = reference.silu_mul(np, np.concatenate(values, axis=1))
    return close(decode(on_host(backend, y), element), want, TOLERANCE)


def check_rope(backend: Backend, case: Case, rng: np.random.Generator) -> float:
    """q and k as views of one array, positions up to 200,000, some rows idle."""
    rows, size, element = case["rows"], case["size"], case["element"]
    heads = case["q_heads"] + case["k_heads"]
    both = encode(rng.standard_normal((rows, heads + 1, size), np.float32), element)
    positions: Any = rng.integers(0, 200_000, rows).astype(np.int32)
    positions[1::4] = -1
    device = on_device(backend, both.copy())
    q, k = device[:, : case["q_heads"]], device[:, case["q_heads"] : heads]
    turns = launch.rope_turns(backend, size, THETA)
    launch.rope(backend, q, k, on_device(backend, positions), turns, element=element)
    got, idle = on_host(backend, device), positions < 0
    equal(got[:, heads:], both[:, heads:], "beyond k")
    equal(got[idle], both[idle], "idle rows")
    want = reference.rope(np, decode(both, element), positions, THETA)
    return close(
        decode(got, element)[~idle, :heads], want[~idle, :heads], TOLERANCE if rows > 1 else 1e-2
    )


def check_sample(backend: Backend, case: Case, rng: np.random.Generator) -> float:
    """Greedy rows exactly; of a drawn token, how far the uniform lies outside its interval."""
    rows, op = case["rows"], case["op"]
    logits = 4 * rng.standard_normal((rows, case["vocabulary"]), np.float32)
    if op == "tied":
        logits = np.round(logits)
    coded = encode(logits, "bf16") if case["element"] == "bf16" else logits
    values = decode(coded, "bf16") if case["element"] == "bf16" else logits
    temperatures = rng.uniform(0.3, 1.5, (rows,)).astype(np.float32)
    if op == "mixed":
        temperatures[::2] = 0
    uniforms: Any = rng.random(rows, np.float32)
    uniforms[: rows // 4] = 0
    tokens = poisoned(backend, rows, np.int32)
    space = launch.sample_space(backend, rows, case["vocabulary"])
    draw = op in ("sampled", "mixed")
    launch.sample(
        backend, on_device(backend, coded), tokens,
        on_device(backend, temperatures) if draw else None,
        on_device(backend, uniforms) if draw else None, space=space,
    )  # fmt: skip
    got = on_host(backend, tokens)
    equal(on_host(backend, space[1]), np.zeros(rows, np.uint32), "tickets")
    greedy = (temperatures <= 0) if draw else np.ones(rows, bool)
    equal(got[greedy], values[greedy].argmax(axis=1).astype(np.int32), "greedy tokens")
    if not draw or greedy.all():
        return 0.0
    return outside(np, values[~greedy], temperatures[~greedy], uniforms[~greedy], got[~greedy])


def outside(xp: Any, logits: Any, temperatures: Any, uniforms: Any, tokens: Any) -> float:
    """Largest distance of a uniform from its token's interval; raises `CheckError` above 1e-5."""
    if not bool(((tokens >= 0) & (tokens < logits.shape[1])).all()):
        raise CheckError("sampled token outside the vocabulary")
    lower, upper = reference.shares_below(xp, logits, temperatures, tokens)
    miss = float(xp.maximum(lower - uniforms, uniforms - upper).max())
    if not miss <= 1e-5:
        raise CheckError(f"sampled token's interval misses its uniform by {miss:.3g}")
    return max(miss, 0.0)
