"""The picture of `trace inspect`: the panels of one or two traces in a .png or .svg file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from sim.errors import InputError
from sim.trace.naming import said
from sim.trace.write import replacing

from .panels import panels
from .words import tick

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from .panels import Line, Named, Panel

KINDS = (".png", ".svg")
COLOURS = {"a": "#1f5fa8", "b": "#d1661a", "grey": "#8a8a8a"}
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
    "legend.fontsize": 8.0,
}


def check_kind(path: Path) -> None:
    """Raise `InputError` unless *path* ends as a picture that can be drawn."""
    if path.suffix.lower() not in KINDS:
        raise InputError(f"{said(path)}: not a picture's name; end it with {' or '.join(KINDS)}")


def draw(traces: Sequence[Named], title: str, path: Path) -> None:
    """Draw *traces* to *path* (.png or .svg); the same traces give the same bytes."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    check_kind(path)
    kind = path.suffix.lower().removeprefix(".")
    found = panels(traces)
    rows = -(-len(found) // 2)
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(10.0, 0.5 + 3.1 * rows), layout="constrained")
        figure.suptitle(title, fontsize=11, fontweight="bold")
        places = list(figure.subplots(rows, 2, squeeze=False).flat)
        for axes, panel in zip(places, found, strict=False):
            _panel(axes, panel)
        for axes in places[len(found) :]:
            axes.set_axis_off()
        metadata = {"Date": None} if kind == "svg" else {"Software": None}
        with replacing(path) as file:
            figure.savefig(file, format=kind, dpi=150, metadata=metadata)


def _panel(axes: Any, panel: Panel) -> None:
    for line in panel.lines:
        _line(axes, line)
    axes.set_title(panel.title, loc="left")
    axes.set_xlabel(panel.x_label)
    axes.set_ylabel(panel.y_label)
    if panel.x_log:
        axes.set_xscale("log")
    else:
        axes.set_xlim(left=0)
    if panel.y_log:
        axes.set_yscale("log")
    if panel.low is not None:
        axes.set_ylim(bottom=panel.low)
    if panel.high is not None:
        axes.set_ylim(top=panel.high * (1.4 if panel.y_log else 1.02))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(lambda value, _: tick(value))
        if axis.get_scale() == "log":
            axis.set_minor_formatter(lambda *_: "")
    axes.legend(loc="best")


def _line(axes: Any, line: Line) -> None:
    look = {"color": COLOURS[line.colour], "linestyle": "--" if line.dashed else "-"}
    if line.step and len(line.x) == len(line.y) + 1:
        if line.filled:
            axes.stairs(line.y, line.x, fill=True, color=look["color"], alpha=0.3)
        y = np.append(line.y, line.y[-1:])
        axes.step(line.x, y, where="post", linewidth=1.2, label=line.label, **look)
        return
    if line.step:
        axes.step(line.x, line.y, where="post", linewidth=1.2, label=line.label, **look)
        return
    marker = "o" if line.dots else ""
    axes.plot(line.x, line.y, marker=marker, ms=4, linewidth=1.2, label=line.label, **look)
