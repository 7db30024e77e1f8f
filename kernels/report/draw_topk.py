"""The picture of the page selection: its time hangs on the scores, so they are the axis."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .style import GREY, empty, handle, kinds, legend_below, log_axes, looks

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from ..fit.samples import Point
    from .inputs import Evidence

ROWS, BUDGET = 128, 128
TARGET_US = 4.0
PUBLIC_OP, PUBLIC_MODES = "topk_transform", (("v2_top_last", "peaked"), ("v2_flat", "flat"))


def draw_topk(figure: Figure, evidence: Evidence) -> None:
    """Time by distribution, over pages, over rows, and residuals by distribution."""
    every = [p for p in evidence.samples.of("topk_select") if not p.axes.get("cold")]
    names = _distributions(every)
    first, second, third, fourth = figure.subplots(1, 4)
    _shapes(first, every, names)
    _over(second, every, names, "pages", "rows", ROWS, evidence)
    pages = _most_common(every, "pages")
    _over(third, every, names, "rows", "pages", pages, None)
    _residuals(fourth, evidence, every, names)
    figure.suptitle(
        f"Page selection: {BUDGET} pages kept, scores warm in L2, by distribution of the scores"
    )
    shapes = [
        handle(name, color=colour, marker=mark, linewidth=1.2, markersize=5)
        for name, colour, mark in looks(names)
    ]
    held = ["held"] if any(evidence.prediction(point) for point in every) else []
    public = [
        handle(f"public v2 kernel, {word} scores, k 512 or 1024: not measured by us",
               color="black", linestyle=line, linewidth=1.0, marker="x", markersize=4)
        for (_, word), line in zip(PUBLIC_MODES, (":", "-."), strict=True)
    ]  # fmt: skip
    shown = public if any(_public(evidence, mode) for mode, _ in PUBLIC_MODES) else []
    target = handle(f"target {TARGET_US:g} us, 2k to 8k pages", color="black", linestyle="--")
    torch = handle("torch.topk, same run, not sorted by page", color="black", marker="^",
                   linestyle="", markerfacecolor="white", markersize=4)  # fmt: skip
    legend_below(figure, shapes + kinds("training", *held) + [torch, target, *shown], 5)


def _distributions(points: list[Point]) -> list[str]:
    """Distributions from the fastest to the slowest, by the median over their points."""
    times: dict[str, list[float]] = {}
    for point in points:
        times.setdefault(str(point.axes["scores"]), []).append(point.median)
    return sorted(times, key=lambda name: (float(np.median(times[name])), name))


def _shapes(axes: Axes, points: list[Point], names: list[str]) -> None:
    """Time at the target's shapes, a column a page count; torch.topk as triangles."""
    axes.set_title(f"{ROWS} rows (16 requests x 8 heads)")
    mine = [p for p in points if p.axes["rows"] == ROWS and p.axes["budget"] == BUDGET]
    counts = sorted({int(p.axes["pages"]) for p in mine})
    if not counts:
        empty(axes, "no points")
        return
    step = 0.8 / len(names)
    for index, (name, colour, mark) in enumerate(looks(names)):
        for point in mine:
            if point.axes["scores"] == name:
                at = counts.index(point.axes["pages"]) + (index - (len(names) - 1) / 2) * step
                axes.plot(at, point.median * 1e6, mark, color=colour, markersize=5)
                for times in point.baselines.values():
                    axes.plot(at, float(np.median(times)) * 1e6, "^", color="black",
                              markersize=4, markerfacecolor="white")  # fmt: skip
    axes.axhline(TARGET_US, color="black", linestyle="--", linewidth=1.0)
    axes.set_xticks(range(len(counts)), [f"{count:,}" for count in counts])
    axes.set_xlabel("pages a row")
    log_axes(axes, y="time of a call (us)")
    axes.grid(visible=False, axis="x")


def _most_common(points: list[Point], axis: str) -> int:
    """The value of *axis* with the most different other axis values."""
    seen: dict[int, set[int]] = {}
    for point in points:
        if point.axes["budget"] == BUDGET:
            seen.setdefault(int(point.axes[axis]), set()).add(int(point.axes["rows"]))
    return max(seen, key=lambda value: (len(seen[value]), value), default=0)


def _over(
    axes: Axes, points: list[Point], names: list[str], x: str, fixed: str, value: int,
    evidence: Evidence | None,
) -> None:  # fmt: skip
    axes.set_title(f"over {x}: {value:,} {fixed}")
    shown = False
    for name, colour, mark in looks(names):
        mine = [
            p
            for p in points
            if p.axes[fixed] == value and p.axes["budget"] == BUDGET and p.axes["scores"] == name
        ]
        mine.sort(key=lambda p: float(p.axes[x]))
        if mine:
            shown = True
            axes.plot([p.axes[x] for p in mine], [p.median * 1e6 for p in mine], marker=mark,
                      color=colour, markersize=4, linewidth=1.2)  # fmt: skip
    if not shown:
        empty(axes, "no points")
        return
    if evidence is not None:
        low, high = axes.get_xlim()
        for (mode, _), line in zip(PUBLIC_MODES, (":", "-."), strict=True):
            rows = [(at, us) for at, us in _public(evidence, mode) if low <= at <= high]
            axes.plot([at for at, _ in rows], [us for _, us in rows], line, marker="x",
                      color="black", linewidth=1.0, markersize=4)  # fmt: skip
    log_axes(axes, f"{x} a row" if x == "pages" else "rows (requests x heads)",
             "time of a call (us)")  # fmt: skip
    seen = sorted({int(p.axes[x]) for p in points if p.axes[fixed] == value})
    axes.set_xticks(seen, [f"{place:,}" for place in seen], minor=False)
    axes.set_xticks([], minor=True)


def _public(evidence: Evidence, mode: str) -> list[tuple[float, float]]:
    """(candidates, least us) of the public selection at the batch next below `ROWS`."""
    found: dict[float, float] = {}
    for row in evidence.public.all(PUBLIC_OP, mode=mode):
        if row.axes.get("batch") in (64.0, 128.0) and "ctx" in row.axes:
            # Its scores are of 4:1 compressed entries; ctx counts those candidates.
            us = row.seconds * 1e6
            found[row.axes["ctx"]] = min(us, found.get(row.axes["ctx"], us))
    return sorted(found.items())


def _residuals(axes: Axes, evidence: Evidence, points: list[Point], names: list[str]) -> None:
    axes.set_title("predicted / measured - 1")
    found = [(p, evidence.prediction(p)) for p in points]
    known = [(p, 100.0 * (seen[0] / p.median - 1.0), seen[1]) for p, seen in found if seen]
    if not known:
        empty(axes, "no fitted model")
        return
    for place, (name, colour, mark) in enumerate(looks(names)):
        mine = [(error, held) for p, error, held in known if str(p.axes["scores"]) == name]
        spread = place + np.linspace(-0.28, 0.28, max(1, len(mine)))
        error = np.array([value for value, _ in mine], float)
        held = np.array([flag for _, flag in mine], bool)
        spread = spread[: len(mine)]
        look: dict[str, Any] = {"linestyle": "", "marker": mark, "markersize": 4}
        axes.plot(spread[~held], error[~held], color=colour, alpha=0.6, markeredgewidth=0.0, **look)
        axes.plot(spread[held], error[held], markerfacecolor="white", markeredgecolor=colour,
                  **look)  # fmt: skip
        beyond = [p for p in points if p.axes["scores"] == name and p.key in evidence.outside]
        error = np.array([100.0 * (evidence.outside[p.key] / p.median - 1.0) for p in beyond])
        spread = place + np.linspace(-0.28, 0.28, max(1, len(beyond)))[: len(beyond)]
        axes.plot(spread, error, "+", color=colour, alpha=0.7, markersize=5)
    if evidence.outside:
        axes.set_xlabel("+: outside the model's domain", fontsize=8)
    axes.axhspan(-5.0, 5.0, color=GREY, alpha=0.15, linewidth=0)
    axes.axhline(0.0, color="black", linewidth=0.8)
    axes.set_xticks(range(len(names)), names, rotation=35, ha="right")
    axes.set_ylabel("residual (%)")
    axes.yaxis.set_major_formatter("{x:+g}")
    axes.grid(visible=False, axis="x")
