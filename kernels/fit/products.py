"""Recipes of the matrix products: the library's, and ours for few tokens."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from .recipe import REPLAY, Axes, Fitted, Inputs, Recipe, by_threshold

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from .samples import Point

GEMM_START = {"t0_s": 4e-6, "bytes_per_s": 4e12, "flops_per_s": 7.5e14, "q": 3.0}


def product(weight_bits: int) -> Callable[[Point], Inputs]:
    """Inputs of a product as the simulator counts them: no scales, activations in 16 bits."""

    def inputs(point: Point) -> Inputs:
        m, n, k = (float(point.axes[key]) for key in ("m", "n", "k"))
        moved = n * k * weight_bits / 8.0 + 2.0 * (m * k + m * n)
        return {"bytes": moved, "flops": 2.0 * m * n * k, "inputs": m * k, "m": m, "n": n, "k": k}

    return inputs


def _matrix(axes: Axes) -> str:
    return f"{axes['n']}x{axes['k']}"


PRODUCT_GROUPS: Mapping[str, Callable[[Axes], str]] = {"m": by_threshold("m", 1, 16, 128, 1024)}
LIBRARY = Recipe(
    name="gemm.bf16",
    folder="gemm_library",
    form="roofline",
    where=lambda axes: axes["op"] == "bf16",
    inputs=product(16),
    start=GEMM_START,
    free=("t0_s", "bytes_per_s", "flops_per_s", "q"),
    shape=_matrix,
    domain=("m", "n", "k"),
    groups=PRODUCT_GROUPS,
    bounds={"q": (1.0, 12.0)},
    note=REPLAY + "cuBLAS through PyTorch, random weights, activations hot.",
)


FP8 = replace(
    LIBRARY,
    name="gemm.fp8",
    where=lambda axes: axes["op"] == "fp8",
    inputs=product(8),
    start={**GEMM_START, "flops_per_s": 1.3e15},
    note=REPLAY + "cuBLAS's scaled product (e4m3) through PyTorch, random weights, activations hot "
    "and already in fp8: their conversion is not in it. Activations count as 16 bits in the bytes, "
    "as the simulator counts them.",
)
RATES = ("t0_s", "bytes_per_s", "flops_per_s")
GEMV_START = {"t0_s": 3e-6, "bytes_per_s": 3.5e12, "flops_per_s": 3e13, "q": 3.0}
GEMV_NOTE = (
    REPLAY + "Our kernel for 1 to 8 tokens, one tile of its tensor-core product, activations "
)
GEMV_NOTE += "hot; 9 to 16 tokens take two tiles, another regime, and are judged apart (outside)."
GEMV = Recipe(
    name="gemv.bf16",
    folder="w4a16_gemv",
    form="roofline",
    where=lambda axes: axes["bits"] == 16 and axes["m"] <= 8,
    outside=lambda axes: axes["bits"] == 16,
    inputs=product(16),
    start=GEMV_START,
    free=("t0_s", "bytes_per_s", "flops_per_s", "q"),
    shape=_matrix,
    domain=("m", "n", "k"),
    groups=PRODUCT_GROUPS,
    bounds={"q": (1.0, 12.0)},
    note=GEMV_NOTE,
)


def _unpacked(found: Fitted) -> Mapping[str, float]:
    """The way of many tokens: weights unpacked to 16 bits in memory, then the library's product.

    # Model: of 0.5 bytes a weight 4.5 are moved in all (0.5 read, 2 written, 2 read), by two nodes.
    """
    library = found.get("gemm.bf16", GEMM_START)
    return {
        "t0_s": 2.0 * library["t0_s"],
        "bytes_per_s": library["bytes_per_s"] / 9.0,
        "flops_per_s": library["flops_per_s"],
    }


UNPACKED = {
    "kind": "estimated",
    "note": "above 16 tokens, where our kernel ends: weights are unpacked to bf16 in memory and "
    "multiplied by the library, two nodes that move nine times the bytes; not measured as a pair",
}
INT4 = replace(
    GEMV,
    name="gemm.int4",
    form="ramped_gemv",
    where=lambda axes: axes["bits"] == 4,
    outside=None,
    inputs=product(4),
    start={
        **GEMM_START,
        **{f"gemv_{key}": GEMV_START[key] for key in RATES},
        "gemv_ramp_s": 4e-6,
        "gemv_half_bytes": 2e7,
        "gemv_input_s": 6e-11,
    },
    free=(
        "gemv_t0_s",
        "gemv_bytes_per_s",
        "gemv_flops_per_s",
        "q",
        "gemv_ramp_s",
        "gemv_half_bytes",
        "gemv_input_s",
    ),
    fixed=dict.fromkeys(("t0_s", "bytes_per_s", "flops_per_s"), UNPACKED),
    borrow=_unpacked,
    note=REPLAY + "Our kernel for 1 to 16 tokens, activations hot: gemv_* is that kernel; the "
    "faster of it and of unpacking counts. Scales and zero points are not counted in the bytes, as "
    "the simulator does not count them.",
)
