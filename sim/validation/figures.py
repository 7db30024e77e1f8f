"""Figures of a validation: distributions measured and simulated, requests and steps one by one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .errors import pooled

if TYPE_CHECKING:
    from pathlib import Path

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from .errors import Comparison

_MEASURED, _SIMULATED, _POINTS = "#000000", "#d55e00", "#0072b2"
_MOST = 4000


def draw(found: Comparison, out: Path) -> list[Path]:
    """All figures as SVG and PNG in *out*."""
    from sim.mode_figures import save

    files = save(lambda figure: distributions(figure, found), out / "cdf", (9.6, 6.2))
    return files + save(lambda figure: scatter(figure, found), out / "scatter", (9.6, 3.6))


def distributions(figure: Figure, found: Comparison) -> None:
    """CDFs of TTFT, TPOT, ITL and E2EL."""
    a, b = found.measured, found.simulated
    views = [
        ("TTFT (ms)", a.ttft, b.ttft, "ttft"), ("TPOT (ms a token)", a.tpot, b.tpot, "tpot"),
        ("ITL (ms)", pooled(a), pooled(b), "itl"), ("E2EL (s)", a.e2el, b.e2el, "e2el"),
    ]  # fmt: skip
    for axes, (label, real, told, name) in zip(figure.subplots(2, 2).flat, views, strict=True):
        if not len(real) or not len(told):
            axes.text(0.5, 0.5, "times of tokens unknown", ha="center", transform=axes.transAxes)
            axes.set_axis_off()
            continue
        scale = 1.0 if name == "e2el" else 1e3
        for values, colour, style, who in (
            (real, _MEASURED, "-", "measured"), (told, _SIMULATED, "--", "simulated")
        ):  # fmt: skip
            _cdf(axes, values[np.isfinite(values)] * scale, colour, style, who)
        axes.set(xlabel=label, ylabel="share of " + ("gaps" if name == "itl" else "requests"))
        axes.set_ylim(0, 1)
        axes.set_title(f"KS {found.ks.get(name, float('nan')):.3f}", fontsize=9)
        if name in ("ttft", "itl", "e2el"):
            _log_where_wide(axes, real * scale)
    figure.axes[0].legend(loc="lower right")
    figure.suptitle("Measured and simulated")


def _log_where_wide(axes: Axes, values: np.ndarray) -> None:
    good = values[np.isfinite(values) & (values > 0)]
    if len(good) and np.quantile(good, 0.99) > 20 * max(np.quantile(good, 0.05), 1e-9):
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter("{x:g}")


def _cdf(axes: Axes, values: np.ndarray, colour: str, style: str, label: str) -> None:
    values = np.sort(values)
    keep = np.unique(np.linspace(0, len(values) - 1, min(len(values), 1000)).astype(int))
    share = (keep + 1) / len(values)
    axes.step(values[keep], share, style, where="post", color=colour, label=label, linewidth=1.4)


def scatter(figure: Figure, found: Comparison) -> None:
    """Each request's TTFT and E2EL, and each step, simulated over measured."""
    a, b = found.measured, found.simulated
    views = [("TTFT (ms)", a.ttft * 1e3, b.ttft * 1e3), ("E2EL (s)", a.e2el, b.e2el)]
    if found.step_pairs is not None:
        real, told = found.step_pairs
        views.append(("step, teacher-forced (ms)", real * 1e3, told * 1e3))
    row = figure.subplots(1, len(views), squeeze=False)[0]
    for axes, (label, real, told) in zip(row, views, strict=True):
        keep = np.arange(0, len(real), -(-len(real) // _MOST))
        real, told = np.maximum(real[keep], 1e-6), np.maximum(told[keep], 1e-6)
        low = float(min(np.quantile(real, 0.001), np.quantile(told, 0.001))) * 0.9
        high = float(max(np.quantile(real, 0.999), np.quantile(told, 0.999))) * 1.1
        axes.plot([low, high], [low, high], color="black", linewidth=0.8)
        axes.scatter(real, told, s=4, alpha=0.35, color=_POINTS, linewidths=0, rasterized=True)
        axes.set(xscale="log", yscale="log", xlim=(low, high), ylim=(low, high))
        axes.set(xlabel=f"measured {label}", ylabel="simulated")
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter("{x:g}")
            axis.set_minor_formatter("")
    figure.suptitle("One by one")
