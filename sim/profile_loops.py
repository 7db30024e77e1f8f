"""Loops of a profile: what a whole decode step costs in each mode beside its stages.

One entry a mode and kernel set (`graph/library`). The one rule is the profile's: whatever stands in
the file, the answer is a `Loop` or a finding of one line.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .profile_check import Finder

REPLAY = ("around_s", "node_s")
FORMS = {
    "replay": REPLAY,
    "queue": (*REPLAY, "submit_s", "latency_s"),
    "stream": (
        "around_s", "bytes_per_s", "consume_bytes_per_s", "ring_bytes", "meet_s", "row_s",
        "tile_s", "latency_s",
    ),
}  # fmt: skip
MODES = {
    "host-python": "queue", "host-c": "queue", "graph": "replay", "control": "replay",
    "resident": "stream",
}  # fmt: skip
"""Form of each mode."""
LEAVING = ("relaunch_s", "exit_s", "exit_to_idle_s")
KERNEL_SETS = ("library", "fused")


@dataclass(frozen=True, slots=True)
class Loop:
    """One mode over one kernel set: its constants, where they hold and how well."""

    name: str
    parameters: Mapping[str, float]
    kind: str
    domain: Mapping[str, tuple[float, float]]
    source: str
    residuals: Mapping[str, Any]
    note: str
    leaving: Mapping[str, float]
    """Of loops on the device, where measured: what it takes to enter one and to leave it."""


def loops(document: Mapping[str, Any]) -> dict[str, Loop]:
    """The loops of a checked *document*."""
    return {
        name: Loop(
            name,
            {key: float(value) for key, value in entry["parameters"].items()},
            entry["kind"],
            {axis: (float(low), float(high)) for axis, (low, high) in entry["domain"].items()},
            entry["source"],
            entry["residuals"],
            entry["note"],
            {key: float(value) for key, value in entry.get("leaving", {}).items()},
        )
        for name, entry in document.get("loops", {}).items()
    }


def check_loops(finder: Finder, document: dict[str, Any]) -> None:
    """Adds what is wrong with the loops of *document* to *finder*; it may have none."""
    if "loops" not in document:
        return
    table = finder.table(document, "loops", "loops")
    for name in table:
        path = f"loops.{name}"
        mode, _, kernels = name.partition("/")
        if mode not in MODES or kernels not in KERNEL_SETS:
            what = f"no loop; write one of {', '.join(MODES)}, a slash and library or fused"
            finder.add(path, what)
            continue
        entry = finder.table(table, name, path)
        if not isinstance(table[name], dict):
            continue
        finder.described(entry, path)
        finder.domain(finder.table(entry, "domain", f"{path}.domain"), f"{path}.domain")
        finder.table(entry, "residuals", f"{path}.residuals")
        finder.parameters(MODES[mode], FORMS[MODES[mode]], entry, path)
        if "leaving" in entry:
            table_of = finder.table(entry, "leaving", f"{path}.leaving")
            for key in LEAVING:
                finder.number(table_of, key, f"{path}.leaving.{key}")
                finder.range(table_of.get(key), key, f"{path}.leaving.{key}")
