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
    for number, (calls, label) in enumerate(((1, "alone"), (16, "16 back to back, each"))):
        mine = sorted(records(evidence, "copy_engine", direction=way, calls=calls),
                      key=lambda r: r["bytes"])  # fmt: skip
        if mine:
            shown = True
            axes.plot([r["bytes"] for r in mine], [rate(r) / 1e9 for r in mine],
                      MARKS[number], color=COLOURS[number], markersize=5, label=label)  # fmt: skip
            _alpha_beta(axes, evidence, way, mine, calls)
    if way == "d2h":
        both = sorted(records(evidence, "copy_engine", direction="both"), key=lambda r: r["bytes"])
        if both:
            axes.plot([r["bytes"] / 2 for r in both], [rate(r) / 1e9 for r in both],
                      MARKS[2], color=COLOURS[2], markersize=5,
                      label="both ways at once, sum")  # fmt: skip
    if not shown:
        empty(axes, "no records")
        return
    axes.set_xlabel("size of a copy")
    size_ticks(axes.xaxis, 4 * KIB, 1 << 30)
    axes.legend(loc="upper left", ncols=2, fontsize=7)


def _alpha_beta(
    axes: Axes, evidence: Evidence, way: str, mine: Sequence[Record], calls: int
) -> None:
    latency = evidence.constant(f"{way}_latency_s")
    speed = evidence.constant(f"{way}_bytes_per_s")
    if calls != 1 or latency is None or speed is None:
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
    blocks = sorted({r["blocks"] for r in records(evidence, "gather", direction=way)})
    series += [
        (f"{MOVERS['gather']}, {count} blocks",
         _largest(records(evidence, "gather", direction=way, blocks=count)))
        for count in blocks
    ]  # fmt: skip
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


def mover_label(record: Record) -> str:
    """A mover of the interference records, in words."""
    ways = {"h2d": "in", "d2h": "out", "both": "both ways"}
    name = {"copy_engine": "copy engine", "copy_batch": "batched", "gather": "gather"}
    text = f"{name.get(record['mover'], record['mover'])}, {ways[record['direction']]}"
    return text + (f", {record['blocks']} blocks" if record.get("blocks") else "")


def draw_interference(figure: Figure, evidence: Evidence) -> None:
    """How much movers slow decode work down, what they move meanwhile, and the disk."""
    left, right = figure.subplots(1, 2, gridspec_kw={"width_ratios": [3, 2]})
    _slowdowns(left, [r for r in records(evidence, "interference") if r.get("alone_seconds")])
    _disk(right, evidence)
    figure.suptitle("Decode work beside copies, and the disk of this machine: measured")


def _slowdowns(axes: Axes, found: list[Record]) -> None:
    axes.set_title("work slowed by a mover that runs all the while; text: what the mover reaches")
    if not found:
        empty(axes, "no records")
        return
    names = list(dict.fromkeys(mover_label(record) for record in found))
    victims = list(dict.fromkeys(str(record["victim"]) for record in found))
    height = 0.85 / len(victims)
    for number, victim in enumerate(victims):
        for record in found:
            if record["victim"] != victim:
                continue
            at = names.index(mover_label(record)) + (number - (len(victims) - 1) / 2) * height
            value = slowdown(record)
            axes.barh(at, value, height * 0.9, color=COLOURS[number])
            text = f" {value:+.1f} %, {record.get('mover_bytes_s', 0.0) / 1e9:.0f} GB/s"
            axes.text(max(value, 0.0), at, text, va="center", fontsize=6.5)
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.set_xlabel("longer than alone (%)")
    most = max(slowdown(record) for record in found)
    axes.set_xlim(min(0.0, min(slowdown(record) for record in found)), 1.35 * max(most, 1.0))
    axes.grid(visible=False, axis="y")
    axes.legend(
        handles=[
            handle(victim, color=COLOURS[number], marker="s", linestyle="", markersize=6)
            for number, victim in enumerate(victims)
        ],
        loc="upper center", bbox_to_anchor=(0.5, -0.1), ncols=len(victims),
    )  # fmt: skip


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
