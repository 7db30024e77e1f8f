"""The series that a picture draws, and the public row at a point's shape."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..fit.small_stages import LARGE_BYTES, WIDTHS

if TYPE_CHECKING:
    from ..fit.samples import Point
    from .public import Public, PublicTable

Axes = Mapping[str, Any]


def is_like(axes: Axes, **wanted: Any) -> bool:
    """Whether *axes* has these values; an axis that it lacks is no hindrance."""
    return all(axes.get(name, value) == value for name, value in wanted.items())


# ------------------------------------------------------------------------------ products
def gemv_series(point: Point) -> str:
    axes = point.axes
    if axes["m"] not in (1, 4, 16):
        return ""
    return f"{axes['bits']}-bit weights, M {axes['m']}"


def gemv_public(table: PublicTable, point: Point) -> Public | None:
    axes = point.axes
    dtype = "int4_wo" if axes["bits"] == 4 else "bfloat16"
    return table.best("gemm", dtype, m=axes["m"], n=axes["n"], k=axes["k"])


def library_series(point: Point) -> str:
    axes = point.axes
    wanted = (("1b", "gate_up"), ("8b", "o"), ("8b", "gate_up"), ("8b", "lm_head"), ("70b", "down"))
    name = (axes.get("model"), axes.get("matrix"))
    return f"{name[0]} {name[1]}, {axes['n']}x{axes['k']}" if name in wanted else ""


def narrow_series(point: Point) -> str:
    axes = point.axes
    wanted = (("8b", "o"), ("8b", "gate_up"), ("70b", "gate_up"), ("70b", "lm_head"))
    name = (axes["model"], axes["matrix"])
    return f"{axes['op']}, {name[0]} {name[1]}" if name in wanted else ""


def narrow_public(table: PublicTable, point: Point) -> Public | None:
    axes = point.axes
    if axes["op"] != "fp8":
        return None
    return table.best("gemm", "fp8", m=axes["m"], n=axes["n"], k=axes["k"])


def tokens(point: Point) -> float:
    return float(point.axes["m"])


def weights(point: Point) -> tuple[float, ...]:
    return (float(point.axes["n"] * point.axes["k"]),)


def library_public(table: PublicTable, point: Point) -> Public | None:
    axes = point.axes
    return table.best("gemm", "bfloat16", m=axes["m"], n=axes["n"], k=axes["k"])


# ------------------------------------------------------------------------------ attention parts
def score_series(point: Point) -> str:
    axes = point.axes
    plain = is_like(axes, group=4, head_dim=128, tokens=1, page_tokens=16, lengths="even")
    return f"batch {axes['batch']}" if plain and axes.get("element") == "bf16" else ""


def batch(point: Point) -> tuple[float, ...]:
    return (float(point.axes.get("batch", 0)),)


def requests(point: Point) -> tuple[float, ...]:
    axes = point.axes
    return (-float(axes["bits"]), float(axes["page"]), float(axes["requests"]))


def dense_series(point: Point) -> str:
    axes = point.axes
    plain = axes["heads"] == "32/8/128" and axes["page"] == 16
    return f"batch {axes['requests']}" if plain and axes["requests"] in (1, 4, 16, 64, 256) else ""


def quantised_series(point: Point) -> str:
    axes = point.axes
    plain = axes["heads"] == "32/8/128" and axes["page"] == 16
    return f"{axes['bits']}-bit, batch {axes['requests']}" if plain else ""


def sparse_series(point: Point) -> str:
    axes = point.axes
    plain = axes["bits"] == 16 and axes["length"] == 32768
    return f"page {axes['page']}, batch {axes['requests']}" if plain else ""


def attention_public(table: PublicTable, point: Point) -> Public | None:
    axes = point.axes
    if axes["budget"] or axes["tokens"] != 1 or axes["skew"] != "none" or axes["bits"] == 4:
        return None
    heads, kv_heads, head_dim = (float(part) for part in axes["heads"].split("/"))
    return table.best(
        "decode_attention",
        "bfloat16" if axes["bits"] == 16 else "fp8",
        heads=heads, kv_heads=kv_heads, head_dim=head_dim,
        batch=float(axes["requests"]), ctx=float(axes["length"]),
    )  # fmt: skip


def plain_attention(axes: Axes) -> bool:
    return bool(axes["tokens"] == 1 and axes["skew"] == "none")


def uneven_series(point: Point) -> str:
    axes = point.axes
    if axes["skew"] != "none":
        return f"lengths {axes['skew']}, {axes['bits']}-bit"
    return f"{axes['tokens']} new tokens"


def append_series(point: Point) -> str:
    axes = point.axes
    plain = is_like(axes, page_tokens=16, head_dim=128, element="bf16")
    plural = "s" if axes["tokens"] > 1 else ""
    return f"{axes['bits']}-bit, {axes['tokens']} new token{plural}" if plain else ""


def small_series(point: Point) -> str:
    """The operation, for arrays as a step finds them: small ones in L2, large ones cold."""
    axes = point.axes
    op = str(axes["op"])
    if op not in WIDTHS:
        return op
    large = 2.0 * axes["rows"] * WIDTHS[op] >= LARGE_BYTES
    return op if bool(axes["cold"]) == large else ""


def verify_series(point: Point) -> str:
    axes = point.axes
    element = axes["element"]
    if axes["mode"] == "greedy":
        return f"greedy, {element} logits"
    source = f"{element} logits" if axes["mode"] == "logits" else "probabilities"
    return f"rejection, {source}, q {'given' if axes['q'] else 'absent'}"
