"""The comparison table: a row a point, the main metrics with intervals, the best marked.

One rule: on paper and on a telephone a table has some thirty rows; of a larger study a part that
stands for it is in view, and all of it folded below.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .answer import change
from .lines import factor, label_of
from .words import figure, html, spread

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sim.runs import Cell

    from .judged import Judged

MOST_ROWS = 36


def tables(judged: Judged) -> str:
    """The table of the study; of many points those in the middle, and all below in a fold."""
    groups = judged.groups
    rows = sum(len(cells) for _, cells in groups)
    if rows <= MOST_ROWS:
        return _table(judged, groups)
    part = _part(judged)
    inside = sum(len(cells) for _, cells in part)
    return (
        f"{_table(judged, part)}<p class=dim>{inside} of {rows} points, evenly along each axis.</p>"
        f"<details><summary>All {rows} points</summary>{_table(judged, groups)}</details>"
    )


def _part(judged: Judged) -> list[tuple[dict[str, Any], list[Cell]]]:
    """Groups, evenly among all, that make as many rows as are in view."""
    groups = judged.groups
    size = max(len(cells) for _, cells in groups)
    count = max(1, min(len(groups), MOST_ROWS // size))
    step = (len(groups) - 1) / max(1, count - 1)
    kept = sorted({round(number * step) for number in range(count)})
    return [(groups[at][0], groups[at][1][:MOST_ROWS]) for at in kept]


def _table(judged: Judged, groups: Sequence[tuple[dict[str, Any], list[Cell]]]) -> str:
    view = judged.view
    axes = [axis for axis in view.axes if axis != view.compared]
    if view.compared is not None:
        axes.append(view.compared)
    heads = [
        f'<th scope="col" class="words">{"<br>".join(map(_breaking, (axis, *view.beside(axis))))}'
        "</th>"
        for axis in axes
    ]
    for metric in judged.columns:
        name, _, unit = label_of(view, metric).partition(" (")
        heads.append(
            f'<th scope="col">{html(name)}<br><small>{html(unit.removesuffix(")"))}</small></th>'
        )
    body = "".join(_group(judged, axes, cells) for _, cells in groups)
    return (
        f'<div class="scroll"><table><thead><tr>{"".join(heads)}</tr></thead>{body}</table></div>'
    )


def _group(judged: Judged, axes: Sequence[str], cells: Sequence[Cell]) -> str:
    """The rows of points that differ in the value compared alone; the best of them is marked."""
    alone = judged.view.compared is None
    best = {
        metric: judged.best(judged.view.cells if alone else cells, metric)
        for metric in judged.columns
    }
    rows = "".join(_row(judged, axes, cell, best) for cell in cells)
    return f"<tbody>{rows}</tbody>"


def _row(judged: Judged, axes: Sequence[str], cell: Cell, best: dict[str, list[Cell]]) -> str:
    view = judged.view
    words = [f'<td class="words">{html(_value(judged, axis, cell), 80)}</td>' for axis in axes]
    if not words:
        words = [f'<td class="words">{html(view.name(cell))}</td>']
    numbers = []
    for metric in judged.columns:
        text, verdict = _estimate(judged, cell, metric), _verdict(judged, cell, metric)
        numbers.append(
            f'<td class="best"><b>{text}</b>{verdict}</td>'
            if any(cell is one for one in best[metric])
            else f"<td>{text}{verdict}</td>"
        )
    return f"<tr>{''.join(words)}{''.join(numbers)}</tr>"


def _value(judged: Judged, axis: str, cell: Cell) -> str:
    value = cell.axes.get(axis)
    if judged.view.beside(axis):
        return judged.view.called(axis, value)
    if isinstance(value, int | float | str) and not isinstance(value, bool):
        return f"{value}"
    return judged.view.called(axis, value)


def _breaking(path: str) -> str:
    """A dotted path, which may break after its dots."""
    return html(path).replace(".", ".<wbr>")


def _estimate(judged: Judged, cell: Cell, metric: str) -> str:
    """Value and, in small, the longer side of its interval."""
    found = judged.view.of(cell, metric)
    if found.value is None:
        return "-"
    times = factor(metric)
    if found.reach is None:
        return html(figure(times * found.value))
    value, reach = spread(times * found.value, times * found.reach)
    return f'{html(value)}<span class="pm"> ± {html(reach)}</span>'


def _verdict(judged: Judged, cell: Cell, metric: str) -> str:
    """What is said of *cell* against its baseline in *metric*, on a line of its own."""
    view = judged.view
    if view.compared is None or metric not in judged.said:
        return ""
    if cell.axes.get(view.compared) == view.baseline:
        return '<br><small class="dim">baseline</small>'
    row = judged.of(cell, metric)
    if row is None or row.relative is None:
        return ""
    words, kind = change(row), "dim"
    if row.relative == 0:
        words = "the same"
    elif row.low is None:
        words += " (no interval)"
    elif not row.distinguishable:
        words = "not distinguishable"
    elif row.better is not None:
        kind = "good" if row.better else "bad"
    return f'<br><small class="{kind}">{html(words)}</small>'
