"""Differences from the baseline, as the sentence and the table need them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from sim.axis_names import place
from sim.stats import differences

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sim.runs import Cell
    from sim.stats import Difference

    from .view import View

COLUMNS = (
    "p99_ttft_ms", "median_ttft_ms", "mean_tpot_ms", "p99_itl_ms", "request_goodput",
    "output_throughput", "kv_prefix_hit_rate", "cost_per_mtok", "energy_j_per_token",
    "loop_gpu_busy_fraction", "loop_gap_fraction",
)  # fmt: skip
"""Metrics of the table, in order; those that no run has are left out."""
MOST_COLUMNS = 8
"""So that a table fits a page."""
TIE = 1e-3
"""Share of the best value within which another is as good: what three digits show."""
SAID = ("p99_ttft_ms", "mean_tpot_ms", "request_goodput", "output_throughput", "cost_per_mtok")
"""Metrics that the answer is about, the most telling first."""


@dataclass(frozen=True)
class Judged:
    """The metrics that *view* has, and each cell's difference from its baseline in them."""

    view: View

    @cached_property
    def columns(self) -> tuple[str, ...]:
        """Metrics of the table."""
        return tuple(metric for metric in COLUMNS if self.view.known(metric))[:MOST_COLUMNS]

    @cached_property
    def said(self) -> tuple[str, ...]:
        """Metrics of the answer: goodput rather than throughput where there are limits."""
        found = [metric for metric in SAID if self.view.known(metric)]
        if "request_goodput" in found and "output_throughput" in found:
            found.remove("output_throughput")
        return tuple(found)

    @cached_property
    def _rows(self) -> dict[tuple[str, str], Difference]:
        rows = differences(self.view.results, self.said)
        return {(_text(row.axes), row.metric): row for row in rows}

    def of(self, cell: Cell, metric: str) -> Difference | None:
        """The difference of *cell* from its baseline; None if it is the baseline, or has none."""
        return self._rows.get((_text(cell.axes), metric))

    @cached_property
    def groups(self) -> list[tuple[dict[str, Any], list[Cell]]]:
        """Cells that differ in the value compared alone, by all other axes in their order."""
        found: dict[str, tuple[dict[str, Any], list[Cell]]] = {}
        for cell in self.view.cells:
            rest = {a: cell.axes.get(a) for a in self.view.axes if a != self.view.compared}
            found.setdefault(repr(rest), (rest, []))[1].append(cell)
        along = self.view.along
        groups = list(found.values())
        if along is not None:
            groups.sort(key=lambda group: _key(self.view, group[0], along))
        return groups

    def best(self, cells: Sequence[Cell], metric: str) -> list[Cell]:
        """The best of *cells* in *metric*, several where they tie; none if all do."""
        better = self.view.metric(metric).better
        known = [(self.view.of(cell, metric).value, cell) for cell in cells]
        values = [(value, cell) for value, cell in known if value is not None]
        if better is None or len(values) < 2:
            return []
        pick = min if better == "lower" else max
        top = pick(value for value, _ in values)
        found = [cell for value, cell in values if abs(value - top) <= TIE * abs(top)]
        return found if len(found) < len(values) else []


def _text(axes: dict[str, Any]) -> str:
    return json.dumps(axes, sort_keys=True, default=str)


def _key(view: View, axes: dict[str, Any], along: str) -> tuple[Any, ...]:
    """Sorts by the other axes as the study has them, then along the axis of numbers."""
    others = [view.axes[axis].index(axes[axis]) for axis in axes if axis != along]
    where = place(axes[along])
    return (*others, where is None, where or 0.0)
