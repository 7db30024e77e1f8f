"""One picture a family of kernels: times with fit and floor, residuals, achieved bandwidth."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .style import DARK, GREY, empty, handle, kinds, legend_below, log_axes, looks

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from ..fit.samples import Point
    from .families import Family
    from .inputs import Evidence, Fit

MOST_SERIES = 8
LABELLED_ERROR = 0.05


def draw_family(figure: Figure, family: Family, evidence: Evidence) -> None:
    """Three panels: time against the natural axis, residuals, roofline position."""
    points = family.points(evidence)
    left, middle, right = figure.subplots(1, 3)
    series = _series(family, points)
    _times(left, family, evidence, series)
    shown_fits = family.fits(evidence)
    _residuals(middle, shown_fits)
    if family.roofline:
        _roofline(right, family, evidence, points)
    else:
        _rates(right, family, evidence, series)
    figure.suptitle(family.title)
    shapes = [
        handle(name, color=colour, marker=mark, linewidth=1.2, markersize=5)
        for name, colour, mark in looks([name for name, _ in series if name])
    ]
    wanted = ["training"] + ["held", "fit"] * bool(shown_fits)
    wanted += ["library"] * any(point.baselines for _, mine in series for point in mine)
    wanted += ["public"] * bool(_public(family, evidence, points)) + ["floor"]
    legend_below(figure, shapes + kinds(*wanted), 5)


def _series(family: Family, points: Sequence[Point]) -> list[tuple[str, list[Point]]]:
    """Points by the series they are drawn in, in the family's order; "" for the background."""
    found: dict[str, list[Point]] = {}
    for point in sorted(points, key=lambda p: (family.order(p), family.x(p))):
        found.setdefault(family.series(point), []).append(point)
    named = [(name, mine) for name, mine in found.items() if name][:MOST_SERIES]
    kept = {name for name, _ in named}
    rest = [point for name, mine in found.items() if name not in kept for point in mine]
    return ([("", rest)] if rest else []) + named


# ------------------------------------------------------------------------------ panels
def _times(
    axes: Axes, family: Family, evidence: Evidence, series: list[tuple[str, list[Point]]]
) -> None:
    axes.set_title("time")
    if not series:
        empty(axes, "no points")
        return
    for name, colour, mark, mine in _dressed(series):
        x = np.array([family.x(point) for point in mine])
        y = np.array([point.median * 1e6 for point in mine])
        _marked(axes, evidence, mine, x, y, colour, mark, bool(name))
        if name:
            _fit_line(axes, evidence, mine, x, colour)
    rows = _public(family, evidence, [point for _, mine in series for point in mine])
    axes.plot([x for x, _, _ in rows], [us for _, us, _ in rows], "x", color=DARK, markersize=4,
              zorder=2)  # fmt: skip
    if family.x_is_bytes:
        span = np.array([family.x(point) for _, mine in series for point in mine])
        ends = np.geomspace(span.min(), span.max(), 50)
        axes.plot(
            ends, ends * 1e6 / evidence.read.bytes_per_s * 1e6, "--", color="black", linewidth=1.0
        )
    # Far below the least time the floor says nothing.
    least = min(point.median for _, mine in series for point in mine) * 1e6
    most = max(point.median for _, mine in series for point in mine) * 1e6
    axes.set_ylim(least * 0.4, most * 1.6)
    log_axes(axes, family.x_label, "time of a call (us)")


def _residuals(axes: Axes, fits: Sequence[Fit]) -> None:
    axes.set_title("predicted / measured - 1")
    if not fits:
        empty(axes, "no fitted model")
        return
    for (_, colour, mark), fit in zip(looks([f.name for f in fits]), fits, strict=True):
        predicted, error = fit.predicted * 1e6, 100.0 * fit.error
        train = ~fit.held
        axes.plot(predicted[train], error[train], mark, color=colour, markersize=3, alpha=0.45,
                  markeredgewidth=0.0)  # fmt: skip
        axes.plot(predicted[fit.held], error[fit.held], mark, markerfacecolor="white",
                  markeredgecolor=colour, markersize=4.5)  # fmt: skip
    axes.axhspan(-5.0, 5.0, color=GREY, alpha=0.15, linewidth=0)
    axes.axhline(0.0, color="black", linewidth=0.8)
    worst = max(float(np.abs(100.0 * fit.error).max()) for fit in fits)
    held = np.concatenate([fit.error[fit.held] for fit in fits])
    span = max(15.0, 1.2 * worst)
    # Room for the text above and the models' names below.
    axes.set_ylim(-span * (1.0 + 0.09 * len(fits) * (len(fits) > 1)), span * 1.25)
    if len(held):
        size = 100.0 * np.abs(held)
        text = f"held out: median {np.median(size):.1f} %, p90 {np.quantile(size, 0.9):.1f} %"
        axes.text(0.5, 0.98, text, transform=axes.transAxes, ha="center", va="top", fontsize=8)
    log_axes(axes, "predicted time (us)")
    axes.set_ylabel("residual (%)")
    axes.yaxis.set_major_formatter("{x:+g}")
    if len(fits) > 1:
        for (name, colour, mark), _ in zip(looks([f.name for f in fits]), fits, strict=True):
            axes.plot([], [], mark, color=colour, markersize=4, label=name)
        axes.legend(loc="lower right", fontsize=7)


def _rates(
    axes: Axes, family: Family, evidence: Evidence, series: list[tuple[str, list[Point]]]
) -> None:
    axes.set_title("roofline position: bytes needed / time")
    if not series:
        empty(axes, "no points")
        return
    top = evidence.read.bytes_per_s / 1e12
    for name, colour, mark, mine in _dressed(series):
        x = np.array([family.x(point) for point in mine])
        y = np.array([point.bytes / point.median * 1e-12 for point in mine])
        _marked(axes, evidence, mine, x, y, colour, mark, bool(name))
        for point, at in zip(mine, x, strict=True):
            for times in point.baselines.values():
                rate = point.bytes / float(np.median(times)) * 1e-12
                axes.plot([at], [rate], "^", markerfacecolor="none", markersize=4, alpha=0.6,
                          markeredgecolor=colour if name else GREY)  # fmt: skip
    for at, _, public in _public(family, evidence, [p for _, mine in series for p in mine]):
        if public is not None:
            axes.plot([at], [public], "x", color=DARK, markersize=4)
    _ceiling(axes, top, "read", "--")
    if evidence.copy is not None:
        _ceiling(axes, evidence.copy.bytes_per_s / 1e12, "copy", ":")
    axes.set_ylim(0.0, max(top, axes.get_ylim()[1] / 1.05) * 1.08)
    log_axes(axes, family.x_label)
    axes.set_ylabel("TB/s")


def _roofline(axes: Axes, family: Family, evidence: Evidence, points: Sequence[Point]) -> None:
    """Achieved TFLOP/s over flops a byte, under the two roofs."""
    axes.set_title("roofline")
    points = [point for point in points if point.flops > 0.0 and point.bytes > 0.0]
    if not points:
        empty(axes, "no points")
        return
    for name, colour, mark, mine in _dressed(_series(family, points)):
        x = np.array([point.flops / point.bytes for point in mine])
        y = np.array([point.flops / point.median * 1e-12 for point in mine])
        _marked(axes, evidence, mine, x, y, colour, mark, bool(name))
    intensity = np.array([point.flops / point.bytes for point in points])
    span = np.geomspace(intensity.min(), intensity.max(), 80)
    axes.plot(span, span * evidence.read.bytes_per_s * 1e-12, "--", color="black", linewidth=1.0)
    for fit in family.fits(evidence)[:1]:
        if "flops_per_s" in fit.entry["parameters"]:
            rate = fit.entry["parameters"]["flops_per_s"] * 1e-12
            axes.axhline(rate, color="black", linewidth=1.0, linestyle=":")
            axes.text(intensity.max(), rate, f"{rate:.0f} TFLOP/s, fitted", va="bottom",
                      ha="right", fontsize=8)  # fmt: skip
    rates = [point.flops / point.median * 1e-12 for point in points]
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_ylim(min(rates) * 0.5, 2.0 * max(rates))
    log_axes(axes, "flops a byte", "TFLOP/s")


# ------------------------------------------------------------------------------ parts
def _dressed(
    series: list[tuple[str, list[Point]]],
) -> list[tuple[str, str, str, list[Point]]]:
    """Each series with its colour and mark; the background is grey dots."""
    named = [name for name, _ in series if name]
    look = {name: (colour, mark) for name, colour, mark in looks(named)}
    return [(name, *look.get(name, (GREY, ".")), mine) for name, mine in series]


def _marked(
    axes: Axes, evidence: Evidence, points: Sequence[Point], x: Any, y: Any, colour: str,
    mark: str, named: bool,
) -> None:  # fmt: skip
    """Marks, open where a point was held out of the fit."""
    held = np.array([bool((evidence.prediction(p) or (0.0, False))[1]) for p in points], bool)
    size = 4.5 if named else 3.5
    look: dict[str, Any] = {"linestyle": "", "marker": mark, "markersize": size}
    look |= {"alpha": 1.0 if named else 0.5, "zorder": 3 if named else 1}
    axes.plot(x[~held], y[~held], color=colour, markeredgewidth=0.0, **look)
    axes.plot(x[held], y[held], markerfacecolor="white", markeredgecolor=colour, **look)


def _fit_line(axes: Axes, evidence: Evidence, points: Sequence[Point], x: Any, colour: str) -> None:
    found = [evidence.prediction(point) for point in points]
    pairs = [(at, 1e6 * seen[0]) for at, seen in zip(x, found, strict=True) if seen is not None]
    if len(pairs) > 1:
        pairs.sort()
        axes.plot(*zip(*pairs, strict=True), color=colour, linewidth=1.2, zorder=2)


def _ceiling(axes: Axes, rate: float, word: str, line: str) -> None:
    axes.axhline(rate, color="black", linewidth=1.0, linestyle=line)
    axes.text(0.01, rate, f"{word} {rate:.2f}", transform=axes.get_yaxis_transform(),
              va="bottom" if word == "read" else "top", fontsize=8)  # fmt: skip


def _public(
    family: Family, evidence: Evidence, points: Sequence[Point]
) -> list[tuple[float, float, float | None]]:
    """(x, us, TB/s) of the best public row at the shape of each point that has one."""
    found = []
    for point in points:
        row = family.public(evidence.public, point) if family.public else None
        if row is not None:
            rate = point.bytes / row.seconds * 1e-12 if point.bytes else None
            found.append((family.x(point), row.seconds * 1e6, rate))
    return sorted(set(found), key=lambda item: (item[0], item[1]))


def draw_streams(figure: Figure, evidence: Evidence) -> None:
    """Bars: what each setting of a stream reaches, HBM read and copy, L2 read, a single block."""
    levels = (("hbm", ("read", "read_bulk")), ("hbm", ("copy",)), ("l2", ("read",)),
              ("one_block", ("read", "read_bulk")))  # fmt: skip
    titles = ("HBM, read only", "HBM, copy (read + write)", "L2, read", "HBM, a single block")
    grid = figure.subplots(1, 4)
    for axes, (level, ops), title in zip(grid, levels, titles, strict=True):
        points = [
            point
            for point in evidence.samples.of("streams")
            if point.axes.get("level") == level and point.axes.get("op") in ops
        ]
        points.sort(key=lambda point: point.bytes / point.median)
        axes.set_title(title)
        if not points:
            empty(axes, "no points")
            continue
        unit, scale = ("GB/s", 1e-9) if level == "one_block" else ("TB/s", 1e-12)
        bars = [(point.bytes / point.median * scale, _setting(point),
                 "#56b4e9" if point.axes["op"] == "read_bulk" else "#0072b2")
                for point in points]  # fmt: skip
        library = [(point.bytes / float(np.median(times)) * scale, f"{name}, library")
                   for point in points for name, times in point.baselines.items()]  # fmt: skip
        bars += [(*max(library), "#999999")] if library else []
        bars.sort()
        rates = [rate for rate, _, _ in bars]
        drawn = axes.barh(range(len(bars)), rates, color=[colour for _, _, colour in bars])
        axes.bar_label(drawn, [f"{rate:.3g}" for rate in rates], padding=2, fontsize=7)
        axes.set_yticks(range(len(bars)), [name for _, name, _ in bars], fontsize=7)
        axes.set_xlim(0, 1.22 * max(rates))
        axes.set_xlabel(unit)
        axes.grid(visible=False)
    figure.suptitle("Ceilings of this GPU, measured: plain loads dark, bulk copies to shared "
                    "memory light, library grey")  # fmt: skip


def _setting(point: Point) -> str:
    axes = point.axes
    if axes["op"] == "read_bulk":
        text = f"{axes['slots']} x {axes['slot_bytes'] >> 10} KiB ring"
        return text + (f", {axes['blocks_per_sm']}/SM" if axes["blocks_per_sm"] > 1 else "")
    if axes["level"] == "l2":
        return f"{axes['bytes'] >> 20} MiB"
    text = f"{axes['threads']} threads, {axes['loads']} loads"
    if axes["level"] == "one_block":
        return text
    if axes["op"] == "copy" and not axes["blocks_per_sm"]:
        return f"a tile a block, {text}"
    fetch = f", fetch {axes['fetch']}" if "fetch" in axes else ""
    return f"{axes['blocks_per_sm']}/SM, {axes['loads']} loads{fetch}"
