"""Probes: points of the study at a value of the search's own, run, stored, and judged.

The one rule: every probe is a stored point like any other, so what a search knows can be read from
its folder, and nothing that is there is run again.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from sim.economics import METRICS as MONEY
from sim.errors import InputError
from sim.node import suggestion
from sim.result import read_summary
from sim.runs import Cell, Run
from sim.stats import METRICS, Estimate, Statistics, estimate, metric_of
from sim.sweeping import point_id

from .settings import is_time

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from sim.economics import Power, Prices
    from sim.study import Point

    from .settings import Search

MS = 1e3
Sets = dict[str, float]
"""Values that a probe sets beyond its configuration, by dotted path."""


class Failed(Protocol):
    """A point that could not be run."""

    @property
    def id(self) -> str:
        """Of the point."""

    @property
    def message(self) -> str:
        """Why."""


class Outcome(Protocol):
    """What a sweep engine says of the points it was given."""

    @property
    def failed(self) -> Sequence[Failed]:
        """Those without a folder."""


At = Callable[[Sequence[str]], Sequence["Point"]]
"""The study's points with more overrides such as 'trace.rate_scale=4'."""
Runner = Callable[[Sequence["Point"]], Outcome]
"""Runs points into the study's folder, those that are not there yet."""


@dataclass(frozen=True)
class Probe:
    """One configuration at one value, all its seeds, and what came of it."""

    axes: dict[str, Any]
    sets: Sets
    ids: tuple[str, ...]
    runs: tuple[Run, ...] = ()
    estimates: dict[str, Estimate] = field(default_factory=dict)
    """By metric, in SI."""
    kept: dict[str, bool] = field(default_factory=dict)
    """By metric, whether its limit is kept."""
    failure: str | None = None

    @property
    def keeps(self) -> bool:
        """Whether every limit is kept."""
        return self.failure is None and all(self.kept.values())

    def value(self, metric: str) -> float | None:
        """The estimate of *metric*, None if there is none."""
        found = self.estimates.get(metric)
        return None if found is None else found.value


class Prober:
    """Runs probes in batches and judges them by the search's limits."""

    def __init__(
        self, search: Search, at: At, run: Runner, folder: Path, *,
        statistics: Statistics, prices: Prices | None, power: Power | None,
    ) -> None:  # fmt: skip
        self.search = search
        self.folder = folder
        self.statistics = statistics
        self.prices, self.power = prices, power
        self.stored: dict[str, tuple[dict[str, Any], int]] = {}
        """Axes and replication of every point probed so far, by id."""
        self._at, self._run = at, run
        self._lower: dict[str, bool] = {}
        self.metrics = _metrics(search, prices, power)

    def lower_is_better(self, name: str) -> bool:
        """Whether less of the limited metric *name* is better, once it was probed."""
        return self._lower[name]

    def points(self, sets: Mapping[str, float]) -> dict[str, list[Point]]:
        """The points of each configuration (by `key`) with *sets* on top."""
        found: dict[str, list[Point]] = {}
        for point in self._at([f"{path}={value}" for path, value in sets.items()]):
            found.setdefault(key(point.axes), []).append(point)
        return found

    def probe(self, wanted: Sequence[tuple[str, Sets]]) -> list[Probe]:
        """Runs configurations (by `key`) each with its sets, all at once; in the order given."""
        known: dict[str, dict[str, list[Point]]] = {}
        chosen = []
        for name, sets in wanted:
            text = json.dumps(sets)
            if text not in known:
                known[text] = self.points(sets)
            chosen.append(known[text][name])
        outcome = self._run([point for points in chosen for point in points])
        failures = {failure.id: failure.message for failure in outcome.failed}
        return [
            self._judged(points, sets, failures)
            for points, (_, sets) in zip(chosen, wanted, strict=True)
        ]

    def _judged(self, points: list[Point], sets: Sets, failures: dict[str, str]) -> Probe:
        axes = points[0].axes
        ids = tuple(point_id(point.scenario) for point in points)
        for name, point in zip(ids, points, strict=True):
            self.stored.setdefault(name, ({**axes, **sets}, point.replication))
        missing = [name for name in ids if not (self.folder / "points" / name).is_dir()]
        if missing:
            message = failures.get(missing[0], "it left no results").splitlines() or ["?"]
            return Probe(axes, sets, ids, failure=message[-1])
        runs = tuple(
            Run(
                self.folder / "points" / name, axes, read_summary(self.folder / "points" / name),
                replication=point.replication, prices=self.prices, power=self.power,
            )
            for name, point in zip(ids, points, strict=True)
        )  # fmt: skip
        cell = Cell({**axes, **sets}, runs)
        found = {name: self._estimate(cell, name) for name in self.metrics}
        kept = {
            name: self._keeps(cell, name, limit, found[name])
            for name, limit in self.search.subject_to.items()
        }
        return Probe(axes, sets, ids, runs, found, kept)

    def _estimate(self, cell: Cell, name: str) -> Estimate:
        """The estimate of metric *name* in SI."""
        found = estimate(cell, known_as(name), self.statistics)
        if not is_time(name):
            return found
        low, value, high = (
            None if x is None else x / MS for x in (found.low, found.value, found.high)
        )
        return Estimate(value, low, high, found.n, found.method, found.note)

    def _keeps(self, cell: Cell, name: str, limit: float, found: Estimate) -> bool:
        """Whether *found* keeps its limit; a metric without a value keeps none."""
        self._lower[name] = better(name, [run.summary for run in cell.runs]) == "lower"
        lower = self._lower[name]
        value = found.value
        bound = found.high if lower else found.low
        if self.search.judge == "bound" and bound is not None:
            value = bound
        if value is None or math.isnan(value):
            return False
        return value <= limit if lower else value >= limit


def known_as(name: str) -> str:
    """How the table of metrics calls what a search calls *name*: p99_ttft is p99_ttft_ms there."""
    return f"{name}_ms" if is_time(name) else name


def better(name: str, summaries: Sequence[Mapping[str, Any]] = ()) -> str:
    """lower or higher; `InputError` for what is no metric, or better neither way."""
    metric = metric_of(known_as(name), summaries)
    if metric.better is None:
        what = "is neither better high nor low; name another metric"
        raise InputError(f"search: {name}: {what}")
    return metric.better


def key(axes: Mapping[str, Any]) -> str:
    """Names a configuration by its axes."""
    return json.dumps(axes, sort_keys=True, default=str)


def _metrics(search: Search, prices: Prices | None, power: Power | None) -> list[str]:
    """What is estimated of every probe: what the search names, and what its table shows."""
    shown = ["request_goodput", "request_throughput", "output_throughput"]
    if prices is not None:
        shown.append("cost_per_mtok")
    if power is not None:
        shown.append("energy_j_per_token")
    return list(dict.fromkeys([*search.metrics, *shown]))


def check(
    search: Search, points: Sequence[Point], prices: Prices | None, power: Power | None
) -> None:
    """Raises `InputError` if goal or limits name what these points cannot have."""
    slo = all(any(limit is not None for _, limit in point.scenario.slo) for point in points)
    for name in search.metrics:
        money = name in MONEY and name.startswith("cost")
        energy = name in MONEY and name.startswith(("energy", "mean_w"))
        if is_time(name) and known_as(name) not in METRICS:
            known = [metric.removesuffix("_ms") for metric in METRICS if metric.endswith("_ms")]
            what = f"no such metric; {suggestion(name, known, 'known')}"
        elif money and prices is None:
            what = "needs a price table; add e.g. `prices: {currency: USD, gpu_hour: {...}}`"
        elif energy and power is None:
            what = "needs a power model; add `power: {}` for the data sheets' watts"
        elif name in ("request_goodput", "goodput_share", "cost_per_good_request") and not slo:
            what = "needs limits of a good request; add e.g. `slo: {ttft: 2 s}`"
        else:
            continue
        raise InputError(f"search: {name}: {what}")
    if search.goal is not None and (found := METRICS.get(known_as(search.goal.metric))):
        way, worst = ("maximize", "lower") if search.goal.sign > 0 else ("minimize", "higher")
        if found.better == worst:
            what = f"{search.goal.metric} is better {worst}, so this seeks the worst"
            raise InputError(f"search: goal: {way}: {what}; turn it round")
