"""The filters of a sweep: which of all combinations of its axes are points.

The one rule: a filter says something. A key that is no axis, a value that the axis has not, and a
filter that holds for no combination are findings, since they would pass for a choice made.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from .errors import shown
from .marks import Document, Finding
from .node import suggestion
from .study_axes import VARIANT, Axes
from .units import quantity

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .node import Place

MAX_POINTS = 10_000
MAX_GRID = 200_000
"""Combinations of all values before filters."""

Chosen = tuple[int, ...]
"""The position in each group of axes."""


@dataclass(slots=True)
class Grid:
    """The points of a sweep, by their positions; *left_out* is how many combinations are none."""

    points: list[Chosen] = field(default_factory=list)
    left_out: int = 0


def filtered(document: Document, axes: Axes) -> Grid:
    """The points of *axes* that the filters leave; what is wrong joins the findings of *axes*."""
    sweep = document.data.get("sweep", {})
    filters = {key: _filters(document, axes, key) for key in ("only", "except") if key in sweep}
    sizes = [len(group) for group in axes.groups]
    total = math.prod(sizes)
    if total > (MAX_GRID if filters else MAX_POINTS):
        limit = f"{MAX_GRID} combinations before its filters" if filters else f"{MAX_POINTS} points"
        return _none(document, axes, f"more than {limit}; shorten an axis")
    if axes.findings:  # the other points are still looked at, without filters
        every = itertools.product(*map(range, sizes))
        return Grid(list(itertools.islice(every, MAX_POINTS)))
    points = [
        chosen
        for chosen in itertools.product(*map(range, sizes))
        if ("only" not in filters or any(_holds(f, chosen) for f in filters["only"]))
        and not any(_holds(f, chosen) for f in filters.get("except", ()))
    ]
    if not points:
        return _none(document, axes, "its filters leave no point; loosen one")
    if len(points) * axes.seeds > MAX_POINTS:
        runs = f"{MAX_POINTS} points"
        if axes.seeds > 1:
            runs = f"{MAX_POINTS} runs ({len(points)} points x {axes.seeds} seeds)"
        return _none(document, axes, f"more than {runs}; shorten an axis")
    return Grid(points, total - len(points))


def _none(document: Document, axes: Axes, what: str) -> Grid:
    axes.findings.append(Finding(document.mark(("sweep",)), f"sweep: {what}"))
    return Grid()


Filter = dict[int, set[int]]
"""The positions that a filter is about, by group; groups not in it may have any."""


def _holds(wanted: Filter, chosen: Chosen) -> bool:
    return all(chosen[group] in positions for group, positions in wanted.items())


def _filters(document: Document, axes: Axes, key: str) -> list[Filter]:
    """The filters under *key*; what is wrong joins the findings of *axes*."""
    given = document.data["sweep"][key]
    listed = given if isinstance(given, list) else [given]
    found = []
    for i, one in enumerate(listed):
        place: Place = ("sweep", key, i) if isinstance(given, list) else ("sweep", key)
        what = None
        if not isinstance(one, dict):
            what = f"expected a map of axes to values, e.g. {{loop.mode: host}}, got {shown(one)}"
        elif not one:
            what = "an empty filter; name an axis and its values, or remove it"
        if what is None:
            wanted = _filter(document, axes, place, one)
            if wanted is not None:
                found.append(wanted)
        else:
            axes.findings.append(Finding(document.mark(place), f"{_dotted(place)}: {what}"))
    if not listed:
        what = "an empty list; give at least one filter, or remove it"
        axes.findings.append(Finding(document.mark(("sweep", key)), f"sweep.{key}: {what}"))
    return found


def _filter(document: Document, axes: Axes, place: Place, given: dict[str, Any]) -> Filter | None:
    """One filter, or None after findings, or where an axis that it names has some."""
    wanted: Filter = {}
    faults = matched(document, axes, place, given, wanted)
    if faults or axes.bad & {*given}:
        axes.findings += faults
        return None
    if not all(wanted.values()):
        what = f"{_dotted(place)}: no point has all of this; its values stand in other rows of zip"
        axes.findings.append(Finding(document.mark(place), what))
        return None
    return wanted


def matched(
    document: Document, axes: Axes, place: Place, given: dict[str, Any], wanted: Filter
) -> list[Finding]:
    """What is wrong with the axes and values of *given*, at *place*; fills *wanted*."""
    findings = []
    known = axes.names()
    for name, values in given.items():
        here = (*place, name)
        if name in axes.bad:
            continue
        if name not in known:
            what = _no_axis(document, name, known)
            findings.append(Finding(document.mark(here, key=True), f"{_dotted(here)}: {what}"))
            continue
        group = next(i for i, one in enumerate(axes.groups) if name in one[0].values)
        found = {i: plain(choice.values[name]) for i, choice in enumerate(axes.groups[group])}
        several = isinstance(values, list) and plain(values) not in found.values()
        positions = set()
        for i, value in enumerate(values if several else [values]):
            at = {position for position, one in found.items() if one == plain(value)}
            if not at:
                mark = document.mark((*here, i) if several else here)
                what = _no_value(name, value, axes.values(name))
                findings.append(Finding(mark, f"{_dotted(here)}: {what}"))
            positions |= at
        if several and not values:
            what = f"{_dotted(here)}: an empty list; give at least one value"
            findings.append(Finding(document.mark(here), what))
        wanted[group] = wanted.get(group, positions) & positions
    return findings


def _no_axis(document: Document, name: str, known: Sequence[str]) -> str:
    variants = document.data.get("sweep", {}).get("variants")
    each = variants.values() if isinstance(variants, dict) else ()
    if any(isinstance(sets, dict) and name in sets for sets in each):
        return f"is set by variants, and no axis; write {VARIANT} and their names"
    hint = suggestion(name, known, "axes") if known else "it has none"
    return f"is no axis of the sweep; {hint}"


def _no_value(axis: str, value: Any, values: Sequence[Any]) -> str:
    what = "is no variant" if axis == VARIANT else "is no value of this axis"
    words = [one for one in values if isinstance(one, str)]
    if isinstance(value, str) and len(words) == len(values) <= 20:
        return f"{shown(value)} {what}; {suggestion(value, words, 'values')}"
    listed = ", ".join(shown(one, 30) for one in values[:8])
    more = f" and {len(values) - 8} more" if len(values) > 8 else ""
    return f"{shown(value)} {what}; values: {listed}{more}"


def plain(value: Any) -> Any:
    """*value* such that equal ones compare equal: 4 and 4.0, '1 TiB' and '1024 GiB'."""
    if isinstance(value, bool) or value is None:
        return ("word", value)
    if isinstance(value, int | float):
        return ("number", float(value) if abs(value) < 2**53 else value)
    if isinstance(value, str):
        found = quantity(value)
        if found is None:
            return ("text", value)
        number, unit, dimension = found
        return (dimension.noun, float(number) * dimension.factors[unit])
    if isinstance(value, list):
        return ("list", *map(plain, value))
    return ("map", *sorted((key, plain(one)) for key, one in value.items()))


def _dotted(place: Place) -> str:
    return ".".join(map(str, place))
