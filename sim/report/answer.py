"""The answer of a study in sentences: who is better, by how much, where that changes, under what.

One rule: a sentence says no more than its intervals carry. What cannot be told apart is said so,
and a difference without an interval is never called significant.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sim.axis_names import place
from sim.stats.frames import unit_of
from sim.stats.words import percent

from .lines import label_of
from .words import figure, html, listed, plain, spread

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sim.runs import Cell
    from sim.stats import Difference

    from .judged import Judged
    from .view import View

MOST_RIVALS = 3
"""Values compared that get a clause each; of more, the best alone has one."""


def answer(judged: Judged) -> list[str]:
    """Sentences as HTML, the most telling first; of a single run what it shows."""
    view = judged.view
    if not view.cells:
        return ["No point of this study has run, so there is no answer yet."]
    if view.compared is None:
        return [_range(judged, metric) for metric in judged.said]
    return [_comparison(judged, metric) for metric in judged.said]


# ---------------------------------------------------------------------------- without a rival
def _range(judged: Judged, metric: str) -> str:
    """The value of one cell, or the best and the worst of several."""
    view = judged.view
    found = view.metric(metric)
    name = html(label_of(view, metric, unit=False))
    if len(view.cells) == 1:
        return f"{name} is <strong>{html(value(view, view.cells[0], metric))}</strong>."
    known = [cell for cell in view.cells if view.of(cell, metric).value is not None]
    ordered = sorted(known, key=lambda cell: view.of(cell, metric).value or 0.0)
    low, high = ordered[0], ordered[-1]
    if found.better == "higher":
        low, high = high, low
    return (
        f"{name} is best at {html(view.name(low))}: <strong>{html(value(view, low, metric))}"
        f"</strong>; the other end is {html(value(view, high, metric))} at "
        f"{html(view.name(high))}."
    )


def value(view: View, cell: Cell, metric: str) -> str:
    """The estimate with its unit and, where there is one, its interval."""
    found, unit = view.of(cell, metric), unit_of(view.metric(metric).unit, view.results)
    if found.value is None:
        return "not known"
    if found.reach is None:
        return f"{figure(found.value)} {unit}".rstrip()
    return f"{' ± '.join(spread(found.value, found.reach))} {unit}".rstrip()


# ---------------------------------------------------------------------------- against a baseline
def _comparison(judged: Judged, metric: str) -> str:
    """How the metric differs from the baseline's in the middle of the study, and elsewhere."""
    view = judged.view
    compared = view.compared or ""
    groups = [group for group in judged.groups if len(group[1]) > 1] or judged.groups
    axes, cells = groups[_middle(view, groups)]
    rows = [
        (cell, row)
        for cell in cells
        if (row := judged.of(cell, metric)) is not None and row.relative is not None
    ]
    name = html(label_of(view, metric, unit=False, small=True))
    base = html(view.called(compared, view.baseline))
    if not rows:
        return f"{name} with {base}: there is nothing to compare it with."
    left = 0
    if len(rows) > MOST_RIVALS:
        best = judged.best([cell for cell, _ in rows], metric)
        left = len(rows) - 1
        rows = [pair for pair in rows if best and pair[0] is best[0]] or rows[:1]
    clauses = [
        f"with {html(view.called(compared, cell.axes.get(compared)))} {_by(row, number == 0)}"
        for number, (cell, row) in enumerate(rows)
    ]
    clauses[0] += f" {_than(rows[0][1])} with {base}"
    bare = all(row.low is None for _, row in rows)
    note = " (one run each, no interval)" if bare else ""
    more = f"; {left} other values are in the table" if left else ""
    at = f"at {html(_where(view, axes))}, " if axes else ""
    text = f"{at}{name} {', '.join(clauses)}{note}{more}."
    rest = _elsewhere(judged, groups, metric)
    return f'{_start(text)} <span class="rest">{rest}</span>' if rest else _start(text)


def _start(text: str) -> str:
    """*text* as a sentence begins; p99 stays small."""
    return text if text[:2] in ("p9", "p5") else text[:1].upper() + text[1:]


def _by(row: Difference, first: bool) -> str:
    """How a rival differs, as the end of a clause; the *first* has the verb."""
    verb = "is " if first else ""
    if row.relative == 0:
        return f"{verb}<strong>the same</strong>"
    if row.low is not None and not row.distinguishable:
        alone = ", by itself distinguishable" if row.p is not None and row.p < row.alpha else ""
        return f"{verb}<strong>not distinguishable</strong> ({change(row)}{alone})"
    return f"{verb}<strong>{change(row)}</strong>"


def _than(row: Difference) -> str:
    """What joins how *row* differs and the baseline."""
    if row.relative == 0:
        return "as"
    return "than" if row.low is None or row.distinguishable else "from that"


def change(row: Difference) -> str:
    """How *row* differs: '12 % ± 3 % lower'."""
    relative = row.relative or 0.0
    reach = None if row.low is None or row.high is None else (row.high - row.low) / 2
    return f"{percent(abs(relative), reach)} {'higher' if relative > 0 else 'lower'}"


def _middle(view: View, groups: Sequence[tuple[dict[str, Any], list[Cell]]]) -> int:
    """The group whose axes are at their middle: where the sentence is said."""
    for number, (axes, _) in enumerate(groups):
        if all(axes[axis] == view.middle(axis) for axis in axes):
            return number
    return len(groups) // 2


def _where(view: View, axes: dict[str, Any]) -> str:
    """*axes* in words; of the rate, as many times."""
    said = []
    for axis, what in axes.items():
        if axis == "trace.rate_scale":
            said.append("the recorded rate" if what == 1 else f"{what} times the rate")
        else:
            said.append(view.called(axis, what))
    return ", ".join(said)


def _elsewhere(
    judged: Judged, groups: Sequence[tuple[dict[str, Any], list[Cell]]], metric: str
) -> str:
    """Who is best where, and between which values along the axis that changes."""
    view = judged.view
    if len(groups) < 2:
        return ""
    named = [_leader(judged, cells, metric) for _, cells in groups]
    counts = {name: named.count(name) for name in dict.fromkeys(named) if name is not None}
    way = "lowest" if view.metric(metric).better == "lower" else "highest"
    parts = [
        f"with {html(name)} at {'all of them' if count == len(groups) else count}"
        for name, count in sorted(counts.items(), key=lambda pair: -pair[1])[:4]
    ]
    if even := named.count(None):
        parts.append(f"the same with all at {even}")
    axes = list(groups[0][0])
    over = f"values of {html(axes[0])}" if len(axes) == 1 else "combinations of the other axes"
    said = f"Over the {len(groups)} {over} the {way} value is {', '.join(parts)}"
    if not counts:
        said = f"Values are the same at all {len(groups)} {over}"
    return f"{said}.{_largest(judged, groups, metric)}{_crossovers(judged, groups, named, metric)}"


def _leader(judged: Judged, cells: Sequence[Cell], metric: str) -> str | None:
    """What the best of *cells* is called, of several as good the first; None where all tie."""
    best = judged.best(cells, metric)
    compared = judged.view.compared or ""
    return judged.view.called(compared, best[0].axes.get(compared)) if best else None


def _largest(
    judged: Judged, groups: Sequence[tuple[dict[str, Any], list[Cell]]], metric: str
) -> str:
    """The largest difference that is distinguishable, and where; without intervals of all."""
    view = judged.view
    found = [
        (abs(row.relative), -number, row, axes, cell)
        for number, (axes, cells) in enumerate(groups)
        for cell in cells
        if (row := judged.of(cell, metric)) is not None and row.relative
    ]
    told = [entry for entry in found if entry[2].distinguishable]
    if not found or (not told and any(entry[2].low is not None for entry in found)):
        return " None of the differences is distinguishable." if found else ""
    _, _, row, axes, cell = max(told or found, key=lambda entry: entry[:2])
    name = view.called(view.compared or "", cell.axes.get(view.compared or ""))
    kind = "largest distinguishable" if told else "largest"
    return f" The {kind} difference: {html(name)}, {change(row)} at {html(_where(view, axes))}."


def _crossovers(
    judged: Judged,
    groups: Sequence[tuple[dict[str, Any], list[Cell]]],
    named: Sequence[str | None],
    metric: str,
) -> str:
    """Where the winner changes along the axis, for each value of the others; three at most.

    Only where neither lead may be chance: where the intervals of the two are apart.
    """
    along = judged.view.along
    if along is None:
        return ""
    found = []
    for at in range(1, len(groups)):
        one, other = groups[at - 1][0], groups[at][0]
        same = all(one[axis] == other[axis] for axis in one if axis != along)
        a, b = named[at - 1], named[at]
        if not (same and a and b and a != b and place(other[along]) is not None):
            continue
        if all(_apart(judged, cells, (a, b), metric) for _, cells in groups[at - 1 : at + 1]):
            found.append(f"from {a} to {b} between {one[along]} and {other[along]}")
    if not found:
        return ""
    if len(found) > 3:
        return f" The lead changes {len(found)} times along {html(along)}."
    return f" Along {html(along)} the lead passes {html(', '.join(found), 400)}."


def _apart(judged: Judged, cells: Sequence[Cell], names: tuple[str, str], metric: str) -> bool:
    """Whether the intervals of the two *names* among *cells* do not meet, if both have one."""
    view = judged.view
    compared = view.compared or ""
    found = [
        view.of(cell, metric)
        for cell in cells
        if view.called(compared, cell.axes.get(compared)) in names
    ]
    ends = [(one.low, one.high) for one in found if one.low is not None and one.high is not None]
    if len(found) < 2 or len(ends) < 2:
        return len(found) == 2
    return max(low for low, _ in ends) > min(high for _, high in ends)


# ---------------------------------------------------------------------------- conditions
def conditions(judged: Judged) -> str:
    """Under what the answer holds, as plain text: what ran, how often, how it was estimated."""
    view = judged.view
    runs = view.results.runs
    if not runs:
        return ""
    models = _distinct(plain(str(run.summary["model_id"])) for run in runs)
    profiles = _distinct(
        f"{plain(str(run.summary['cost_profile']))}, {run.summary['cost_profile_status']} profile"
        for run in runs
    )
    said = [f"Simulated: {listed(models[:3])} on {_gpus(view)} ({'; '.join(profiles[:3])})"]
    said.append(_traffic(view))
    seeds = max(len(cell.runs) for cell in view.cells)
    said.append(f"{len(view.cells)} point{'s' * (len(view.cells) > 1)}")
    said.append(f"{seeds} seeds each" if seeds > 1 else "one seed")
    return "; ".join(said) + "."


def _gpus(view: View) -> str:
    counts = sorted({run.replicas for run in view.results.runs})
    if counts == [1]:
        return "one GPU"
    return f"{counts[0]} GPUs" if len(counts) == 1 else f"{counts[0]} to {counts[-1]} GPUs"


def _traffic(view: View) -> str:
    """What was replayed, from the first run's scenario."""
    counts = sorted({int(run.summary["requests_in"]) for run in view.results.runs})
    many = f"{counts[0]:,}" if len(counts) == 1 else f"{counts[0]:,} to {counts[-1]:,}"
    trace = view.results.runs[0].scenario.get("trace")
    trace = trace if isinstance(trace, dict) else {}
    name = trace.get("source") or trace.get("file") or "a trace"
    name = name.get("name", "a file") if isinstance(name, dict) else str(name).rpartition("/")[2]
    return f"{many} requests of {plain(str(name))}"


def _distinct(words: Any) -> list[str]:
    return list(dict.fromkeys(words))
