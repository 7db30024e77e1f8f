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
        """The fitted kernels that hold points of this picture."""
        keys = {point.key for point in self.points(evidence)}
        return [f for f in evidence.fits.values() if any(p.key in keys for p in f.points)]


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


def _verify_series(point: Point) -> str:
    axes = point.axes
    element = axes["element"]
    if axes["mode"] == "greedy":
        return f"greedy, {element} logits"
    source = f"{element} logits" if axes["mode"] == "logits" else "probabilities"
    return f"rejection, {source}, q {'given' if axes['q'] else 'absent'}"


FAMILIES = (
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
        where=lambda axes: "m" in axes and "n" in axes,
        x=lambda p: float(p.axes["m"]),
        x_label="tokens (M)",
        order=lambda p: (p.axes["n"] * p.axes["k"],),
        public=_library_public,
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
        "verify",
        "Verification of drafted tokens with commit",
        "verify_commit",
        _verify_series,
        where=lambda axes: axes["mode"] != "commit",
        order=lambda p: (p.axes["mode"] != "greedy", p.axes["element"] == "fp32"),
        note="Bytes of a rejection are those of the rows that it must read once.",
    ),
)
"""The pictures with three panels, in the report's order."""
