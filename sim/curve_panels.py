"""A study's metric over the axis that it sweeps in numbers: a line a value of another axis.

The one rule: what a study compares with is dashed. That is a line of runs without the feature (a
value of null), or the one value on the axis of numbers that is no number, as a level across.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .panels import COLOURS, SPARE, Run

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LEAST = 3
"""Numbers on an axis that make a curve."""
MOST_PANELS = 4
PALETTE = (*COLOURS.values(), *SPARE[:2], SPARE[3])
BASELINE = "#000000"


@dataclass(frozen=True, slots=True)
class Swept:
    """Which axis of a study runs along, which makes panels, and which make lines."""

    along: str
    panels: str | None
    lines: tuple[str, ...]

    def name(self, run: Run) -> str:
        """What the line of *run* is called."""
        return run.named({key: run.axes[key] for key in self.lines})

    def title(self, run: Run, value: Any) -> str:
        """What the panel of *value* is called; a number comes with its key."""
        assert self.panels is not None, "a study with one panel has no titles"
        name = run.named({self.panels: value})
        return f"{self.panels.rpartition('.')[2]} {name}" if _is_number(value) else name

    def panel_values(self, runs: list[Run]) -> list[Any]:
        """Values that have a panel each."""
        return [None] if self.panels is None else _distinct(runs, self.panels)

    def of_panel(self, runs: list[Run], value: Any) -> list[Run]:
        """The runs of one panel."""
        return [run for run in runs if self.panels is None or run.axes[self.panels] == value]


def swept(runs: list[Run]) -> Swept | None:
    """How to lay out a study of *runs*; None if no axis has enough numbers.

    Along goes the axis with most numbers, of equal ones the last. Of the others the first makes
    panels, if there are at least two of them, and its values are few.
    """
    counts = {key: _numbers(_distinct(runs, key)) for key in runs[0].axes}
    along = max(reversed(counts), key=lambda key: counts[key], default=None)
    if along is None or counts[along] < LEAST:
        return None
    rest = [key for key in counts if key != along]
    panels = None
    if len(rest) > 1 and len(_distinct(runs, rest[0])) <= MOST_PANELS:
        panels = rest.pop(0)
    return Swept(along, panels, tuple(rest))


def _distinct(runs: list[Run], key: str) -> list[Any]:
    found: list[Any] = []
    for run in runs:
        if run.axes[key] not in found:
            found.append(run.axes[key])
    return found


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _numbers(values: list[Any]) -> int:
    """Numbers among *values*; 0 if more than one is no number."""
    numbers = sum(map(_is_number, values))
    return numbers if numbers >= len(values) - 1 else 0


def middle(runs: list[Run], how: Swept) -> list[Run]:
    """Runs that differ in their line alone: those of the first panel, half along."""
    values = sorted(value for value in _distinct(runs, how.along) if _is_number(value))
    half = values[len(values) // 2]
    first = how.panel_values(runs)[0]
    return [run for run in how.of_panel(runs, first) if run.axes[how.along] == half]


def lines(axes: Axes, runs: list[Run], how: Swept, key: str, label: str) -> None:
    """*key* of the *runs* of a panel, along the axis."""
    from matplotlib.ticker import NullLocator

    of_line: dict[str, list[Run]] = {}
    for run in runs:
        of_line.setdefault(how.name(run), []).append(run)
    levels = []
    number = 0
    for name, members in of_line.items():
        members = [run for run in members if run.summary.get(key) is not None]
        if not members:
            continue
        baseline = bool(how.lines) and all(members[0].axes[k] is None for k in how.lines)
        colour = BASELINE if baseline else PALETTE[number % len(PALETTE)]
        number += not baseline
        points = sorted(
            (run.axes[how.along], run.summary[key])
            for run in members
            if _is_number(run.axes[how.along])
        )
        dashed = "--" if baseline else "-"
        axes.plot(
            [x for x, _ in points], [y for _, y in points], dashed, color=colour, marker="o",
            markersize=3.5, linewidth=1.6, label=name or None,
        )  # fmt: skip
        levels += [
            (run.summary[key], colour) for run in members if not _is_number(run.axes[how.along])
        ]
    _across(axes, levels)
    axes.set_xlabel(how.along)
    axes.set_ylabel(label)
    low, high = axes.dataLim.intervalx
    if low > 0 and high > 16 * low:
        axes.set_xscale("log")
        ticks = sorted(
            {float(run.axes[how.along]) for run in runs if _is_number(run.axes[how.along])}
        )
        axes.set_xticks(ticks, [_short(tick) for tick in ticks])
        axes.xaxis.set_minor_locator(NullLocator())


def _short(value: float) -> str:
    """A tick's number in little room: two digits and k from a thousand on."""
    return f"{value / 1000:.2g}k" if value >= 1000 else f"{value:g}"


def columns(labels: list[str]) -> int:
    """Columns of a legend of *labels* that fit across a figure."""
    return max(1, min(6, 120 // (max(map(len, labels)) + 8)))


def _across(axes: Axes, levels: list[tuple[float, str]]) -> None:
    """What lines are compared with: a level for all if it is the same for all, else one each."""
    values = [value for value, _ in levels]
    if values and max(values) <= 1.005 * min(values):
        axes.axhline(values[0], linestyle="--", color=BASELINE, linewidth=1.2, label="baseline")
        return
    for value, colour in levels:
        axes.axhline(value, linestyle="--", color=colour, linewidth=1.0)
