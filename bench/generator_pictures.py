"""Pictures of the report on generators: a real trace and generated ones side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

REAL, MADE = "#222222", ("#d1495b", "#2a78b8", "#3a9d5d")
_POINTS = 400
_LEAST = 1e-6  # on an axis of seconds


def panels(count: int) -> tuple[Any, Any]:
    """A figure with *count* axes in a row."""
    figure, axes = plt.subplots(1, count, figsize=(2.6 * count, 2.35), dpi=80)
    for axis in axes:
        axis.tick_params(which="both", labelsize=6)
        axis.grid(alpha=0.3, linewidth=0.5)
    return figure, axes


def save(figure: Any, path: Path, real: str) -> None:
    """Write *figure*, with a legend that calls the real trace *real*."""
    handles = [plt.Line2D([], [], color=REAL, linewidth=2.2, alpha=0.55)]
    drawn = max(len({line.get_color() for line in axis.lines} & {*MADE}) for axis in figure.axes)
    handles += [plt.Line2D([], [], color=color, linewidth=1) for color in MADE[:drawn]]
    labels = [real, *(f"generated, seed {seed}" for seed in range(drawn))]
    figure.legend(handles, labels, loc="lower center", ncol=4, fontsize=7, frameon=False)
    figure.tight_layout(rect=(0, 0.08, 1, 1))
    figure.savefig(path, metadata={"Software": None})
    plt.close(figure)


def steps(axis: Any, title: str, real: Any, made: Sequence[Any], *, log: bool = True) -> None:
    """Distribution functions; each is (values, share at or below), *real* may be quantiles."""
    if isinstance(real, dict):
        axis.plot(list(real.values()), list(real), "o", color=REAL, markersize=4, alpha=0.7)
    else:
        axis.plot(*_thin(real), color=REAL, linewidth=2.2, alpha=0.55)
    for color, sides in zip(MADE, made, strict=False):
        axis.plot(*_thin(sides), color=color, linewidth=0.9)
    if log:
        axis.set_xscale("log")
        axis.set_xlim(left=max(axis.get_xlim()[0], _LEAST))
    axis.set_ylim(0, 1)
    axis.set_title(title, fontsize=8)


def curves(
    axis: Any,
    title: str,
    real: dict[float, float] | None,
    made: Sequence[dict[float, float]],
    *,
    dots: bool = False,
    log_y: bool = False,
) -> None:
    """Values over sizes: dispersion by window, hit rate by cache size."""
    if real:
        axis.plot(
            list(real), list(real.values()), "o" if dots else "-", color=REAL, linewidth=2.2,
            alpha=0.55, markersize=4,
        )  # fmt: skip
    for color, one in zip(MADE, made, strict=False):
        axis.plot(list(one), list(one.values()), color=color, linewidth=0.9)
    axis.set_xscale("log")
    if log_y:
        axis.set_yscale("log")
    axis.set_title(title, fontsize=8)


def _thin(sides: Any) -> tuple[Any, Any]:
    """A distribution function at some hundred points."""
    values, shares = np.asarray(sides[0], dtype=np.float64), np.asarray(sides[1])
    if len(values) <= 2 * _POINTS:
        return values, shares
    at = np.unique(np.searchsorted(shares, np.linspace(0, 1, _POINTS)).clip(0, len(values) - 1))
    return values[at], shares[at]
