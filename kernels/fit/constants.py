"""The constants of a profile: launch, barrier, copies, files, interference, from the samples.

One rule: a constant is the median of its samples or the line through them, with the rule in its
note; what the samples do not hold is an estimate, or left out where nobody depends on it.
"""

from __future__ import annotations

import statistics
from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np

from . import control, estimates
from .judge import residuals
from .samples import SamplesError
from .solve import line, six

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from .samples import Point, Samples

REQUIRED = (
    "host_python_submit_s",
    "host_c_submit_s",
    "host_sync_s",
    "host_copyback_s",
    "launch_latency_s",
    "graph_launch_s",
    "graph_node_s",
    "grid_barrier_s",
    "mailbox_round_trip_s",
    "hbm_read_bytes_per_s",
    "hbm_copy_bytes_per_s",
    "h2d_latency_s",
    "h2d_bytes_per_s",
    "d2h_latency_s",
    "d2h_bytes_per_s",
    "resident_exit_s",
    "resident_relaunch_s",
    *estimates.CONSTANTS,
)
"""What the simulator cannot do without."""
SMALLEST_COPY = 16_384
"""Bytes; below, a copy's time is mostly the timer's resolution."""
Entry = dict[str, Any]


def constants(samples: Samples) -> dict[str, Entry]:
    """All constants as the profile writes them, required ones first; raises `SamplesError`."""
    found: dict[str, Entry] = {}
    for part in (_control, _memory, _power, _copies, _gather, _interference, _files):
        for name, entry in part(samples):
            found.setdefault(name, entry)
    for name, (value, unit, source, note) in estimates.CONSTANTS.items():
        found.setdefault(name, _entry(value, unit, "estimated", note, source))
    missing = [name for name in REQUIRED if name not in found]
    if missing:
        raise SamplesError(
            f"{samples.place}: no samples for {', '.join(missing)}; measure loop_control, streams "
            "and tier_copy"
        )
    return {name: found[name] for name in (*REQUIRED, *found)}


def _entry(value: float, unit: str, kind: str, note: str, source: str = "run") -> Entry:
    return {"value": six(value), "unit": unit, "kind": kind, "source": source, "note": note}


def _control(samples: Samples) -> Iterator[tuple[str, Entry]]:
    """Launches, graphs, barriers, the mailbox, the loop; beside a second measurement of each."""
    first, second = (
        samples.records.get(("loop_control", "measure_constants", again), [])
        for again in (False, True)
    )
    again = {name: value for name, value, _, _ in control.constants(second)}
    for name, value, kind, note in control.constants(first):
        if not 0.0 <= value < 1.0:
            raise SamplesError(f"loop_control: {name} is {value}; measure it again")
        unit = "s/request" if "per_request" in name else "s"
        entry = _entry(value, unit, kind, note)
        if name in again and value > 0.0:
            entry["repeatability"] = round(abs(again[name] / value - 1.0), 4)
        yield name, entry


def _memory(samples: Samples) -> Iterator[tuple[str, Entry]]:
    """Ceilings: the best setting of each kind of stream."""
    streams = samples.of("streams")

    def best(level: str, *ops: str) -> tuple[float, Point] | None:
        mine = [p for p in streams if p.axes["level"] == level and p.axes["op"] in ops]
        return max(((p.bytes / p.median, p) for p in mine), key=lambda pair: pair[0], default=None)

    read = best("hbm", "read", "read_bulk")
    if read:
        note = f"read-only stream, best of the settings tried: {_setting(read[1])}"
        yield "hbm_read_bytes_per_s", _entry(read[0], "bytes/s", "measured", note)
    copy = best("hbm", "copy")
    if copy:
        library = [
            p.bytes / statistics.median(times)
            for p in streams
            for times in p.baselines.values()
            if p.axes["op"] == "copy"
        ]
        note = "device copy, read plus written, the faster of memcpy and the best kernel"
        rate = max([copy[0], *library])
        yield "hbm_copy_bytes_per_s", _entry(rate, "bytes/s", "measured", note)
    cache = best("l2", "read")
    if cache:
        note = f"reads that hit L2: {_setting(cache[1])}"
        yield "l2_read_bytes_per_s", _entry(cache[0], "bytes/s", "measured", note)
    one = best("one_block", "read", "read_bulk")
    if one:
        note = f"what a single block streams from HBM: {_setting(one[1])}"
        yield "one_block_read_bytes_per_s", _entry(one[0], "bytes/s", "measured", note)


def _power(samples: Samples) -> Iterator[tuple[str, Entry]]:
    """How much slower large products become when they last."""
    large = [
        point.sustained / point.median
        for point in samples.of("gemm_library")
        if point.axes["op"] == "bf16" and point.axes["m"] >= 8192
    ]
    if large:
        note = (
            "bf16 products of 8,192 rows after some 10 ms over the same at full clock: the power "
        )
        note += "limit lowers the clock. The kernels' forms hold at full clock"
        yield "sustained_product_slowdown", _entry(statistics.median(large), "1", "measured", note)


def _setting(point: Point) -> str:
    return ", ".join(f"{key} {value}" for key, value in point.axes.items() if key != "level")


def _copies(samples: Samples) -> Iterator[tuple[str, Entry]]:
    """Latency and bandwidth of single copies by the copy engine, each way."""
    for way in ("h2d", "d2h"):
        rows = [
            record
            for record in samples.named("tier_copy", "copy_engine")
            if record.get("direction") == way
            and record.get("calls") == 1
            and float(record["bytes"]) >= SMALLEST_COPY
        ]
        yield from _line(rows, way, "single copies of pinned memory by the copy engine")


def _gather(samples: Samples) -> Iterator[tuple[str, Entry]]:
    """The kernel that moves pages: one line each way and page size, in its usual launch."""
    for way in ("h2d", "d2h"):
        mine = [r for r in samples.named("tier_copy", "gather") if r.get("direction") == way]
        for size in (4096, 16384, 65536):
            rows = [r for r in mine if r.get("page_bytes") == size]
            launches = Counter((r.get("blocks"), r.get("threads")) for r in rows)
            if not launches:
                continue
            usual = max(launches, key=lambda launch: launches[launch])
            rows = [r for r in rows if (r.get("blocks"), r.get("threads")) == usual]
            what = f"pages of {size >> 10} KiB moved by a kernel of {usual[0]} blocks"
            yield from _line(rows, f"{way}_gather_{size >> 10}k", what)


def _line(rows: Sequence[dict[str, Any]], name: str, what: str) -> Iterator[tuple[str, Entry]]:
    """(`name`_latency_s, `name`_bytes_per_s) of the line through *rows*, if there are three."""
    rows = [row for row in rows if row.get("seconds")]
    if len({row["bytes"] for row in rows}) < 3:
        return
    size = np.array([row["bytes"] for row in rows], np.float64)
    seconds = np.array([statistics.median(row["seconds"]) for row in rows], np.float64)
    latency, rate = line(size, seconds)
    fit = residuals(latency + size / rate, seconds)
    note = f"{what}: least squares on log time, {fit['n']} sizes, median error "
    note += f"{fit['median']:.1%}, largest {fit['max']:.1%}"
    yield f"{name}_latency_s", _entry(latency, "s", "fitted", note)
    yield f"{name}_bytes_per_s", _entry(rate, "bytes/s", "fitted", f"see {name}_latency_s")


def _interference(samples: Samples) -> Iterator[tuple[str, Entry]]:
    """How many times longer decode-shaped work takes while a mover is at work."""
    records = samples.named("tier_copy", "interference")
    victims = {str(record.get("victim")) for record in records}
    victim = "paged_attention" if "paged_attention" in victims else "read_bulk"
    for record in records:
        if record.get("victim") != victim:
            continue
        mover, way, blocks = (record.get(key) for key in ("mover", "direction", "blocks"))
        factor = statistics.median(record["seconds"]) / statistics.median(record["alone_seconds"])
        name = f"slowdown_{mover}_{way}" + (f"_{blocks}" if blocks else "")
        rate = float(record.get("mover_bytes_s", 0.0)) / 1e9
        note = f"{victim} beside {mover} {way}, over alone; the mover did {rate:.1f} GB/s meanwhile"
        yield name, _entry(factor, "1", "measured", note)


def _files(samples: Samples) -> Iterator[tuple[str, Entry]]:
    """The disk of this machine: one operation at a time, and the best rate at any depth."""
    for name, word in (("file_read", "read"), ("file_write", "write")):
        rows = [r for r in samples.named("tier_copy", name) if r.get("seconds")]
        single = [row for row in rows if row.get("depth") == 1]
        disk = ", ".join(
            str(single[0][key]) for key in ("disk", "filesystem") if single and key in single[0]
        )
        yield from _line(single, f"file_{word}", f"this machine's disk ({disk}), one at a time")
        rates = [_rate(row) for row in rows]
        if any(rates):
            note = "best over sizes and depths; the disk of a virtual machine"
            yield f"file_{word}_best_bytes_per_s", _entry(max(rates), "bytes/s", "measured", note)


def _rate(row: dict[str, Any]) -> float:
    """Bytes a second of all operations of a file record together; 0 if it does not say."""
    wall, count = row.get("wall_seconds"), row.get("operations", row.get("count"))
    if not isinstance(wall, int | float) or not isinstance(count, int | float) or wall <= 0:
        return 0.0
    return float(row["bytes"]) * float(count) / float(wall)
