"""Capacity of every configuration: the largest value of one path at which all limits are kept.

All bisections go side by side: a round is one probe of each that is still open, run in parallel.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from sim.errors import InputError
from sim.units import three_digits

from .bisection import Bracket, bisection
from .probes import key
from .words import limit_text, value_text

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

    from sim.study import Point

    from .probes import Probe, Prober, Sets

REVERSAL = 0.1
"""By which share of its limit a metric must turn back to be called out."""


@dataclass
class Capacity:
    """What was found for one configuration, and every probe on the way, in order."""

    axes: dict[str, Any]
    bracket: Bracket
    probes: list[Probe] = field(default_factory=list)

    def at(self, value: float | None) -> Probe | None:
        """The probe at *value*."""
        return next((p for p in self.probes if value in p.sets.values()), None)

    @property
    def best(self) -> Probe | None:
        """The probe at capacity, None if no value keeps the limits."""
        return self.at(self.bracket.low) if self.bracket.low is not None else None


def capacities(
    prober: Prober, points: Sequence[Point], progress: Callable[[int, int, int], None]
) -> list[Capacity]:
    """The capacity of each configuration of *points*, in their order.

    *progress* is called with the round, the configurations still open and the probes so far.
    """
    search = prober.search
    assert search.over is not None, "a search without `over` has no capacity"
    path, ends = search.path, search.over[search.path]
    whole = is_whole(points[0], path)
    low, high = ends.low, ends.high
    if whole:
        low, high = math.ceil(low), math.floor(high)
    if low >= high:
        raise InputError(f"search.over: {path}: no two whole numbers from {low:g} to {high:g}")
    for end in (low, high):
        _check_end(prober, {path: end})
    found: dict[str, Capacity] = {}
    walks: dict[str, Generator[float, bool | None, Bracket]] = {}
    next_value: dict[str, float] = {}
    for point in points:
        name = key(point.axes)
        if name not in found:
            found[name] = Capacity(point.axes, Bracket("failed", None, None))
            walk = bisection(low, high, search.tolerance, whole=whole)
            walks[name], next_value[name] = walk, next(walk)
    rounds = 0
    while next_value:
        rounds += 1
        progress(rounds, len(next_value), sum(len(c.probes) for c in found.values()))
        wanted = [(name, {path: value}) for name, value in next_value.items()]
        for (name, _), probe in zip(wanted, prober.probe(wanted), strict=True):
            found[name].probes.append(probe)
            try:
                answer = None if probe.failure is not None else probe.keeps
                next_value[name] = walks[name].send(answer)
            except StopIteration as stop:
                found[name].bracket = stop.value
                del next_value[name]
    return list(found.values())


def _check_end(prober: Prober, sets: Sets) -> None:
    """Raises `InputError` if an end of the range is no value of the path."""
    try:
        prober.points(sets)
    except InputError as error:
        raise InputError([f"search.over: {line}" for line in error.lines]) from None


def is_whole(point: Point, path: str) -> bool:
    """Whether the key at *path* of a scenario takes whole numbers only."""
    node: Any = point.scenario
    for name in path.split("."):
        node = getattr(node, name, None)
    return isinstance(node, int)


def words(capacity: Capacity, prober: Prober) -> str:
    """What was found in a sentence."""
    bracket, path = capacity.bracket, prober.search.path
    low = "" if bracket.low is None else three_digits(bracket.low)
    match bracket.status:
        case "above":
            return f"at least {low}: every limit is kept at the upper end; raise search.over.to"
        case "failed":
            probe = capacity.at(bracket.failed)
            why = probe.failure if probe is not None else "?"
            kept = f"at least {low}, " if low else ""
            return f"{kept}not known: the probe at {path} {bracket.failed:g} failed: {why}"
        case "below":
            why = broken(capacity.at(bracket.high), prober)
            return f"none: at the lower end, {path} {bracket.high:g}, already {why}"
        case _:
            why = broken(capacity.at(bracket.high), prober)
            return f"{low}; at {value_text(bracket.high)} {why}"


def broken(probe: Probe | None, prober: Prober) -> str:
    """Which limits a probe breaks, with value and limit."""
    if probe is None:
        return "?"
    limits = prober.search.subject_to
    said = [
        limit_text(name, probe.estimates[name], limits[name], prober.search.judge)
        for name, kept in probe.kept.items()
        if not kept
    ]
    return ", ".join(said) or "every limit is kept"


def notes(capacity: Capacity, prober: Prober) -> list[str]:
    """What speaks against one crossing: limits kept again above it, metrics that turn back."""
    path, said = prober.search.path, []
    again = capacity.bracket.again
    if again is not None:
        said.append(
            f"not monotonic: at {path} {again:g} the limits are kept again; the capacity named is"
            " the first crossing from below"
        )
    done = sorted(
        (p for p in capacity.probes if p.failure is None), key=lambda p: tuple(p.sets.values())
    )
    for name, limit in prober.search.subject_to.items():
        for lower, upper in pairwise(done):
            before, after = lower.value(name), upper.value(name)
            if before is None or after is None:
                continue
            turned = before - after if prober.lower_is_better(name) else after - before
            if turned > REVERSAL * limit:
                at = " to ".join(f"{p.sets[path]:g}" for p in (lower, upper))
                said.append(
                    f"not monotonic: {name} improves from {path} {at} by"
                    f" {three_digits(turned / limit * 100)} % of its limit; more requests or seeds"
                    " would tell noise from a second crossing"
                )
                break
    if prober.search.judge == "bound" and any(
        found.low is None for p in done for name, found in p.estimates.items() if name in p.kept
    ):
        said.append("some probes have no interval; there the limits are judged on the mean")
    return said
