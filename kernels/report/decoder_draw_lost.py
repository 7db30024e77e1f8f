"""Pictures of the time that a step loses, and of one resident step on all SMs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ..decoder.timeline import BARRIER_TRACK, ENDING, WORK_TRACKS
from .decoder_looks import STAGE_COLOURS
from .decoder_lost import (
    FLOOR,
    PART_COLOURS,
    PARTS,
    parts,
    resident_places,
    shown,
    stage_place,
)
from .decoder_steps import RESIDENT
from .style import handle

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from .decoder_steps import Place, Rung, Steps

KINDS = {
    "reading at the ceiling": PART_COLOURS[FLOOR], "work beyond it": "#56b4e9",
    "barrier before it": "#000000", "tail: the last SM": "#e69f00",
}  # fmt: skip
LAYERS = 2
"""Layers that the picture of the timeline shows."""


def draw_lost(figure: Figure, steps: Steps, model: str) -> None:
    """The resident step by stage, and the whole step by batch and beside other rungs."""
    at = stage_place(steps, model)
    assert at is not None
    left, right = figure.subplots(1, 2, gridspec_kw={"width_ratios": [1.0, 1.15]})
    _by_stage(left, steps, at)
    bars = [(f"R2, batch {p.batch}", p, RESIDENT) for p in resident_places(steps, model)]
    bars += [
        (f"{rung.name}, batch {at.batch}", at, rung)
        for rung in steps.rungs([at])
        if rung != RESIDENT and steps.accounted(at, rung)
    ]
    _whole(right, steps, bars)
    left.set_title(f"{at.text}: the resident step by stage, all layers")
    right.set_title(f"{model.upper()}, context {at.context:,}: whole steps")


def _by_stage(axes: Axes, steps: Steps, place: Place) -> None:
    cell = steps.accounts[place][RESIDENT]
    names = [stage.name for stage in cell.stages]
    left: Any = np.zeros(len(names))
    least = [(stage.bytes or 0.0) / cell.ceiling.bytes_per_s for stage in cell.stages]
    widths = (
        [min(stage.seconds, low) for stage, low in zip(cell.stages, least, strict=True)],
        [max(0.0, stage.seconds - low) for stage, low in zip(cell.stages, least, strict=True)],
        [stage.wait for stage in cell.stages],
        [stage.tail for stage in cell.stages],
    )
    for seconds, colour in zip(widths, KINDS.values(), strict=True):
        width = np.array(seconds) * 1e6
        axes.barh(names, width, left=left, color=colour, edgecolor="white", linewidth=0.4)
        left = left + width
    axes.plot(np.array(least) * 1e6, range(len(names)), "|", color="black", markersize=17,
              markeredgewidth=1.6)  # fmt: skip
    for row, (whole, low) in enumerate(zip(left, least, strict=True)):
        axes.text(max(whole, 1e6 * low) + 0.014 * max(left), row, f"{whole:.1f}", va="center",
                  fontsize=8)  # fmt: skip
    axes.set_xlim(0.0, 1.12 * max(left))
    _bar_axes(axes)
    entries = [handle(name, color=colour, marker="s", linestyle="", markersize=7)
               for name, colour in KINDS.items()]  # fmt: skip
    entries.append(handle("its bytes at the ceiling", color="black", marker="|", linestyle="",
                          markersize=11, markeredgewidth=1.6))  # fmt: skip
    axes.legend(handles=entries, loc="upper center", bbox_to_anchor=(0.5, -0.13), ncols=3)


def _whole(axes: Axes, steps: Steps, bars: Sequence[tuple[str, Place, Rung]]) -> None:
    names, found = [], []
    for name, place, rung in bars:
        mine = parts(steps.accounts[place][rung])
        if mine is not None:
            names.append(name)
            found.append(shown(mine))
    left: Any = np.zeros(len(names))
    for part in PARTS:
        width = np.array([mine[part] for mine in found]) * 1e6
        axes.barh(names, width, left=left, color=PART_COLOURS[part], edgecolor="white",
                  linewidth=0.4)  # fmt: skip
        left = left + width
    for row, whole in enumerate(left):
        axes.text(whole + 0.012 * max(left), row, f"{whole:,.0f}", va="center", fontsize=8)
    axes.set_xlim(0.0, 1.12 * max(left))
    _bar_axes(axes)
    axes.legend(
        handles=[handle(part, color=PART_COLOURS[part], marker="s", linestyle="", markersize=7)
                 for part in PARTS],
        loc="upper center", bbox_to_anchor=(0.42, -0.13), ncols=4,
    )  # fmt: skip


def _bar_axes(axes: Axes) -> None:
    axes.invert_yaxis()
    axes.set_xlabel("us a step")
    axes.grid(visible=False, axis="y")
    axes.tick_params(axis="y", length=0)


# ------------------------------------------------------------------------------ the timeline
def draw_timeline(figure: Figure, document: Mapping[str, Any]) -> None:
    """Two layers in the middle of a step, and its end, on every SM of the timeline."""
    work = [e for e in document["traceEvents"] if e["ph"] == "X" and e["pid"] == WORK_TRACKS]
    layers = sorted({e["args"]["layer"] for e in work if "layer" in e["args"]})
    middle = layers[len(layers) // 2 :][:LAYERS]
    left, right = figure.subplots(1, 2, sharey=True, gridspec_kw={"width_ratios": [1.7, 1.0]})
    inside = [e for e in work if e["args"].get("layer") in middle]
    ending = [e for e in work if e["name"] in ENDING]
    for axes, mine, title in (
        (left, inside, f"layers {middle[0]} to {middle[-1]} of {len(layers)}"),
        (right, ending, " and ".join(dict.fromkeys(e["name"] for e in ending))),
    ):
        low, high = min(e["ts"] for e in mine), max(e["ts"] + e["dur"] for e in mine)
        room = 0.01 * (high - low)
        barriers = [e for e in document["traceEvents"] if e["pid"] == BARRIER_TRACK]
        _tracks(axes, [*mine, *barriers], low - room, high + room)
        axes.set_xlim(low - room, high + room)
        axes.set_title(title)
        axes.set_xlabel("us from the step's first begin")
        axes.grid(visible=False)
    left.set_ylabel("SM")
    left.set_ylim(max(e["tid"] for e in work) + 1, -6)
    names = dict.fromkeys(e["name"] for e in sorted(inside, key=lambda e: e["ts"]))
    names |= dict.fromkeys(e["name"] for e in ending)
    figure.legend(
        handles=[
            *(handle(name, color=STAGE_COLOURS[name], marker="s", linestyle="", markersize=7)
              for name in names),
            handle("barrier (top row)", color="#303030", marker="s", linestyle="", markersize=7),
        ],
        loc="outside lower center", ncols=len(names) + 1,
    )  # fmt: skip
    figure.suptitle("A resident step by its own clock, measured: blank is waiting")


def _tracks(axes: Axes, events: Sequence[Mapping[str, Any]], low: float, high: float) -> None:
    """Bars of the events between *low* and *high*, each in its SM's row; barriers above."""
    rows: dict[tuple[float, str], list[tuple[float, float]]] = {}
    for event in events:
        if event["ph"] != "X" or event["ts"] + event["dur"] < low or event["ts"] > high:
            continue
        if event["pid"] == BARRIER_TRACK:
            if event["name"] == "barrier":
                rows.setdefault((-4.5, "#303030"), []).append((event["ts"], event["dur"]))
            continue
        key = float(event["tid"]), STAGE_COLOURS.get(event["name"], "#999999")
        rows.setdefault(key, []).append((event["ts"], event["dur"]))
    for (row, colour), bars in rows.items():
        height = 1.0 if row >= 0.0 else 3.0
        axes.broken_barh(bars, (row, height), color=colour, linewidth=0.0)
