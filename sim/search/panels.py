"""Figures of a search on matplotlib axes, from its document: capacity, probes, cost and goodput.

One function a pair of axes. What rests on an estimated profile is hatched or hollow and says so.
"""

from __future__ import annotations

import math
from functools import partial
from textwrap import fill
from typing import TYPE_CHECKING, Any

from sim.units import three_digits

from .outcome import good, operating_points
from .settings import is_time
from .tables import TITLES, answer

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from .outcome import Document

# Okabe and Ito's palette, told apart by colour-blind readers and in grey.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#999999")
MARKS = "osD^vP*X"
MOST_NAMED = 12
"""Configurations that a legend names."""


def label(entry: Mapping[str, Any]) -> str:
    """A configuration as figures call it."""
    return f"{entry['name']} (est.)" if entry["profile_status"] == "estimated" else entry["name"]


def capacity(axes: Axes, document: Document) -> None:
    """A bar a configuration up to its capacity, and a whisker to where limits broke."""
    entries = document["configurations"]
    path = next(iter(document["search"]["over"]))
    most = max([e["broken_at"] or 0 for e in entries] + [e["capacity"] or 0 for e in entries])
    for row, entry in enumerate(entries):
        low, high = entry["capacity"] or 0.0, entry["broken_at"]
        hatch = "//" if entry["profile_status"] == "estimated" else None
        colour = COLOURS[row % len(COLOURS)]
        axes.barh(row, low, color=colour, hatch=hatch, edgecolor="white", linewidth=0, height=0.62)
        if high is not None and entry["status"] == "found":
            axes.plot([low, high], [row, row], color="black", lw=1.2)
            axes.plot([high], [row], color="black", marker="|", ms=9)
        axes.annotate(
            _said(entry), (max(low, high or 0.0), row), (5, 0), textcoords="offset points",
            va="center", fontsize=8,
        )  # fmt: skip
    axes.set_yticks(range(len(entries)), [label(entry) for entry in entries])
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")
    axes.set_xlim(0, (most or 1.0) * 1.45)
    axes.set_xlabel(f"{path} at capacity; tick: where limits broke")


def _said(entry: Mapping[str, Any]) -> str:
    if entry["status"] == "below":
        return "none: broken at the lower end"
    if entry["capacity"] is None:
        return "not known: a probe failed"
    mark = {"above": "at least ", "failed": "at least "}.get(entry["status"], "")
    return f"{mark}{three_digits(entry['capacity'])}, {three_digits(entry['offered_per_s'])} req/s"


def probes(axes: Axes, document: Document, metric: str) -> None:
    """*metric* of every probe over the searched path, and its limit."""
    search = document["search"]
    path = next(iter(search["over"]))
    factor = 1e3 if is_time(metric) else 1.0
    for row, entry in enumerate(document["configurations"]):
        found = sorted(
            (probe["set"][path], probe["estimates"][metric]["value"] * factor)
            for probe in entry["probes"]
            if probe["estimates"].get(metric, {}).get("value") is not None
        )
        _curve(axes, row, entry, found)
    axes.axhline(search["subject_to"][metric] * factor, color="black", ls="--", lw=1, label="limit")
    logarithmic(axes)
    axes.set_xlabel(path)
    axes.set_ylabel(f"{metric} (ms)" if is_time(metric) else metric)


def _curve(
    axes: Axes, row: int, entry: Mapping[str, Any], points: Sequence[tuple[float, float]]
) -> None:
    """*points* of a configuration in its colour, hollow where its profile is estimated."""
    colour = COLOURS[row % len(COLOURS)]
    hollow = "none" if entry["profile_status"] == "estimated" else colour
    axes.plot(
        [x for x, _ in points], [y for _, y in points], color=colour, lw=1.2, ms=4.5,
        marker=MARKS[row % len(MARKS)], markerfacecolor=hollow, label=label(entry),
    )  # fmt: skip


def logarithmic(axes: Axes) -> None:
    """Logarithmic axes where all is positive, with plain numbers at 1, 2 and 5."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    (x0, y0), (x1, y1) = axes.dataLim.min, axes.dataLim.max
    for axis, least, most in ((axes.xaxis, x0, x1), (axes.yaxis, y0, y1)):
        if not 0.0 < least <= most < math.inf:
            continue
        axis.axes.set(**{f"{axis.axis_name}scale": "log"})
        axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axis.set_major_formatter(FuncFormatter(lambda value, _: three_digits(value)))
        axis.set_minor_formatter(NullFormatter())


def cost_and_goodput(axes: Axes, document: Document) -> None:
    """Every operating point within the limits, and the front that no other beats in both."""
    entries = document["configurations"]
    found = operating_points(entries)
    for row, entry in enumerate(entries):
        mine = [(goodput, cost) for i, _, cost, goodput in found if i == row]
        colour = COLOURS[row % len(COLOURS)]
        hollow = "none" if entry["profile_status"] == "estimated" else colour
        axes.scatter(
            [x for x, _ in mine], [y for _, y in mine], s=26, marker=MARKS[row % len(MARKS)],
            edgecolors=colour, facecolors=hollow, label=label(entry),
        )  # fmt: skip
    front = sorted((p["goodput_per_s"], p["cost_per_mtok"]) for p in document["pareto"])
    axes.plot(
        [x for x, _ in front], [y for _, y in front], drawstyle="steps-pre", color="black", lw=1,
        zorder=0, label="not beaten in both",
    )  # fmt: skip
    names = {good(p["estimates"])[1] for entry in entries for p in entry["probes"] if p["keeps"]}
    kind = "goodput" if names <= {"request_goodput"} else "throughput"
    logarithmic(axes)
    axes.set_xlabel(f"{kind} within the limits (requests/s)")
    axes.set_ylabel(f"{document['currency']} per million output tokens")


def rungs(axes: Axes, document: Document) -> None:
    """The goal of every configuration on each rung of a halving."""
    goal = document["search"]["goal"]
    metric = goal["maximize"] or goal["minimize"]
    factor = 1e3 if is_time(metric) else 1.0
    for row, entry in enumerate(document["configurations"]):
        found = [
            (probe["set"]["trace.requests"], probe["estimates"][metric]["value"] * factor)
            for probe in entry["probes"]
            if probe["estimates"].get(metric, {}).get("value") is not None
        ]
        _curve(axes, row, entry, found)
    axes.set_xscale("log")
    steps = document["search"]["halving"]["requests"]
    axes.set_xticks(steps, [f"{step:,}" for step in steps])
    axes.minorticks_off()
    axes.set_xlabel("requests of a rung's runs")
    axes.set_ylabel(f"{metric} (ms)" if is_time(metric) else metric)


# ---------------------------------------------------------------------------- whole figures
def draw(figure: Figure, document: Document) -> None:
    """All panels that the document has something for, on one figure; its caption is the answer."""
    panels: list[Any] = [rungs]
    if document["method"] == "capacity":
        limits = document["search"]["subject_to"]
        panels = [capacity, *(partial(probes, metric=metric) for metric in limits)]
    if document["pareto"]:
        panels.append(cost_and_goodput)
    panels = panels[:6]
    rows = -(-len(panels) // 2)
    tall = max(3.4, 1.2 + 0.3 * len(document["configurations"]))
    figure.set_size_inches(11.0, 0.5 + tall * rows)
    grid = list(figure.subplots(rows, min(2, len(panels)), squeeze=False).flat)
    for axes, panel in zip(grid, panels, strict=False):
        panel(axes, document)
    for axes in grid[len(panels) :]:
        axes.set_axis_off()
    named = grid[len(panels) - 1]
    if len(document["configurations"]) <= MOST_NAMED and named.get_legend_handles_labels()[0]:
        named.legend(fontsize=8)
    guessed = any(e["profile_status"] == "estimated" for e in document["configurations"])
    mark = "; hollow and hatched: estimated profiles" if guessed else ""
    figure.suptitle(f"{TITLES[document['method']]} (simulated{mark})")
    figure.supxlabel(fill(answer(document), 150), fontsize=9)


def draw_search(folder: Path, out: Path) -> list[Path]:
    """The figure of the search in a study's *folder*, SVG and PNG, into *out*; none without one."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    from sim.plots import STYLE
    from sim.trace.write import replacing

    from .outcome import read_probes

    document = read_probes(folder)
    if document is None:
        return []
    out.mkdir(parents=True, exist_ok=True)
    files = []
    with mpl.rc_context(STYLE):
        figure = Figure()
        draw(figure, document)
        for kind in ("svg", "png"):
            path = out / f"search.{kind}"
            metadata = {"Date": None} if kind == "svg" else {"Software": None}
            with replacing(path) as temporary:
                figure.savefig(temporary, format=kind, dpi=160, metadata=metadata)
            files.append(path)
    return files
