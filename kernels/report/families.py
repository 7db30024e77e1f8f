"""Which points a picture shows, along which axis, in which series, beside which public rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from . import series

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


FAMILIES = (
    Family(
        "attention",
        "Paged decode attention, bf16, dense: heads 32/8/128, 16 tokens a page; grey: other shapes",
        "paged_attention",
        series.dense_series,
        where=lambda axes: (
            axes["bits"] == 16 and not axes["budget"] and series.plain_attention(axes)
        ),
        order=series.requests,
        public=series.attention_public,
        note="Public: the fastest of three frameworks at the same shape, bf16, paged.",
    ),
    Family(
        "attention-quantised",
        "Paged decode attention, 8-bit and 4-bit cache, dense: heads 32/8/128, 16 tokens a page",
        "paged_attention",
        series.quantised_series,
        where=lambda axes: (
            axes["bits"] < 16 and not axes["budget"] and series.plain_attention(axes)
        ),
        order=series.requests,
        public=series.attention_public,
        note="Public: fp8 caches, against our 8-bit integers; for 4 bits there is none.",
    ),
    Family(
        "attention-sparse",
        "Paged decode attention over selected pages: 512 to 8,192 of 32,768 tokens, bf16",
        "paged_attention",
        series.sparse_series,
        where=lambda axes: bool(axes["budget"]) and series.plain_attention(axes),
        order=lambda p: (p.axes["page"], p.axes["requests"]),
        note="Pages are chosen at random and listed in ascending order.",
    ),
    Family(
        "attention-uneven",
        "Paged decode attention, unequal lengths or several new tokens: all shapes",
        "paged_attention",
        series.uneven_series,
        where=lambda axes: not series.plain_attention(axes),
        order=lambda p: (p.axes["skew"] == "none", *series.requests(p)),
    ),
    Family(
        "gemv",
        "Products of few tokens: our kernel with 4-bit and 16-bit weights",
        "w4a16_gemv",
        series.gemv_series,
        order=lambda p: (p.axes["bits"], p.axes["m"]),
        public=series.gemv_public,
        note="Public: TRT-LLM int4 weight-only for 4 bits, the fastest of three frameworks for 16.",
    ),
    Family(
        "gemm",
        "Products by the library (cuBLAS through PyTorch), bf16",
        "gemm_library",
        series.library_series,
        where=lambda axes: axes["op"] == "bf16",
        x=series.tokens,
        x_label="tokens (M)",
        order=series.weights,
        public=series.library_public,
        roofline=True,
    ),
    Family(
        "gemm-8bit",
        "Products by the library, fp8 and int8 (scales of one, no conversion of activations)",
        "gemm_library",
        series.narrow_series,
        where=lambda axes: axes["op"] in ("fp8", "int8"),
        x=series.tokens,
        x_label="tokens (M)",
        order=lambda p: (p.axes["op"] == "int8", *series.weights(p)),
        public=series.narrow_public,
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
        series.score_series,
        order=series.batch,
        note="No public kernel does the same work, so there are no public marks.",
    ),
    Family(
        "append",
        "Append of new keys and values with page minima and maxima: 8 KV heads; grey: other shapes",
        "kv_append",
        series.append_series,
        order=lambda p: (-p.axes["bits"], p.axes["tokens"]),
        note="A call moves little: its floor is a latency, about 2 us (estimated), not its bytes.",
    ),
    Family(
        "verify",
        "Verification of drafted tokens with commit",
        "verify_commit",
        series.verify_series,
        where=lambda axes: axes["mode"] != "commit",
        order=lambda p: (p.axes["mode"] != "greedy", p.axes["element"] == "fp32"),
        note="Bytes of a rejection are those of the rows that it must read once.",
    ),
    Family(
        "small",
        "Small stages of a layer, bf16: arrays below 24 MB in L2, larger ones cold; grey: not so",
        "small_ops",
        series.small_series,
        order=lambda p: (p.axes["op"] in ("greedy", "sampled"),),
    ),
)
"""The pictures with three panels, in the report's order."""
