"""Successive halving: many configurations on few requests, the best of them on more.

After Jamieson and Talwalkar, 2016. The one rule: who keeps every limit comes before who does not,
and only then the goal decides.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .probes import key

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sim.study import Point

    from .probes import Probe, Prober


@dataclass
class Standing:
    """A configuration: the last rung it was run on (from 1), and its probes, one a rung."""

    axes: dict[str, Any]
    rung: int
    probes: list[Probe]


def halving(
    prober: Prober, points: Sequence[Point], progress: Callable[[int, int, int], None]
) -> list[Standing]:
    """Every configuration of *points*, the best first: by the rung reached, then by rank there."""
    rules = prober.search.halving
    assert rules is not None, "a search without `halving` has no rungs"
    standing = {key(point.axes): Standing(point.axes, 0, []) for point in points}
    alive, done = list(standing), 0
    out: list[str] = []
    for rung, requests in enumerate(rules.requests, 1):
        progress(rung, len(alive), done)
        probes = prober.probe([(name, {"trace.requests": requests}) for name in alive])
        done += len(probes)
        for name, probe in zip(alive, probes, strict=True):
            standing[name].rung = rung
            standing[name].probes.append(probe)
        alive.sort(key=lambda name: _rank(standing[name].probes[-1], prober))
        if rung < len(rules.requests):
            stay = max(1, math.ceil(rules.keep * len(alive) - 1e-9))
            out = alive[stay:] + out
            alive = alive[:stay]
            while len(alive) > 1 and standing[alive[-1]].probes[-1].failure is not None:
                out.insert(0, alive.pop())
    return [standing[name] for name in [*alive, *out]]


def _rank(probe: Probe, prober: Prober) -> tuple[int, float, float]:
    """Failed runs last, before them those that break a limit, least first; then the goal."""
    goal = prober.search.goal
    assert goal is not None, "checked with the file"
    if probe.failure is not None:
        return 2, 0.0, 0.0
    value = probe.value(goal.metric)
    score = math.inf if value is None else -goal.sign * value
    if probe.keeps:
        return 0, score, 0.0
    return 1, sum(_excess(name, probe, prober) for name in probe.kept), score


def _excess(name: str, probe: Probe, prober: Prober) -> float:
    """By how much a limit is broken, as a share of it; infinite if the metric has no value."""
    if probe.kept[name]:
        return 0.0
    limit, value = prober.search.subject_to[name], probe.value(name)
    if value is None:
        return math.inf
    beyond = value - limit if prober.lower_is_better(name) else limit - value
    return max(beyond, 0.0) / limit if limit else math.inf
