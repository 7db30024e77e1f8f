"""The figures of a comparison: who got slower or faster, and where the time went."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sim.panels import PALETTE, plain_ticks
from sim.plots import WHOLE, Picture, ready, save, svg_of

from . import parts

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from .comparison import Comparison

A, B = PALETTE[2], PALETTE[0]
POINTS = 600
_COLOURS = {
    "queue": "#999999", "load": "#cc79a7", "prefill": "#e69f00", "prefill_gpu": "#e69f00",
    "prefill_gap": "#f5cf80", "prefill_rest": "#d9d9d9", "decode": "#0072b2",
    "decode_gpu": "#0072b2", "decode_gap": "#80b8d9", "decode_prompts": "#009e73",
    "decode_rest": "#595959", "delivery": "#56b4e9",
}  # fmt: skip


def draw(found: Comparison, out: Path) -> list[Path]:
    """The figures into *out* as SVG and PNG; `InputError` if they cannot be written."""
    ready(out)
    a, b = found.both
    source = f"A: {a.name} ({a.kind}), B: {b.name} ({b.kind})"
    return save({picture.name: svg_of(picture, source) for picture in pictures(found)}, out)


def pictures(found: Comparison) -> list[Picture]:
    """Those that these runs have data for."""
    drawn = [
        Picture(
            f"{column}_cdf", f"{label} of requests", f"Share of requests with at most this {label}",
            lambda figure, column=column, label=label: _cdf(figure, found, column, label),  # type: ignore[misc]
        )
        for column, label in (("ttft", "TTFT"), ("tpot", "TPOT"))
        if all(len(_positive(side.requests.latency(column))) for side in found.both)
    ]  # fmt: skip
    if found.paired:
        drawn.append(
            Picture("by_request", "E2EL of B less that of A, request by request",
                    "Below zero, B is faster", lambda figure: _by_request(figure, found),
                    (WHOLE, 3.6))
        )  # fmt: skip
    if any(found.means(name) for name in parts.MEANS):
        drawn.append(
            Picture("time", "Where the time of requests went, in the mean",
                    "Parts add up to the mean", lambda figure: _time(figure, found), (WHOLE, 5.2))
        )  # fmt: skip
    return drawn


def _positive(values: np.ndarray) -> np.ndarray:
    return np.sort(values[np.isfinite(values) & (values > 0)])


def _cdf(figure: Figure, found: Comparison, column: str, label: str) -> None:
    axes = figure.subplots()
    for name, side, colour in zip("AB", found.both, (A, B), strict=True):
        values = _positive(side.requests.latency(column)) * 1e3
        at = np.unique(np.linspace(0, len(values) - 1, POINTS).astype(int))
        axes.plot(values[at], (at + 1) / len(values), color=colour, label=name,
                  linestyle="-" if name == "A" else "--")  # fmt: skip
    axes.set_xscale("log")
    plain_ticks(axes.xaxis)
    axes.set_xlabel(f"{label} (ms)")
    axes.set_ylabel("share of requests")
    axes.set_ylim(0, 1)
    axes.legend(loc="lower right")


def _by_request(figure: Figure, found: Comparison) -> None:
    """Differences by when the requests came, and how they spread."""
    a, b = found.a.requests, found.b.requests
    _, mine, theirs = np.intersect1d(a.id, b.id, return_indices=True)
    apart = b.e2el[theirs] - a.e2el[mine]
    left, right = figure.subplots(1, 2, width_ratios=(2.2, 1))
    left.plot(a.id[mine], apart, ".", markersize=2.5, color=B, alpha=0.6, rasterized=True)
    left.set_xlabel("request, in the order of the trace")
    left.set_ylabel("B - A (s)")
    ordered = np.sort(apart)
    at = np.unique(np.linspace(0, len(ordered) - 1, POINTS).astype(int))
    right.plot(ordered[at], (at + 1) / len(ordered), color=B)
    right.set_xlabel("B - A (s)")
    right.set_ylabel("share of requests")
    right.set_ylim(0, 1)
    for line in (left.axhline, right.axvline):
        line(0.0, color="0.4", linewidth=0.8)


def _time(figure: Figure, found: Comparison) -> None:
    """A pair of bars a mean, each in a panel with its own scale."""
    names = [name for name in parts.MEANS if found.means(name)]
    panels = figure.subplots(len(names), 1, squeeze=False)[:, 0]
    for axes, name in zip(panels, names, strict=True):
        _bars(axes, found.means(name))
        axes.set_title(f"{parts.MEANS[name]} (ms)", fontsize=9, loc="left")
    used = [p for p in parts.LABELS if any(p == row[0] for n in names for row in found.means(n))]
    handles = [panels[0].barh([0], [0], color=_COLOURS[p], label=parts.LABELS[p]) for p in used]
    figure.legend(handles=handles, loc="outside lower center", ncols=3, fontsize=8)


def _bars(axes: Axes, rows: Sequence[tuple[str, float, float]]) -> None:
    at = np.zeros(2)
    for part, *values in rows:
        width = np.maximum(0.0, np.array(values)) * 1e3
        axes.barh(["A", "B"], width, left=at, color=_COLOURS[part], edgecolor="white",
                  linewidth=0.5, height=0.7)  # fmt: skip
        at += width
    axes.invert_yaxis()
    axes.grid(visible=False)
    axes.xaxis.set_major_formatter("{x:,g}")
