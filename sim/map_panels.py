"""Maps of a metric over two axes of numbers, and fronts of two metrics against each other."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .panels import INK, PAPER, Line, named, plain_ticks

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_WRITTEN = 120
"""Cells of a map that carry their number."""
MOST_BARS = 60
"""Points of a front that carry their intervals; of more they would hide the points."""


def heat(
    axes: Axes,
    values: np.ndarray,
    names: tuple[Sequence[str], Sequence[str]],
    bounds: tuple[float, float],
    *,
    high_is_good: bool,
    log: bool,
    best: tuple[int, int] | None,
    room: int = 44,
) -> None:
    """*values* [rows, columns] as coloured cells, darker where better; *best* is framed.

    *names* are those of columns and of rows, *bounds* the values at the ends of the colours; `nan`
    stays empty. *room* is how many characters of ticks there are place for.
    """
    import matplotlib as mpl
    from matplotlib.colors import LogNorm, Normalize
    from matplotlib.patches import Rectangle

    norm = (LogNorm if log else Normalize)(*bounds)
    colours = mpl.colormaps["YlGnBu" if high_is_good else "YlGnBu_r"]
    rows, across = values.shape
    known = np.isfinite(values)
    shades = colours(0.08 + 0.8 * np.asarray(norm(np.where(known, values, bounds[0])), float))
    shades[~known] = 0.0
    few = rows * across <= MOST_WRITTEN
    mesh = np.arange(across + 1), np.arange(rows + 1)
    axes.pcolormesh(*mesh, shades, edgecolors=PAPER if few else "face",
                    linewidth=0.8 if few else 0.2)  # fmt: skip
    for row, column in zip(*np.nonzero(known), strict=True) if few else ():
        bright = float(np.dot(shades[row, column, :3], (0.299, 0.587, 0.114)))
        size = 8 if across <= 6 else 7 if across <= 9 else 6
        axes.text(column + 0.5, row + 0.5, _few(float(values[row, column])), ha="center",
                  va="center", color="#101010" if bright > 0.55 else "#fafafa",
                  fontsize=size)  # fmt: skip
    if best is not None:
        axes.add_patch(Rectangle((best[1] + 0.04, best[0] + 0.04), 0.92, 0.92, fill=False,
                                 edgecolor="#d55e00", linewidth=1.8))  # fmt: skip
    axes.set_xlim(0, across)
    axes.set_ylim(0, rows)
    _ticks(axes, names, room)
    axes.grid(visible=False)
    for side in axes.spines.values():
        side.set_visible(False)


def shades(figure: Figure, bounds: tuple[float, float], *, high_is_good: bool, log: bool) -> None:
    """Says below the figure what some of its colours stand for."""
    import matplotlib as mpl
    from matplotlib.colors import LogNorm, Normalize
    from matplotlib.patches import Patch

    norm = (LogNorm if log else Normalize)(*bounds)
    colours = mpl.colormaps["YlGnBu" if high_is_good else "YlGnBu_r"]
    values = (np.geomspace if log else np.linspace)(*bounds, 5)
    patches = [
        Patch(facecolor=colours(0.08 + 0.8 * float(norm(value))), label=_few(float(value)))
        for value in values
    ]
    figure.legend(handles=patches, loc="outside lower center", ncols=len(patches), fontsize=8)


def _ticks(axes: Axes, names: tuple[Sequence[str], Sequence[str]], room: int) -> None:
    across, up = names
    step = max(1, -(-len(across) * max(3, 1 + max(map(len, across))) // room))
    axes.set_xticks(np.arange(len(across))[::step] + 0.5, across[::step])
    rise = max(1, -(-len(up) // 14))
    axes.set_yticks(np.arange(len(up))[::rise] + 0.5, up[::rise])
    axes.tick_params(length=0)


def _few(value: float) -> str:
    if abs(value) >= 9_950:
        return f"{value / 1000:,.3g}k"
    return f"{value:,.0f}" if abs(value) >= 99.5 else f"{value:.3g}"


def front(
    axes: Axes,
    lines: Sequence[Line],
    best: Sequence[tuple[float, float]],
    labels: tuple[str, str],
    *,
    log: bool,
) -> None:
    """Points of two metrics with the interval of the one that goes up, and the front through the
    *best* of them, which are sorted by x; many points go without intervals."""
    many = sum(len(line.x) for line in lines) > MOST_BARS
    for line in lines:
        known = np.isfinite(line.x) & np.isfinite(line.y)
        if not known.any():
            continue
        colour = line.look["color"]
        bars = known & (not many) & np.isfinite(line.low) & np.isfinite(line.high)
        if bars.any():
            axes.vlines(line.x[bars], line.low[bars], line.high[bars], colors=colour,
                        linewidth=0.8, alpha=0.6)  # fmt: skip
        axes.plot(line.x[known], line.y[known], "o", markersize=2.5 if many else 4, color=colour,
                  label=named(line.label))  # fmt: skip
    if best:
        x, y = np.array(best).T
        axes.plot(x, y, "-", color=INK, linewidth=1.0, alpha=0.8, zorder=1)
        axes.plot(x, y, "o", markersize=8, fillstyle="none", color=INK, markeredgewidth=1.0,
                  label="Pareto front")  # fmt: skip
    if log:
        axes.set_xscale("log")
        plain_ticks(axes.xaxis)
    else:
        axes.set_xlim(left=0)
    axes.set_ylim(bottom=0)
    axes.set_xlabel(labels[0])
    axes.set_ylabel(labels[1])
