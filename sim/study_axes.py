"""The section `sweep` of a study: its axes, what moves together, and how often each point is run.

The one rule: what is written is walked. Every axis, group and variant is checked by itself, with
each finding at its place, before a single point is made.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from .errors import shown
from .findings import OF_STUDY
from .load import DOTTED, OF_FILE, place_of
from .marks import Document, Finding
from .merge import overlay
from .scenario import Scenario
from .study_range import RangeError, is_range, values_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .node import Place

VARIANT = "variant"
"""What the axis of the named variants is called."""
RESERVED = ("zip", "variants", "only", "except", "seeds")
MAX_SEEDS = 10_000
_PATH = "an axis is a dotted path, e.g. loop.max_batch"


@dataclass(frozen=True, slots=True)
class Choice:
    """A position on an axis, or on several that move together."""

    values: dict[str, Any]
    """What it is called, by axis."""
    layers: tuple[tuple[Place, Document], ...]
    """What it sets, and where, in order."""


@dataclass(slots=True)
class Axes:
    """What a sweep says: groups of choices in the order of the file, the last running fastest."""

    groups: list[tuple[Choice, ...]] = field(default_factory=list)
    seeds: int = 1
    findings: list[Finding] = field(default_factory=list)
    bad: set[str] = field(default_factory=set)
    """Axes that have findings."""

    def names(self) -> list[str]:
        """All axes, in order."""
        return [name for group in self.groups for name in group[0].values]

    def sets(self) -> set[str]:
        """All paths that some point sets."""
        every = (choice for group in self.groups for choice in group)
        return {".".join(map(str, place)) for choice in every for place, _ in choice.layers}

    def values(self, name: str) -> list[Any]:
        """The values of an axis, each once."""
        every = (c.values[name] for group in self.groups for c in group if name in c.values)
        return list({repr(value): value for value in every}.values())


def read_axes(document: Document, taken: Iterable[str]) -> Axes:
    """The axes that *document* sweeps; *taken* are the paths that `--set` sets."""
    reader = _Reader(document, list(taken))
    sweep = document.data.get("sweep", {})
    if not isinstance(sweep, dict):
        what = "expected a map of dotted paths to lists, e.g. `loop.max_batch: [16, 64]`"
        reader.find(("sweep",), what, key=False)
        document.data["sweep"] = {}
        return reader.axes
    for key in list(sweep):
        if key == "zip":
            reader.zips(("sweep", "zip"))
        elif key == "variants":
            reader.variants(("sweep", "variants"))
        elif key == "seeds":
            reader.seeds(("sweep", "seeds"))
        elif key not in RESERVED:
            reader.axis(("sweep", key))
    return reader.axes


class _Reader:
    """Fills `axes` from a document, whose ranges it replaces by lists."""

    def __init__(self, document: Document, taken: list[str]) -> None:
        self.document = document
        self.taken = taken
        self.axes = Axes()

    def find(self, place: Place, what: str, *, key: bool = True) -> None:
        """A finding at *place*, an axis or what stands for one."""
        mark = self.document.mark(place, key=key)
        self.axes.findings.append(Finding(mark, f"{'.'.join(map(str, place))}: {what}"))

    def axis(self, place: Place) -> None:
        """One axis by itself, unless it has a fault."""
        name = str(place[-1])
        values = self.values(place)
        if values is None:
            self.axes.bad.add(name)
            return
        if len({repr(value) for value in values}) < len(values):
            self.axes.bad.add(name)
            self.find(place, "the same value twice; remove one")
            return
        self.taken.append(name)
        self.axes.groups.append(
            tuple(Choice({name: value}, (self.layer(place, i),)) for i, value in enumerate(values))
        )

    def layer(self, axis: Place, *position: int) -> tuple[Place, Document]:
        """What the value at *position* of an axis sets."""
        target = place_of(str(axis[-1]))
        return target, overlay(target, self.document, (*axis, *position), axis)

    def values(self, place: Place) -> list[Any] | None:
        """The values of the axis at *place*, or None after a finding."""
        fault = self.path_fault(str(place[-1]))
        if fault is not None:
            self.find(place, fault)
            return None
        given = _at(self.document.data, place)
        if is_range(given):
            return self.range(place, given)
        if not isinstance(given, list):
            hint = "; write the axis as a dotted path" if isinstance(given, dict) else ""
            self.find(place, f"expected a list of values, got {shown(given)}{hint}")
            return None
        if not given:
            self.find(place, "an empty list; give at least one value")
            return None
        return given

    def path_fault(self, name: str) -> str | None:
        """Why *name* cannot be an axis, nor set by a variant."""
        if not DOTTED.fullmatch(name):
            return _PATH
        root = name.partition(".")[0]
        if root == "sweep":
            return "there is no sweep in a sweep; list the axes side by side"
        if root in OF_FILE:
            return "cannot be swept"
        if root in OF_STUDY:
            return "is no part of a run, and cannot be swept"
        if name in RESERVED:
            return "stands in `sweep` itself"
        if name == VARIANT:
            return "the axis that `variants` makes; give the variants there, by name"
        if name not in Scenario.model_fields and (near := get_close_matches(name, RESERVED, 1)):
            return f"no such field; did you mean '{near[0]}'?"
        if name == "seed" and "seeds" in self.document.data["sweep"]:
            return "not together with seeds, which counts it up from the scenario's; remove one"
        other = next((one for one in self.taken if overlaps(one, name)), None)
        return None if other is None else f"{other} is set or swept as well; remove one of them"

    def range(self, place: Place, given: dict[str, Any]) -> list[Any] | None:
        """The values of a range, which take its place in the document."""
        try:
            found = values_of(given)
        except RangeError as error:
            at = place if error.key is None else (*place, error.key)
            self.find(at, error.what, key=error.key not in ("from", "to", "step", "count"))
            return None
        document, depth = self.document, len(place)
        for marks in (document.values, document.keys):
            for below in [p for p in marks if len(p) > depth and p[:depth] == place]:
                del marks[below]
        _at(document.data, place[:-1])[place[-1]] = found
        return found

    def zips(self, place: Place) -> None:
        """Groups of axes that move together: a map, or a list of maps."""
        given = _at(self.document.data, place)
        groups = given if isinstance(given, list) else [given]
        for i, group in enumerate(groups):
            here = (*place, i) if isinstance(given, list) else place
            if isinstance(group, dict) and group:
                self.zip(here, list(group))
            else:
                what = f"expected a map of dotted paths to lists, got {shown(group)}"
                self.find(here, what, key=False)
        if not groups:
            self.find(place, "an empty list; give a map of the axes that move together")

    def zip(self, place: Place, names: list[str]) -> None:
        """One group of axes that move together."""
        lists: dict[str, list[Any]] = {}
        for name in names:
            values = self.values((*place, name))
            if values is not None:
                self.taken.append(name)
                lists[name] = values
        if len(lists) < len(names):
            self.axes.bad.update(names)
            return
        first, count = names[0], len(lists[names[0]])
        uneven = [name for name in names if len(lists[name]) != count]
        for name in uneven:
            what = f"{len(lists[name])} in the list, and {count} in that of {first}"
            self.find((*place, name), f"{what}; what moves together has as many")
        if uneven:
            self.axes.bad.update(names)
            return
        self.axes.groups.append(
            tuple(
                Choice(
                    {name: lists[name][i] for name in names},
                    tuple(self.layer((*place, name), i) for name in names),
                )
                for i in range(count)
            )
        )

    def variants(self, place: Place) -> None:
        """The named variants, which are an axis of their own."""
        given = _at(self.document.data, place)
        if not isinstance(given, dict) or not given:
            what = f"expected a map of names to what each sets, got {shown(given)}"
            self.find(place, what, key=False)
            self.axes.bad.add(VARIANT)
            return
        choices = [self.variant((*place, name)) for name in given]
        each = [sets for sets in given.values() if isinstance(sets, dict)]
        self.taken += dict.fromkeys(path for sets in each for path in sets)
        found = [choice for choice in choices if choice is not None]
        if len(found) < len(choices):
            self.axes.bad.add(VARIANT)
        else:
            self.axes.groups.append(tuple(found))

    def variant(self, place: Place) -> Choice | None:
        """One variant, or None after findings."""
        name, sets = str(place[-1]), _at(self.document.data, place)
        if not isinstance(sets, dict):
            what = f"expected a map of dotted paths to values, or {{}}, got {shown(sets)}"
            self.find(place, what, key=False)
            return None
        if not name or len(name) > 64:
            self.find(place, "a name has 1 to 64 characters")
            return None
        before, faults = list(self.taken), 0
        for path in sets:
            if (fault := self.path_fault(path)) is not None:
                self.find((*place, path), fault)
                faults += 1
            self.taken.append(path)
        self.taken = before  # variants may set the same, one in place of the other
        if faults:
            return None
        return Choice({VARIANT: name}, tuple(self.layer((*place, path)) for path in sets))

    def seeds(self, place: Place) -> None:
        """The number of replications."""
        given = _at(self.document.data, place)
        if type(given) is not int:
            what = f"expected a whole number, how often each point is run, got {shown(given)}"
            self.find(place, what, key=False)
        elif not 1 <= given <= MAX_SEEDS:
            self.find(place, f"must be from 1 to {MAX_SEEDS}, got {shown(given)}", key=False)
        else:
            self.axes.seeds = given


def overlaps(one: str, other: str) -> bool:
    """Whether one of two paths is the other or stands in it."""
    return f"{one}.".startswith(f"{other}.") or f"{other}.".startswith(f"{one}.")


def _at(data: Any, place: Place) -> Any:
    for step in place:
        data = data[step]
    return data
