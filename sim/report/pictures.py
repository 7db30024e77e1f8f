"""Which figures a folder has, from what is in it: each says what it shows and how it is read.

One rule: a figure is there when its data is, and shows no more lines than can be told apart; what
it leaves out, its title says.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sim import map_panels, panels
from sim.pareto import pareto
from sim.plots import HALF, WHOLE, Picture
from sim.stats.baseline import RATES

from .courses import at_of, courses, recorded, reuse, single, times
from .lines import along, distribution, label_of, over, shown, ticks, values
from .maps import maps
from .searched import searched
from .stages import stages
from .words import plain

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from sim.runs import Cell

    from .view import View

INTERVAL = "Bars are {level:g} % confidence intervals"


def source(view: View) -> str:
    """What all figures rest on, in a line."""
    runs = view.results.runs
    models = _few((str(run.summary["model_id"]) for run in runs), "models")
    profiles = _few(
        (f"{run.summary['cost_profile']} ({run.summary['cost_profile_status']})" for run in runs),
        "GPU profiles",
    )
    estimated = any(run.summary["cost_estimated"] for run in runs)
    return f"Simulated, {models}, {profiles}{', some costs estimated' if estimated else ''}"


def _few(names: Iterable[str], word: str) -> str:
    """One or two *names*, or how many there are of the *word*."""
    found = list(dict.fromkeys(map(plain, names)))
    return " and ".join(found) if len(found) < 3 else f"{len(found)} {word}"


def pictures(view: View) -> list[Picture]:
    """All figures of *view*, in the order of the page."""
    if not view.cells:
        return []
    kept = all(recorded(cell.runs[0]) for cell in view.alike)
    return [
        *_overview(view, kept),
        *searched(view),
        *_load(view),
        *_along(view),
        *maps(view),
        *_front(view),
        *_latency(view),
        *times(view, kept),
        *(stages(view) if kept else ()),
        *reuse(view, kept),
        *(courses(view) if kept else ()),
    ]


# ---------------------------------------------------------------------------- one pair of axes
def _bars(view: View) -> str:
    return INTERVAL.format(level=100 * view.results.statistics.confidence)


# ---------------------------------------------------------------------------- the figures
def _latency(view: View) -> list[Picture]:
    found = []
    for column, label in (("ttft_ms", "TTFT (ms)"), ("tpot_ms", "TPOT (ms a token)")):
        lines = [distribution(view, cell, column) for cell in view.alike]
        lines = [line for line in lines if len(line.x)]
        if lines:
            found.append(
                Picture(
                    f"cdf-{column[:4]}",
                    f"{label.split(' ')[0]} of requests{at_of(view)}",
                    "Share of finished requests at or below each value; further left is better. "
                    + _bands(lines, view),
                    single(_cumulative(lines, label), alone=True),
                )
            )
    return found


def _cumulative(lines: Sequence[panels.Line], label: str) -> Callable[[Axes], None]:
    return lambda axes: panels.cumulative(axes, lines, label)


def _bands(lines: Sequence[panels.Line], view: View) -> str:
    if all(line.low[0] == line.low[0] for line in lines):
        return f"Bands are {100 * view.results.statistics.confidence:g} % confidence intervals."
    return "Too few requests for intervals."


def _load(view: View) -> list[Picture]:
    """Latency against throughput as the rate grows."""
    rate = view.along
    if rate not in RATES:
        return []
    found = []
    for metric, log in (("p99_ttft_ms", True), ("mean_tpot_ms", False)):
        facets = over(view, rate, "output_throughput", metric)
        if not facets:
            continue

        def draw(axes: Axes, lines: Sequence[panels.Line], metric: str = metric,
                 log: bool = log) -> None:  # fmt: skip
            panels.levels(axes, lines, "output tokens/s", label_of(view, metric), log=log)
            axes.xaxis.set_major_formatter("{x:,.0f}")

        says = f"A point a value of {rate.rpartition('.')[2]}, growing along each line; low and "
        says += f"right is better. {_bars(view)}."
        what = f"{label_of(view, metric, unit=False)} against throughput"
        found.append(_faceted(f"load-{metric.split('_')[1]}", what, says, facets, draw))
    return found


def _along(view: View) -> list[Picture]:
    """The main metrics over the axis of numbers."""
    axis = view.along
    if axis is None or len(view.axes[axis]) < 3:
        return []
    good = "request_goodput" if view.known("request_goodput") else "output_throughput"
    found = []
    latencies = () if axis in RATES else ("p99_ttft_ms", "mean_tpot_ms")
    for metric in (*latencies, good, "kv_prefix_hit_rate", "cost_per_mtok"):
        facets = along(view, axis, metric)
        if not facets:
            continue

        def draw(axes: Axes, lines: Sequence[panels.Line], metric: str = metric) -> None:
            log = metric == "p99_ttft_ms"
            panels.levels(axes, lines, plain(axis), label_of(view, metric), log=log)
            panels.places(axes, *ticks(view, axis))

        best = {"lower": " Lower is better.", "higher": " Higher is better."}
        says = f"{_bars(view)}.{best.get(view.metric(metric).better or '', '')}"
        what = f"{label_of(view, metric, unit=False)} over {plain(axis)}"
        found.append(_faceted(f"along-{metric.replace('.', '_')}", what, says, facets, draw))
    return found


def _faceted(
    name: str,
    title: str,
    says: str,
    facets: Sequence[tuple[str, list[panels.Line]]],
    draw: Callable[[Axes, Sequence[panels.Line]], None],
) -> Picture:
    """A picture with a pair of axes a facet, on the same scale; alone it is half a page."""

    def drawn(figure: Figure) -> None:
        grid = figure.subplots(1, len(facets), sharey=True, squeeze=False)[0]
        for axes, (of_facet, lines) in zip(grid, facets, strict=True):
            draw(axes, lines)
            axes.label_outer()
            axes.xaxis.set_tick_params(labelbottom=True)
            if len(facets) > 1:
                axes.set_title(of_facet, fontsize=9)
        most = max(range(len(facets)), key=lambda at: len(facets[at][1]))
        panels.legend_below(figure, grid[most], alone=True)

    if len(facets) == 1 and facets[0][0]:
        title += f", at {facets[0][0]}"
    count = max(len(lines) for _, lines in facets)
    wide = len(facets) > 1
    return Picture(
        name, title, says, drawn, (WHOLE if wide else HALF, 3.5 + 0.08 * max(0, count - 2))
    )


def _front(view: View) -> list[Picture]:
    """Cost, or latency where there are no prices, against what is served."""
    y = "request_goodput" if view.known("request_goodput") else "output_throughput"
    x = "cost_per_mtok" if view.known("cost_per_mtok") else "p99_ttft_ms"
    points = [(view.of(cell, x).value, view.of(cell, y).value) for cell in view.cells]
    known = [(i, (a, b)) for i, (a, b) in enumerate(points) if a is not None and b is not None]
    if len(known) < 3:
        return []
    front = pareto([point for _, point in known], ("lower", "higher"))
    best = sorted(known[i][1] for i in front)
    names = [view.name(view.cells[known[i][0]]) for i in front]
    groups = view.groups
    lines = [line for name, cells in groups for line in [_cloud(view, name, cells, x, y)]]
    log = x == "p99_ttft_ms" and all(a > 0 for _, (a, _) in known)

    def draw(axes: Axes) -> None:
        labels = label_of(view, x), label_of(view, y)
        map_panels.front(axes, lines, best, labels, log=log)

    says = "Up and left is better; nothing beats a point on the front in both. "
    says += f"{_bars(view)}. " if len(view.cells) <= map_panels.MOST_BARS else ""
    says += f"On the front: {'; '.join(names[:6])}"
    says += f" and {len(names) - 6} more." if len(names) > 6 else "."
    what = f"{label_of(view, y, unit=False)} against {label_of(view, x, unit=False)}"
    return [Picture("pareto", f"{what[0].upper()}{what[1:]}: every point", says, single(draw))]


def _cloud(view: View, name: str, cells: Sequence[Cell], x: str, y: str) -> panels.Line:
    return panels.Line(
        name, view.look(cells[0], cells), values(view, cells, x)[0], *values(view, cells, y)
    )


def _overview(view: View, kept: bool) -> list[Picture]:
    """The four that answer a question about loops and rates, in one file; not on the page."""
    rate = view.along
    if not kept or rate not in RATES:
        return []
    tpot, ttft = (over(view, rate, "output_throughput", m) for m in ("mean_tpot_ms", "p99_ttft_ms"))
    if not tpot or not ttft:
        return []
    bars = [(view.name(cell, view.alike_axes), cell.runs) for cell in view.alike]

    def draw(figure: Figure) -> None:
        (one, two), (three, four) = figure.subplots(2, 2)
        for axes, lines, metric, log in (
            (one, tpot[0][1], "mean_tpot_ms", False), (two, ttft[0][1], "p99_ttft_ms", True),
        ):  # fmt: skip
            panels.levels(axes, lines, "output tokens/s", label_of(view, metric), log=log)
            axes.xaxis.set_major_formatter("{x:,.0f}")
        panels.stacked(three, bars)
        three.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=3, fontsize=8)
        panels.timeline(four, shown(view), "decode_requests", "requests decoding")
        for axes in (three, four):
            axes.set_title(at_of(view).removeprefix(", "), fontsize=9)
        panels.legend_below(figure, one)

    name = plain(view.results.name)
    return [Picture("overview", f"Overview of {name}", "", draw, (WHOLE, 7.4), on_page=False)]
