"""The look of the pictures: colours, marks, axes, and a way to save that gives the same bytes.

One rule: a filled mark is measured, an open one measured and held out of the fit, a line is fitted,
a cross is public, a triangle is a library timed beside us, a dashed line is a floor or a ceiling.
"""

from __future__ import annotations

from math import log10
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

# Okabe and Ito's palette: told apart by colour-blind readers and in grey.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#999999")
MARKS = ("o", "s", "D", "v", "P", "^", "X", "h")
GREY, DARK = "#9a9a9a", "#303030"
STYLE: dict[Any, Any] = {
    "font.size": 9.0,
    "axes.titlesize": 9.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "legend.frameon": False,
    "legend.fontsize": 8.0,
    "figure.constrained_layout.use": True,
}
DPI = 100


def save(path: Path, size: tuple[float, float], draw: Callable[[Figure], None]) -> None:
    """Draws a figure of *size* inches into *path*; equal drawings give equal bytes."""
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with mpl.rc_context(STYLE):
        figure = Figure(figsize=size)
        FigureCanvasAgg(figure)
        draw(figure)
        figure.savefig(path, format="png", dpi=DPI, metadata={"Software": None})


def looks(names: Sequence[str]) -> Iterator[tuple[str, str, str]]:
    """(name, colour, mark) of each series."""
    for number, name in enumerate(names):
        yield name, COLOURS[number % len(COLOURS)], MARKS[number % len(MARKS)]


def plain_ticks(axis: Axis) -> None:
    """Plain numbers on a log axis: every step for a short span, powers of ten for a long one."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    low, high = axis.get_view_interval()
    decades = log10(high / low) if low > 0.0 else 0.0
    subs: tuple[float, ...] = (
        (1.0,) if decades > 3.0 else (1.0, 3.0) if decades > 1.5 else (1.0, 2.0, 5.0)
    )
    if decades < 0.8:
        subs = (1.0, 1.5, 2.0, 3.0, 5.0, 7.0)
    axis.set_major_locator(LogLocator(subs=subs, numticks=12))
    axis.set_major_formatter(FuncFormatter(lambda value, _: plain(value)))
    axis.set_minor_formatter(NullFormatter())


def plain(value: float) -> str:
    """A tick without powers."""
    return f"{value:,.0f}" if value >= 100.0 else f"{value:g}"


def size_ticks(axis: Axis, low: float, high: float) -> None:
    """Ticks at powers of two on a log axis over bytes from *low* to *high*."""
    from matplotlib.ticker import NullLocator

    places = [1 << shift for shift in range(10, 41, 2) if low <= 1 << shift <= high]
    places = places[:: max(1, -(-len(places) // 7))]
    axis.axes.set_xscale("log")
    axis.set_ticks(places, [binary(place) for place in places])
    axis.set_minor_locator(NullLocator())


def binary(nbytes: int) -> str:
    """Bytes in the largest binary unit."""
    for unit, shift in (("GiB", 30), ("MiB", 20), ("KiB", 10)):
        if nbytes >> shift:
            return f"{nbytes >> shift} {unit}"
    return f"{nbytes} B"


def log_axes(axes: Axes, x: str = "", y: str = "") -> None:
    """Logarithmic axes with plain numbers and labels; an empty label leaves its axis linear."""
    if x:
        axes.set_xscale("log")
        axes.set_xlabel(x)
        plain_ticks(axes.xaxis)
    if y:
        axes.set_yscale("log")
        axes.set_ylabel(y)
        plain_ticks(axes.yaxis)


def handle(label: str, **look: Any) -> Any:
    """A legend's entry without data."""
    from matplotlib.lines import Line2D

    return Line2D([], [], label=label, **look)


def kinds(*wanted: str) -> list[Any]:
    """Legend entries that explain the marks."""
    every = {
        "training": handle("measured", color=DARK, marker="o", linestyle="", markersize=5),
        "held": handle(
            "measured, held out", color=DARK, marker="o", linestyle="", markersize=5,
            markerfacecolor="white",
        ),
        "fit": handle("fitted", color=DARK, linewidth=1.4),
        "floor": handle("floor: bytes at the read ceiling", color="black", linestyle="--"),
        "ceiling": handle("ceilings of this run", color="black", linestyle="--"),
        "library": handle(
            "library, same run", color=DARK, marker="^", linestyle="", markerfacecolor="white",
            markersize=5,
        ),
        "public": handle(
            "public, not measured by us", color=DARK, marker="x", linestyle="", markersize=5
        ),
    }  # fmt: skip
    return [every[name] for name in wanted]


def legend_below(figure: Figure, handles: Sequence[Any], columns: int) -> None:
    """One legend under all panels."""
    figure.legend(handles=list(handles), loc="outside lower center", ncols=columns)


def empty(axes: Axes, text: str) -> None:
    """Says on *axes* that there is nothing to show."""
    axes.set_axis_off()
    axes.text(0.5, 0.5, text, ha="center", va="center", transform=axes.transAxes, color=DARK)
