"""What a figure shows about one run's KV over several tiers, on one pair of axes a panel.

One rule: everything is read from the records of the run, so a panel is there for any run that keeps
KV for reuse, whatever moved it.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from .errors import InputError
from .panels import BINS, SPARE
from .result import read_json
from .runs import columns_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from matplotlib.axes import Axes

    from .runs import Run

TIERS = ("hbm", "dram", "ssd", "remote")
COLOURS = dict(zip(TIERS, ("#0072b2", "#009e73", "#e69f00", "#cc79a7"), strict=True))
LINKS = ("h2d", "d2h", "ssd_read", "ssd_write", "remote_read", "remote_write")
REASONS = {
    "load": "#0072b2", "prefetch": "#e69f00", "write_back": "#009e73", "evict": "#cc79a7",
    "swap_out": "#d55e00", "swap_in": "#56b4e9",
}  # fmt: skip
FATES = {"issued": "#8c8c8c", "used": "#009e73", "late": "#e69f00", "wasted": "#d55e00"}
GIB = 2.0**30


@lru_cache(maxsize=1024)
def sizes(folder: Path) -> dict[str, float]:
    """Bytes of each tier below HBM that KV may fill in the run of *folder*, by name; where each
    replica has its own, of one."""
    scenario = read_json(folder / "scenario.json")
    hardware, replicas = scenario.get("hardware", {}), scenario.get("replicas", {})
    parts = replicas["count"] if replicas.get("tiers") == "own" else 1
    there = {tier: hardware.get(tier) for tier in TIERS[1:]}
    return {tier: node["capacity"] * node["share"] / parts for tier, node in there.items() if node}


def keeps(run: Run) -> bool:
    """Whether *run* kept KV for reuse or had tiers below HBM."""
    return "loading" in _names(run.folder / "iterations.parquet")


def _names(path: Path) -> list[str]:
    import pyarrow.parquet as pq

    if not path.is_file():
        return []
    try:
        return list(pq.read_schema(path).names)
    except (OSError, ValueError):
        raise InputError(f"{path}: is not a table of a run; delete the run and repeat it") from None


def panels(run: Run) -> dict[str, tuple[str, Callable[[Axes, Run], None]]]:
    """What there is to be seen of *run*, in order: a title and a panel by name."""
    found: dict[str, tuple[str, Callable[[Axes, Run], None]]] = {}
    moves = "kv_stalled_s" in _names(run.folder / "iterations.parquet")
    found["occupancy"] = "How full each tier is", occupancy
    if run.summary.get("kv_prefix_lookup_units"):
        found["hits"] = "Where prompt tokens were found", hits_over_time
    if moves:
        found["links"] = "How busy the links are", links
        found["moved"] = "What is moved, and why", moved
        found["waits"] = "Who waits for KV", waits
        if run.summary.get("kv_prefetched_units"):
            found["prefetch"] = "What prefetching brought", prefetched
    return found


# ---------------------------------------------------------------- one run over time
def occupancy(axes: Axes, run: Run) -> None:
    """How full each tier is over time: HBM by what requests use and by all it holds."""
    names = _names(run.folder / "iterations.parquet")
    rows = run.iterations(
        "start_s", "duration_s", "kv_blocks", *(n for n in names if n.endswith("_bytes")),
        "hbm_cached_blocks",
    )  # fmt: skip
    blocks = run.summary["kv_blocks_capacity"] / run.replicas
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
        axes.plot(_middles(edges), 100 * share, color=colour, linewidth=1.0,
                  label=name.replace("_", " "))  # fmt: skip
    _over_time(axes, "link busy (%)")


def moved(axes: Axes, run: Run) -> None:
    """Bytes a second over all links, by what they were moved for; counted where transfers end."""
    columns = columns_of(run.folder / "transfers.parquet", ("reason", "end_s", "bytes"))
    edges = np.linspace(0.0, float(run.summary["duration"]), BINS // 2 + 1)
    below = np.zeros(len(edges) - 1)
    for reason, colour in REASONS.items():
        there = columns["reason"] == reason
        if not there.any():
            continue
        sums, _ = np.histogram(columns["end_s"][there], edges, weights=columns["bytes"][there])
        rate = sums / np.diff(edges) / 1e9
        axes.fill_between(_middles(edges), below, below + rate, color=colour, alpha=0.75,
                          linewidth=0, label=reason.replace("_", " "), step="mid")  # fmt: skip
        below = below + rate
    _over_time(axes, "moved over all links (GB/s)", top=None)


def waits(axes: Axes, run: Run) -> None:
    """Share of the iterations beside which a request waited for KV, and of time without any."""
    rows = run.iterations("start_s", "duration_s", "loading", "kv_stalled_s")
    at, share = _binned(rows, (rows["loading"] > 0).astype(float), np.ones(len(rows["start_s"])))
    axes.plot(at, 100 * share, color="#e69f00", linewidth=1.0,
              label="of iterations: a request waits for KV")  # fmt: skip
    edges = np.linspace(0.0, float(run.summary["duration"]), BINS + 1)
    still = np.diff(rows["kv_stalled_s"], prepend=0.0)
    starts, ends = rows["start_s"] - still, rows["start_s"]
    share = _busy(starts[still > 0], ends[still > 0], edges)
    axes.plot(_middles(edges), 100 * share, color="#d55e00", linewidth=1.0,
              label="of time: the loop stands still for KV")  # fmt: skip
    _over_time(axes, "share (%)")


def prefetched(axes: Axes, run: Run) -> None:
    """Units brought up before they were asked for, and what became of them, summed over time."""
    names = [f"prefetch_{fate}_units" for fate in FATES]
    names[0] = "prefetched_units"
    rows = run.iterations("start_s", *names)
    at = np.unique(np.linspace(0, len(rows["start_s"]) - 1, 1200).astype(int))
    for name, (fate, colour) in zip(names, FATES.items(), strict=True):
        label = "brought up" if fate == "issued" else fate
        axes.plot(rows["start_s"][at], rows[name][at], color=colour, label=label, linewidth=1.2)
    axes.yaxis.set_major_formatter("{x:,.0f}")
    tokens = run.summary["kv_unit_tokens"]
    _over_time(axes, f"prefetched units of {tokens} tokens, sum", top=None)


def hits_over_time(axes: Axes, run: Run) -> None:
    """Where the tokens of prompts came from, by the time of the first admission."""
    names = [f"cached_{tier}_tokens" for tier in TIERS]
    rows = run.requests("admitted_s", "prompt_tokens", *names)
    edges = np.linspace(0.0, float(run.summary["duration"]), BINS // 2 + 1)
    total, _ = np.histogram(rows["admitted_s"], edges, weights=rows["prompt_tokens"])
    at, below = _middles(edges), np.zeros(len(edges) - 1)
    for tier, name in zip(TIERS, names, strict=True):
        if not rows[name].any():
            continue
        found, _ = np.histogram(rows["admitted_s"], edges, weights=rows[name])
        share = 100 * np.divide(found, total, out=np.zeros(len(total)), where=total > 0)
        axes.fill_between(at, below, below + share, color=COLOURS[tier], alpha=0.75, linewidth=0,
                          label=f"from {tier.upper()}", step="mid")  # fmt: skip
        below = below + share
    _over_time(axes, "prompt tokens found (%)")


def _over_time(axes: Axes, label: str, top: float | None = 103) -> None:
    axes.set_xlabel("simulated time (s)")
    axes.set_ylabel(label)
    axes.set_ylim(0, top)


def _middles(edges: np.ndarray) -> np.ndarray:
    middles: np.ndarray = (edges[:-1] + edges[1:]) / 2
    return middles


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
    return _middles(edges)[there], total[there] / weight[there]


def _busy(starts: np.ndarray, ends: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Share of each bin between *edges* that lies in one of the intervals."""
    if not len(starts):
        return np.zeros(len(edges) - 1)
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
