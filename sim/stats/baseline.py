"""Which cell of a study another one is compared with.

The one rule: a cell and its baseline differ on the baseline's axes alone, and on those that move
together with them; where there is no such cell, nothing is compared.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from sim.axis_names import place
from sim.errors import InputError, shown
from sim.node import suggestion

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sim.node import Place
    from sim.runs import Cell, Results

Axes = dict[str, Any]
CATEGORIES = ("variant", "loop.mode")
"""Axes that are compared before others, where the study names no baseline."""
RATES = ("trace.rate_scale", "trace.rate")


def baseline_faults(
    baseline: Mapping[str, Any] | None, axes: Mapping[str, Sequence[Any]]
) -> list[tuple[Place, str]]:
    """What is wrong with `statistics.baseline`: places below `statistics`, and what to mend."""
    found: list[tuple[Place, str]] = []
    for key, value in (baseline or {}).items():
        place = ("baseline", key)
        if key not in axes:
            found.append((place, f"no such axis; {suggestion(key, list(axes), 'axes')}"))
        elif value not in axes[key]:
            has = ", ".join(map(str, axes[key]))[:200]
            found.append((place, f"{shown(value)} is not on this axis, which has {has}"))
    return found


def varying(results: Results) -> dict[str, list[Any]]:
    """The axes on which there are results at several values, with these values.

    Of axes that move together there is one; `followers` has the others.
    """
    return {axis: _there(results, axis) for axis in followers(results)}


def followers(results: Results) -> dict[str, tuple[str, ...]]:
    """Each axis of `varying` with the axes that move with it.

    The one that stands for several is the baseline's, one of words, or the rate; else the first.
    """
    several = [axis for axis in results.axes if len(_there(results, axis)) > 1]
    preferred = [*(results.statistics.baseline or {}), *CATEGORIES, *RATES, *several]
    points = [cell.axes for cell in results.cells]
    found: dict[str, tuple[str, ...]] = {}
    for axis in dict.fromkeys(axis for axis in preferred if axis in several):
        if not any(axis in others for others in found.values()):
            with_it = tied({axis: None}, points) - {axis, *found}
            found[axis] = tuple(other for other in several if other in with_it)
    return {axis: found[axis] for axis in several if axis in found}


def _there(results: Results, axis: str) -> list[Any]:
    """The values of *axis* that some cell has, in the study's order."""
    there = [cell.axes.get(axis) for cell in results.cells]
    return [value for value in results.axes[axis] if value in there]


def numeric(axes: Mapping[str, Sequence[Any]]) -> tuple[str, ...]:
    """Those *axes* that are numbers; one value may be a word, as where a part is missing."""
    return tuple(
        axis
        for axis, values in axes.items()
        if sum(place(value) is None for value in values) <= (len(values) > 2)
    )


def compared_axis(results: Results) -> str | None:
    """The axis whose values are compared: the baseline's, else one of words; None if there is none.

    Of several axes of numbers alone, it is the first that is no rate: loads are not rivals.
    """
    axes = varying(results)
    words = [axis for axis in axes if axis not in numeric(axes)]
    chosen = [*(results.statistics.baseline or {}), *CATEGORIES, *words]
    if len(axes) > 1:
        chosen += [axis for axis in axes if axis not in RATES]
    return next((axis for axis in chosen if axis in axes), None)


def baseline_axes(results: Results) -> Axes:
    """The values that the others are compared with; empty where nothing is compared.

    Raises `InputError` for values that are not in the study.
    """
    given = results.statistics.baseline
    if given is None:
        axis = compared_axis(results)
        return {} if axis is None else {axis: varying(results)[axis][0]}
    faults = baseline_faults(given, results.axes)
    if faults:
        lines = [f"statistics.{'.'.join(map(str, place))}: {what}" for place, what in faults]
        raise InputError(lines)
    return given


def baseline_of(cell: Cell, results: Results) -> Cell | None:
    """The cell that *cell* is compared with: itself if it is one, None if the study has none."""
    return baselines(results)[results.cells.index(cell)]


def baselines(results: Results) -> list[Cell | None]:
    """For each cell of *results* the one that it is compared with, or None."""
    wanted = baseline_axes(results)
    if not wanted:
        return [None] * len(results.cells)
    free = tied(wanted, [cell.axes for cell in results.cells])
    held = [
        _text({key: value for key, value in cell.axes.items() if key not in free})
        for cell in results.cells
    ]
    of_rest = {
        rest: cell
        for cell, rest in reversed(list(zip(results.cells, held, strict=True)))
        if all(cell.axes.get(key) == value for key, value in wanted.items())
    }
    return [of_rest.get(rest) for rest in held]


def tied(wanted: Mapping[str, Any], points: Sequence[Axes]) -> set[str]:
    """The axes of *wanted* and those of which the value follows from theirs and the reverse.

    Such axes are zipped with one of *wanted*, so they cannot stay as they are.
    """
    free = set(wanted)
    texts = {
        axis: [_text(axes.get(axis)) for axes in points]
        for axis in dict.fromkeys(key for axes in points for key in axes)
    }
    for key in wanted:
        left = set(texts[key])
        for axis, values in texts.items():
            pairs = set(zip(texts[key], values, strict=True))
            if 1 < len(left) == len(pairs) == len(set(values)):
                free.add(axis)
    return free


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=str)
