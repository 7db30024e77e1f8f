"""What a study is about: which axis is compared, which runs along, and what its lines are called.

One rule: decided once, from the study's own words where it has them (its baseline, its order), so
that the sentence, the table and all figures speak of the same thing.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from sim.axis_names import called, place, shared
from sim.errors import InputError
from sim.panels import COLOURS as OF_MODE
from sim.panels import PALETTE, STYLES
from sim.search.outcome import read_probes
from sim.stats import estimate, metric_of
from sim.stats.baseline import RATES, compared_axis, followers, numeric, varying

from .words import plain

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from sim.runs import Cell, Results
    from sim.search.outcome import Document
    from sim.stats import Estimate, Metric

MOST_FACETS = 4
MOST_SERIES = 8
"""Curves that one pair of axes can show and a reader tell apart."""


def _place(value: Any) -> float:
    return place(value) or 0.0


@dataclass(frozen=True)
class View:
    """*results* as the report looks at them."""

    results: Results
    _estimates: dict[tuple[int, str], Estimate] = field(default_factory=dict)
    _known: dict[str, bool] = field(default_factory=dict)
    _metrics: dict[str, Metric] = field(default_factory=dict)

    @property
    def cells(self) -> tuple[Cell, ...]:
        return self.results.cells

    @cached_property
    def search(self) -> Document | None:
        """What the search of the study found; None if it is none."""
        return read_probes(self.results.folder)

    @cached_property
    def axes(self) -> dict[str, list[Any]]:
        """The axes on which points differ, with the values that there are results for; of several
        that move together, one."""
        return varying(self.results)

    def beside(self, axis: str) -> tuple[str, ...]:
        """The axes that move with *axis*, which stands for them."""
        return self._followers.get(axis, ())

    @cached_property
    def _followers(self) -> dict[str, tuple[str, ...]]:
        return followers(self.results)

    @cached_property
    def numeric(self) -> tuple[str, ...]:
        """The axes of numbers; one value may be a word, as where a part is missing."""
        return numeric(self.axes)

    @cached_property
    def compared(self) -> str | None:
        """The axis whose values are compared with a baseline; None if there is none."""
        return compared_axis(self.results)

    @cached_property
    def baseline(self) -> Any:
        """The value on the axis `compared` that the others are compared with."""
        if self.compared is None:
            return None
        given = self.results.statistics.baseline or {}
        return given.get(self.compared, self.axes[self.compared][0])

    @cached_property
    def along(self) -> str | None:
        """The axis of numbers that figures run along: a rate, or the one with most values."""
        free = [axis for axis in self.numeric if axis != self.compared]
        rates = [axis for axis in RATES if axis in free]
        return rates[0] if rates else max(
            reversed(free), key=lambda axis: len(self.axes[axis]), default=None
        )  # fmt: skip

    # ------------------------------------------------------------------------ names and looks
    @cached_property
    def _common(self) -> frozenset[tuple[str, str]]:
        return shared([cell.axes for cell in self.cells])

    def called(self, axis: str, value: Any) -> str:
        """*value* of *axis* in a few words, with what moves with it; a number has its key."""
        at = next((cell.axes for cell in self.cells if cell.axes.get(axis) == value), {})
        beside = {other: at.get(other) for other in self.beside(axis)}
        return plain(called({axis: value} | beside, self._common))

    def name(self, cell: Cell, without: Iterable[str] = ()) -> str:
        """What *cell* is called by its axes but those *without*; its loop if none is left."""
        left = [axis for axis in self.axes if axis not in without]
        said = ", ".join(self.called(axis, cell.axes.get(axis)) for axis in left)
        return said or plain(str(cell.runs[0].summary["loop_mode"]))

    def series(self, cells: Sequence[Cell], along: str, *same: str) -> dict[str, list[Cell]]:
        """The lines of *cells* by name, each sorted by its place *along* the axis.

        Names leave out that axis and the axes that are the *same* for all.
        """
        found: dict[str, list[Cell]] = {}
        for cell in cells:
            if place(cell.axes.get(along)) is not None:
                found.setdefault(self.name(cell, (along, *same)), []).append(cell)
        for members in found.values():
            members.sort(key=lambda cell: place(cell.axes.get(along)) or 0.0)
        return found

    def look(self, cell: Cell, among: Sequence[Cell]) -> dict[str, Any]:
        """Colour by the value compared, the same in all figures; line style by what else differs
        *among* the cells of a figure."""
        others = [a for a in self.axes if a not in (self.compared, self.along)]
        kinds = list(dict.fromkeys(repr([c.axes.get(a) for a in others]) for c in among))
        kind = kinds.index(repr([cell.axes.get(axis) for axis in others]))
        if self.compared is None or len(self.axes[self.compared]) == 1:
            return {"color": PALETTE[kind % len(PALETTE)], "linestyle": STYLES[kind // 8 % 4]}
        value = cell.axes.get(self.compared)
        number = self.axes[self.compared].index(value)
        colour = PALETTE[number % len(PALETTE)]
        if self.compared == "loop.mode":
            colour = OF_MODE.get(str(value), colour)
        return {"color": colour, "linestyle": STYLES[kind % 4]}

    # ------------------------------------------------------------------------ which cells
    def middle(self, axis: str) -> Any:
        """The value of *axis* that stands for it where it cannot be shown: the one half along.

        Where not all values have as many points, as after a search, one of those with most.
        """
        values = self.axes[axis]
        if axis not in self.numeric:
            return self.baseline if axis == self.compared else values[0]
        counts = Counter(repr(cell.axes.get(axis)) for cell in self.cells)
        found = sorted((value for value in values if place(value) is not None), key=_place)
        most = max(counts[repr(value)] for value in found)
        half = len(found) // 2
        full = [at for at, value in enumerate(found) if counts[repr(value)] == most]
        return found[min(full, key=lambda at: (abs(at - half), -at))]

    @cached_property
    def alike(self) -> tuple[Cell, ...]:
        """Cells that differ in words alone, at the middle of every axis of numbers; eight at most,
        and then those that differ in the value compared."""
        if self.compared is None:
            return self._thinned(self.cells)
        fixed = [axis for axis in self.numeric if axis != self.compared]
        free = [axis for axis in self.axes if axis not in fixed]
        while True:
            found = tuple(
                cell
                for cell in self.cells
                if all(cell.axes.get(axis) == self.middle(axis) for axis in fixed)
            )
            if len(found) <= MOST_SERIES or len(free) < 2:
                break
            dropped = next(axis for axis in reversed(free) if axis != self.compared)
            free.remove(dropped)
            fixed.append(dropped)
        return self._thinned(found or self.cells)

    def _thinned(self, cells: Sequence[Cell]) -> tuple[Cell, ...]:
        """Eight of *cells* at most, evenly, the baseline's always."""
        if len(cells) <= MOST_SERIES:
            return tuple(cells)
        step = (len(cells) - 1) / (MOST_SERIES - 1)
        kept = {round(number * step) for number in range(MOST_SERIES)}
        return tuple(cell for number, cell in enumerate(cells) if number in kept)

    @cached_property
    def alike_axes(self) -> tuple[str, ...]:
        """Axes on which the cells that are `alike` do not differ, so that names need not say it."""
        first = self.alike[0].axes
        return tuple(
            axis
            for axis in self.axes
            if len(self.alike) > 1
            and all(cell.axes.get(axis) == first.get(axis) for cell in self.alike)
        )

    @cached_property
    def groups(self) -> list[tuple[str, list[Cell]]]:
        """The cells by the value compared, or all as one group."""
        if self.compared is None:
            return [("points", list(self.cells))]
        found: list[tuple[str, list[Cell]]] = []
        for value in self.axes[self.compared][:MOST_SERIES]:
            members = [cell for cell in self.cells if cell.axes.get(self.compared) == value]
            found.append((self.called(self.compared, value), members))
        return found

    def layout(self, along: str) -> list[tuple[str, dict[str, list[Cell]]]]:
        """Facets with a title each, and their lines along that axis, so few as can be told apart.

        All lines share a facet if they are few; else an axis of few values makes facets; else the
        cells stay that are at the middle of all but the value compared, as the title says.
        """
        lines = self.series(self.cells, along)
        if len(lines) <= MOST_SERIES:
            return [("", lines)]
        others = [axis for axis in self.axes if axis not in (along, self.compared)]
        for axis in others:
            values = self.axes[axis]
            if len(values) > MOST_FACETS:
                continue
            facets = []
            for value in values:
                of_value = [cell for cell in self.cells if cell.axes.get(axis) == value]
                facets.append((self.called(axis, value), self.series(of_value, along, axis)))
            if max(len(series) for _, series in facets) <= MOST_SERIES:
                return facets
        kept = [
            cell
            for cell in self.cells
            if all(cell.axes.get(axis) == self.middle(axis) for axis in others)
        ]
        title = ", ".join(self.called(axis, self.middle(axis)) for axis in others)
        found = self.series(kept, along, *others)
        return [(title, dict(list(found.items())[:MOST_SERIES]))]

    def where(self, cells: Sequence[Cell]) -> str:
        """What *cells* have in common on the axes, in words: where along the study they stand."""
        said = [
            self.called(axis, cells[0].axes.get(axis))
            for axis in self.axes
            if all(cell.axes.get(axis) == cells[0].axes.get(axis) for cell in cells)
        ]
        return ", ".join(said)

    # ------------------------------------------------------------------------ numbers
    def of(self, cell: Cell, metric: str) -> Estimate:
        """The estimate of *metric* in *cell*."""
        key = (id(cell), metric)
        if key not in self._estimates:
            self._estimates[key] = estimate(cell, metric, self.results.statistics)
        return self._estimates[key]

    def metric(self, name: str) -> Metric:
        """The metric *name*; raises `InputError` if no run has it."""
        if name not in self._metrics:
            self._metrics[name] = metric_of(name, [run.summary for run in self.results.runs])
        return self._metrics[name]

    def known(self, metric: str) -> bool:
        """Whether *metric* has a value anywhere."""
        if metric not in self._known:
            try:
                self.metric(metric)
                self._known[metric] = any(
                    self.of(cell, metric).value is not None for cell in self.cells
                )
            except InputError:
                self._known[metric] = False
        return self._known[metric]
