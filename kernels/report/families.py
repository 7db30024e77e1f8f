"""Which points a picture shows, along which axis, in which series, beside which public rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..fit.samples import Point
    from .inputs import Evidence, Fit
    from .public import Public, PublicTable

Axes = Mapping[str, Any]


def megabytes(point: Point) -> float:
    """Bytes that a call needs, in MB."""
    return max(point.bytes, 1.0) / 1e6


@dataclass(frozen=True, slots=True)
class Family:
    """One picture: the points of a folder, or some of them."""

    name: str
    """File name without its ending."""
    title: str
    folder: str
    series: Callable[[Point], str]
    """What a point's curve is called; "" leaves it in the grey background."""
    where: Callable[[Axes], bool] = lambda _: True
    x: Callable[[Point], float] = megabytes
    x_label: str = "bytes a call needs (MB)"
    order: Callable[[Point], tuple[float, ...]] = lambda _: ()
    """Sorts series by their first point."""
    public: Callable[[PublicTable, Point], Public | None] | None = None
    roofline: bool = False
    note: str = ""
    """A sentence under the picture."""

    @property
    def x_is_bytes(self) -> bool:
        """Whether the floor is a curve over x."""
        return self.x is megabytes

    def points(self, evidence: Evidence) -> list[Point]:
        """The points of this picture."""
        return [p for p in evidence.samples.of(self.folder) if self.where(p.axes)]

    def fits(self, evidence: Evidence) -> list[Fit]:
        """The fitted kernels that hold points of this picture, at those points."""
        keys = {point.key for point in self.points(evidence)}
        mine = [fit.only(keys) for fit in evidence.fits.values()]
        return [fit for fit in mine if fit.points]


def is_like(axes: Axes, **wanted: Any) -> bool:
    """Whether *axes* has these values; an axis that it lacks is no hindrance."""
    return all(axes.get(name, value) == value for name, value in wanted.items())


# ------------------------------------------------------------------------------ products
def _gemv_series(point: Point) -> str:
    axes = point.axes
    if axes["m"] not in (1, 4, 16):
        return ""
    return f"{axes['bits']}-bit weights, M {axes['m']}"


def _gemv_public(table: PublicTable, point: Point) -> Public | None:
    axes = point.axes
    dtype = "int4_wo" if axes["bits"] == 4 else "bfloat16"
    return table.best("gemm", dtype, m=axes["m"], n=axes["n"], k=axes["k"])


def _library_series(point: Point) -> str:
    axes = point.axes
    wanted = (("1b", "gate_up"), ("8b", "o"), ("8b", "gate_up"), ("8b", "lm_head"), ("70b", "down"))
    name = (axes.get("model"), axes.get("matrix"))
    return f"{name[0]} {name[1]}, {axes['n']}x{axes['k']}" if name in wanted else ""


def _narrow_series(point: Point) -> str:
    axes = point.axes
    wanted = (("8b", "o"), ("8b", "gate_up"), ("70b", "gate_up"), ("70b", "lm_head"))
    name = (axes["model"], axes["matrix"])
    return f"{axes['op']}, {name[0]} {name[1]}" if name in wanted else ""


def _narrow_public(table: PublicTable, point: Point) -> Public | None:
    axes = point.axes
    if axes["op"] != "fp8":
        return None
    return table.best("gemm", "fp8", m=axes["m"], n=axes["n"], k=axes["k"])


def _tokens(point: Point) -> float:
    return float(point.axes["m"])


def _weights(point: Point) -> tuple[float, ...]:
    return (float(point.axes["n"] * point.axes["k"]),)


def _library_public(table: PublicTable, point: Point) -> Public | None:
    axes = point.axes
    return table.best("gemm", "bfloat16", m=axes["m"], n=axes["n"], k=axes["k"])


# ------------------------------------------------------------------------------ attention parts
def _score_series(point: Point) -> str:
    axes = point.axes
    plain = is_like(axes, group=4, head_dim=128, tokens=1, page_tokens=16, lengths="even")
    return f"batch {axes['batch']}" if plain and axes.get("element") == "bf16" else ""


def _batch(point: Point) -> tuple[float, ...]:
    return (float(point.axes.get("batch", 0)),)


def _requests(point: Point) -> tuple[float, ...]:
    axes = point.axes
    return (-float(axes["bits"]), float(axes["page"]), float(axes["requests"]))


def _dense_series(point: Point) -> str:
    axes = point.axes
    plain = axes["heads"] == "32/8/128" and axes["page"] == 16
    return f"batch {axes['requests']}" if plain and axes["requests"] in (1, 4, 16, 64, 256) else ""


def _quantised_series(point: Point) -> str:
    axes = point.axes
    plain = axes["heads"] == "32/8/128" and axes["page"] == 16
    return f"{axes['bits']}-bit, batch {axes['requests']}" if plain else ""


def _sparse_series(point: Point) -> str:
    axes = point.axes
    plain = axes["bits"] == 16 and axes["length"] == 32768
    return f"page {axes['page']}, batch {axes['requests']}" if plain else ""


def _attention_public(table: PublicTable, point: Point) -> Public | None:
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


def _plain_attention(axes: Axes) -> bool:
    return bool(axes["tokens"] == 1 and axes["skew"] == "none")


def _uneven_series(point: Point) -> str:
    axes = point.axes
    if axes["skew"] != "none":
        return f"lengths {axes['skew']}, {axes['bits']}-bit"
    return f"{axes['tokens']} new tokens"


def _append_series(point: Point) -> str:
    axes = point.axes
    plain = is_like(axes, page_tokens=16, head_dim=128, element="bf16")
    return f"{axes['bits']}-bit, {axes['tokens']} new tokens" if plain else ""


def _verify_series(point: Point) -> str:
    axes = point.axes
    element = axes["element"]
    if axes["mode"] == "greedy":
        return f"greedy, {element} logits"
    source = f"{element} logits" if axes["mode"] == "logits" else "probabilities"
    return f"rejection, {source}, q {'given' if axes['q'] else 'absent'}"


FAMILIES = (
    Family(
        "attention",
        "Paged decode attention, bf16, dense: heads 32/8/128, 16 tokens a page; grey: other shapes",
        "paged_attention",
        _dense_series,
        where=lambda axes: axes["bits"] == 16 and not axes["budget"] and _plain_attention(axes),
        order=_requests,
        public=_attention_public,
        note="Public: the fastest of three frameworks at the same shape, bf16, paged.",
    ),
    Family(
        "attention-quantised",
        "Paged decode attention, 8-bit and 4-bit cache, dense: heads 32/8/128, 16 tokens a page",
        "paged_attention",
        _quantised_series,
        where=lambda axes: axes["bits"] < 16 and not axes["budget"] and _plain_attention(axes),
        order=_requests,
        public=_attention_public,
        note="Public: fp8 caches, against our 8-bit integers; for 4 bits there is none.",
    ),
    Family(
        "attention-sparse",
        "Paged decode attention over selected pages: 512 to 8,192 of 32,768 tokens, bf16",
        "paged_attention",
        _sparse_series,
        where=lambda axes: bool(axes["budget"]) and _plain_attention(axes),
        order=lambda p: (p.axes["page"], p.axes["requests"]),
        note="Pages are chosen at random and listed in ascending order.",
    ),
    Family(
        "attention-uneven",
        "Paged decode attention: unequal lengths, and several new tokens a request",
        "paged_attention",
        _uneven_series,
        where=lambda axes: not _plain_attention(axes),
        order=lambda p: (p.axes["skew"] == "none", *_requests(p)),
    ),
    Family(
        "gemv",
        "Products of few tokens: our kernel with 4-bit and 16-bit weights",
        "w4a16_gemv",
        _gemv_series,
        order=lambda p: (p.axes["bits"], p.axes["m"]),
        public=_gemv_public,
        note="Public: TRT-LLM int4 weight-only for 4 bits, the fastest of three frameworks for 16.",
    ),
    Family(
        "gemm",
        "Products by the library (cuBLAS through PyTorch), bf16",
        "gemm_library",
        _library_series,
        where=lambda axes: axes["op"] == "bf16",
        x=_tokens,
        x_label="tokens (M)",
        order=_weights,
        public=_library_public,
        roofline=True,
    ),
    Family(
        "gemm-8bit",
        "Products by the library, fp8 and int8 (scales of one, no conversion of activations)",
        "gemm_library",
        _narrow_series,
        where=lambda axes: axes["op"] in ("fp8", "int8"),
        x=_tokens,
        x_label="tokens (M)",
        order=lambda p: (p.axes["op"] == "int8", *_weights(p)),
        public=_narrow_public,
        roofline=True,
    ),
    Family(
        "prefill",
        "Causal prefill attention by PyTorch, bf16, one request: a chunk behind cached tokens",
        "gemm_library",
        lambda p: f"head {p.axes['head_dim']}, {p.axes['offset']:,} cached",
        where=lambda axes: axes["op"] == "sdpa",
        x=lambda p: float(p.axes["chunk"]),
        x_label="tokens of the chunk",
        order=lambda p: (-p.axes["head_dim"], p.axes["offset"]),
        roofline=True,
    ),
    Family(
        "page-score",
        "Page scoring (Quest bounds): heads 32/8/128, 16 tokens a page; grey: other shapes",
        "page_score",
        _score_series,
        order=_batch,
        note="No public kernel does the same work, so there are no public marks.",
    ),
    Family(
        "append",
        "Append of new keys and values with page minima and maxima: 8 KV heads; grey: other shapes",
        "kv_append",
        _append_series,
        order=lambda p: (-p.axes["bits"], p.axes["tokens"]),
        note="A call moves little: its floor is a latency of about 2 us (estimated), not its bytes.",
    ),
    Family(
        "verify",
        "Verification of drafted tokens with commit",
        "verify_commit",
        _verify_series,
        where=lambda axes: axes["mode"] != "commit",
        order=lambda p: (p.axes["mode"] != "greedy", p.axes["element"] == "fp32"),
        note="Bytes of a rejection are those of the rows that it must read once.",
    ),
    Family(
        "small",
        "Small stages of a layer, bf16: cold in L2; grey: hot",
        "small_ops",
        lambda p: str(p.axes["op"]) if p.axes["cold"] else "",
        order=lambda p: (p.axes["op"] in ("greedy", "sampled"),),
    ),
)
"""The pictures with three panels, in the report's order."""
