"""Constants of launching and of the loop, from the records of `loop_control.measure_constants`.

One rule: each constant is the difference or the line that its note names, of medians of samples.
Records hold lists of samples in seconds under `samples_s`, by what varied.
"""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING, Any

import numpy as np

from .samples import SamplesError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

Found = tuple[str, float, str, str]
"""Name, seconds, kind and note."""
MEETINGS = 3
"""Grid barriers of a dense step of the resident loop."""


def constants(records: Sequence[Mapping[str, Any]]) -> Iterator[Found]:
    """Every constant that *records* hold; raises `SamplesError` if one is not what it should be."""
    data: dict[str, Any] = {str(r.get("name")): r.get("data") for r in records}
    if not data:
        return
    try:
        yield from _launches(data["launch"], _line(data["nodes"]))
        barrier = _barrier(data["barrier"])
        note = "a grid barrier of one block an SM, median over 128 to 512 threads"
        yield "grid_barrier_s", barrier, "measured", note
        python = statistics.median(data["mailbox"]["python"]) * 1e6
        note = f"a C host writes a pinned word, a resident block answers; {python:.2f} us in Python"
        yield "mailbox_round_trip_s", statistics.median(data["mailbox"]["c"]), "measured", note
        yield from _scheduling(data["control"], barrier)
        yield from _leaving(data["leaving"])
    except (KeyError, TypeError, ValueError, statistics.StatisticsError) as error:
        what = f"{type(error).__name__}: {error}"
        raise SamplesError(
            f"loop_control: records lack a part ({what}); measure it again"
        ) from None


def _launches(data: Mapping[str, Any], line: tuple[float, float]) -> Iterator[Found]:
    found = {name: statistics.median(samples) for name, samples in data.items()}
    node, launch = line
    submit, sync = found["python_submit"], found["python_sync"]
    copied = found["python_copy_sync"]
    each = (found["c_submit_5"] - found["c_submit_1"]) / 4.0
    stage = found.get("python_stage_submit", submit)
    yield (
        "host_python_submit_s", stage, "measured",
        "a launch by CuPy of an empty kernel with a stage's parameters (192 bytes by value): until "
        f"the call returns, mean of 100 in a row; with one word {submit * 1e6:.2f} us",
    )  # fmt: skip
    yield (
        "host_c_submit_s", each, "measured",
        "one more launch in a C launch list: a set of five less a set of one, over four",
    )  # fmt: skip
    yield (
        "host_sync_s", sync - submit, "measured",
        "launch + synchronise less the submission; contains the way to the GPU, the empty kernel "
        "and the notice to the host. A C host's whole is "
        f"{found['c_sync_1'] * 1e6:.1f} us where Python's is {sync * 1e6:.1f}",
    )  # fmt: skip
    yield (
        "host_copyback_s", copied - sync, "measured",
        "launch + 16 KiB copy to pinned memory + synchronise, less launch + synchronise; a C host "
        f"adds {(found['c_copy_sync_1'] - found['c_sync_1']) * 1e6:.1f} us",
    )  # fmt: skip
    yield (
        "host_c_sync_s", found["c_sync_1"] - each, "measured",
        "host_sync_s of a C host: launch + synchronise less the submission",
    )  # fmt: skip
    yield (
        "host_c_copyback_s", found["c_copy_sync_3"] - found["c_sync_3"], "measured",
        "host_copyback_s of a C host, behind three launches",
    )  # fmt: skip
    yield (
        "host_c_graph_launch_s", found["graph_sync_3"] - 3.0 * node, "measured",
        "graph_launch_s of a C host: a graph of three empty kernels, launched and waited for, less "
        "three nodes",
    )  # fmt: skip
    # Model: the way to the GPU and the notice to the host take equal shares of what the measured
    # synchronisation leaves beside the kernel itself.
    yield (
        "launch_latency_s", (sync - submit - node) / 2.0, "estimated",
        "submission to start on an idle GPU; a part of host_sync_s, so do not add both. Half of "
        "what host_sync_s leaves beside one node gap: a split that nobody has measured",
    )  # fmt: skip
    yield (
        "graph_launch_s", launch, "fitted",
        "launch and synchronise of a graph by a Python host: intercept of the line over 10 to 1000 "
        "nodes",
    )  # fmt: skip
    yield "graph_node_s", node, "fitted", "slope of that line: empty kernels in a chain"


def _line(records: Sequence[Mapping[str, Any]]) -> tuple[float, float]:
    """(seconds a node, seconds a launch): least squares of relative errors over long graphs."""
    rows = [(r["nodes"], statistics.median(r["synced_s"])) for r in records if r["nodes"] >= 10]
    nodes, seconds = np.array(rows, np.float64).T
    slope, intercept = np.polyfit(nodes, seconds, 1, w=1.0 / seconds)
    return float(slope), float(intercept)


def _barrier(records: Sequence[Mapping[str, Any]]) -> float:
    """Median of the barrier that the loop uses, one block an SM."""
    blocks = min(int(record["blocks"]) for record in records)
    used = [
        statistics.median(record["samples_s"])
        for record in records
        if record["kind"] == "counted" and record["blocks"] == blocks and record["threads"] <= 512
    ]
    return float(statistics.median(used))


def _scheduling(records: Sequence[Mapping[str, Any]], barrier: float) -> Iterator[Found]:
    """What a step of the resident loop costs beside its stages and their barriers."""
    rows = [
        (record["slots"], statistics.median(record["samples_s"]))
        for record in records
        if record["dedicated"] and not record["sparse"] and not record["waiting"]
    ]
    slots, seconds = np.array(rows, np.float64).T
    each, base = np.polyfit(slots, seconds, 1, w=1.0 / seconds)
    note = (
        "a step of the resident loop with empty stages, one block kept for control: intercept of "
        f"the line over 1 to {slots.max():.0f} requests, less {MEETINGS} barriers"
    )
    yield "device_schedule_s", max(0.0, float(base) - MEETINGS * barrier), "fitted", note
    note = "slope of the line of device_schedule_s"
    yield "device_schedule_per_request_s", max(0.0, float(each)), "fitted", note


def _leaving(data: Mapping[str, Any]) -> Iterator[Found]:
    ended = statistics.median(data["asked_to_end"]) * 1e6
    yield (
        "resident_exit_s", statistics.median(data["asked_to_status"]), "measured",
        "a C host asks the resident loop to leave, until its status word is there, one empty step "
        f"included; until a Python host has synchronised {ended:.1f} us",
    )  # fmt: skip
    python = statistics.median(data["launch_to_output"]) * 1e6
    yield (
        "resident_relaunch_s", statistics.median(data["c_launch_to_output"]), "measured",
        "a C host launches the resident loop again, until it sees the first empty step's output; a "
        f"Python host {python:.1f} us",
    )  # fmt: skip
