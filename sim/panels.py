"""What a figure shows on one pair of axes: lines with intervals, shares, and what goes over time.

One rule: a panel is given numbers and how they look, and decides nothing about a study. What has an
interval is drawn with it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

    from .runs import Run

# Okabe and Ito's palette: told apart by colour-blind readers and in grey.
COLOURS = {"host": "#d55e00", "graph": "#0072b2", "resident": "#009e73", "control": "#cc79a7"}
SPARE = ("#e69f00", "#56b4e9", "#000000", "#999999")
PALETTE = ("#0072b2", "#009e73", "#d55e00", "#cc79a7", "#e69f00", "#56b4e9", "#595959", "#999999")
STYLES = ("-", "--", ":", "-.")
BINS = 160
PAPER, INK, DIM = "#fffffe", "#1c1c1b", "#5c5c5b"
"""What figures are drawn on and written with; each stands for nothing else in a figure."""


@dataclass(frozen=True, slots=True)
class Line:
    """Values over an axis: *low* and *high* are their intervals, `nan` where there are none."""

    label: str
    look: dict[str, Any]
    """matplotlib's words: color, linestyle."""
    x: np.ndarray
    y: np.ndarray
    low: np.ndarray
    high: np.ndarray


@dataclass(frozen=True, slots=True)
class Shown:
    """A run as a curve over its own time or batch."""

    label: str
    look: dict[str, Any]
    run: Run


# ---------------------------------------------------------------------------- axes
_SUBS = ((1.7, (1.0, 1.5, 2.0, 3.0, 5.0, 7.0)), (2.6, (1.0, 2.0, 5.0)), (3.6, (1.0, 3.0)))
"""Digits with a tick on a log axis of at most so many decades."""
FEW_DECADES = 0.7
"""Below, a log axis has ticks at equal steps."""


def plain_ticks(axis: Axis) -> None:
    """Plain numbers on a log axis with data instead of powers, so many as have room."""
    from matplotlib.ticker import (
        FuncFormatter,
        LogLocator,
        MaxNLocator,
        NullFormatter,
        NullLocator,
    )  # fmt: skip

    low, high = axis.get_view_interval()
    decades = np.log10(high / low) if 0 < low < high else 0.0
    if 0 < decades < FEW_DECADES:
        axis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))
        axis.set_minor_locator(NullLocator())
    else:
        subs = next((subs for most, subs in _SUBS if decades <= most), (1.0,))
        axis.set_major_locator(LogLocator(subs=subs))
    axis.set_major_formatter(FuncFormatter(lambda value, _: short(value)))
    axis.set_minor_formatter(NullFormatter())


def short(value: float) -> str:
    """A tick's number in little room: k from ten thousand on."""
    if abs(value) >= 1e6:
        return f"{value / 1e6:.3g}M"
    return f"{value / 1000:.3g}k" if abs(value) >= 1e4 else f"{value:,.6g}"


def named(label: str) -> str:
    """*label* as a legend takes it: one that starts with a line would be left out."""
    return f" {label}" if label.startswith("_") else label


def legend_below(figure: Figure, axes: Axes, *, alone: bool = False) -> None:
    """Names what *axes* shows below the figure, where no curve is.

    With *alone* a single line stays without a name: there is nothing to tell it from.
    """
    handles, labels = axes.get_legend_handles_labels()
    if not labels or (alone and len(labels) < 2):
        return
    ncols = columns(labels, figure.get_figwidth())
    figure.legend(handles, labels, loc="outside lower center", ncols=ncols, fontsize=8,
                  handlelength=1.8, columnspacing=1.2)  # fmt: skip


def columns(labels: Sequence[str], width: float = 9.6) -> int:
    """Columns of a legend of *labels* that fit across a figure of *width* inches."""
    return max(1, min(6, len(labels), int(12.5 * width) // (max(map(len, labels)) + 6)))


# ---------------------------------------------------------------------------- lines
def levels(axes: Axes, lines: Sequence[Line], x_label: str, y_label: str, *, log: bool) -> None:
    """Each of *lines* as points on a line, with a bar from low to high."""
    for number, line in enumerate(lines):
        known = np.isfinite(line.x) & np.isfinite(line.y)
        if not known.any():
            continue
        x, y = line.x[known], line.y[known]
        width = width_of(number, len(lines))
        axes.plot(x, y, marker="o", markersize=2.6 + width, linewidth=width,
                  label=named(line.label), **line.look)  # fmt: skip
        bars = np.isfinite(line.low[known]) & np.isfinite(line.high[known])
        if bars.any():
            low, high = line.low[known][bars], line.high[known][bars]
            axes.vlines(x[bars], low, high, colors=line.look["color"], linewidth=1.1, alpha=0.8)
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    values = np.concatenate([line.y for line in lines] or [np.empty(0)])
    if log and (values[np.isfinite(values)] > 0).all() and len(values):
        axes.set_yscale("log")
        plain_ticks(axes.yaxis)
    else:
        axes.set_ylim(0, max(1.04 * axes.get_ylim()[1], 1e-9))


def places(axes: Axes, at: Sequence[float], names: Sequence[str]) -> None:
    """Ticks *at* the values of an axis, on a log scale where they spread, as many as have room."""
    from matplotlib.ticker import NullLocator

    spread = at[0] > 0 and at[-1] > 8 * at[0]
    if spread:
        axes.set_xscale("log")
    where = np.log(at) if spread else np.asarray(at, float)
    span = float(where[-1] - where[0]) or 1.0
    kept, last = [], -1.0
    for place, name, tick in zip((where - where[0]) / span, names, at, strict=True):
        if place - last >= 0.02 * (2 + len(name)) or last < 0:
            kept.append((tick, name))
            last = float(place)
    axes.set_xticks([tick for tick, _ in kept], [name for _, name in kept])
    axes.xaxis.set_minor_locator(NullLocator())


def width_of(number: int, count: int) -> float:
    """Points across line *number* of *count*: what is drawn below is wider, so that lines that lie
    on each other all stay visible."""
    return 1.4 + 0.5 * (count - 1 - number) if count < 5 else 1.5


def cumulative(axes: Axes, lines: Sequence[Line], label: str) -> None:
    """Shares of requests at or below each value, over a log axis, each in its band."""
    for number, line in enumerate(lines):
        width = width_of(number, len(lines))
        axes.plot(line.x, line.y, linewidth=width, label=named(line.label), **line.look)
        if np.isfinite(line.low).all():
            axes.fill_between(line.x, line.low, line.high, color=line.look["color"], alpha=0.16,
                              linewidth=0)  # fmt: skip
    axes.set_xscale("log")
    plain_ticks(axes.xaxis)
    axes.set_xlabel(label)
    axes.set_ylabel("share of requests")
    axes.set_ylim(0, 1.005)


# ---------------------------------------------------------------------------- one run's course
def timeline(axes: Axes, shown: Sequence[Shown], column: str, label: str) -> None:
    """Mean of *column* over time bins, each iteration weighted by its length."""
    for number, one in enumerate(shown):
        rows = one.run.iterations("start_s", "duration_s", column)
        if not len(rows["start_s"]):
            continue
        edges = np.linspace(0.0, float((rows["start_s"] + rows["duration_s"]).max()), BINS + 1)
        middle = rows["start_s"] + rows["duration_s"] / 2
        time, _ = np.histogram(middle, edges, weights=rows["duration_s"])
        total, _ = np.histogram(middle, edges, weights=rows["duration_s"] * rows[column])
        mean = np.divide(total, time, out=np.zeros(BINS), where=time > 0)
        axes.plot((edges[:-1] + edges[1:]) / 2, mean, label=named(one.label),
                  linewidth=0.6 * width_of(number, len(shown)),
                  **one.look)  # fmt: skip
    axes.set_xlabel("simulated time (s)")
    axes.set_ylabel(label)
    axes.set_ylim(0, max(1.0, axes.get_ylim()[1]))


def by_batch(axes: Axes, shown: Sequence[Shown]) -> None:
    """Median length of a decode iteration by batch."""
    for number, one in enumerate(shown):
        rows = one.run.iterations("decode_requests", "duration_s", "kind")
        decode = rows["kind"] == "decode"
        batch, seconds = rows["decode_requests"][decode], rows["duration_s"][decode]
        sizes, counts = np.unique(batch, return_counts=True)
        sizes = sizes[counts >= 5]
        median = [np.median(seconds[batch == size]) * 1e3 for size in sizes]
        width = width_of(number, len(shown))
        axes.plot(sizes, median, linewidth=width, label=named(one.label), **one.look)
    axes.set_xlabel("requests decoding")
    axes.set_ylabel("decode iteration, median (ms)")
    axes.set_ylim(bottom=0)


_PARTS = (
    ("GPU busy, decode alone", "#0072b2"), ("GPU busy, with prompts", "#56b4e9"),
    ("gaps of the loop", "#e69f00"), ("no request", "#e0e0e0"),
)  # fmt: skip


_ON_PARTS = ("white", "#101010", "#101010", INK)
"""What numbers are written in on each part, in light and dark."""


def time_shares(run: Run) -> tuple[float, float, float, float]:
    """Shares of the run in which the GPU works on iterations that decode alone, on those with
    prompts, waits for its loop, and has no request.

    Beside a prefill partition the decode loop's gaps overlap the partition's work, so gaps are what
    is left of the time. Runs of old do not tell prompts apart: all their work is in the first.
    """
    seconds = float(run.summary["duration"]) * run.replicas or 1.0
    busy, idle = run.summary["loop_gpu_busy_s"] / seconds, run.summary["loop_idle_s"] / seconds
    prompts = run.summary.get("loop_gpu_busy_prefill_s", 0.0) / seconds
    return busy - prompts, prompts, max(0.0, 1.0 - busy - idle), idle


def bar_ticks(axes: Axes, names: Sequence[str]) -> None:
    """Names of bars from the top down, which stay slim where they are few."""
    axes.set_yticks(np.arange(len(names)), names)
    room = 0.5 + 0.25 * max(0, 4 - len(names))
    axes.set_ylim(len(names) - 1 + room, -room)


def stacked(axes: Axes, bars: Sequence[tuple[str, Sequence[Run]]]) -> None:
    """Mean over the runs of each bar of `time_shares`, in percent."""
    shares = np.array([np.mean([time_shares(run) for run in runs], axis=0) for _, runs in bars])
    at, left = np.arange(len(bars)), np.zeros(len(bars))
    apart = bool(shares[:, 1].any())
    for number, (label, colour) in enumerate(_PARTS):
        if number == 1 and not apart:
            continue
        label = label if number or apart else "GPU busy"
        share = 100 * shares[:, number]
        drawn = axes.barh(at, share, left=left, color=colour, edgecolor=PAPER, label=label,
                          linewidth=0.8, height=0.72)  # fmt: skip
        axes.bar_label(drawn, [f"{s:.1f}" if s >= 6 else "" for s in share], fontsize=8,
                       label_type="center", color=_ON_PARTS[number])  # fmt: skip
        left += share
    bar_ticks(axes, [name for name, _ in bars])
    axes.set_xlabel("share of the run (%)")
    axes.set_xlim(0, max(100.0, float(left.max())))
    axes.grid(visible=False)
