"""What a sweep is going to do, said before it does it: axes, points, and about how long.

The one rule: the time is an estimate and is called one.
"""

from __future__ import annotations

from textwrap import wrap
from typing import TYPE_CHECKING, Any

from .pilot import ENOUGH_DONE, Estimate, estimate, wall_s
from .units import three_digits

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from .study import Point, Study

MOST_RECORDED = 24
"""Runs that are there of which the wall time is looked up."""
_WIDTH = 76
"""Columns of a line of values."""
_MOST_VALUES = 12


def plan(study: Study, folder: Path, workers: int | None = None) -> list[str]:
    """The lines to print before *study* is swept into *folder* by so many *workers*.

    Without a number of workers (a cluster's come and go) the time is that of one.
    """
    missing, done = _split(study.points, folder)
    lines = [_counts(study), *_axes(study)]
    if study.search is not None:
        return [*lines, "  a search adds probes, as many as it needs; no estimate of the time"]
    if done:
        lines.append(f"  {len(done)} there already, {len(missing)} to do")
    if missing:
        there = done[:: len(done) // MOST_RECORDED + 1] if len(done) >= ENOUGH_DONE else []
        walls = ((point, wall_s(folder / "points" / name)) for name, point in there)
        recorded = [(point, seconds) for point, seconds in walls if seconds is not None]
        lines.append(f"  {_time(estimate(missing, recorded), len(missing), workers)}")
    return lines


def _split(points: Sequence[Point], folder: Path) -> tuple[list[Point], list[tuple[str, Point]]]:
    """The points to do, and those whose runs are in *folder*, with their names."""
    from .sweeping import point_id

    missing, done = [], []
    try:
        there = {path.name for path in (folder / "points").iterdir()}
    except OSError:
        return list(points), []
    for point in points:
        name = point_id(point.scenario)
        if name in there:
            done.append((name, point))
        else:
            missing.append(point)
    return missing, done


def _counts(study: Study) -> str:
    """'study: 10 points x 5 seeds = 50 runs (2 combinations left out)'."""
    points = len(study.points) // study.seeds
    said = f"{points:,} point{'s' if points > 1 else ''}"
    if study.seeds > 1:
        first = study.points[0].scenario.seed
        last = first + study.seeds - 1
        said += f" x {study.seeds:,} seeds = {len(study.points):,} runs"
        if len({point.scenario.seed for point in study.points}) == study.seeds:
            said += f" (seeds {first} to {last}, the same for every point)"
    if study.left_out:
        said += f"; filters leave out {study.left_out:,} of {points + study.left_out:,}"
    return f"{study.name}: {said}"


def _axes(study: Study) -> list[str]:
    """A line for each axis, with its values; axes that move together stand together."""
    width = max(map(len, study.axes), default=0)
    lines = []
    for group in study.groups:
        for i, name in enumerate(group):
            values = _rows(study, group, i) if len(group) > 1 else study.axes[name]
            mark = "" if len(group) == 1 else "  (together)" if not i else "  (with it)"
            first, *more = wrap(listed(values), _WIDTH, break_on_hyphens=False)
            lines.append(f"  {name:{width}}  {first}{mark if not more else ''}")
            lines += [f"  {'':{width}}  {line}" for line in more]
            if more and mark:
                lines[-1] += mark
    return lines


def _rows(study: Study, group: Sequence[str], i: int) -> list[Any]:
    """The values of axis *i* of a group that moves together, as often as they occur in it."""
    rows = ([point.axes[name] for name in group] for point in study.points)
    return [row[i] for row in {repr(row): row for row in rows}.values()]


def listed(values: Sequence[Any]) -> str:
    """*values* one after another; of many, the first ones and the last."""
    words = [worded(value) for value in values]
    if len(words) <= _MOST_VALUES:
        return ", ".join(words)
    left = len(words) - _MOST_VALUES
    return ", ".join([*words[: _MOST_VALUES - 1], f"... {left} more ...", words[-1]])


def worded(value: Any) -> str:
    """*value* as YAML writes it in a line, cut where it is long."""
    if value is None or isinstance(value, bool):
        text = "null" if value is None else str(value).lower()
    elif isinstance(value, dict):
        text = "{" + ", ".join(f"{key}: {worded(one)}" for key, one in value.items()) + "}"
    elif isinstance(value, list):
        text = "[" + ", ".join(map(worded, value)) + "]"
    else:
        text = str(value)
    return text if len(text) <= 200 else f"{text[:196]} ..."


def _time(found: Estimate | None, runs: int, workers: int | None) -> str:
    if found is None:
        return "no estimate of the time: too little is known of its traces beforehand"
    used = min(workers or 1, runs)
    on = "one worker" if used == 1 else f"{used} workers"
    return f"{about(found.on(used))} on {on} (an estimate{found.basis})"


def about(seconds: float) -> str:
    """'about 40 s', 'about 4 min', 'about 2.5 h': no more digits than an estimate has."""
    if seconds < 5:
        return "a few seconds"
    if seconds < 90:
        return f"about {max(10, round(seconds, -1)):.0f} s"
    if seconds < 5400:
        return f"about {max(2, round(seconds / 60))} min"
    return f"about {three_digits(float(f'{seconds / 3600:.2g}'))} h"
