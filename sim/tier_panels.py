"""What a figure shows about KV over several tiers, on one pair of axes, from the runs it compares.

One rule: everything is read from the records of a run, so a panel is there for any run that keeps
KV for reuse, whatever moved it.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from .panels import BINS, SPARE, STYLES, columns_of, look, plain_ticks
from .result import read_json

if TYPE_CHECKING:
    from pathlib import Path

    from matplotlib.axes import Axes

    from .panels import Run

TIERS = ("hbm", "dram", "ssd", "remote")
COLOURS = dict(zip(TIERS, ("#0072b2", "#009e73", "#e69f00", "#cc79a7"), strict=True))
LINKS = ("h2d", "d2h", "ssd_read", "ssd_write", "remote_read", "remote_write")
GIB = 2.0**30


@lru_cache(maxsize=1024)
def sizes(folder: Path) -> dict[str, float]:
    """Bytes of each tier below HBM that KV may fill in the run of *folder*, by name."""
    hardware = read_json(folder / "scenario.json").get("hardware", {})
    there = {tier: hardware.get(tier) for tier in TIERS[1:]}
    return {tier: node["capacity"] * node["share"] for tier, node in there.items() if node}


def keeps(run: Run) -> bool:
    """Whether *run* kept KV for reuse or had tiers below HBM."""
    return "loading" in _names(run.folder / "iterations.parquet")


def _names(path: Path) -> list[str]:
    import pyarrow.parquet as pq

    return list(pq.read_schema(path).names) if path.is_file() else []


# ---------------------------------------------------------------- one run over time
def occupancy(axes: Axes, run: Run) -> None:
    """How full each tier is over time: HBM by what requests use and by all it holds."""
    names = _names(run.folder / "iterations.parquet")
    rows = run.iterations(
        "start_s", "duration_s", "kv_blocks", *(n for n in names if n.endswith("_bytes")),
        "hbm_cached_blocks",
    )  # fmt: skip
    blocks = run.summary["kv_blocks_capacity"]
    used = np.maximum(0, rows["kv_blocks"] - rows["hbm_cached_blocks"])
    lines = [("HBM, in use", COLOURS["hbm"], "-", used / blocks)]
    lines.append(("HBM, with what is kept", COLOURS["hbm"], ":", rows["kv_blocks"] / blocks))
    for tier, size in sizes(run.folder).items():
        if f"{tier}_bytes" in rows:
            label = f"{tier.upper()} of {size / GIB:,.0f} GiB"
            lines.append((label, COLOURS[tier], "-", rows[f"{tier}_bytes"] / size))
    for label, colour, style, shares in lines:
        at, mean = _binned(rows, shares)
        axes.plot(at, 100 * mean, color=colour, linestyle=style, label=label, linewidth=1.2)
    _over_time(axes, "tier filled (%)")


def links(axes: Axes, run: Run) -> None:
    """Share of the time in which each link has something to move."""
    columns = columns_of(run.folder / "transfers.parquet", ("link", "start_s", "end_s"))
    edges = np.linspace(0.0, float(run.summary["duration"]), BINS + 1)
    names = [name for name in LINKS if (columns["link"] == name).any()]
    for number, name in enumerate(names):
        there = columns["link"] == name
        share = _busy(columns["start_s"][there], columns["end_s"][there], edges)
        colour = (*COLOURS.values(), *SPARE)[number]
        axes.plot((edges[:-1] + edges[1:]) / 2, 100 * share, color=colour, linewidth=1.0,
                  label=name.replace("_", " "))  # fmt: skip
    _over_time(axes, "link busy (%)")


def waits(axes: Axes, run: Run) -> None:
    """Share of the iterations beside which some request waited for its KV."""
    rows = run.iterations("start_s", "duration_s", "loading")
    count = np.ones(len(rows["start_s"]))
    at, share = _binned(rows, (rows["loading"] > 0).astype(float), count)
    axes.plot(at, 100 * share, color="#d55e00", linewidth=1.0)
    _over_time(axes, "iterations beside a wait for KV (%)")


def hits_over_time(axes: Axes, run: Run) -> None:
    """Where the tokens of prompts came from, by the time of the first admission."""
    names = [f"cached_{tier}_tokens" for tier in TIERS]
    rows = run.requests("admitted_s", "prompt_tokens", *names)
    edges = np.linspace(0.0, float(run.summary["duration"]), BINS // 2 + 1)
    total, _ = np.histogram(rows["admitted_s"], edges, weights=rows["prompt_tokens"])
    at, below = (edges[:-1] + edges[1:]) / 2, np.zeros(len(edges) - 1)
    for tier, name in zip(TIERS, names, strict=True):
        if not rows[name].any():
            continue
        found, _ = np.histogram(rows["admitted_s"], edges, weights=rows[name])
        share = 100 * np.divide(found, total, out=np.zeros(len(total)), where=total > 0)
        axes.fill_between(at, below, below + share, color=COLOURS[tier], alpha=0.75, linewidth=0,
                          label=f"from {tier.upper()}", step="mid")  # fmt: skip
        below = below + share
    _over_time(axes, "prompt tokens found (%)")


def _over_time(axes: Axes, label: str) -> None:
    axes.set_xlabel("simulated time (s)")
    axes.set_ylabel(label)
    axes.set_ylim(0, 103)
    if axes.get_legend_handles_labels()[0]:
        _legend_above(axes, 2)


def _legend_above(axes: Axes, columns: int) -> None:
    axes.legend(
        loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=columns, fontsize=8,
        handlelength=1.2, handletextpad=0.5, columnspacing=0.8,
    )  # fmt: skip


def _binned(
    rows: dict[str, np.ndarray], values: np.ndarray, weights: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Middles of bins with iterations, and the mean of *values* in each, weighted by length."""
    weights = rows["duration_s"] if weights is None else weights
    edges = np.linspace(0.0, float((rows["start_s"] + rows["duration_s"]).max()), BINS + 1)
    middle = rows["start_s"] + rows["duration_s"] / 2
    weight, _ = np.histogram(middle, edges, weights=weights)
    total, _ = np.histogram(middle, edges, weights=weights * values)
    there = weight > 0
    return ((edges[:-1] + edges[1:]) / 2)[there], total[there] / weight[there]


def _busy(starts: np.ndarray, ends: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Share of each bin between *edges* that lies in one of the intervals."""
    order = np.argsort(starts, kind="stable")
    starts, ends = starts[order], np.maximum.accumulate(ends[order])
    first = np.ones(len(starts), bool)
    first[1:] = starts[1:] > ends[:-1]
    begins = starts[first]
    closes = ends[np.append(np.flatnonzero(first)[1:] - 1, len(ends) - 1)]
    times = np.stack([begins, closes], 1).ravel()
    sums = np.concatenate([[0.0], np.cumsum(closes - begins)])
    total = np.stack([sums[:-1], sums[1:]], 1).ravel()
    busy: np.ndarray = np.diff(np.interp(edges, times, total)) / np.diff(edges)
    return busy


# ---------------------------------------------------------------- runs beside one another
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
    _legend_above(axes, 4)


def swept_tier(runs: list[Run]) -> str | None:
    """The tier nearest to HBM whose size differs between *runs*, if any."""
    for tier in TIERS[1:]:
        if len({sizes(run.folder).get(tier, 0.0) for run in runs}) > 1:
            return tier
    return None


def against_size(axes: Axes, runs: list[Run], tier: str, what: str) -> None:
    """Prompt tokens saved, or TTFT, over the size of *tier*; a curve for all else that differs."""
    at = sorted({sizes(run.folder).get(tier, 0.0) for run in runs})
    series: dict[str, list[Run]] = {}
    for run in runs:
        series.setdefault(_without(run, tier), []).append(run)
    for number, (name, members) in enumerate(series.items()):
        members.sort(key=lambda run: sizes(run.folder).get(tier, 0.0))
        x = [at.index(sizes(run.folder).get(tier, 0.0)) for run in members]
        style: dict[str, Any] = look(members[0], number) | {"label": name or None}
        style |= {"marker": "o", "markersize": 3.5}
        if what == "saved":
            axes.plot(x, [100 * sum(saved(run).values()) for run in members], **style)
            continue
        style["linestyle"] = STYLES[0]
        axes.plot(x, [run.summary["median_ttft_ms"] for run in members], **style)
        style |= {"linestyle": STYLES[1], "label": None}
        axes.plot(x, [run.summary["p99_ttft_ms"] for run in members], **style)
    names = [f"{size / GIB:,.6g}" if size else "none" for size in at]
    axes.set_xticks(range(len(at)), names, fontsize=8)
    axes.set_xlabel(f"{tier.upper()} for KV (GiB)")
    if what == "saved":
        axes.set_ylabel("prompt tokens not computed (%)")
        axes.set_ylim(bottom=0)
    else:
        axes.set_ylabel("TTFT, median and p99 dashed (ms)")
        axes.set_yscale("log")
        plain_ticks(axes.yaxis)


def _without(run: Run, tier: str) -> str:
    """What *run* is called but for the size of *tier*."""
    own = (f"hardware.{tier}", f"hardware.{tier}.capacity", f"hardware.{tier}.share")
    return run.named({key: value for key, value in run.axes.items() if key not in own})
