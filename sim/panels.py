"""What a figure shows on one pair of axes, from the runs it compares."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np

from .errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

# Okabe and Ito's palette: told apart by colour-blind readers and in grey.
COLOURS = {"host": "#d55e00", "graph": "#0072b2", "resident": "#009e73", "control": "#cc79a7"}
SPARE = ("#e69f00", "#56b4e9", "#000000", "#999999")
STYLES = ("-", "--", ":", "-.")
BINS = 160
MOST_INSIDE = 4
"""Curves that a legend inside its panel names."""


@dataclass(frozen=True)
class Run:
    """One run's folder, with the axes of its study."""

    folder: Path
    axes: dict[str, Any]
    summary: dict[str, Any]
    common: frozenset[tuple[str, str]] = frozenset()
    """Keys and values in maps on its axes of which names say nothing."""

    @property
    def series(self) -> str:
        """What its curve is called: every axis but the rate."""
        rest = {key: v for key, v in self.axes.items() if key != "trace.rate_scale"}
        return self.named(rest) or str(self.summary["loop_mode"])

    def named(self, axes: dict[str, Any]) -> str:
        """The values of *axes* in a few words.

        A part that is missing comes with its key; of a map, what other points have differently.
        """
        said = []
        for key, value in axes.items():
            name = key.rpartition(".")[2]
            if value is None:
                said.append(f"no {name}")
            elif isinstance(value, dict):
                apart = [leaf for leaf in leaves(value) if leaf not in self.common]
                if len(value) == 1 and apart and apart[0][1][-1:].isalpha():
                    apart = [(name, apart[0][1])]  # a size alone is that of the part
                said.append(" ".join(_worded(*leaf) for leaf in apart) or name)
            else:
                said.append(f"{value}")
        return ", ".join(said)

    @property
    def rate(self) -> float:
        """Requests a second that arrived."""
        return float(self.summary["requests_in"] / self.summary["duration"])

    @property
    def replicas(self) -> int:
        """GPUs that served them."""
        return len(self.summary.get("replicas", (None,)))

    def requests(self, *names: str) -> dict[str, np.ndarray]:
        """Columns of the finished requests."""
        table = columns_of(self.folder / "requests.parquet", (*names, "status"))
        done = table["status"] == "finished"
        return {name: table[name][done].astype(float) for name in names}

    def iterations(self, *names: str) -> dict[str, np.ndarray]:
        """Columns of the iterations."""
        return columns_of(self.folder / "iterations.parquet", names)


def _worded(key: str, value: str) -> str:
    """A name stands alone, a switch is its key, and a number comes with its key."""
    if value in ("True", "False"):
        return key if value == "True" else f"no {key}"
    return value if value[:1].isalpha() else f"{key} {value}"


def leaves(value: dict[str, Any]) -> list[tuple[str, str]]:
    """Last keys and values of a map and of those in it; a list counts as a value."""
    found: list[tuple[str, str]] = []
    for key, entry in value.items():
        found += leaves(entry) if isinstance(entry, dict) else [(key, f"{entry}")]
    return found


def shared(points: Sequence[dict[str, Any]]) -> frozenset[tuple[str, str]]:
    """What all maps on the axes of *points* have, of which there are at least two."""
    maps = [frozenset(leaves(v)) for axes in points for v in axes.values() if isinstance(v, dict)]
    if len(set(maps)) < 2:
        return frozenset()
    return frozenset.intersection(*maps)


def columns_of(path: Path, names: Sequence[str]) -> dict[str, np.ndarray]:
    """Columns of a Parquet file; `InputError` if it lacks them."""
    import pyarrow.parquet as pq

    if not path.is_file():
        raise InputError(f"{path}: no such file; figures need it (record.iterations: true)")
    try:
        table = pq.read_table(path, columns=list(names))
    except (OSError, ValueError, KeyError):
        raise InputError(f"{path}: is not a table of a run; delete the run and repeat it") from None
    return {name: table[name].to_numpy() for name in names}


def cdf(axes: Axes, runs: list[Run], column: str, label: str) -> None:
    """Share of finished requests at or below each value, over a log axis."""
    for number, run in enumerate(runs):
        values = np.sort(run.requests(column)[column])
        values = values[np.isfinite(values) & (values > 0)]
        if not len(values):
            continue
        at = np.unique(np.linspace(0, len(values) - 1, 600).astype(int))
        axes.plot(values[at], (at + 1) / len(values), **look(run, number))
    axes.set_xscale("log")
    plain_ticks(axes.xaxis)
    axes.set_xlabel(label)
    axes.set_ylim(0, 1)


_SUBS = ((1.7, (1.0, 1.5, 2.0, 3.0, 5.0, 7.0)), (2.6, (1.0, 2.0, 5.0)), (3.6, (1.0, 3.0)))
"""Digits with a tick on a log axis of at most so many decades."""


def plain_ticks(axis: Axis) -> None:
    """Plain numbers on a log axis with data instead of powers, so many as have room."""
    from matplotlib.ticker import LogLocator, NullFormatter

    low, high = axis.get_view_interval()
    decades = np.log10(high / low) if 0 < low < high else 0.0
    subs = next((subs for most, subs in _SUBS if decades <= most), (1.0,))
    axis.set_major_locator(LogLocator(subs=subs))
    axis.set_major_formatter("{x:,g}")
    axis.set_minor_formatter(NullFormatter())


def timeline(axes: Axes, runs: list[Run], column: str, label: str) -> None:
    """Mean of *column* over time bins, each iteration weighted by its length."""
    for number, run in enumerate(runs):
        rows = run.iterations("start_s", "duration_s", column)
        edges = np.linspace(0.0, float((rows["start_s"] + rows["duration_s"]).max()), BINS + 1)
        middle = rows["start_s"] + rows["duration_s"] / 2
        time, _ = np.histogram(middle, edges, weights=rows["duration_s"])
        total, _ = np.histogram(middle, edges, weights=rows["duration_s"] * rows[column])
        mean = np.divide(total, time, out=np.zeros(BINS), where=time > 0)
        axes.plot((edges[:-1] + edges[1:]) / 2, mean, **look(run, number, width=1.0))
    axes.set_xlabel("simulated time (s)")
    axes.set_ylabel(label)
    axes.set_ylim(bottom=0)


def stacked(axes: Axes, runs: list[Run]) -> None:
    """Share of the run in which the GPU works, waits for its loop, or has no request."""
    names = [run.series for run in runs]
    left = np.zeros(len(runs))
    parts = (("loop_gpu_busy_s", "GPU busy", 1.0), ("loop_gap_s", "gaps of the loop", 0.55),
             ("loop_idle_s", "no request", 0.12))  # fmt: skip
    duration = np.array([run.summary["duration"] * run.replicas for run in runs])
    colours = [_colour(run, number) for number, run in enumerate(runs)]
    for key, label, alpha in parts:
        seconds = np.array([run.summary[key] for run in runs])
        if key == "loop_gap_s":
            # Beside a prefill partition, the decode loop's gaps overlap the partition's work.
            busy, idle = (
                np.array([run.summary[k] for run in runs])
                for k in ("loop_gpu_busy_s", "loop_idle_s")
            )
            seconds = np.maximum(0.0, duration - busy - idle)
        share = 100 * seconds / duration
        bars = axes.barh(names, share, left=left, color=colours, alpha=alpha, edgecolor="white")
        axes.bar_label(bars, [f"{s:.1f}" if s >= 4 else "" for s in share], label_type="center",
                       fontsize=8, color="white" if alpha == 1.0 else "black")  # fmt: skip
        left += share
        axes.barh([names[0]], [0], color="0.35", alpha=alpha, label=label)
    axes.invert_yaxis()
    axes.set_xlabel("share of the run (%)")
    axes.set_xlim(0, max(100.0, float(left.max())))
    axes.grid(visible=False)
    # Below the labels, however tall the panel is.
    low = -0.5 / (axes.get_position().height * cast("Figure", axes.figure).get_figheight())
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, low), ncols=3, fontsize=8)


def legend(axes: Axes, loc: Literal["upper left", "lower right"]) -> None:
    """Names what *axes* shows: at *loc* in it, or beside the figure where that would hide it."""
    handles, _ = axes.get_legend_handles_labels()
    if len(handles) <= MOST_INSIDE:
        axes.legend(handles=handles, loc=loc)
        return
    figure = cast("Figure", axes.figure)
    columns = ceil(len(handles) / (5.5 * figure.get_figheight()))
    figure.set_figwidth(figure.get_figwidth() + 2.4 * columns)
    figure.legend(handles=handles, loc="outside right center", ncols=columns, fontsize=8)


def by_batch(axes: Axes, runs: list[Run]) -> None:
    """Median length of a decode iteration by batch."""
    for number, run in enumerate(runs):
        rows = run.iterations("decode_requests", "duration_s", "kind")
        decode = rows["kind"] == "decode"
        batch, seconds = rows["decode_requests"][decode], rows["duration_s"][decode]
        sizes, counts = np.unique(batch, return_counts=True)
        sizes = sizes[counts >= 5]
        median = [np.median(seconds[batch == size]) * 1e3 for size in sizes]
        axes.plot(sizes, median, **look(run, number))
    axes.set_xlabel("requests decoding")
    axes.set_ylabel("decode iteration, median (ms)")
    axes.set_ylim(bottom=0)
    legend(axes, "lower right")


def against_load(axes: Axes, runs: list[Run], key: str, label: str, log: bool = False) -> None:
    """*key* over output throughput, a point a rate."""
    for number, series in enumerate(dict.fromkeys(run.series for run in runs)):
        members = [run for run in runs if run.series == series and run.summary[key] is not None]
        members.sort(key=lambda run: run.rate)
        x = [run.summary["output_throughput"] for run in members]
        y = [run.summary[key] for run in members]
        if members:
            axes.plot(x, y, marker="o", markersize=3.5, **look(members[0], number))
    axes.set_xlabel("output tokens/s")
    axes.set_ylabel(label)
    axes.xaxis.set_major_formatter("{x:,.0f}")
    if log:
        axes.set_yscale("log")
        plain_ticks(axes.yaxis)
    else:
        axes.set_ylim(bottom=0)


def _colour(run: Run, number: int) -> str:
    mode = run.summary["loop_mode"]
    alone = run.series == mode
    return COLOURS.get(mode, SPARE[0]) if alone else (*COLOURS.values(), *SPARE)[number % 8]


def look(run: Run, number: int, width: float = 1.6) -> dict[str, Any]:
    """How the curve of *run*, the one of that *number*, is drawn."""
    return {"color": _colour(run, number), "label": run.series, "linewidth": width,
            "linestyle": STYLES[number // 8 % 4]}  # fmt: skip
