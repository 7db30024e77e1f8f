"""The kernels of the profile: which points of which folder, which form, where the fit starts."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from .kernel import by_threshold
from .recipe import Axes, Fitted, Inputs, Recipe

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


RATES = ("t0_s", "bytes_per_s", "flops_per_s")
GEMV_START = {"t0_s": 3e-6, "bytes_per_s": 3.5e12, "flops_per_s": 3e13, "q": 3.0}
GEMV_NOTE = REPLAY + "Our kernel for 1 to 16 tokens, activations hot."
GEMV = Recipe(
    name="gemv.bf16",
    folder="w4a16_gemv",
    form="roofline",
    where=lambda axes: axes["bits"] == 16,
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
    form="roofline_gemv",
    where=lambda axes: axes["bits"] == 4,
    inputs=product(4),
    start={**GEMM_START, **{f"gemv_{key}": GEMV_START[key] for key in RATES}},
    free=("gemv_t0_s", "gemv_bytes_per_s", "gemv_flops_per_s", "q"),
    fixed=dict.fromkeys(("t0_s", "bytes_per_s", "flops_per_s"), UNPACKED),
    borrow=_unpacked,
    note=GEMV_NOTE + " gemv_* is that kernel; the faster of it and of unpacking counts. Scales and "
    "zero points are not counted in the bytes, as the simulator does not count them.",
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

SCORE = Recipe(
    name="page_score",
    folder="page_score",
    form="stream_rows",
    where=always,
    inputs=lambda point: {
        "bytes": point.bytes,
        "rows": float(point.axes["batch"] * point.axes["kv_heads"]),
        "pages": float(point.axes["pages"]),
        "batch": float(point.axes["batch"]),
        "tokens": float(point.axes["tokens"]),
    },
    start={"t0_s": 3e-6, "bytes_per_s": 4e12, "ramp_s": 1e-6, "row_s": 1e-9},
    free=("t0_s", "bytes_per_s", "ramp_s", "row_s"),
    shape=lambda axes: f"group {axes['group']}, head {axes['head_dim']}, {axes['page_tokens']}",
    domain=("batch", "pages", "tokens", "bytes"),
    groups={"lengths": lambda axes: str(axes["lengths"])},
    note=REPLAY + "Rows are (request, KV head) pairs; queries, page table and lengths are hot.",
)


# ------------------------------------------------------------------------------ speculation
def verify(name: str, where: Callable[[Axes], bool], what: str) -> Recipe:
    """Verification of drafted tokens and commit, over the rows of the vocabulary."""
    return Recipe(
        name=name,
        folder="verify_commit",
        form="stream_rows",
        where=where,
        inputs=lambda point: {
            "bytes": point.bytes,
            "rows": float(point.axes["batch"] * (point.axes["drafts"] + 1)),
            "batch": float(point.axes["batch"]),
            "drafts": float(point.axes["drafts"]),
            "vocabulary": float(point.axes["vocabulary"]),
        },
        start={"t0_s": 4e-6, "bytes_per_s": 4e12, "ramp_s": 1e-6, "row_s": 1e-9},
        free=("t0_s", "bytes_per_s", "ramp_s", "row_s"),
        shape=lambda axes: f"{axes['vocabulary']} {axes['element']} {axes['batch']}",
        domain=("batch", "drafts", "vocabulary", "bytes"),
        note=REPLAY + f"{what}; commit and page release are in it. Rows of the vocabulary are cold.",
    )


VERIFY = (
    verify("verify_commit.greedy", lambda axes: axes["mode"] == "greedy", "Arg-max of each row"),
    verify(
        "verify_commit.rejection",
        lambda axes: axes["mode"] == "logits",
        "Rejection sampling from logits, with the draft's probabilities or without",
    ),
    verify(
        "verify_commit.probabilities",
        lambda axes: axes["mode"] == "probabilities",
        "Rejection sampling from fp32 probabilities of target and draft",
    ),
)

RECIPES = (LIBRARY, INT4, GEMV, TOPK, SCORE, *VERIFY)
