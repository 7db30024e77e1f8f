"""The picture of `trace inspect`: rate over time, gaps, lengths, and reuse or burstiness."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from sim.errors import InputError

from .naming import said
from .write import replacing

if TYPE_CHECKING:
    from pathlib import Path

    from .inspect import Inspection

KINDS = (".png", ".svg")
_BLUE, _ORANGE, _GREY = "#1f5fa8", "#d1661a", "#8a8a8a"
_STYLE: Any = {
    "svg.hashsalt": "residentsim",
    "font.size": 9.0,
    "axes.titlesize": 10.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "legend.frameon": False,
}


def check_kind(path: Path) -> None:
    """Raise `InputError` unless *path* ends as a picture that can be drawn."""
    if path.suffix.lower() not in KINDS:
        raise InputError(f"{said(path)}: not a picture's name; end it with {' or '.join(KINDS)}")


def draw(inspection: Inspection, title: str, path: Path) -> None:
    """Draw *inspection* to *path* (.png or .svg); the same trace gives the same bytes."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    check_kind(path)
    kind = path.suffix.lower().removeprefix(".")
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(10.0, 6.6), layout="constrained")
        panels = figure.subplots(2, 2)
        figure.suptitle(title, fontsize=11, fontweight="bold")
        _rate(panels[0, 0], inspection)
        _gaps(panels[0, 1], inspection)
        _lengths(panels[1, 0], inspection)
        if inspection.reuse.blocks:
            _reuse(panels[1, 1], inspection)
        else:
            _burstiness(panels[1, 1], inspection)
        metadata = {"Date": None} if kind == "svg" else {"Software": None}
        with replacing(path) as file:
            figure.savefig(file, format=kind, dpi=150, metadata=metadata)


def _time_axis(axes: Any, duration_s: float) -> float:
    """Label the time axis; the length of its unit in s."""
    unit, unit_s = next(
        ((name, size) for name, size in (("days", 86400.0), ("h", 3600.0), ("min", 60.0))
         if duration_s >= 3 * size),
        ("s", 1.0),
    )  # fmt: skip
    axes.set_xlabel(f"time since the first request ({unit})")
    return unit_s


def _rate(axes: Any, inspection: Inspection) -> None:
    width_s, sums = inspection.timeline.bars(120)
    unit_s = _time_axis(axes, inspection.duration_s)
    edges = np.arange(sums.shape[1] + 1) * width_s / unit_s
    rates = sums[0] / width_s
    whole = rates[:-1] if len(rates) > 1 else rates  # the last bar is not full
    axes.stairs(whole, edges[: len(whole) + 1], fill=True, color=_BLUE, alpha=0.35)
    axes.stairs(whole, edges[: len(whole) + 1], color=_BLUE, linewidth=1.0)
    if inspection.duration_s:
        mean = (inspection.requests - 1) / inspection.duration_s
        axes.axhline(mean, color=_ORANGE, linewidth=1.2, label=f"mean {mean:.3g} per s")
        axes.set_ylim(0, 1.25 * max(float(whole.max()), mean))
        axes.legend(loc="upper right")
    axes.set_ylabel("requests per s")
    axes.set_title(f"Arrival rate, bars of {width_s:.3g} s", loc="left")


def _thin(x: np.ndarray, y: np.ndarray, most: int = 1500) -> tuple[np.ndarray, np.ndarray]:
    """At most about *most* points of a long curve, both ends kept, dense towards the end."""
    if len(x) <= most:
        return x, y
    early = np.linspace(0, len(x) - 1, most // 2)
    late = len(x) - np.geomspace(1, len(x), most // 2)
    at = np.unique(np.concatenate([early, late]).astype(np.int64))
    return x[at], y[at]


def _gaps(axes: Any, inspection: Inspection) -> None:
    gaps, shares = inspection.gaps.sorted()
    axes.set_title("Time between arrivals", loc="left")
    axes.set_xlabel("gap (s)")
    axes.set_ylabel("share of gaps that are longer")
    cv = inspection.gaps.cv
    if cv is None:
        axes.text(0.5, 0.5, "no two times differ", ha="center", transform=axes.transAxes)
        return
    floor = 0.5 / inspection.gaps.count
    x, longer = _thin(gaps, np.maximum(1.0 - shares, floor))
    axes.step(x, longer, where="post", color=_BLUE, label=f"trace, CV {cv:.2f}")
    mean_s = inspection.duration_s / (inspection.requests - 1)
    poisson = np.linspace(0, -np.log(floor) * mean_s, 200)
    axes.plot(
        poisson, np.exp(-poisson / mean_s), "--", color=_ORANGE, label="Poisson of this rate, CV 1"
    )
    axes.set_yscale("log")
    axes.set_ylim(floor, 1.5)
    axes.set_xlim(left=0)
    axes.legend(loc="upper right")


def _lengths(axes: Any, inspection: Inspection) -> None:
    for name, lengths, colour in (
        ("prompt", inspection.prompt, _BLUE),
        ("output", inspection.output, _ORANGE),
    ):
        values, shares = lengths.cdf()
        mean = lengths.total / inspection.requests
        axes.step(
            np.concatenate([values[:1], values]),
            np.concatenate([[0.0], shares]),
            where="post",
            color=colour,
            label=f"{name}, mean {mean:,.0f}",
        )
    axes.set_xscale("log")
    axes.set_ylim(0, 1.02)
    axes.set_xlabel("tokens")
    axes.set_ylabel("share of requests at or below")
    axes.set_title("Prompt and output lengths", loc="left")
    axes.legend(loc="upper left")


def _reuse(axes: Any, inspection: Inspection) -> None:
    width_s, sums = inspection.timeline.bars(60)
    unit_s = _time_axis(axes, inspection.duration_s)
    blocks, hits = sums[1], sums[2]
    there = blocks > 0
    ends = (np.arange(len(blocks)) + 1) * width_s / unit_s
    axes.plot(
        (ends - 0.5 * width_s / unit_s)[there],
        100 * hits[there] / blocks[there],
        color=_BLUE,
        alpha=0.5,
        linewidth=1.0,
        label=f"in each {width_s:.3g} s",
    )
    total = np.cumsum(blocks)
    axes.plot(
        ends[total > 0],
        100 * np.cumsum(hits)[total > 0] / total[total > 0],
        color=_ORANGE,
        linewidth=1.6,
        label=f"since the start, {100 * inspection.reuse.hit_rate:.1f} % at the end",
    )
    axes.set_ylim(0, 100)
    axes.set_ylabel("block references that hit (%)")
    axes.set_title("Prefix reuse with an infinite cache", loc="left")
    axes.legend(loc="upper right")


def _burstiness(axes: Any, inspection: Inspection) -> None:
    curve = inspection.dispersion(least=5)
    axes.set_title("Burstiness over time scales", loc="left")
    axes.set_xlabel("window (s)")
    axes.set_ylabel("index of dispersion (variance / mean)")
    axes.axhline(1.0, linestyle="--", color=_ORANGE, label="Poisson")
    if curve:
        axes.plot(list(curve), list(curve.values()), "o-", color=_BLUE, ms=4, label="trace")
        axes.set_xscale("log")
        if min(curve.values()) > 0:
            axes.set_yscale("log")
    axes.legend(loc="upper left")
