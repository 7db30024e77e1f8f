"""A study: all points of a file's sweep, each as often as it asks for, and how to judge them.

The one rule: like for like. Replication r of every point runs with the file's seed + r, so that
points differ by what their axes say and not by chance (common random numbers).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import InputError, shown
from .load import input_error, late, read, validated
from .marks import Finding
from .merge import apply
from .stats.settings import Statistics
from .study_axes import Axes, overlaps, read_axes
from .study_filters import Grid, filtered, matched, plain
from .study_sections import sections, unpriced

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from .economics import Power, Prices
    from .load import Faults
    from .marks import Document
    from .scenario import Scenario
    from .search import Search

_LAST_SEED = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Point:
    """One run of a study: the value on each axis, by dotted path, and the scenario."""

    axes: dict[str, Any]
    scenario: Scenario
    replication: int = 0
    """Which of the runs that differ by their seed only, from 0."""


@dataclass(frozen=True, slots=True)
class Study:
    """What a file asks for."""

    name: str
    question: str
    """The comment at the head of the file; its paragraphs are apart by an empty line."""
    points: tuple[Point, ...]
    """All runs, the last axis running fastest, and within a point its replications."""
    axes: dict[str, list[Any]]
    """The values on each axis that some point has."""
    groups: tuple[tuple[str, ...], ...]
    """The axes, those together that move together."""
    statistics: Statistics
    seeds: int = 1
    left_out: int = 0
    """Combinations of the axes that the filters leave out."""
    search: Search | None = None
    prices: Prices | None = None
    power: Power | None = None

    def manifest(self) -> dict[str, Any]:
        """What `study.json` holds: sections in SI with their defaults, points by their folders."""
        from .sweeping import point_id

        said = {key: getattr(self, key) for key in ("statistics", "search", "prices", "power")}
        return {
            "name": self.name,
            "question": self.question,
            "seeds": self.seeds,
            "axes": self.axes,
            "points": [
                {"id": point_id(p.scenario), "axes": p.axes, "replication": p.replication}
                for p in self.points
            ],
        } | {key: node and node.model_dump(mode="json") for key, node in said.items()}


def load_study(
    path: Path | str, overrides: Sequence[str] = (), faults: Faults | None = None
) -> Study:
    """The study of a file, with *overrides* such as 'loop.max_batch=64' on top.

    A file without a sweep is a study of one point. Raises `InputError` with all findings at once,
    those of *faults* included; a finding about an axis stands there, once.
    """
    whole = read(Path(path), overrides)
    found, document = sections(whole)
    axes = read_axes(document, [text.partition("=")[0] for text in overrides])
    grid = filtered(document, axes)
    axes.findings += _baseline(whole, axes, found) + _over(whole, axes, found.get("search"))
    findings = dict.fromkeys([*document.findings, *axes.findings])
    points: list[Point] = []
    for values, at in _documents(document.without("sweep"), axes, grid):
        scenario, wrong = validated(at)
        if scenario is not None:
            points.append(Point(values, scenario))
            wrong += late(faults, scenario, at)
        findings |= dict.fromkeys(wrong)
    if not findings:
        findings |= dict.fromkeys(_twins(points, document) + _seed_faults(points, axes, document))
        findings |= dict.fromkeys(unpriced(found, (point.scenario for point in points), whole))
        findings |= dict.fromkeys(_sought(whole, found, points))
    if findings:
        raise input_error(findings, str(path))
    return Study(
        points[0].scenario.name,
        _question(Path(path)),
        tuple(replicated(point, r) for point in points for r in range(axes.seeds)),
        _used(axes, points),
        tuple(tuple(group[0].values) for group in axes.groups),
        found.pop("statistics", None) or Statistics(),
        axes.seeds,
        grid.left_out,
        **found,
    )


def replicated(point: Point, replication: int) -> Point:
    """Replication *replication* of a point that is replication 0."""
    if not replication:
        return point
    seed = point.scenario.seed + replication
    data = point.scenario.model_copy(update={"seed": seed})
    data.__dict__.pop("hash", None)  # it was that of the other seed
    return replace(point, scenario=data, replication=replication)


def _documents(base: Document, axes: Axes, grid: Grid) -> Iterator[tuple[dict[str, Any], Document]]:
    """The values on the axes and the document of each point, in order."""
    made, last = [base], tuple[int, ...]()
    for chosen in grid.points:
        both = enumerate(zip(chosen, last, strict=False))
        same = next((i for i, (new, old) in both if new != old), 0)
        del made[same + 1 :]
        choices = [group[i] for group, i in zip(axes.groups, chosen, strict=True)]
        for choice in choices[same:]:
            at = made[-1]
            for place, layer in choice.layers:
                at = apply(at, layer, place)
            made.append(at)
        last = chosen
        yield {name: value for choice in choices for name, value in choice.values.items()}, made[-1]


def _used(axes: Axes, points: Sequence[Point]) -> dict[str, list[Any]]:
    """The values on each axis that some point has, in the order of the file."""
    used = {name: {repr(point.axes[name]) for point in points} for name in axes.names()}
    return {name: [v for v in axes.values(name) if repr(v) in used[name]] for name in used}


def _twins(points: Sequence[Point], document: Document) -> list[Finding]:
    """Two points that are the same scenario would be one run under two names."""
    seen: dict[str, Point] = {}
    for point in points:
        twin = seen.setdefault(point.scenario.hash, point)
        if twin is not point:
            what = f"sweep: {point.axes} and {twin.axes} are the same scenario; remove one"
            return [Finding(document.mark(("sweep",)), what)]
    return []


def _seed_faults(points: Sequence[Point], axes: Axes, document: Document) -> list[Finding]:
    """Where counting up would leave the range of seeds."""
    highest = max(point.scenario.seed for point in points) + axes.seeds - 1
    if highest <= _LAST_SEED:
        return []
    what = f"sweep.seeds: seeds up to {highest}, {_LAST_SEED} is the last; lower seed"
    return [Finding(document.mark(("sweep", "seeds")), what)]


def _baseline(document: Document, axes: Axes, found: dict[str, Any]) -> list[Finding]:
    """What is wrong with `statistics.baseline`, whose values become those of the axes."""
    statistics = found.get("statistics")
    if statistics is None or not statistics.baseline:
        return []
    place = ("statistics", "baseline")
    findings = matched(document, axes, place, statistics.baseline, {})
    own = {}
    for axis, value in statistics.baseline.items() if not findings else ():
        alike = [one for one in axes.values(axis) if plain(one) == plain(value)]
        if alike:
            own[axis] = alike[0]
        elif axis not in axes.bad:
            what = f"statistics.baseline.{axis}: one value is compared with, got {shown(value)}"
            findings.append(Finding(document.mark((*place, axis)), what))
    found["statistics"] = statistics.model_copy(update={"baseline": own})
    return findings


def _over(document: Document, axes: Axes, search: Search | None) -> list[Finding]:
    """Where a search sets what an axis sets."""
    findings = []
    for place, path in _searched(search):
        other = next((one for one in axes.sets() if overlaps(one, path)), None)
        if other is not None:
            what = f"{'.'.join(place)}: {other} is swept as well; remove one of them"
            findings.append(Finding(document.mark(place, key=True), what))
    return findings


def _sought(document: Document, found: dict[str, Any], points: Sequence[Point]) -> list[Finding]:
    """What goal and limits of a search name that its points cannot have."""
    search = found.get("search")
    if search is None:
        return []
    from .search.probes import check

    try:
        check(search, points, found.get("prices"), found.get("power"))
    except InputError as error:
        line = error.lines[0]
        limit = next((name for name in search.subject_to if name in line), None)
        place = ("search", "goal") if limit is None else ("search", "subject_to", limit)
        return [Finding(document.mark(place, key=True), line)]
    return []


def _searched(search: Search | None) -> list[tuple[tuple[str, ...], str]]:
    """The keys of a search that have it set paths of their own, and these paths."""
    if search is None:
        return []
    if search.halving is not None:
        return [(("search", "halving", "requests"), "trace.requests")]
    return [(("search", "over", path), path) for path in search.over or ()]


def _question(path: Path) -> str:
    """The comment at the head of a file, each paragraph as one line."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read again: {error}") from None
    paragraphs = [""]
    for line in lines:
        if not line.startswith("#"):
            break
        text = line.lstrip("#").strip()
        if text:
            paragraphs[-1] = f"{paragraphs[-1]} {text}".strip()
        else:
            paragraphs.append("")
    return "\n\n".join(paragraph for paragraph in paragraphs if paragraph)
