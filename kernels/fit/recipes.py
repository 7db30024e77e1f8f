"""The kernels of the profile: which points of which folder, which form, where the fit starts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .kernel import by_threshold
from .recipe import Axes, Inputs, Recipe

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from .samples import Point

REPLAY = "Times come from CUDA-graph replay with rotating buffers, so t0 includes the gap between "
REPLAY += "nodes and the data is cold in L2. "


def always(_: Axes) -> bool:
    """Every point."""
    return True


# ------------------------------------------------------------------------------ products
GEMM_START = {"t0_s": 4e-6, "bytes_per_s": 4e12, "flops_per_s": 7.5e14, "q": 3.0}


def product(weight_bits: int) -> Callable[[Point], Inputs]:
    """Inputs of a product as the simulator counts them: no scales, activations in 16 bits."""

    def inputs(point: Point) -> Inputs:
        m, n, k = (float(point.axes[key]) for key in ("m", "n", "k"))
        moved = n * k * weight_bits / 8.0 + 2.0 * (m * k + m * n)
        return {"bytes": moved, "flops": 2.0 * m * n * k, "m": m, "n": n, "k": k}

    return inputs


def _matrix(axes: Axes) -> str:
    return f"{axes['n']}x{axes['k']}"


PRODUCT_GROUPS: Mapping[str, Callable[[Axes], str]] = {"m": by_threshold("m", 1, 16, 128, 1024)}
LIBRARY = Recipe(
    name="gemm.bf16",
    folder="gemm_library",
    form="roofline",
    where=lambda axes: axes.get("op") in ("matmul", "gemm", "bf16"),
    inputs=product(16),
    start=GEMM_START,
    free=("t0_s", "bytes_per_s", "flops_per_s", "q"),
    shape=_matrix,
    domain=("m", "n", "k"),
    groups=PRODUCT_GROUPS,
    bounds={"q": (1.0, 12.0)},
    note=REPLAY + "cuBLAS through PyTorch, random weights, activations hot.",
)


def gemv(bits: int) -> Recipe:
    """Our product of few tokens with weights of *bits* bits."""
    fixed = {
        "flops_per_s": {
            "kind": "estimated",
            "note": "above 16 tokens, where this kernel ends, weights would be unpacked on the way "
            "into a tensor-core product: the bf16 library's rate is assumed",
        },
        "q": {"kind": "estimated", "note": "see flops_per_s"},
    }
    return Recipe(
        name="gemm.int4" if bits == 4 else "gemv.bf16",
        folder="w4a16_gemv",
        form="roofline",
        where=lambda axes: axes["bits"] == bits,
        inputs=product(bits),
        start={**GEMM_START, "t0_s": 3e-6, "bytes_per_s": 3.5e12},
        free=("t0_s", "bytes_per_s"),
        shape=_matrix,
        domain=("m", "n", "k"),
        groups=PRODUCT_GROUPS,
        fixed=fixed,
        note=REPLAY + "Our kernel for 1 to 16 tokens, activations hot. Scales and zero points are "
        "not counted in the bytes, as the simulator does not count them."
        if bits == 4
        else REPLAY + "Our kernel for 1 to 16 tokens, activations hot.",
    )


# ------------------------------------------------------------------------------ selection
TOPK = Recipe(
    name="topk_select",
    folder="topk_select",
    form="waves",
    where=lambda axes: not axes["cold"],
    inputs=lambda point: {
        "rows": float(point.axes["rows"]),
        "entries": float(point.axes["pages"]),
        "selected": float(point.axes["budget"]),
    },
    start={"t0_s": 2e-6, "row_s": 1e-6, "entry_s": 2e-10, "slots": 132.0},
    free=("t0_s", "row_s", "entry_s", "slots"),
    shape=lambda axes: f"{axes['pages']} pages",
    domain=("rows", "entries", "selected"),
    groups={"scores": lambda axes: str(axes["scores"])},
    note="Times come from CUDA-graph replay, so t0 includes the gap between nodes; the scores are "
    "warm in L2, as the scoring stage leaves them. All score distributions together: see groups.",
)

RECIPES = (LIBRARY, gemv(4), gemv(16), TOPK)
