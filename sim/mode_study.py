"""Loop modes side by side from the cost model alone: one iteration by stage, and who wins where.

The one rule: like for like. All modes run the same stages over the same requests, with the same
drafts and the same pages; nothing is replayed, so no queue and no arrival is in these numbers.
"""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .cost import Cost
from .sparse.selection import Selection
from .stage_account import PARTS, by_stage
from .steps import Load
from .widening import hbm_bytes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .profile import Profile
    from .scenario import Scenario

MODES = {
    "host, Python": ("host", "python"),
    "host, C": ("host", "c"),
    "graph": ("graph", None),
    "control": ("control", None),
    "resident": ("resident", None),
}
"""Names of the modes, and what each sets in `loop`; None: as in the scenario."""


def in_mode(scenario: Scenario, name: str) -> Scenario:
    """*scenario* with its loop in the mode of that name."""
    mode, host = MODES[name]
    loop = scenario.loop.model_copy(update={"mode": mode, "host": host or scenario.loop.host})
    return scenario.model_copy(update={"loop": loop})


class Loads:
    """What iterations of *scenario* put through the model and read."""

    def __init__(self, scenario: Scenario, profile: Profile) -> None:
        self.speculation = scenario.speculation
        shape, sparse = scenario.model.shape, scenario.sparse
        self.selection = None if sparse is None else Selection(sparse, scenario.kv, shape)
        self.most_context = shape.max_context
        self.block_tokens = scenario.kv.block_tokens
        weights, token = hbm_bytes(scenario)
        hbm = scenario.hardware.hbm
        capacity = hbm.capacity or float(profile.device["hbm_bytes"])
        self.tokens = max(0.0, capacity * hbm.utilization - weights) / token

    def of(self, batch: int, context: int) -> Load:
        """*batch* requests with *context* KV entries each, their new ones included.

        Every request drafts as many levels as the scenario allows.
        """
        depth, rows = 0, 1
        if self.speculation is not None:
            depth = self.speculation.most
            rows += self.speculation.shape.nodes[depth]
        load = Load(batch * rows, batch * context, depth)
        if self.selection is None:
            return load
        return load._replace(
            attended=batch * self.selection.attended(context, rows),
            pages=batch * self.selection.pages(context, rows),
            fetched=batch * self.selection.fetched(context, rows),
        )

    def fit(self, batch: int, context: int) -> bool:
        """Whether so much KV fits into HBM beside the weights."""
        held = context
        if self.selection is not None:
            held = self.selection.resident(context) * self.block_tokens
        return context <= self.most_context and batch * held <= self.tokens


@dataclass(frozen=True, slots=True)
class Split:
    """An iteration in one mode: seconds of each part."""

    mode: str
    parts: dict[str, float]
    measured: bool
    """Whether whole steps of that size were measured in this mode."""

    @property
    def seconds(self) -> float:
        """Its length."""
        return sum(self.parts.values())


def iterations(scenario: Scenario, profile: Profile, batch: int, context: int) -> list[Split]:
    """One decode iteration of *batch* requests in each mode, taken apart."""
    load = Loads(scenario, profile).of(batch, context)
    found = []
    for name in MODES:
        cost = Cost(in_mode(scenario, name), profile)
        parts = by_stage(cost, batch, load)
        found.append(Split(name, parts, _measured(cost, batch, context, load)))
    return found


@dataclass(frozen=True, slots=True)
class Cell:
    """Seconds of an iteration by mode at one batch and context; empty if the KV does not fit."""

    batch: int
    context: int
    seconds: dict[str, float]
    measured: bool = False
    """Whether whole steps of that size were measured in the fastest mode."""

    @property
    def best(self) -> str:
        """The fastest mode."""
        return min(self.seconds, key=lambda name: self.seconds[name])

    @property
    def lead(self) -> float:
        """How much longer the second fastest takes, as a share of the fastest."""
        first, second = sorted(self.seconds.values())[:2]
        return second / first - 1.0


def cells(
    scenario: Scenario, profile: Profile, batches: Sequence[int], contexts: Sequence[int]
) -> list[Cell]:
    """The map: every mode at every batch and context, by batch, then by context."""
    loads = Loads(scenario, profile)
    costs = {name: Cost(in_mode(scenario, name), profile) for name in MODES}
    found = []
    for batch in batches:
        for context in contexts:
            seconds: dict[str, float] = {}
            measured = False
            if loads.fit(batch, context):
                load = loads.of(batch, context)
                for name, cost in costs.items():
                    decode = cost.decode(batch, load.rows, load.depth)
                    seconds[name] = decode.seconds(
                        load.context, load.attended, load.pages, load.fetched
                    )
                best = Cell(batch, context, seconds).best
                measured = _measured(costs[best], batch, context, load)
            found.append(Cell(batch, context, seconds, measured))
    return found


def _measured(cost: Cost, batch: int, context: int, load: Load) -> bool:
    """Whether the profile's loop was measured on such steps, of this model's widths."""
    mode, padded, rows = cost.run_as(batch, load.rows)
    name = f"{f'host-{cost.loop.host}' if mode == 'host' else mode}/{cost.loop.kernels}"
    loop = cost.profile.loops.get(name)
    if loop is None or not cost.model.measured.usable:
        return False
    at = {"batch": padded, "rows": rows, "tokens": rows / padded, "context": context}
    limits = ((loop.domain.get(axis, (value, value)), value) for axis, value in at.items())
    inside = all(low <= value <= high for (low, high), value in limits)
    return inside and not any("widths" in line for line in cost.model.measured.extrapolated())


# ---------------------------------------------------------------- tables
def iterations_csv(splits: Sequence[Split], batch: int, context: int) -> bytes:
    """One row a mode: its length and its parts in microseconds."""
    rows = [["mode", "batch", "context_tokens", "iteration_us", *(f"{p}_us" for p in PARTS)]]
    for split in splits:
        times = [split.seconds, *(split.parts[part] for part in PARTS)]
        rows.append([split.mode, str(batch), str(context), *(f"{t * 1e6:.3f}" for t in times)])
    return _csv(rows)


def cells_csv(found: Sequence[Cell]) -> bytes:
    """One row a batch and context: each mode's iteration, the winner, its lead, `Cell.measured`."""
    rows = [
        [
            "batch",
            "context_tokens",
            *(f"{name} (us)" for name in MODES),
            "best",
            "lead_pct",
            "measured",
        ]
    ]
    for cell in found:
        row = [str(cell.batch), str(cell.context)]
        if cell.seconds:
            row += [f"{cell.seconds[name] * 1e6:.3f}" for name in MODES]
            row += [cell.best, f"{100 * cell.lead:.2f}", str(int(cell.measured))]
        rows.append(row + [""] * (len(rows[0]) - len(row)))
    return _csv(rows)


def _csv(rows: Sequence[Sequence[str]]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue().encode()
