"""Our times beside public ones of the very same shape."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .families import FAMILIES
from .words import table

if TYPE_CHECKING:
    from ..fit.samples import Point
    from .inputs import Evidence


@dataclass(frozen=True, slots=True)
class Pair:
    """One of our points and the best public time at its shape."""

    point: Point
    ratio: float
    """Ours over theirs."""
    source: str


def pairs(evidence: Evidence) -> dict[str, list[Pair]]:
    """Pairs of each kernel and width, the smallest ratio first."""
    found: dict[str, list[Pair]] = {}
    for family in FAMILIES:
        library = " (PyTorch, timed by us)" if family.folder == "gemm_library" else ""
        for point in family.points(evidence) if family.public else ():
            row = family.public(evidence.public, point) if family.public else None
            if row is not None:
                pair = Pair(point, point.median / row.seconds, row.source)
                found.setdefault(f"{family.folder}{library}, {_width(point)}", []).append(pair)
    return {name: sorted(found[name], key=lambda pair: pair.ratio) for name in sorted(found)}


def against_public(evidence: Evidence) -> list[str]:
    """A line a kernel: how many shapes, the spread of ratios, where they are least and most."""
    rows = [
        [
            name,
            f"{len(mine)}",
            f"{statistics.median(pair.ratio for pair in mine):.2f}",
            f"{mine[0].ratio:.2f} ({_where(mine[0].point)})",
            f"{mine[-1].ratio:.2f} ({_where(mine[-1].point)})",
            f"{sum(pair.ratio < 1.0 for pair in mine)} of {len(mine)}",
            ", ".join(sorted({pair.source for pair in mine})),
        ]
        for name, mine in pairs(evidence).items()
    ]
    head = ("kernel", "shapes", "median", "least", "most", "ours shorter", "public, fastest of")
    return table(head, rows, "lrrrrrl") if rows else []


def public_answer(evidence: Evidence) -> str:
    """The same in a sentence, our kernels only."""
    parts = [
        f"`{name}` {statistics.median(pair.ratio for pair in mine):.2f}x over {len(mine)} shapes, "
        f"shorter at {sum(pair.ratio < 1.0 for pair in mine)}"
        for name, mine in pairs(evidence).items()
        if "PyTorch" not in name
    ]
    if not parts:
        return ""
    said = "; ".join(parts)
    return (
        f"**Against the best public time at the same shape** (not measured by us), medians: {said}."
    )


def _width(point: Point) -> str:
    bits = point.axes.get("bits")
    return f"{bits}-bit" if bits else str(point.axes.get("op", ""))


def _where(point: Point) -> str:
    """The axes that tell shapes apart, short."""
    axes = point.axes
    if "n" in axes:
        return f"M {axes['m']}, {axes['n']}x{axes['k']}"
    return f"B {axes['requests']}, L {axes['length']:,}, {axes['heads']}, page {axes['page']}"
