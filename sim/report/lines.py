"""The lines of figures: estimates of a study's cells in order along an axis, and distributions."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sim.axis_names import place
from sim.panels import Line, Shown
from sim.stats import warm_up
from sim.stats.frames import unit_of
from sim.stats.student import quantile

from .words import plain

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sim.runs import Cell

    from .view import View

LABELS = {
    "kv_prefix_hit_rate": "prompt tokens found", "loop_gpu_busy_fraction": "GPU busy",
    "loop_gap_fraction": "gaps in iterations", "cost_per_mtok": "cost a million output tokens",
}  # fmt: skip
"""What the report calls metrics whose names are long."""
SHARES = ("_fraction", "_rate", "_share")
"""Ends of the names of metrics that are shares."""
POINTS = 160
"""Of a distribution's curve."""
BATCHES = 10
"""Parts of a run, in order of arrival, from which a distribution's band is had."""
LEAST = 20
"""Requests of a part that says anything."""


def label_of(view: View, metric: str, *, unit: bool = True, small: bool = False) -> str:
    """What an axis calls *metric*; *small* as within a sentence."""
    found = view.metric(metric)
    called = plain(LABELS.get(metric, found.label))
    if not small and called[:2] not in ("p9", "p5"):
        called = called[:1].upper() + called[1:]
    of = "%" if factor(metric) > 1 else unit_of(found.unit, view.results)
    return f"{called} ({plain(of)})" if unit and of else called


def factor(metric: str) -> float:
    """What values of *metric* are shown times: shares are shown in percent."""
    return 100.0 if metric.endswith(SHARES) else 1.0


def values(view: View, cells: Sequence[Cell], metric: str) -> tuple[np.ndarray, ...]:
    """Value, low and high of *metric* in *cells*; `nan` where there is none."""
    found = [view.of(cell, metric) for cell in cells]
    return tuple(
        factor(metric) * np.array([float("nan") if x is None else x for x in column], float)
        for column in (
            [e.value for e in found], [e.low for e in found], [e.high for e in found],
        )
    )  # fmt: skip


def along(view: View, axis: str, metric: str) -> list[tuple[str, list[Line]]]:
    """Facets and their lines of *metric* over *axis*; none where it has no value."""
    return _facets(view, axis, None, metric)


def over(view: View, axis: str, x: str, metric: str) -> list[tuple[str, list[Line]]]:
    """Facets and their lines of *metric* over the metric *x*, in order along *axis*."""
    return _facets(view, axis, x, metric)


def _facets(view: View, axis: str, x: str | None, metric: str) -> list[tuple[str, list[Line]]]:
    if not view.known(metric):
        return []
    found = []
    for title, series in view.layout(axis):
        lines = []
        among = [cell for cells in series.values() for cell in cells]
        for name, cells in series.items():
            if x is None:
                at = np.array([place(cell.axes.get(axis)) for cell in cells], float)
            else:
                at = values(view, cells, x)[0]
            line = Line(name, view.look(cells[0], among), at, *values(view, cells, metric))
            if np.isfinite(line.y).any():
                lines.append(line)
        if lines:
            found.append((title, lines))
    return found


def ticks(view: View, axis: str) -> tuple[list[float], list[str]]:
    """Places on *axis*, ascending, and the values there as the study writes them."""
    found = {place(value): f"{value}" for value in view.axes[axis] if place(value) is not None}
    at = sorted(where for where in found if where is not None)
    return at, [plain(found[where], 14) for where in at]


def shown(view: View) -> list[Shown]:
    """The first replication of each cell that stands for the study."""
    return [
        Shown(view.name(cell, view.alike_axes), view.look(cell, view.alike), cell.runs[0])
        for cell in view.alike
    ]


# ---------------------------------------------------------------------------- distributions
def distribution(view: View, cell: Cell, column: str) -> Line:
    """Shares of the finished requests of *cell* at or below values of *column*, with a band.

    The band is over the replications' own shares, or over parts of the one run in order of arrival.
    """
    samples = [_sample(view, cell, number, column) for number in range(len(cell.runs))]
    samples = [sample for sample in samples if len(sample)]
    name, look = view.name(cell, view.alike_axes), view.look(cell, view.alike)
    if not samples:
        return Line(name, look, *(np.empty(0) for _ in range(4)))
    if len(samples) == 1 and len(samples[0]) >= BATCHES * LEAST:
        parts = np.array_split(samples[0], BATCHES)
    else:
        parts = samples
    pooled = np.sort(np.concatenate(samples))
    x = np.unique(pooled[np.linspace(0, len(pooled) - 1, POINTS).astype(int)])
    shares = np.array([np.searchsorted(np.sort(p), x, side="right") / len(p) for p in parts])
    y = np.array([np.searchsorted(np.sort(p), x, side="right") / len(p) for p in samples]).mean(0)
    return Line(name, look, x, y, *_band(view, y, shares))


def _sample(view: View, cell: Cell, number: int, column: str) -> np.ndarray:
    """*column* of the requests that arrive after the warm-up, in order of arrival."""
    run = cell.runs[number]
    rows = run.requests(column, "arrival_s")
    order = np.argsort(rows["arrival_s"], kind="stable")
    found = rows[column][order]
    later = rows["arrival_s"][order] >= warm_up(run, view.results.statistics).seconds
    kept: np.ndarray = found[later & np.isfinite(found) & (found > 0)]
    return kept


def _band(view: View, y: np.ndarray, shares: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Bounds of the mean of *shares* [parts, points] around *y*, by Student's t."""
    parts = len(shares)
    if parts < 2:
        none = np.full(len(y), np.nan)
        return none, none
    confidence = view.results.statistics.confidence
    away = quantile(confidence, parts - 1) * shares.std(0, ddof=1) / np.sqrt(parts)
    return np.clip(y - away, 0, 1), np.clip(y + away, 0, 1)
