"""Heat maps of a study over two of its axes of numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from sim.axis_names import place
from sim.map_panels import MOST_WRITTEN, heat, shades
from sim.plots import HALF, WHOLE, Picture

from .lines import label_of
from .words import plain

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from .view import View

MOST_FACETS = 4
LEAST_CELLS = 6


def maps(view: View) -> list[Picture]:
    """A map a main metric, with a facet a compared value; none without two axes of numbers."""
    across = view.along
    free = [axis for axis in view.numeric if axis != across]
    if across is None or not free:
        return []
    up = max(free, key=lambda axis: len(view.axes[axis]))
    if len(view.axes[across]) * len(view.axes[up]) < LEAST_CELLS:
        return []
    good = "request_goodput" if view.known("request_goodput") else "output_throughput"
    return [
        _map(view, across, up, metric)
        for metric in ("p99_ttft_ms", "mean_tpot_ms", good)
        if view.known(metric)
    ]


def _map(view: View, across: str, up: str, metric: str) -> Picture:
    by = None if view.compared == up else view.compared
    split = [] if by is None else view.axes[by][:MOST_FACETS]
    facets = [(view.called(by or "", v), v) for v in split] or [("", None)]
    rest = [axis for axis in view.axes if axis not in (across, up, by)]
    columns, rows = _places(view, across), _places(view, up)
    tables = [_table(view, (across, columns), (up, rows), rest, (by, v), metric) for _, v in facets]
    known = np.concatenate([table[np.isfinite(table)] for table in tables])
    low, high = (float(known.min()), float(known.max())) if len(known) else (0.0, 1.0)
    good = view.metric(metric).better == "higher"
    log = low > 0 and high > 20 * low
    bounds = (low, high) if high > low else (low * 0.9 - 1e-9, high * 1.1 + 1e-9)

    room = 44 if len(facets) == 1 else 88 // len(facets)

    def draw(figure: Figure) -> None:
        grid = figure.subplots(1, len(facets), sharey=True, squeeze=False)[0]
        for axes, (title, _), table in zip(grid, facets, tables, strict=True):
            there = np.isfinite(table).any()
            pick = (np.nanargmax if good else np.nanargmin)(table) if there else None
            best = None if pick is None else np.unravel_index(int(pick), table.shape)
            names = [plain(f"{v}", 14) for v in columns], [plain(f"{v}", 14) for v in rows]
            at = None if best is None else (int(best[0]), int(best[1]))
            heat(axes, table, names, bounds, high_is_good=good, log=log, best=at, room=room)
            axes.set_xlabel(plain(across))
            axes.set_title(title, fontsize=9)
        grid[0].set_ylabel(plain(up))
        if tables[0].size > MOST_WRITTEN:
            shades(figure, bounds, high_is_good=good, log=log)

    at = ", ".join(view.called(axis, view.middle(axis)) for axis in rest)
    title = label_of(view, metric) + (f", at {at}" if at else "")
    says = f"Darker is better, the best of each map is framed. {_intervals(view, metric)}"
    if by is not None and len(view.axes[by]) > MOST_FACETS:
        says += f" The first {MOST_FACETS} of {len(view.axes[by])} values compared."
    size = (WHOLE if len(facets) > 1 else HALF, min(6.0, 2.5 + 0.28 * len(rows)))
    return Picture(f"map-{metric.split('_')[1]}", title, says, draw, size)


def _intervals(view: View, metric: str) -> str:
    """How wide the intervals are that a map cannot show."""
    wide = []
    for cell in view.cells:
        found = view.of(cell, metric)
        if found.value and found.reach is not None:
            wide.append(found.reach / abs(found.value))
    if not wide:
        return "One run a point, without intervals."
    level = 100 * view.results.statistics.confidence
    return f"{level:g} % intervals are ± {100 * float(np.median(wide)):.2g} % in the middle."


def _places(view: View, axis: str) -> list[Any]:
    found = [value for value in view.axes[axis] if place(value) is not None]
    return sorted(found, key=lambda value: place(value) or 0.0)


def _table(
    view: View,
    across: tuple[str, list[Any]],
    up: tuple[str, list[Any]],
    rest: list[str],
    facet: tuple[str | None, Any],
    metric: str,
) -> np.ndarray:
    """*metric* as [rows, columns], the axes in *rest* at their middle; `nan` where no point is."""
    table = np.full((len(up[1]), len(across[1])), np.nan)
    for cell in view.cells:
        if facet[0] is not None and cell.axes.get(facet[0]) != facet[1]:
            continue
        if any(cell.axes.get(axis) != view.middle(axis) for axis in rest):
            continue
        x, y = cell.axes.get(across[0]), cell.axes.get(up[0])
        if x in across[1] and y in up[1]:
            value = view.of(cell, metric).value
            table[up[1].index(y), across[1].index(x)] = np.nan if value is None else value
    return table
