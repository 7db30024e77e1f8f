"""What a figure shows about prefix reuse in the runs of a study, on one pair of axes.

One rule: sizes are what KV may fill of a tier, as the scenarios say, and a run without the tier
stands at the left end of the axis.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .panels import STYLES, look, plain_ticks
from .result import read_json
from .tier_panels import COLOURS, GIB, TIERS, legend_above, sizes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.lines import Line2D

    from .panels import Run


def saved(run: Run) -> dict[str, float]:
    """Share of all prompt tokens that each tier had, of the requests that have finished."""
    rows = run.requests("prompt_tokens", *(f"cached_{tier}_tokens" for tier in TIERS))
    total = float(rows["prompt_tokens"].sum()) or 1.0
    return {tier: float(rows[f"cached_{tier}_tokens"].sum()) / total for tier in TIERS}


def sources(axes: Axes, runs: list[Run]) -> None:
    """Where the prompt tokens of each run came from."""
    names, left = [run.series for run in runs], np.zeros(len(runs))
    found = [saved(run) for run in runs]
    for tier in TIERS:
        share = np.array([100 * shares[tier] for shares in found])
        if share.any():
            axes.barh(names, share, left=left, color=COLOURS[tier], edgecolor="white",
                      label=tier.upper())  # fmt: skip
            left += share
    axes.barh(names, 100 - left, left=left, color="0.88", edgecolor="white", label="computed")
    axes.invert_yaxis()
    axes.set_xlim(0, 100)
    axes.set_xlabel("prompt tokens (%)")
    axes.grid(visible=False)
    legend_above(axes, 4)


# ---------------------------------------------------------------- against a tier's size
def swept_tier(runs: list[Run]) -> str | None:
    """The tier whose size takes most values in *runs*, the nearest to HBM of several; or none."""
    found = {tier: len({_size(run, tier) for run in runs}) for tier in TIERS}
    if any(not _size(run, "hbm") for run in runs):
        found["hbm"] = 0  # what the profile says is not a size that was chosen
    most = max(found.values())
    return next((tier for tier in TIERS if found[tier] == most), None) if most > 1 else None


def _size(run: Run, tier: str) -> float:
    """Bytes of *tier* for KV, of HBM all that the scenario says; 0 if there are none."""
    if tier == "hbm":
        hbm: dict[str, float | None] = read_json(run.folder / "scenario.json")["hardware"]["hbm"]
        return hbm["capacity"] or 0.0
    return sizes(run.folder).get(tier, 0.0)


def against_size(axes: Axes, runs: list[Run], tier: str, what: str) -> list[Line2D]:
    """Prompt tokens saved, or TTFT, over the size of *tier*; a curve for all else that differs.

    Returns the curves that have a name.
    """
    at = sorted({_size(run, tier) for run in runs})
    there = [size for size in at if size]
    x_of = {size: size / GIB for size in at if size} | {0.0: _left_of(there) / GIB}
    series: dict[str, list[Run]] = {}
    for run in runs:
        series.setdefault(_without(run, tier), []).append(run)
    curves = []
    for number, (name, members) in enumerate(series.items()):
        members.sort(key=lambda run: _size(run, tier))
        x = [x_of[_size(run, tier)] for run in members]
        style: dict[str, Any] = look(members[0], number)
        style |= {"label": name or None, "marker": "o", "markersize": 3.5}
        if what == "saved":
            curves += axes.plot(x, [100 * sum(saved(run).values()) for run in members], **style)
            continue
        style["linestyle"] = STYLES[0]
        curves += axes.plot(x, [run.summary["median_ttft_ms"] for run in members], **style)
        style |= {"linestyle": STYLES[1], "label": None}
        axes.plot(x, [run.summary["p99_ttft_ms"] for run in members], **style)
    _size_axis(axes, [x_of[size] for size in at], [_gib(size) for size in at])
    axes.set_xlabel("HBM (GiB)" if tier == "hbm" else f"{tier.upper()} for KV (GiB)")
    if what == "saved":
        axes.set_ylabel("prompt tokens not computed (%)")
        axes.set_ylim(bottom=0)
    else:
        axes.set_ylabel("TTFT, median and p99 dashed (ms)")
        axes.set_yscale("log")
        plain_ticks(axes.yaxis)
    return curves if len(series) > 1 else []


def _left_of(there: list[float]) -> float:
    """Where on a log axis a run without a tier stands, left of the sizes that are *there*."""
    if len(there) < 2:
        return min(there, default=GIB) / 4
    step: float = (there[-1] / there[0]) ** (1 / (len(there) - 1))
    return there[0] / max(2.0, step)


def _gib(size: float) -> str:
    if not size:
        return "none"
    return f"{size / GIB:,.0f}" if size >= 100 * GIB else f"{size / GIB:.3g}"


def _size_axis(axes: Axes, at: list[float], names: list[str]) -> None:
    """A log axis with *names* where there are runs, so many of them as have room."""
    from matplotlib.ticker import FixedLocator, NullLocator

    axes.set_xscale("log", base=2)
    span = np.log2(at[-1] / at[0]) or 1.0
    kept, last = [], -1.0
    for place, name in zip(at, names, strict=True):
        where = float(np.log2(place / at[0]) / span)
        if where - last > 0.045 * max(2, len(name)):
            kept.append((place, name))
            last = where
    axes.xaxis.set_major_locator(FixedLocator([place for place, _ in kept]))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xticklabels([name for _, name in kept], fontsize=8)


def _without(run: Run, tier: str) -> str:
    """What *run* is called but for the size of *tier*."""
    own = (f"hardware.{tier}", f"hardware.{tier}.capacity", f"hardware.{tier}.share")
    return run.named({key: value for key, value in run.axes.items() if key not in own})
