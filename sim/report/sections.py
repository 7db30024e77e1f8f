"""What stands below the figures: what the numbers rest on, how they were had, and from which files.

One rule: nothing that failed, was estimated or was extrapolated is left unsaid.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from sim.stats import warm_up
from sim.units import seconds_text

from .lines import label_of
from .words import block, figure, html, listed, plain

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from sim.runs import Run
    from sim.sweeping import Failure

    from .judged import Judged
    from .view import View

MOST_LISTED = 40


def section(title: str, body: str, name: str) -> str:
    """A part of the page under a heading; nothing where *body* is empty."""
    if not body:
        return ""
    return f'<section class="wide" id="{name}"><h2>{html(title)}</h2>{body}</section>\n'


def question(view: View) -> str:
    """The study's own words about what it asks, a paragraph each."""
    parts = [part for part in view.results.question.split("\n\n") if part.strip()]
    return "".join(f"<p>{block(part)}</p>" for part in parts)


# ---------------------------------------------------------------------------- failures
def failures(view: View) -> str:
    """Points without a result: what was raised, and how often it was tried."""
    results = view.results
    said = []
    if results.failures:
        rows = "".join(map(_failure, results.failures[:MOST_LISTED]))
        said.append(f'<div class="scroll"><table>{rows}</table></div>')
        left = len(results.failures) - MOST_LISTED
        if left > 0:
            said.append(f"<p>And {left} more, in the folder failures.</p>")
    if results.missing:
        said.append(
            f"<p>{len(results.missing)} point(s) have not run yet: "
            f"{html(listed(list(results.missing[:6])))}{' ...' * (len(results.missing) > 6)}. "
            "The numbers above are those of the others; <code>residentsim sweep</code> goes on."
            "</p>"
        )
    return "".join(said)


def _failure(failure: Failure) -> str:
    axes = ", ".join(f"{axis} = {value}" for axis, value in failure.axes.items())
    again = f", replication {failure.replication}" if failure.replication else ""
    return (
        f'<tr><td class="words">{html(axes or failure.id, 200)}{again}</td>'
        f'<td class="words"><b>{html(failure.error, 80)}</b>: {html(failure.message, 600)}'
        f"<br><span class=dim>{failure.attempts} attempt(s), {html(failure.id)}</span>"
        f"<details><summary>Traceback</summary><pre>{block(failure.traceback)}</pre></details>"
        "</td></tr>"
    )


# ---------------------------------------------------------------------------- trust
def trust(view: View) -> str:
    """What was measured, estimated and extrapolated, and that all else is simulated."""
    runs = view.results.runs
    if not runs:
        return ""
    profiles = _distinct(
        f"{plain(str(run.summary['cost_profile']))} is {run.summary['cost_profile_status']}"
        for run in runs
    )
    said = [
        "<p><b>Simulated:</b> every latency, throughput and share on this page. No request was "
        "served by a GPU.</p>",
        f"<p><b>Measured or not:</b> the costs of kernels and loops come from the profile; "
        f"{html('; '.join(profiles))}.</p>",
    ]
    estimated = _distinct(entry for run in runs for entry in run.summary["cost_estimated"])
    if estimated:
        said.append(f"<p><b>Estimated, not measured:</b> {_words(estimated)}.</p>")
    if view.results.prices is not None or view.results.power is not None:
        said.append(
            "<p><b>Estimated as well:</b> cost follows from the study's own price table, energy "
            "from its power model; neither was metered.</p>"
        )
    extrapolated = ranges(run.summary["cost_extrapolated"] for run in runs)
    if extrapolated:
        items = "".join(
            f"<li>{html(entry, 300)}{f' ({count} of {len(runs)} runs)' * (count < len(runs))}</li>"
            for entry, count in list(extrapolated.items())[:MOST_LISTED]
        )
        said.append(f"<p><b>Extrapolated</b> beyond what was measured:</p><ul>{items}</ul>")
    else:
        said.append("<p><b>Extrapolated:</b> nothing; all costs lie within what was measured.</p>")
    return "".join(said)


def _words(entries: Sequence[str]) -> str:
    return html(listed(list(entries)), 3000)


def _distinct(entries: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(entries))


_OUTSIDE = re.compile(r"(.*?) (-?[\d.]+(?:e[+-]?\d+)?) (outside .*)")


def ranges(lists: Iterable[Iterable[str]]) -> dict[str, int]:
    """What runs left the measured for, and how many did: one entry where values alone differ.

    >>> ranges([["a: batch 9 outside 1 to 4"], ["a: batch 6 outside 1 to 4", "other"]])
    {'a: batch 6 to 9 outside 1 to 4': 2, 'other': 1}
    """
    runs: dict[tuple[str, str], set[int]] = {}
    values: dict[tuple[str, str], list[str]] = {}
    for number, entries in enumerate(lists):
        for entry in entries:
            found = _OUTSIDE.fullmatch(entry)
            key = (found[1], found[3]) if found else (entry, "")
            runs.setdefault(key, set()).add(number)
            values.setdefault(key, []).extend([found[2]] if found else [])
    return {_range(key, values[key]): len(of_key) for key, of_key in runs.items()}


def _range(key: tuple[str, str], values: list[str]) -> str:
    if not values:
        return key[0]
    low, high = min(values, key=float), max(values, key=float)
    return f"{key[0]} {low if float(low) == float(high) else f'{low} to {high}'} {key[1]}"


# ---------------------------------------------------------------------------- method
_METHODS = {
    "replications": "Intervals are Student's t over replications that differ in their seed.",
    "batches": "Intervals are by batch means: the run is cut into parts in order of arrival.",
}


def method(judged: Judged) -> str:
    """How values, intervals and verdicts were had, and what was left out as warm-up."""
    view = judged.view
    if not view.cells:
        return ""
    settings = view.results.statistics
    methods: set[str] = set()
    for metric in judged.columns:
        for name in _distinct(view.of(cell, metric).method for cell in view.cells):
            methods.add(name)
    said = [f"{100 * settings.confidence:g} % confidence."]
    said += [_METHODS[name] for name in ("replications", "batches") if name in methods]
    seeds = {len(cell.runs) for cell in view.cells}
    if max(seeds) > 1:
        said.append(
            "Replication r runs with the seed + r at every point, so that all points see the same "
            "random numbers and differences are taken pair by pair."
        )
    if view.compared is not None:
        said.append(
            f"The baseline is {view.called(view.compared, view.baseline)}, at the same values on "
            "all other axes; verdicts of a table hold together at that confidence (Holm)."
        )
    said.append(_cut(view))
    notes = _notes(judged)
    folded = "".join(f"<li>{html(note, 300)}</li>" for note in notes[:MOST_LISTED])
    return f"<p>{html(' '.join(said), 4000)}</p>" + (
        f"<ul class=dim>{folded}</ul>" if folded else ""
    )


def _notes(judged: Judged) -> list[str]:
    """Why some values have no interval, and of which metrics in how many points."""
    view = judged.view
    found: dict[str, dict[str, int]] = {}
    for metric in judged.columns:
        label = label_of(view, metric, unit=False)
        for cell in view.cells:
            if note := view.of(cell, metric).note:
                of_note = found.setdefault(note, {})
                of_note[label] = of_note.get(label, 0) + 1
    points = len(view.cells)
    return [
        f"{note[0].upper()}{note[1:]}: "
        + listed(
            [f"{label}{f' ({n} of {points} points)' * (n < points)}" for label, n in of.items()]
        )
        for note, of in found.items()
    ]


def _cut(view: View) -> str:
    """What was left out as warm-up, over all runs."""
    settings = view.results.statistics
    if settings.warm_up is None:
        return "No warm-up is cut: all requests count."
    cuts = [warm_up(run, settings).seconds for run in view.results.runs]
    low, high = min(cuts), max(cuts)
    span = seconds_text(low) if high <= low else f"{seconds_text(low)} to {seconds_text(high)}"
    how = {"auto": " (found where each run settles)"}.get(str(settings.warm_up), "")
    return f"Requests that arrive in the first {span} are left out as warm-up{how}."


# ---------------------------------------------------------------------------- single runs
def facts(view: View) -> str:
    """What a single run says of itself in its summary, a line each; of a study nothing."""
    runs = view.results.runs
    if len(runs) != 1:
        return ""
    return _latencies(runs[0]) + _lines(runs[0])


def _lines(run: Run) -> str:
    from sim.tables import facts as lines

    try:
        said = lines(run.summary)
    except (KeyError, TypeError, ValueError):  # a summary of another version
        return ""
    return f"<ul>{''.join(f'<li>{html(line, 600)}</li>' for line in said)}</ul>"


_LATENCIES = ("ttft", "tpot", "itl", "e2el", "queue")
_STATISTICS = ("mean", "median", "p90", "p95", "p99", "p99.9")


def _latencies(run: Run) -> str:
    heads = "".join(f'<th scope="col">{word}</th>' for word in _STATISTICS)
    rows = ""
    for name in _LATENCIES:
        cells = "".join(
            f"<td>{html(_ms(run.summary.get(f'{word}_{name}_ms')))}</td>" for word in _STATISTICS
        )
        rows += f'<tr><td class="words">{"queue" if name == "queue" else name.upper()}</td>{cells}'
        rows += "</tr>"
    return (
        f'<div class="scroll"><table><thead><tr><th class="words">ms</th>{heads}</tr></thead>'
        f"<tbody>{rows}</tbody></table></div>"
    )


def _ms(value: object) -> str:
    known = isinstance(value, int | float) and not isinstance(value, bool)
    return figure(float(value)) if known and isinstance(value, int | float) else "-"
