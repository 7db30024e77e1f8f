"""Recipes of page scoring, page selection and KV append."""

from __future__ import annotations

from .recipe import REPLAY, Axes, Recipe


def _warm(axes: Axes) -> bool:
    return not axes["cold"]


def _distinct(axes: Axes) -> bool:
    """Points of one regime: scores that differ, at most 128 pages of at most 256 rows."""
    usual = axes["scores"] in ("gaussian", "sorted", "flat")
    return _warm(axes) and usual and bool(axes["budget"] <= 128 and axes["rows"] <= 256)


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
    where=lambda _: True,
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
    """Points of the append whose pages are cold: below 4 requests they would stay in L2."""
    return bool(axes["bits"] == bits and axes["page_tokens"] == 16 and axes["batch"] >= 4)


APPEND = Recipe(
    name="kv_append.bf16",
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
