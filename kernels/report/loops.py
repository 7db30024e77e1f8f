"""The loop table: steps of one decode layer under four kinds of control, and where the gap goes.

One rule: the step times are measured whole; the parts of a gap are those that the run recorded, or
are put together from measured constants and then say so.
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .inputs import Evidence

MODES = ("resident", "graph", "host-c", "host-python")
STEADY = "graph-steady"
"""Graphs replayed without synchronisation or copy-back: nobody sees the tokens, so it only tells
what the stages take."""
L2_BYTES = 60 << 20
SPELLINGS = {"c": "host-c", "python": "host-python", "host": "host-python", "loop": "resident"}
PARTS = ("stages", "launch", "barrier, wait or node", "sync and copy-back", "host and rest")
STAGES = {True: 5, False: 3}
"""Launches of a step: append, (score, select,) attend, verify and commit."""
CONSTANTS = (
    "grid_barrier_s", "graph_node_s", "graph_launch_s", "host_copyback_s", "host_sync_s",
    "host_c_submit_s", "host_python_submit_s", "launch_latency_s",
)  # fmt: skip
Place = tuple[bool, int, int]
"""Sparse, batch, context."""


@dataclass(frozen=True, slots=True)
class Cell:
    """One measured step."""

    sparse: bool
    batch: int
    context: int
    mode: str
    seconds: float
    spread: float
    """90th percentile over median."""
    record: Mapping[str, Any] = field(repr=False, default_factory=dict)

    @property
    def warm(self) -> bool:
        """Whether all that the rotating inputs touch fits into the L2 cache."""
        return float(self.record.get("touched_bytes", L2_BYTES)) < L2_BYTES

    @property
    def place(self) -> Place:
        """What it shares with the other modes' cells."""
        return self.sparse, self.batch, self.context


class Loops:
    """All cells, with their predictions."""

    def __init__(self, evidence: Evidence) -> None:
        self.evidence = evidence
        self.cells: dict[Place, dict[str, Cell]] = {}
        for record in evidence.samples.named("loop_control"):
            cell = _cell(record)
            if cell is not None:
                self.cells.setdefault(cell.place, {})[cell.mode] = cell
        self.predicted: dict[tuple[Place, str], float] = {}
        for row in evidence.predicted:
            place = bool(row["sparse"]), int(row["batch"]), int(row["context"])
            self.predicted[place, mode_name(row["mode"])] = float(row["predicted_s"])

    @property
    def modes(self) -> list[str]:
        """Modes that have cells, resident first."""
        seen = {mode for mine in self.cells.values() for mode in mine}
        return [mode for mode in MODES if mode in seen]

    def axis(self, index: int, sparse: bool) -> list[int]:
        """Batches (1) or contexts (2) that have cells."""
        return sorted({int(place[index]) for place in self.cells if place[0] == sparse})

    def winner(self, place: Place) -> tuple[str, float] | None:
        """The fastest mode and how much longer the second takes, as a ratio less one."""
        cells = self.cells.get(place, {})
        mine = sorted((cells[m] for m in MODES if m in cells), key=lambda cell: cell.seconds)
        if len(mine) < 2:
            return None
        return mine[0].mode, mine[1].seconds / mine[0].seconds - 1.0

    def constants(self) -> dict[str, float] | None:
        """The profile's constants of control; None if one is missing."""
        found = {name: self.evidence.constant(name) for name in CONSTANTS}
        known = {name: float(entry["value"]) for name, entry in found.items() if entry}
        return known if len(known) == len(CONSTANTS) else None

    def error(self, cell: Cell) -> float | None:
        """Predicted over measured, less one."""
        found = self.predicted.get((cell.place, cell.mode))
        return None if found is None else found / cell.seconds - 1.0


def mode_name(text: Any) -> str:
    """A mode's one name."""
    name = str(text).lower().replace("_", "-").replace(" ", "-")
    return SPELLINGS.get(name, name)


def _cell(record: Mapping[str, Any]) -> Cell | None:
    """A record of a step, None for the other records of the loop."""
    batch = record.get("batch", record.get("slots"))
    if batch is None or not {"context", "mode", "sparse"} <= record.keys():
        return None
    times = sorted(record.get("seconds") or record.get("samples_s") or [])
    if not times:
        return None
    middle = statistics.median(times)
    return Cell(
        bool(record["sparse"]), int(batch), int(record["context"]),
        mode_name(record["mode"]), middle, times[int(0.9 * (len(times) - 1))] / middle, record,
    )  # fmt: skip


# ------------------------------------------------------------------------------ where the gap goes
def parts(loops: Loops, cell: Cell) -> dict[str, float] | None:
    """Seconds of each of `PARTS` for *cell*; None if records or constants do not suffice."""
    if cell.mode == "resident":
        found = by_stamps(cell)
        if found is not None:
            return found
    work = stage_seconds(loops, cell)
    at = loops.constants()
    if work is None or at is None:
        return None
    count = STAGES[cell.sparse]
    match cell.mode:
        case "resident":
            overhead = (0.0, (count + 1) * at["grid_barrier_s"], 0.0)
        case "graph":
            nodes = count * at["graph_node_s"]
            overhead = (at["graph_launch_s"], nodes, at["host_copyback_s"])
        case _:
            submit = at["host_c_submit_s" if cell.mode == "host-c" else "host_python_submit_s"]
            # Launches hide behind work that is longer than they are.
            shown = at["launch_latency_s"] + max(submit, count * submit - work)
            sync = at["host_sync_s"] - at["launch_latency_s"] + at["host_copyback_s"]
            overhead = (shown, count * at["graph_node_s"], sync)
    rest = cell.seconds - work - sum(overhead)
    return dict(zip(PARTS, (work, *overhead, rest), strict=True))


def by_stamps(cell: Cell) -> dict[str, float] | None:
    """Stages and waits of the resident loop as the clock of one block saw them."""
    inside = stages_inside(cell)
    if not inside:
        return None
    last = [name for name in inside if name.endswith("_wait")][-1]
    work = sum(value for name, value in inside.items() if not name.endswith("_wait"))
    # After the last stage the loop commits, writes its output and looks for messages.
    waits = sum(inside.values()) - work - inside[last]
    return dict(zip(PARTS, (work, 0.0, waits, 0.0, inside[last]), strict=True))


def stages_alone(cell: Cell, key: str = "stage_s") -> dict[str, float]:
    """Seconds of each stage timed alone in a graph; *key* `own_stage_s` for its own launch."""
    return {name: _middle(times) for name, times in (cell.record.get(key) or {}).items()}


def stages_inside(cell: Cell) -> dict[str, float]:
    """Seconds of each stage and of the wait after it, inside the resident loop."""
    cycles = cell.record.get("stage_cycles") or {}
    middle = {name: statistics.median(values) for name, values in cycles.items() if values}
    whole = sum(middle.values())
    if whole <= 0.0:
        return {}
    return {name: float(value) * cell.seconds / whole for name, value in middle.items()}


def stage_seconds(loops: Loops, cell: Cell) -> float | None:
    """Time of the stages alone, less the gaps between nodes.

    From the stages timed one by one if the run has all of them, else from graphs that nobody waits
    for.
    """
    node, count = loops.evidence.constant("graph_node_s"), STAGES[cell.sparse]
    steady = loops.cells[cell.place].get(STEADY)
    if node is None:
        return None
    for other in loops.cells[cell.place].values():
        alone = stages_alone(other)
        if len(alone) == count:
            return sum(alone.values()) - count * float(node["value"])
    return None if steady is None else steady.seconds - count * float(node["value"])


def _middle(times: Any) -> float:
    return float(statistics.median(times) if isinstance(times, list) else times)
