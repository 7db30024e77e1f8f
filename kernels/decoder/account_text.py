"""An account in words, and as JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .account import Account, Ceiling

LEGEND = {
    "host-python": "H1, Python host", "host-c": "H2, C host", "graph": "G, CUDA graph",
    "control": "R1, graph re-launched by the device", "resident": "R2, resident kernel",
    "eager": "PyTorch, eager",
}  # fmt: skip


def headline(record: Mapping[str, Any]) -> str:
    """What was run, in a line."""
    tokens, budget = int(record.get("tokens", 1)), int(record.get("budget_tokens") or 0)
    mode = str(record["mode"])
    sparse = 0 < budget < int(record["context"])
    return (
        f"llama {record['model']} shape, {record['kernels']} kernels, {LEGEND.get(mode, mode)}: "
        f"batch {record['batch']}, {tokens} new token{'s' if tokens > 1 else ''} a request, "
        f"context {int(record['context']):,}, "
        f"{f'{budget:,} tokens selected' if sparse else 'dense'}, "
        f"{record.get('weights', 'bf16')} weights, {record.get('kv', 'bf16')} KV"
    )


def text(found: Account) -> str:
    """The account as printed."""
    wall, floor = found.wall, found.floor
    samples = len(found.record["seconds"])
    lines = [
        headline(found.record),
        f"{'wall per step':32} {_us(wall)} us median, p10 {_us(found.low).strip()}, "
        f"p90 {_us(found.high).strip()} ({samples} steps, measured, copy-back included)",
        f"{'floor':32} {_us(floor)} us: {found.bytes / 1e9:.3f} GB at "
        f"{found.ceiling.bytes_per_s / 1e12:.2f} TB/s ({found.ceiling.note}); "
        f"{floor / wall:.0%} of the wall",
    ]
    counts = [f"{found.record[name]} {name}" for name in ("nodes", "barriers")
              if found.record.get(name)]  # fmt: skip
    lines += [f"{'a step is':32} {', '.join(counts)}"] if counts else []
    if not found.stages:
        return "\n".join([*lines, "no stage was timed"])
    lines += ["", f"{'GPU time by stage':32} {'us':>9} {'of wall':>8} {'MB read':>9} {'TB/s':>6} "
                  f"{'of ceiling':>10}"]  # fmt: skip
    for stage in found.stages:
        lines.append(_line(f"  {stage.name}", stage.seconds, wall, stage.bytes, found.ceiling))
    tails = sum(stage.tail for stage in found.stages)
    if tails:
        lines.append(_line("  tails: waiting for the last SM", tails, wall))
    lines.append(_line("all stages", found.busy, wall, found.bytes, found.ceiling))
    for what, seconds, kind in found.control:
        lines.append(_line(f"  {what}", seconds, wall) + f"   {kind}")
    lines.append(_line("barriers and control", found.controlled, wall))
    lines.append(_line("not accounted", found.rest or 0.0, wall))
    return "\n".join([*lines, *_notes(found)])


def _notes(found: Account) -> list[str]:
    """How the stages were timed, and why one may be faster than its bytes."""
    if found.record["mode"] != "resident":
        return ["Stages are timed one by one as graphs of their own; in a step they may overlap."]
    notes = ["Stages are timed by the kernel's own clocks, the mean over its SMs."]
    ceiling = found.ceiling.bytes_per_s
    if any(stage.bytes and stage.bytes > ceiling * stage.seconds for stage in found.stages):
        notes.append("Beyond the ceiling: weights that were streamed ahead while SMs waited.")
    return notes


def _line(
    name: str, seconds: float, wall: float, moved: float | None = None,
    ceiling: Ceiling | None = None,
) -> str:  # fmt: skip
    line = f"{name:32} {_us(seconds)} {seconds / wall:8.1%}"
    if moved and ceiling and seconds > 0.0:
        rate = moved / seconds
        line += f" {moved / 1e6:9.1f} {rate / 1e12:6.2f} {rate / ceiling.bytes_per_s:10.0%}"
    return line


def _us(seconds: float) -> str:
    return f"{seconds * 1e6:9.1f}"


def plain(found: Account) -> dict[str, Any]:
    """The account as JSON: the record, so that a report reads it too, and its parts beside it."""
    return {
        **found.record,
        "account": {
            "wall_s": found.wall, "p10_s": found.low, "p90_s": found.high,
            "floor_s": found.floor, "bytes": found.bytes,
            "read_ceiling_bytes_per_s": found.ceiling.bytes_per_s,
            "stages_s": found.busy, "control_s": found.controlled, "not_accounted_s": found.rest,
            "stage_bytes": {stage.name: stage.bytes for stage in found.stages},
            "control": [list(entry) for entry in found.control],
        },
    }  # fmt: skip
