"""Figures from results folders, as SVG and PNG; same results, same bytes.

One function a figure: it takes runs and draws on axes. What was simulated says so in its title.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from .errors import InputError
from .result import read_json

if TYPE_CHECKING:
    from pathlib import Path

    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

# Okabe and Ito's palette: told apart by colour-blind readers and in grey.
COLOURS = {"host": "#d55e00", "graph": "#0072b2", "resident": "#009e73"}
SPARE = ("#cc79a7", "#e69f00", "#56b4e9", "#000000", "#999999")
STYLES = ("-", "--", ":", "-.")
STYLE: dict[Any, Any] = {
    "svg.hashsalt": "residentsim",
    "svg.fonttype": "none",
    "font.size": 9.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "legend.frameon": False,
    "figure.constrained_layout.use": True,
}
BINS = 160


@dataclass(frozen=True)
class Run:
    """One run's folder, with the axes of its study."""

    folder: Path
    axes: dict[str, Any]
    summary: dict[str, Any]

    @property
    def series(self) -> str:
        """What its curve is called: every axis but the rate."""
        names = [f"{v}" for k, v in self.axes.items() if k != "trace.rate_scale"]
        return ", ".join(names) or str(self.summary["loop_mode"])

    @property
    def rate(self) -> float:
        """Requests a second that arrived."""
        return float(self.summary["requests_in"] / self.summary["duration"])

    def requests(self, *names: str) -> dict[str, np.ndarray]:
        """Columns of the finished requests."""
        table = _columns(self.folder / "requests.parquet", (*names, "status"))
        done = table["status"] == "finished"
        return {name: table[name][done].astype(float) for name in names}

    def iterations(self, *names: str) -> dict[str, np.ndarray]:
        """Columns of the iterations."""
        return _columns(self.folder / "iterations.parquet", names)


def _columns(path: Path, names: Sequence[str]) -> dict[str, np.ndarray]:
    import pyarrow.parquet as pq

    if not path.is_file():
        raise InputError(f"{path}: no such file; figures need it (record.iterations: true)")
    table = pq.read_table(path, columns=list(names))
    return {name: table[name].to_numpy() for name in names}


# ---------------------------------------------------------------------------- what to draw
def draw_run(folder: Path, out: Path) -> list[Path]:
    """The figures of one run into *out*; returns the files."""
    runs = [Run(folder, {}, read_json(folder / "summary.json"))]
    return _draw_all(runs, runs, out, (("latency", latency), ("time", over_time), ("gpu", gpu)))


def draw_study(folder: Path, out: Path) -> list[Path]:
    """The figures of a study into *out*; returns the files."""
    points = read_json(folder / "study.json").get("points", [])
    runs = []
    for point in points:
        place = folder / "points" / point["id"]
        runs.append(Run(place, point["axes"], read_json(place / "summary.json")))
    if not runs:
        raise InputError(f"{folder}: holds no points; run `residentsim sweep` first")
    figures: list[tuple[str, Drawing]] = [("latency", latency), ("time", over_time), ("gpu", gpu)]
    if any("trace.rate_scale" in run.axes for run in runs):
        figures += [("load", load), ("overview", overview)]
    return _draw_all(runs, _like_load(runs), out, tuple(figures))


def _like_load(runs: list[Run]) -> list[Run]:
    """One run a series, all at the same rate scale: the middle one of the study."""
    scales = sorted({run.axes.get("trace.rate_scale", 1.0) for run in runs})
    middle = scales[len(scales) // 2]
    return [run for run in runs if run.axes.get("trace.rate_scale", 1.0) == middle]


Drawing = Callable[["Figure", list[Run], list[Run]], None]


def _draw_all(
    runs: list[Run], alike: list[Run], out: Path, figures: tuple[tuple[str, Drawing], ...]
) -> list[Path]:
    import matplotlib as mpl
    from matplotlib.figure import Figure

    out.mkdir(parents=True, exist_ok=True)
    files = []
    with mpl.rc_context(STYLE):
        for name, draw in figures:
            figure = Figure(figsize=(9.6, 7.4) if name == "overview" else (9.6, 3.6))
            draw(figure, runs, alike)
            for kind in ("svg", "png"):
                path = out / f"{name}.{kind}"
                metadata = {"Date": None} if kind == "svg" else {"Software": None}
                figure.savefig(path, dpi=160, metadata=metadata)
                files.append(path)
    return files


# ---------------------------------------------------------------------------- figures
def latency(figure: Figure, runs: list[Run], alike: list[Run]) -> None:
    """CDFs of TTFT and TPOT, a curve a series."""
    left, right = figure.subplots(1, 2, sharey=True)
    cdf(left, alike, "ttft_ms", "TTFT (ms)")
    cdf(right, alike, "tpot_ms", "TPOT (ms a token)")
    left.set_ylabel("share of requests")
    left.legend(loc="lower right")
    figure.suptitle(_title("Latency", alike))


def over_time(figure: Figure, runs: list[Run], alike: list[Run]) -> None:
    """Decoding and waiting requests over simulated time."""
    left, right = figure.subplots(1, 2)
    timeline(left, alike, "decode_requests", "requests decoding")
    timeline(right, alike, "waiting", "requests waiting")
    left.legend(loc="upper left")
    figure.suptitle(_title("Batch and queue", alike))


def gpu(figure: Figure, runs: list[Run], alike: list[Run]) -> None:
    """Where the time goes: stacked shares, and the length of a decode iteration by batch."""
    left, right = figure.subplots(1, 2)
    stacked(left, alike)
    by_batch(right, alike)
    figure.suptitle(_title("GPU time", alike))


def load(figure: Figure, runs: list[Run], alike: list[Run]) -> None:
    """Latency against throughput as the rate grows, a curve a series."""
    left, right = figure.subplots(1, 2)
    against_load(left, runs, "p99_ttft_ms", "TTFT p99 (ms)", log=True)
    against_load(right, runs, "mean_tpot_ms", "TPOT mean (ms a token)")
    left.legend(loc="upper left")
    figure.suptitle(_title("Latency against throughput", runs))


def overview(figure: Figure, runs: list[Run], alike: list[Run]) -> None:
    """The four that answer the question, on one page."""
    (top_left, top_right), (low_left, low_right) = figure.subplots(2, 2)
    against_load(top_left, runs, "mean_tpot_ms", "TPOT mean (ms a token)")
    against_load(top_right, runs, "p99_ttft_ms", "TTFT p99 (ms)", log=True)
    stacked(low_left, alike)
    timeline(low_right, alike, "decode_requests", "requests decoding")
    top_left.legend(loc="upper left")
    low_left.set_title(f"at {alike[0].rate:.1f} requests/s", fontsize=9)
    low_right.set_title(f"at {alike[0].rate:.1f} requests/s", fontsize=9)
    figure.suptitle(_title("Three decode loops, one GPU", runs))


# ---------------------------------------------------------------------------- on one pair of axes
def cdf(axes: Axes, runs: list[Run], column: str, label: str) -> None:
    """Share of finished requests at or below each value, over a log axis."""
    for number, run in enumerate(runs):
        values = np.sort(run.requests(column)[column])
        values = values[np.isfinite(values) & (values > 0)]
        if not len(values):
            continue
        at = np.unique(np.linspace(0, len(values) - 1, 600).astype(int))
        axes.plot(values[at], (at + 1) / len(values), **_look(run, number))
    axes.set_xscale("log")
    plain_ticks(axes.xaxis)
    axes.set_xlabel(label)
    axes.set_ylim(0, 1)


def plain_ticks(axis: Axis) -> None:
    """Plain numbers on a log axis instead of powers."""
    from matplotlib.ticker import LogLocator, NullFormatter

    axis.set_major_locator(LogLocator(subs=(1.0, 1.5, 2.0, 3.0, 5.0, 7.0)))
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
        axes.plot((edges[:-1] + edges[1:]) / 2, mean, **_look(run, number, width=1.0))
    axes.set_xlabel("simulated time (s)")
    axes.set_ylabel(label)
    axes.set_ylim(bottom=0)


def stacked(axes: Axes, runs: list[Run]) -> None:
    """Share of the run in which the GPU works, waits for its loop, or has no request."""
    names = [run.series for run in runs]
    left = np.zeros(len(runs))
    parts = (("loop_gpu_busy_s", "GPU busy", 1.0), ("loop_gap_s", "gaps of the loop", 0.55),
             ("loop_idle_s", "no request", 0.12))  # fmt: skip
    duration = np.array([run.summary["duration"] for run in runs])
    colours = [_colour(run, number) for number, run in enumerate(runs)]
    for key, label, alpha in parts:
        share = 100 * np.array([run.summary[key] for run in runs]) / duration
        bars = axes.barh(names, share, left=left, color=colours, alpha=alpha, edgecolor="white")
        axes.bar_label(bars, [f"{s:.1f}" if s >= 4 else "" for s in share], label_type="center",
                       fontsize=8, color="white" if alpha == 1.0 else "black")  # fmt: skip
        left += share
        axes.barh([names[0]], [0], color="0.35", alpha=alpha, label=label)
    axes.invert_yaxis()
    axes.set_xlabel("share of the run (%)")
    axes.set_xlim(0, max(100.0, float(left.max())))
    axes.grid(visible=False)
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=3, fontsize=8)


def by_batch(axes: Axes, runs: list[Run]) -> None:
    """Median length of a decode iteration by batch."""
    for number, run in enumerate(runs):
        rows = run.iterations("decode_requests", "duration_s", "kind")
        decode = rows["kind"] == "decode"
        batch, seconds = rows["decode_requests"][decode], rows["duration_s"][decode]
        sizes, counts = np.unique(batch, return_counts=True)
        sizes = sizes[counts >= 5]
        median = [np.median(seconds[batch == size]) * 1e3 for size in sizes]
        axes.plot(sizes, median, **_look(run, number))
    axes.set_xlabel("requests decoding")
    axes.set_ylabel("decode iteration, median (ms)")
    axes.set_ylim(bottom=0)
    axes.legend(loc="lower right")


def against_load(axes: Axes, runs: list[Run], key: str, label: str, log: bool = False) -> None:
    """*key* over output throughput, a point a rate."""
    for number, series in enumerate(dict.fromkeys(run.series for run in runs)):
        members = [run for run in runs if run.series == series and run.summary[key] is not None]
        members.sort(key=lambda run: run.rate)
        x = [run.summary["output_throughput"] for run in members]
        y = [run.summary[key] for run in members]
        if members:
            axes.plot(x, y, marker="o", markersize=3.5, **_look(members[0], number))
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
    return COLOURS[mode] if alone else (*COLOURS.values(), *SPARE)[number % 8]


def _look(run: Run, number: int, width: float = 1.6) -> dict[str, Any]:
    return {"color": _colour(run, number), "label": run.series, "linewidth": width,
            "linestyle": STYLES[number // 8 % 4]}  # fmt: skip


def _title(what: str, runs: list[Run]) -> str:
    """*what*, and what it rests on."""
    first = runs[0].summary
    said = f"{what}: {first['model_id']}, {first['cost_profile']}, simulated"
    rates = [run.rate for run in runs]
    if max(rates) < 1.02 * min(rates):
        said += f", {runs[0].rate:.1f} requests/s"
    estimated = ", partly estimated costs" if first["cost_estimated"] else ""
    return f"{said} ({first['cost_profile_status']} profile{estimated})"
