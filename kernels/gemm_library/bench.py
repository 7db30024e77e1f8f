"""Points of PyTorch's libraries: products in bf16, fp8 and int8, and causal prefill attention."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..checking import CheckError
from ..work import Work
from .calls import SHAPES, copies, on_cupy_stream

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np

    from ..backend import Gpu

MOST_FLOPS = 2e13
"""Larger products are left out: they add seconds and no knowledge."""
SAMPLE = 64
"""Rows, and 8 times as many columns, that are compared with a float64 product."""
TOLERANCE = {"bf16": 5e-3, "fp8": 2e-2, "int8": 0.0, "sdpa": 1e-2}
HEADS = [(32, 8, 128), (32, 8, 64)]
CHUNKS = [(t, start) for t in (128, 512, 2048, 8192) for start in (0, 4096, 16384, 32768)]
CHUNKS += [(t, start) for t in (256, 1024, 4096) for start in (0, 8192)]


def points() -> list[dict[str, Any]]:
    """The grid: products of the models' shapes over M, and chunks of prefill."""
    grid: list[dict[str, Any]] = []
    for model, shapes in SHAPES.items():
        for index, (name, (n, k)) in enumerate(shapes.items()):
            for power in range(14):
                m = 1 << power
                if 2.0 * m * n * k > MOST_FLOPS or (name == "lm_head" and m > 1024):
                    continue
                shape = {"model": model, "matrix": name, "n": n, "k": k, "m": m}
                grid.append({"op": "bf16", **shape})
                if (index + power) % 3 == 0:
                    grid.append({"op": "fp8", **shape})
                if name == "gate_up" and m in (32, 128, 1024, 4096):
                    grid.append({"op": "int8", **shape})
    for q_heads, kv_heads, size in HEADS:
        for chunk, start in CHUNKS:
            heads = {"q_heads": q_heads, "kv_heads": kv_heads, "head_dim": size}
            grid.append({"op": "sdpa", **heads, "chunk": chunk, "offset": start})
    return grid


def prepare(gpu: Gpu, point: dict[str, Any], rng: np.random.Generator) -> Work:
    """Cold random weights (or keys and values), hot activations; see `Work`."""
    import torch

    torch.manual_seed(int(rng.integers(2**31)))
    return attention(point) if point["op"] == "sdpa" else product(point)


def product(point: dict[str, Any]) -> Work:
    """y [m, n] = x [m, k] times the transpose of W [n, k]."""
    import torch

    m, n, k = (int(point[f]) for f in ("m", "n", "k"))
    wide = 2 if point["op"] == "bf16" else 1
    count = copies(wide * n * k)
    x = torch.randn(m, k, device="cuda", dtype=torch.bfloat16)
    weights = torch.randn(count, n, k, device="cuda", dtype=torch.bfloat16)
    multiply: Callable[[Any, Any], Any]
    match point["op"]:
        case "bf16":
            y = torch.empty(m, n, device="cuda", dtype=torch.bfloat16)

            def multiply(x: Any, w: Any) -> Any:
                return torch.matmul(x, w.T, out=y)

        case "fp8":
            one = torch.ones((), device="cuda", dtype=torch.float32)
            x, weights = (a.to(torch.float8_e4m3fn) for a in (x, weights))

            def multiply(x: Any, w: Any) -> Any:
                return torch._scaled_mm(
                    x, w.T, scale_a=one, scale_b=one, out_dtype=torch.bfloat16, use_fast_accum=True
                )

        case _:
            x, weights = ((40 * a).clamp(-127, 127).to(torch.int8) for a in (x, weights))
            y = torch.empty(m, n, device="cuda", dtype=torch.int32)

            def multiply(x: Any, w: Any) -> Any:
                return torch._int_mm(x, w.T, out=y)

    def check() -> float:
        rows = torch.randperm(m, device="cuda")[:SAMPLE]
        columns = torch.randperm(n, device="cuda")[: 8 * SAMPLE]
        got = multiply(x, weights[-1])[rows][:, columns].double()
        # Indexing is not defined for every 8-bit float: widen first, by rows only.
        want = exact(x, rows) @ exact(weights[-1], columns).T
        return relative(got, want, TOLERANCE[point["op"]])

    def call(w: Any) -> Callable[[], None]:
        return on_cupy_stream(lambda: multiply(x, w))

    out_bytes = 4 if point["op"] == "int8" else 2
    return Work(
        [call(w) for w in weights],
        check,
        bytes=float(wide * (n * k + m * k) + out_bytes * m * n),
        flops=2.0 * m * n * k,
    )


def attention(point: dict[str, Any]) -> Work:
    """One request's chunk of *chunk* query tokens behind *offset* cached ones."""
    import torch
    from torch.nn.attention.bias import causal_lower_right
    from torch.nn.functional import scaled_dot_product_attention

    names = ("q_heads", "kv_heads", "head_dim", "chunk", "offset")
    q_heads, kv_heads, size, chunk, offset = (int(point[f]) for f in names)
    length, group = offset + chunk, q_heads // kv_heads
    kv_bytes = 4 * kv_heads * length * size
    count = min(16, copies(kv_bytes))

    def random(*shape: int) -> Any:
        return torch.randn(*shape, device="cuda", dtype=torch.bfloat16)

    q, kv = random(1, q_heads, chunk, size), random(count, 2, 1, kv_heads, length, size)

    def attend(k: Any, v: Any) -> Any:
        if not offset:
            return scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
        mask = causal_lower_right(chunk, length)
        return scaled_dot_product_attention(q, k, v, attn_mask=mask, enable_gqa=True)

    def check() -> float:
        rows = torch.randperm(chunk, device="cuda")[: SAMPLE // 8]
        k, v = (a[0].repeat_interleave(group, dim=0).double() for a in kv[-1])
        logits = q[0][:, rows].double() @ k.transpose(1, 2) * size**-0.5
        late = torch.arange(length, device="cuda")[None] > offset + rows[:, None]
        want = logits.masked_fill(late, -torch.inf).softmax(dim=2) @ v
        return relative(attend(*kv[-1])[0][:, rows].double(), want, TOLERANCE["sdpa"])

    def call(k: Any, v: Any) -> Callable[[], None]:
        return on_cupy_stream(lambda: attend(k, v))

    pairs = chunk * offset + chunk * (chunk + 1) / 2
    return Work(
        [call(*pair) for pair in kv],
        check,
        bytes=float(kv_bytes + 4 * q_heads * chunk * size),
        flops=4.0 * q_heads * size * pairs,
    )


def exact(matrix: Any, rows: Any) -> Any:
    """float64 of *rows* of *matrix*, whatever its type."""
    import torch

    narrow = matrix.dtype.itemsize == 1
    bits = matrix.view(torch.uint8)[rows].view(matrix.dtype) if narrow else matrix[rows]
    return bits.double()


def relative(got: Any, want: Any, tolerance: float) -> float:
    """||got - want|| / ||want||; raises `CheckError` above *tolerance* or at a NaN."""
    error = float((got - want).norm() / want.norm())
    if not error <= tolerance:
        raise CheckError(f"relative error {error:.3g} above {tolerance:g}")
    return error
