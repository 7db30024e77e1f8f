"""Recipes of attention: decode over a paged cache, several new tokens, prefill."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from .recipe import REPLAY, Axes, Inputs, Recipe, by_threshold

if TYPE_CHECKING:
    from collections.abc import Callable

    from .samples import Point


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
    where=lambda axes: axes["bits"] == 16 and axes["tokens"] == 4,
    outside=lambda axes: axes["bits"] == 16 and axes["tokens"] > 1,
    inputs=lambda point: {
        **_decoded(point),
        "heads": heads_of(point.axes)[0] * float(point.axes["tokens"]),
        "tokens": float(point.axes["tokens"]),
    },
    shape=lambda axes: f"{axes['length']}",
    domain=("batch", "context", "tokens", "kv_heads", "head_dim"),
    groups={"tokens": lambda axes: "selected" if axes["budget"] else "all"},
    note=REPLAY + "The same kernel with 4 new tokens a request: heads counts the query rows of a "
    "request, heads times new tokens. 2 and 8 new tokens are judged apart (outside).",
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
