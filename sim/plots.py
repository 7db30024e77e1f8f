"""Figures from results folders, as SVG and PNG; same results, same bytes.

One function a figure: it takes runs and draws on axes. What was simulated says so in its title.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from . import curve_panels, reuse_panels, tier_panels
from .errors import InputError
from .panels import Run, against_load, by_batch, cdf, legend, shared, stacked, timeline
from .result import read_json, read_summary
from .trace.write import replacing

if TYPE_CHECKING:
    from pathlib import Path

    from matplotlib.figure import Figure

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


# ---------------------------------------------------------------------------- what to draw
def draw_run(folder: Path, out: Path) -> list[Path]:
    """The figures of one run into *out*; returns the files."""
    runs = [Run(folder, {}, read_summary(folder))]
    figures: list[tuple[str, Drawing]] = [("latency", latency), ("time", over_time), ("gpu", gpu)]
    if tier_panels.keeps(runs[0]):
        figures.append(("tiers", tiers))
    return _draw_all(runs, runs, out, tuple(figures))


def draw_study(folder: Path, out: Path) -> list[Path]:
    """The figures of a study into *out*; returns the files."""
    points = _points(folder)
    common = shared([axes for _, axes in points])
    runs = [
        Run(folder / "points" / name, axes, read_summary(folder / "points" / name), common)
        for name, axes in points
    ]
    figures: list[tuple[str, Drawing]] = [("latency", latency), ("time", over_time), ("gpu", gpu)]
    if any("trace.rate_scale" in run.axes for run in runs):
        figures += [("load", load), ("overview", overview)]
    if all(tier_panels.keeps(run) for run in runs):
        figures.append(("reuse", reuse))
    if curve_panels.swept(runs) is not None:
        figures.append(("curve", curve))
    return _draw_all(runs, _alike(runs), out, tuple(figures))


def _points(folder: Path) -> list[tuple[str, dict[str, Any]]]:
    """Folder names and axes of a study's points."""
    points = read_json(folder / "study.json").get("points")
    try:
        found = [(point["id"], dict(point["axes"])) for point in points or ()]
        safe = all(re.fullmatch(r"[0-9a-f]+-[0-9a-f]+", name) for name, _ in found)
    except (TypeError, ValueError, KeyError):
        safe = False
    if not safe:
        raise InputError(f"{folder}/study.json: is damaged; run `residentsim sweep` again")
    if not found:
        raise InputError(f"{folder}: holds no points; run `residentsim sweep` first")
    return found


def _alike(runs: list[Run]) -> list[Run]:
    """One run a series: all at the middle of the axis of numbers, or of the rate scales."""
    how = curve_panels.swept(runs)
    if how is not None:
        return curve_panels.middle(runs, how)
    scales = sorted({run.axes.get("trace.rate_scale", 1.0) for run in runs})
    middle = scales[len(scales) // 2]
    return [run for run in runs if run.axes.get("trace.rate_scale", 1.0) == middle]


Drawing = Callable[["Figure", list[Run], list[Run]], None]


def _draw_all(
    runs: list[Run], alike: list[Run], out: Path, figures: tuple[tuple[str, Drawing], ...]
) -> list[Path]:
    import matplotlib as mpl
    from matplotlib.figure import Figure

    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{out}: cannot be written: {error.strerror}") from None
    files = []
    with mpl.rc_context(STYLE):
        for name, draw in figures:
            figure = Figure(figsize=(9.6, _height(name, alike)))
            draw(figure, runs, alike)
            for kind in ("svg", "png"):
                path = out / f"{name}.{kind}"
                metadata = {"Date": None} if kind == "svg" else {"Software": None}
                with replacing(path) as temporary:
                    figure.savefig(temporary, format=kind, dpi=160, metadata=metadata)
                files.append(path)
    return files


def _height(name: str, alike: list[Run]) -> float:
    """Inches of a figure; more where it has two rows, or each run a bar of its own."""
    if name == "overview":
        return 7.4
    if name == "curve":
        return 6.6
    return max(3.6, 1.6 + 0.26 * len(alike)) if name in ("gpu", "reuse") else 3.6


# ---------------------------------------------------------------------------- figures
def latency(figure: Figure, runs: list[Run], alike: list[Run]) -> None:
    """CDFs of TTFT and TPOT, a curve a series."""
    left, right = figure.subplots(1, 2, sharey=True)
    cdf(left, alike, "ttft_ms", "TTFT (ms)")
    cdf(right, alike, "tpot_ms", "TPOT (ms a token)")
    left.set_ylabel("share of requests")
    legend(left, "lower right")
    figure.suptitle(_title("Latency", alike))


def over_time(figure: Figure, runs: list[Run], alike: list[Run]) -> None:
    """Decoding and waiting requests over simulated time."""
    left, right = figure.subplots(1, 2)
    timeline(left, alike, "decode_requests", "requests decoding")
    timeline(right, alike, "waiting", "requests waiting")
    legend(left, "upper left")
    figure.suptitle(_title("Batch and queue", alike))


def gpu(figure: Figure, runs: list[Run], alike: list[Run]) -> None:
    """Where the time goes: stacked shares, and the length of a decode iteration by batch."""
    left, right = figure.subplots(1, 2)
    stacked(left, alike)
    by_batch(right, alike)
    figure.suptitle(_title("GPU time", alike))


def tiers(figure: Figure, runs: list[Run], alike: list[Run]) -> None:
    """Where KV was, what moved it, who waited for it, and what it saved, over simulated time."""
    run = alike[0]
    panels = tier_panels.panels(run)
    rows = -(-len(panels) // 2)
    figure.set_size_inches(9.6, 0.3 + 3.2 * rows)
    grid = figure.add_gridspec(rows, 2)
    for number, panel in enumerate(panels):
        row, column = divmod(number, 2)
        alone = column == 0 and number == len(panels) - 1
        panel(figure.add_subplot(grid[row, :] if alone else grid[row, column]), run)
    figure.suptitle(_title("KV over the tiers", alike))


def reuse(figure: Figure, runs: list[Run], alike: list[Run]) -> None:
    """What the prefix cache saved, and by the size of a tier where a study varies one."""
    tier = reuse_panels.swept_tier(alike)
    if tier is None:
        reuse_panels.sources(figure.subplots(), alike)
    else:
        left, middle, right = figure.subplots(1, 3, width_ratios=(1.0, 1.0, 1.1))
        curves = reuse_panels.against_size(left, alike, tier, "saved")
        reuse_panels.against_size(middle, alike, tier, "ttft")
        reuse_panels.sources(right, alike)
        if curves:
            figure.legend(handles=curves, loc="outside lower left", ncols=6, fontsize=8)
    figure.suptitle(_title("Prefix reuse", alike))


def load(figure: Figure, runs: list[Run], alike: list[Run]) -> None:
    """Latency against throughput as the rate grows, a curve a series."""
    left, right = figure.subplots(1, 2)
    against_load(left, runs, "p99_ttft_ms", "TTFT p99 (ms)", log=True)
    against_load(right, runs, "mean_tpot_ms", "TPOT mean (ms a token)")
    legend(left, "upper left")
    figure.suptitle(_title("Latency against throughput", runs))


def curve(figure: Figure, runs: list[Run], alike: list[Run]) -> None:
    """Time a token and throughput over the axis of numbers, a line a value of another axis."""
    how = curve_panels.swept(runs)
    assert how is not None, "a study without an axis of numbers has no such figure"
    values = how.panel_values(runs)
    good = how.along == "trace.rate_scale" and runs[0].summary["request_goodput"] is not None
    below = ("request_goodput", "requests/s that keep the limits")
    rows = (
        ("median_tpot_ms", "TPOT median (ms a token)"),
        below if good else ("output_throughput", "output tokens/s"),
    )
    grid = figure.subplots(2, len(values), squeeze=False, sharex=True, sharey="row")
    for row, (key, label) in zip(grid, rows, strict=True):
        for axes, value in zip(row, values, strict=True):
            curve_panels.lines(axes, how.of_panel(runs, value), how, key, label)
            axes.label_outer()
        row[0].set_ylim(bottom=0)
    for axes, value in zip(grid[0], values, strict=True):
        if how.panels is not None:
            axes.set_title(how.title(runs[0], value), fontsize=9)
    handles, labels = grid[0, 0].get_legend_handles_labels()
    if labels:
        named = ", ".join(key.removeprefix("speculation.") for key in how.lines)
        ncols = curve_panels.columns(labels)
        figure.legend(handles, labels, loc="outside lower center", ncols=ncols, title=named)
    figure.suptitle(_title("Over " + how.along, runs))


def overview(figure: Figure, runs: list[Run], alike: list[Run]) -> None:
    """The four that answer the question, on one page."""
    (top_left, top_right), (low_left, low_right) = figure.subplots(2, 2)
    against_load(top_left, runs, "mean_tpot_ms", "TPOT mean (ms a token)")
    against_load(top_right, runs, "p99_ttft_ms", "TTFT p99 (ms)", log=True)
    stacked(low_left, alike)
    timeline(low_right, alike, "decode_requests", "requests decoding")
    legend(top_left, "upper left")
    low_left.set_title(f"at {alike[0].rate:.1f} requests/s", fontsize=9)
    low_right.set_title(f"at {alike[0].rate:.1f} requests/s", fontsize=9)
    figure.suptitle(_title("Overview", runs))


def _title(what: str, runs: list[Run]) -> str:
    """*what*, and what it rests on."""
    first = runs[0].summary
    models = list(dict.fromkeys(run.summary["model_id"] for run in runs))
    named = " and ".join(models) if len(models) < 3 else f"{len(models)} models"
    said = f"{what}: {named}, {first['cost_profile']}, simulated"
    rates = [run.rate for run in runs]
    if max(rates) < 1.02 * min(rates):
        said += f", {runs[0].rate:.1f} requests/s"
    estimated = ", partly estimated costs" if first["cost_estimated"] else ""
    return f"{said} ({first['cost_profile_status']} profile{estimated})"
