"""The kernels of the profile: which points of which folder, which form, where the fit starts."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from .kernel import by_threshold
from .recipe import Axes, Fitted, Inputs, Recipe

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from .samples import Point

REPLAY = "Times come from CUDA-graph replay with rotating buffers, so t0 includes the gap between "
REPLAY += "nodes and the data is cold in L2. "


def always(_: Axes) -> bool:
    """Every point."""
    return True


def lent_by(kernel: str, *names: str) -> Callable[[Fitted], Mapping[str, float]]:
    """What takes the parameters *names* of *kernel*, if that is fitted."""
    return lambda found: {name: found[kernel][name] for name in names if kernel in found}


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


# ------------------------------------------------------------------------------ attention
def heads_of(axes: Axes) -> tuple[float, float, float]:
    """(query heads, KV heads, head size) of a point of `paged_attention`."""
    heads, kv_heads, head_dim = (float(word) for word in str(axes["heads"]).split("/"))
    return heads, kv_heads, head_dim


def attended(axes: Axes) -> float:
    """Tokens of context that each request attends to: its length, or the budget if that is less."""
    length, budget = float(axes["length"]), float(axes["budget"])
    return min(length, budget) if budget else length


def _decoded(point: Point) -> Inputs:
    axes = point.axes
    heads, kv_heads, head_dim = heads_of(axes)
    batch, context = float(axes["requests"]), attended(axes)
    return {
        "batch": batch,
        "total_context": batch * context,
        "heads": heads,
        "kv_heads": kv_heads,
        "head_dim": head_dim,
        "context": context,
        "page_tokens": float(axes["page"]),
    }


KV_BYTES = {"bf16": 2.0, "int8": 132.0 / 128.0, "int4": 0.6875, "int4.page64": 0.625}
"""Of one element of the cache with its scales: head size 128, pages of 16 tokens or as named."""
KV_NOTE = "an element of the cache with its share of scales (head size 128), from the layout"


def decode(name: str, where: Callable[[Axes], bool]) -> Recipe:
    """Decode attention over a paged cache, dense and sparse."""
    return Recipe(
        name=f"decode_attention.{name}",
        folder="paged_attention",
        form="split_kv",
        where=lambda axes: axes["tokens"] == 1 and where(axes),
        inputs=_decoded,
        start={
            "t0_s": 5e-6,
            "bytes_per_s": 4.2e12,
            "ramp_s": 4e-6,
            "cta_s": 5e-9,
            "kv_bytes": KV_BYTES[name],
        },
        free=("t0_s", "bytes_per_s", "ramp_s", "cta_s"),
        shape=lambda axes: str(axes["heads"]),
        domain=("batch", "context", "heads", "kv_heads", "head_dim", "page_tokens"),
        groups={
            "page": lambda axes: str(axes["page"]),
            "tokens": lambda axes: "selected" if axes["budget"] else "all",
            "skew": lambda axes: str(axes["skew"]),
        },
        fixed={"kv_bytes": {"kind": "measured", "note": KV_NOTE}},
        note=REPLAY + "Our kernel over a shuffled page table, one new token a request; dense, and "
        "over a sorted list of selected pages, where total_context counts the selected tokens. "
        "Skewed batches are among the points: only the sum of the contexts counts.",
    )


DECODE = (
    decode("bf16", lambda axes: axes["bits"] == 16),
    decode("int8", lambda axes: axes["bits"] == 8),
    decode("int4", lambda axes: axes["bits"] == 4 and axes["page"] == 16),
    decode("int4.page64", lambda axes: axes["bits"] == 4 and axes["page"] == 64),
)
VERIFIED = replace(
    DECODE[0],
    name="verify_attention.bf16",
    where=lambda axes: axes["bits"] == 16 and axes["tokens"] > 1,
    inputs=lambda point: {
        **_decoded(point),
        "heads": heads_of(point.axes)[0] * float(point.axes["tokens"]),
        "tokens": float(point.axes["tokens"]),
    },
    shape=lambda axes: f"{axes['tokens']} tokens",
    domain=("batch", "context", "tokens", "kv_heads", "head_dim"),
    groups={"new tokens": lambda axes: str(axes["tokens"])},
    note=REPLAY
    + "The same kernel with 2 to 8 new tokens a request: heads counts the query rows of "
    "a request, heads times new tokens.",
)
PREFILL = Recipe(
    name="prefill_attention.bf16",
    folder="gemm_library",
    form="chunked_prefill",
    where=lambda axes: axes["op"] == "sdpa",
    inputs=lambda point: {
        "heads": float(point.axes["q_heads"]),
        "head_dim": float(point.axes["head_dim"]),
        "chunk": float(point.axes["chunk"]),
        "offset": float(point.axes["offset"]),
        "context": float(point.axes["chunk"] + point.axes["offset"]),
    },
    start={
        "t0_s": 5e-6,
        "flops_per_s": 7e14,
        "score_s": 3e-13,
        "half_tokens": 500.0,
        "cached_t0_s": 1e-5,
        "cached_flops_per_s": 4e14,
        "cached_score_s": 3e-13,
        "cached_half_tokens": 50.0,
    },
    free=(
        "t0_s",
        "flops_per_s",
        "score_s",
        "half_tokens",
        "cached_t0_s",
        "cached_flops_per_s",
        "cached_score_s",
        "cached_half_tokens",
    ),
    shape=lambda axes: f"{axes['q_heads']}/{axes['kv_heads']}/{axes['head_dim']}",
    domain=("chunk", "context", "heads", "head_dim"),
    groups={"offset": by_threshold("offset", 0, 8192)},
    note=REPLAY + "PyTorch's scaled_dot_product_attention over contiguous K and V, one request.",
)


# ------------------------------------------------------------------------------ small stages
SMALL = {
    "norm": ("rmsnorm", "rmsnorm_add"),
    "rope": ("rope",),
    "silu_mul": ("silu_mul",),
    "add": ("add",),
}
LARGE_BYTES = 24e6
"""Of a stage's largest array; from here on it is taken cold: it does not stay in the L2 cache."""
WIDTHS = {"rmsnorm": 4096, "rmsnorm_add": 4096, "silu_mul": 28672, "add": 4096, "rope": 5120}


def _as_in_a_step(ops: Sequence[str]) -> Callable[[Axes], bool]:
    """Points of *ops*: small arrays just written and so warm, large ones cold."""

    def where(axes: Axes) -> bool:
        if axes["op"] not in ops:
            return False
        large = 2.0 * float(axes["rows"]) * WIDTHS[str(axes["op"])] >= LARGE_BYTES
        return bool(axes["cold"]) == large

    return where


def small(name: str, ops: Sequence[str], what: str) -> Recipe:
    """A small stage, or all of them."""
    return Recipe(
        name=name,
        folder="small_ops",
        form="cached_bytes",
        where=_as_in_a_step(ops),
        inputs=lambda point: {"bytes": point.bytes},
        start={"t0_s": 2e-6, "bytes_per_s": 3.9e12, "l2_bytes_per_s": 6e12, "l2_bytes": 3e7},
        free=("t0_s", "bytes_per_s", "l2_bytes_per_s", "l2_bytes"),
        shape=lambda axes: f"{axes['op']} {axes['rows']}",
        domain=("bytes",),
        groups={"op": lambda axes: str(axes["op"])},
        bounds={"l2_bytes": (8e6, 2e8), "l2_bytes_per_s": (1e12, 1e14)},
        note=f"{what}, bytes read plus written. Times come from CUDA-graph replay, so t0 includes "
        "the gap between nodes. Small arrays are warm in L2, as the stage before leaves them; "
        "arrays of 24 MB and more are cold.",
    )


def small_alone(name: str, ops: Sequence[str]) -> Recipe:
    """One small stage: a fixed cost of its own, the rates of all."""
    lent = ("bytes_per_s", "l2_bytes_per_s", "l2_bytes")
    said = {"kind": "fitted", "note": "of all small stages together, see elementwise"}
    return replace(
        small(f"elementwise.{name}", ops, f"Stage {name}: a fixed cost of its own"),
        free=("t0_s",),
        fixed=dict.fromkeys(lent, said),
        least=3,
        borrow=lent_by("elementwise", *lent),
    )


def sampler(name: str, op: str, what: str) -> Recipe:
    """The choice of a token from a row of the vocabulary."""
    return Recipe(
        name=f"elementwise.{name}",
        folder="small_ops",
        form="linear_bytes",
        where=lambda axes: axes["op"] == op,
        inputs=lambda point: {"bytes": point.bytes, "rows": float(point.axes["rows"])},
        start={"t0_s": 6e-6, "bytes_per_s": 3e12},
        free=("t0_s", "bytes_per_s"),
        shape=lambda axes: f"{axes['rows']} rows of {axes['logits']}",
        domain=("bytes", "rows"),
        least=3,
        note=REPLAY + f"{what} from rows of 128,256 logits, bytes read.",
    )


EVERY_SMALL = [op for ops in SMALL.values() for op in ops]
ELEMENTWISE = (
    small("elementwise", EVERY_SMALL, "Norm, rotary embedding, activation and add together"),
    *(small_alone(name, ops) for name, ops in SMALL.items()),
    sampler("sample", "sampled", "Sampling at a temperature"),
    sampler("argmax", "greedy", "Arg-max"),
)


# ------------------------------------------------------------------------------ selection
def _warm(axes: Axes) -> bool:
    return not axes["cold"]


def _distinct(axes: Axes) -> bool:
    """Points of one regime: scores that differ, at most 128 pages of at most 256 rows."""
    usual = axes["scores"] in ("gaussian", "sorted", "flat")
    return _warm(axes) and usual and axes["budget"] <= 128 and axes["rows"] <= 256


TOPK = Recipe(
    name="topk_select",
    folder="topk_select",
    form="waves",
    where=_distinct,
    inputs=lambda point: {
        "rows": float(point.axes["rows"]),
        "entries": float(point.axes["pages"]),
        "selected": float(point.axes["budget"]),
    },
    start={"t0_s": 1e-6, "row_s": 4e-6, "entry_s": 2e-10, "slots": 132.0},
    free=("t0_s", "row_s", "entry_s"),
    shape=lambda axes: f"{axes['pages']} pages",
    domain=("rows", "entries", "selected"),
    groups={"scores": lambda axes: str(axes["scores"])},
    fixed={"slots": {"kind": "measured", "note": "one row a block, one block an SM"}},
    outside=_warm,
    note="Times come from CUDA-graph replay, so t0 includes the gap between nodes; the scores are "
    "warm in L2, as the scoring stage leaves them. Gaussian, sorted and evenly spread scores. The "
    "time hangs on their distribution: peaked, equal and repeated scores, budgets above 128 and "
    "more than 256 rows take other ways through the kernel and are judged apart (outside).",
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


def _cold(axes: Axes, bits: int) -> bool:
    """Points of the append whose pages are cold: below 16 requests they would stay in L2."""
    return axes["bits"] == bits and axes["page_tokens"] == 16 and axes["batch"] >= 16


APPEND = Recipe(
    name="kv_append",
    folder="kv_append",
    form="stream_rows",
    where=lambda axes: _cold(axes, 16),
    inputs=lambda point: {
        "bytes": point.bytes,
        "rows": float(point.axes["rows"]),
        "batch": float(point.axes["batch"]),
        "tokens": float(point.axes["tokens"]),
    },
    start={"t0_s": 2e-6, "bytes_per_s": 3e12, "ramp_s": 5e-7, "row_s": 1e-9},
    free=("t0_s", "bytes_per_s", "row_s"),
    shape=lambda axes: f"{axes['tokens']} tokens, {axes['head_dim']}",
    domain=("batch", "tokens", "bytes"),
    least=6,
    note=REPLAY + "New rows of K and V and the bounds of their pages, pages of 16 tokens. Rows are "
    "(request, KV head) pairs; the touched pages are cold.",
)
APPEND_INT8 = replace(
    APPEND,
    name="kv_append.int8",
    where=lambda axes: _cold(axes, 8),
    free=("t0_s", "row_s"),
    fixed={"bytes_per_s": {"kind": "fitted", "note": "of the 16-bit append"}},
    borrow=lent_by("kv_append", "bytes_per_s"),
    least=3,
    note=REPLAY + "The same into an 8-bit cache, quantised on the way.",
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
        shape=lambda axes: f"{axes['vocabulary']} {axes['element']}",
        domain=("batch", "drafts", "vocabulary", "bytes"),
        least=6,
        note=REPLAY
        + f"{what}; commit and page release are in it. Rows of the vocabulary are cold.",
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

RECIPES = (
    LIBRARY, FP8, INT4, GEMV, *DECODE, VERIFIED, PREFILL, *ELEMENTWISE, TOPK, SCORE, APPEND,
    APPEND_INT8, *VERIFY,
)  # fmt: skip
"""In the order in which they are fitted: who borrows comes after whom it borrows from."""
