"""The pictures of the tiers below HBM: copies by mover and size, files, and interference."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING, Any

from .style import COLOURS, MARKS, empty, handle, size_ticks

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from .inputs import Evidence

Record = dict[str, Any]
KIB = 1 << 10
MOST_GRIDS = 6
PAGES = (4 * KIB, 16 * KIB, 64 * KIB, 256 * KIB, 1024 * KIB)
WORDS = {"h2d": "DRAM to HBM", "d2h": "HBM to DRAM", "both": "both ways"}
MOVERS = {
    "copy_engine": "copy engine, one copy",
    "copy_engine_pages": "copy engine, a call a page (Python host)",
    "copy_batch": "copy engine, one batched call",
    "gather": "gather kernel",
}


def rate(record: Record) -> float:
    """Bytes a second of a record's median sample."""
    return float(record["bytes"] / statistics.median(record["seconds"]))


def records(evidence: Evidence, name: str, **axes: Any) -> list[Record]:
    """Records of `tier_copy` called *name*, with samples, at these *axes*."""
    return [
        record
        for record in evidence.samples.named("tier_copy", name)
        if record.get("seconds") and all(record.get(key) == value for key, value in axes.items())
    ]


SINGLES = (
    (1, True, "alone, queued before"),
    (1, False, "alone, as a host sees it"),
    (16, True, "16 back to back, each"),
)
"""Calls a sample, whether the stream was held until all was queued, and words for it."""


def singles(evidence: Evidence, way: str, calls: int, held: bool) -> list[Record]:
    """Single copies by size."""
    found = records(evidence, "copy_engine", direction=way, calls=calls)
    return sorted((r for r in found if r.get("held", True) == held), key=lambda r: r["bytes"])


def draw_copies(figure: Figure, evidence: Evidence) -> None:
    """GB/s of each mover: single copies over size, then shuffled pages over page size."""
    top, low = figure.subplots(2, 2, sharey="row")
    for axes, way in zip(top, ("h2d", "d2h"), strict=True):
        _over_size(axes, evidence, way)
    for axes, way in zip(low, ("h2d", "d2h"), strict=True):
        _over_pages(axes, evidence, way)
    for axes, names in ((top[0], ("copy_engine",)), (low[0], tuple(MOVERS)[1:])):
        every = [rate(r) / 1e9 for name in names for r in records(evidence, name)]
        axes.set_ylim(0, 1.25 * max(every, default=1.0))
    top[0].set_ylabel("GB/s")
    low[0].set_ylabel("GB/s")
    handles, labels = low[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4)
    figure.suptitle("Copies between pinned DRAM and HBM, measured (medians); lines in the upper "
                    "panels are fitted")  # fmt: skip


def _over_size(axes: Axes, evidence: Evidence, way: str) -> None:
    axes.set_title(f"{WORDS[way]}: single copies by the copy engine")
    shown = False
    for number, (calls, held, label) in enumerate(SINGLES):
        mine = singles(evidence, way, calls, held)
        if mine:
            shown = True
            axes.plot([r["bytes"] for r in mine], [rate(r) / 1e9 for r in mine],
                      MARKS[number], color=COLOURS[number], markersize=5, label=label)  # fmt: skip
            if number == 0:
                _alpha_beta(axes, evidence, way, mine)
    if way == "d2h":
        both = sorted(records(evidence, "copy_engine", direction="both"), key=lambda r: r["bytes"])
        if both:
            axes.plot([r["bytes"] / 2 for r in both], [rate(r) / 1e9 for r in both],
                      MARKS[3], color=COLOURS[3], markersize=5,
                      label="both ways at once, sum")  # fmt: skip
    if not shown:
        empty(axes, "no records")
        return
    axes.set_xlabel("size of a copy")
    size_ticks(axes.xaxis, 4 * KIB, 1 << 30)
    axes.legend(loc="upper left", ncols=2, fontsize=7)


def _alpha_beta(axes: Axes, evidence: Evidence, way: str, mine: Sequence[Record]) -> None:
    latency = evidence.constant(f"{way}_latency_s")
    speed = evidence.constant(f"{way}_bytes_per_s")
    if latency is None or speed is None:
        return
    import numpy as np

    size = np.geomspace(mine[0]["bytes"], mine[-1]["bytes"], 100)
    seconds = latency["value"] + size / speed["value"]
    label = f"{latency['kind']}: {latency['value'] * 1e6:.2f} us + size / "
    label += f"{speed['value'] / 1e9:.1f} GB/s"
    axes.plot(size, size / seconds / 1e9, color=COLOURS[0], linewidth=1.2, label=label)


def _over_pages(axes: Axes, evidence: Evidence, way: str) -> None:
    axes.set_title(f"{WORDS[way]}: shuffled pages, up to 64 MiB a move")
    series: list[tuple[str, list[Record]]] = [
        (MOVERS[name], _largest(records(evidence, name, direction=way)))
        for name in ("copy_engine_pages", "copy_batch")
    ]
    gathers = records(evidence, "gather", direction=way)
    names = grids(gathers)
    if len(names) > MOST_GRIDS:
        last = len(names) - 1
        names = [names[round(i * last / (MOST_GRIDS - 1))] for i in range(MOST_GRIDS)]
    series += [
        (f"{MOVERS['gather']}, {name}", _largest([r for r in gathers if grid_label(r) == name]))
        for name in names
    ]
    series = [(name, mine) for name, mine in series if mine]
    if not series:
        empty(axes, "no records")
        return
    for number, (name, mine) in enumerate(series):
        axes.plot([r["page_bytes"] for r in mine], [rate(r) / 1e9 for r in mine],
                  marker=MARKS[number % 8], color=COLOURS[number % 8], markersize=5,
                  linewidth=1.0, label=name)  # fmt: skip
    axes.set_xlabel("page")
    size_ticks(axes.xaxis, PAGES[0], PAGES[-1])


def _largest(mine: Sequence[Record]) -> list[Record]:
    """For each page size the record that moves most."""
    best: dict[int, Record] = {}
    for record in mine:
        size = int(record["page_bytes"])
        if size not in best or record["bytes"] > best[size]["bytes"]:
            best[size] = record
    return [best[size] for size in sorted(best)]


# ------------------------------------------------------------------------------ interference, disk
def slowdown(record: Record) -> float:
    """How many percent longer the work takes beside the mover."""
    alone = float(statistics.median(record["alone_seconds"]))
    return 100.0 * (float(statistics.median(record["seconds"])) / alone - 1.0)


def disturbances(evidence: Evidence) -> list[Record]:
    """Records of work beside a mover: copy engine first, small launches before large ones."""
    ways = {"h2d": 0, "d2h": 1, "both": 2}

    def place(record: Record) -> tuple[bool, str, int, int, int]:
        size = record.get("blocks", 0) * record.get("threads", 1)
        mover, way = str(record["mover"]), ways.get(record["direction"], 3)
        return mover == "gather", mover, way, size, record.get("blocks", 0)

    found = [r for r in records(evidence, "interference") if r.get("alone_seconds")]
    return sorted(found, key=place)


def mover_label(record: Record) -> str:
    """A mover of the interference records, in words."""
    ways = {"h2d": "in", "d2h": "out", "both": "both ways"}
    name = {"copy_engine": "copy engine", "copy_batch": "batched", "gather": "gather"}
    text = f"{name.get(record['mover'], record['mover'])}, {ways[record['direction']]}"
    return text + (f", {grid_label(record)}" if record.get("blocks") else "")


def grid_label(record: Record) -> str:
    """Blocks and threads of a record of the gather kernel."""
    threads = record.get("threads")
    return f"{record['blocks']} blocks" + (f" x {threads}" if threads else "")


def grids(found: Sequence[Record]) -> list[str]:
    """The launches of the gather kernel in *found*, those with few threads first."""
    size = {grid_label(r): (r["blocks"] * r.get("threads", 1), r["blocks"]) for r in found}
    return sorted(size, key=lambda label: size[label])


def mover_count(evidence: Evidence) -> int:
    """How many movers disturbed some work."""
    return len({mover_label(record) for record in disturbances(evidence)})


def draw_interference(figure: Figure, evidence: Evidence) -> None:
    """How much movers slow decode work down, and what they move meanwhile."""
    found = disturbances(evidence)
    victims = list(dict.fromkeys(str(record["victim"]) for record in found))
    _slowdowns(figure.subplots(), found, victims)
    figure.legend(
        handles=[
            handle(victim, color=COLOURS[number], marker="s", linestyle="", markersize=6)
            for number, victim in enumerate(victims)
        ],
        loc="outside lower center",
        ncols=len(victims),
    )
    figure.suptitle("Decode work beside a mover that runs all the while, measured; text: slowdown "
                    "and what the mover reaches")  # fmt: skip


def _slowdowns(axes: Axes, found: list[Record], victims: Sequence[str]) -> None:
    names = list(dict.fromkeys(mover_label(record) for record in found))
    height = 0.85 / len(victims)
    for record in found:
        number = victims.index(str(record["victim"]))
        at = names.index(mover_label(record)) + (number - (len(victims) - 1) / 2) * height
        value = slowdown(record)
        axes.barh(at, value, height * 0.9, color=COLOURS[number])
        text = f" {value:+.1f} %, {record.get('mover_bytes_s', 0.0) / 1e9:.0f} GB/s"
        axes.text(max(value, 0.0), at, text, va="center", fontsize=6.5)
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.set_xlabel("longer than alone (%)")
    most = max(slowdown(record) for record in found)
    axes.set_xlim(min(0.0, min(slowdown(record) for record in found)), 1.2 * max(most, 1.0))
    axes.grid(visible=False, axis="y")


def draw_disk(figure: Figure, evidence: Evidence) -> None:
    """Reads and writes of a file by size, one line a number of operations at once."""
    _disk(figure.subplots(), evidence)
    figure.suptitle("The disk of this machine, measured")


def _disk(axes: Axes, evidence: Evidence) -> None:
    found = [
        record
        for name in ("file_read", "file_write")
        for record in records(evidence, name)
        if record.get("wall_seconds") and record.get("operations")
    ]
    if not found:
        axes.set_title("disk")
        empty(axes, "no records")
        return
    label = found[0].get("disk", "disk")
    axes.set_title(f"{label}, past the page cache" if found[0].get("direct") else str(label))
    lines = {"file_read": "-", "file_write": "--"}
    for number, depth in enumerate(sorted({record["depth"] for record in found})):
        for name, line in lines.items():
            mine = [r for r in found if r["name"] == name and r["depth"] == depth]
            mine.sort(key=lambda record: record["bytes"])
            rates = [r["bytes"] * r["operations"] / r["wall_seconds"] / 1e9 for r in mine]
            axes.plot([r["bytes"] for r in mine], rates, line, marker=MARKS[number],
                      color=COLOURS[number], markersize=4, linewidth=1.2,
                      label=f"{name.removeprefix('file_')}, {depth} at once")  # fmt: skip
    axes.set_xlabel("size of an operation")
    size_ticks(axes.xaxis, 4 * KIB, 64 << 20)
    axes.set_ylabel("GB/s")
    axes.set_ylim(bottom=0)
    axes.legend(loc="upper left")
