"""Figures of a fit: measured against predicted steps, and errors over time and over load."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from pathlib import Path

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from .step_form import Load

_MOST = 8000
_DECODE, _PREFILL = "#0072b2", "#d55e00"


def draw(
    load: Load, measured: np.ndarray, predicted: np.ndarray, out: Path, title: str
) -> list[Path]:
    """Both figures as SVG and PNG in *out*; seconds of steps of *load*."""
    from .mode_figures import save

    keep = np.arange(0, len(measured), -(-len(measured) // _MOST))
    plain = (load.prefill_tokens == 0)[keep]
    real, told = measured[keep] * 1e3, predicted[keep] * 1e3

    def scatter(figure: Figure) -> None:
        axes = figure.subplots()
        low = float(min(real.min(), told.min()))
        high = float(max(np.quantile(real, 0.999), told.max()) * 1.2)
        axes.plot([low, high], [low, high], color="black", linewidth=0.8)
        _both(axes, told, real, plain)
        axes.set(xscale="log", yscale="log", xlabel="fitted (ms)", ylabel="measured (ms)")
        axes.set_xlim(low * 0.95, high)
        axes.set_ylim(low * 0.95, high)
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter("{x:g}")
            axis.set_minor_formatter("{x:g}")
        axes.legend(loc="upper left", markerscale=3)
        figure.suptitle(f"Steps, fitted and measured: {title}")

    def residuals(figure: Figure) -> None:
        error = (told / real - 1.0) * 100.0
        bound = max(5.0, float(np.quantile(np.abs(error), 0.98)) * 1.5)
        grid = figure.subplots(2, 2, sharey=True)
        each = load.context[keep] / np.maximum(load.decode_requests[keep], 1.0)
        views = (
            (keep.astype(float), "step, in order of time"),
            (load.decode_requests[keep], "decoding requests"),
            (each, "context tokens a decoding request"),
            (load.prefill_tokens[keep], "prefill tokens"),
        )
        for axes, (values, label) in zip(grid.flat, views, strict=True):
            axes.axhline(0.0, color="black", linewidth=0.8)
            _both(axes, values, np.clip(error, -bound, bound), plain)
            _middles(axes, values, error)
            axes.set_xlabel(label)
            axes.xaxis.set_major_formatter("{x:,.0f}")
        for axes in grid[:, 0]:
            axes.set_ylabel("fitted / measured - 1 (%)")
            axes.set_ylim(-bound, bound)
        grid[0, 1].legend(loc="upper right", markerscale=3)
        figure.suptitle(f"Errors over time and load: {title}")

    files = save(scatter, out / "steps", (5.6, 5.2))
    return files + save(residuals, out / "step_errors", (9.6, 6.4))


def _both(axes: Axes, x: np.ndarray, y: np.ndarray, plain: np.ndarray) -> None:
    for rows, colour, label in (
        (plain, _DECODE, "decode only"), (~plain, _PREFILL, "with prefill")
    ):  # fmt: skip
        if rows.any():
            axes.scatter(
                x[rows], y[rows], s=4, alpha=0.35, color=colour, label=label, linewidths=0,
                rasterized=True,
            )  # fmt: skip


def _middles(axes: Axes, x: np.ndarray, error: np.ndarray) -> None:
    """The median error in twenty parts of the axis."""
    if x.max() <= x.min():
        return
    edges = np.linspace(x.min(), x.max(), 21)
    place = np.clip(np.digitize(x, edges) - 1, 0, 19)
    rows = [(i, error[place == i]) for i in range(20)]
    kept = [((edges[i] + edges[i + 1]) / 2, np.median(part)) for i, part in rows if len(part) > 4]
    if kept:
        axes.plot(*zip(*kept, strict=True), color="black", linewidth=1.2, marker=".")
