"""The picture of what control costs: graph nodes, barriers, an empty resident step, launches."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING, Any

import numpy as np

from .style import COLOURS, MARKS, empty, log_axes

if TYPE_CHECKING:
    from collections.abc import Callable

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from .inputs import Evidence

Record = dict[str, Any]


def part(evidence: Evidence, name: str) -> Any:
    """The data of a record of `loop_control` called *name*, None if there is none."""
    for record in evidence.samples.named("loop_control", name):
        if record.get("data"):
            return record["data"]
    return None


def draw_control(figure: Figure, evidence: Evidence) -> None:
    """Four panels, each from the samples of its own measurement."""
    panels = figure.subplots(1, 4)
    drawings: dict[str, Callable[[Axes, Any], None]] = {
        "nodes": _nodes, "barrier": _barriers, "control": _steps, "launch": _launches,
    }  # fmt: skip
    for axes, (name, draw) in zip(panels, drawings.items(), strict=True):
        data = part(evidence, name)
        try:
            draw(axes, data) if data else empty(axes, "no samples")
        except (KeyError, TypeError, ValueError) as error:
            evidence.troubles.append(f"`loop_control` {name}: cannot be drawn ({error!r})")
            axes.clear()
            empty(axes, "samples of another kind")
    figure.suptitle("What control costs, measured (medians); the line of the nodes is fitted")


def _us(samples: Any) -> float:
    return float(statistics.median(samples)) * 1e6


def _nodes(axes: Axes, data: list[Record]) -> None:
    axes.set_title("graph of empty kernels")
    for number, (key, label) in enumerate(
        (("samples_s", "on the stream"), ("synced_s", "launch to sync, host's clock"))
    ):
        rows = [(row["nodes"], _us(row[key])) for row in data if row.get(key)]
        if not rows:
            continue
        x, y = (np.array(side, float) for side in zip(*rows, strict=True))
        axes.plot(x, y, MARKS[number], color=COLOURS[number], markersize=4, label=label)
        slope, start = np.polyfit(x, y, 1, w=1.0 / y)
        line = np.geomspace(x.min(), x.max(), 60)
        axes.plot(line, start + slope * line, color=COLOURS[number], linewidth=1.0,
                  label=f"{start:.1f} + {slope:.3f} us a node")  # fmt: skip
    axes.legend(loc="upper left", fontsize=7)
    log_axes(axes, "nodes", "us")


def _barriers(axes: Axes, data: list[Record]) -> None:
    axes.set_title("grid barrier")
    series = sorted({(str(row["kind"]), int(row["blocks"])) for row in data})
    for number, (kind, blocks) in enumerate(series[:8]):
        rows = sorted(
            (row["threads"], _us(row["samples_s"]))
            for row in data
            if (row["kind"], row["blocks"]) == (kind, blocks)
        )
        x, y = zip(*rows, strict=True)
        axes.plot(x, y, marker=MARKS[number], color=COLOURS[number], markersize=4, linewidth=1.0,
                  label=f"{kind}, {blocks} blocks")  # fmt: skip
    axes.axhline(1.0, color="black", linestyle="--", linewidth=1.0)
    axes.set_ylim(0.0, 1.45 * axes.get_ylim()[1])
    axes.set_ylabel("us")
    threads = sorted({int(row["threads"]) for row in data})
    log_axes(axes, "threads a block (dashed: target)")
    axes.set_xticks(threads, [f"{count}" for count in threads])
    axes.set_xticks([], minor=True)
    axes.legend(loc="upper left", fontsize=7)


def _steps(axes: Axes, data: list[Record]) -> None:
    axes.set_title("resident step without stages")
    keys = sorted({(bool(r["dedicated"]), bool(r["sparse"]), bool(r["waiting"])) for r in data})
    for number, key in enumerate(keys[:8]):
        rows = sorted(
            (row["slots"], _us(row["samples_s"]))
            for row in data
            if (bool(row["dedicated"]), bool(row["sparse"]), bool(row["waiting"])) == key
        )
        x, y = zip(*rows, strict=True)
        words = ["own block" if key[0] else "shared block", "sparse" if key[1] else "dense"]
        words += ["queue waits"] * key[2]
        axes.plot(x, y, marker=MARKS[number], color=COLOURS[number], markersize=4, linewidth=1.0,
                  label=", ".join(words))  # fmt: skip
    axes.set_ylim(0.0, 1.9 * axes.get_ylim()[1])
    axes.set_ylabel("us a step")
    log_axes(axes, "slots")
    axes.legend(loc="upper left", fontsize=6.5)


def _launches(axes: Axes, data: dict[str, Any]) -> None:
    axes.set_title("launches of an empty kernel")
    rows = [(name, _us(samples)) for name, samples in data.items() if samples]
    rows.sort(key=lambda row: row[1])
    bars = axes.barh([name.replace("_", " ") for name, _ in rows], [us for _, us in rows],
                     color=COLOURS[0])  # fmt: skip
    axes.bar_label(bars, [f"{us:.1f}" for _, us in rows], padding=2, fontsize=7)
    axes.tick_params(axis="y", labelsize=7)
    axes.set_xlim(0, 1.2 * max(us for _, us in rows))
    axes.set_xlabel("us; number: launches before the sync")
    axes.grid(visible=False, axis="y")
