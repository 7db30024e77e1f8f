"""GPUs for a rate: how many of each configuration, at what price, and runs that try the answer.

# Model: replicas behind a router that deals evenly are independent, so n of them carry n times the
rate of one. What that leaves out (bursts that hit one of them, tiers and links they share, more of
the trace than one replica saw) is in the run that tries it; if a limit breaks there, a tenth more
GPUs are tried, three times.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sim.errors import InputError
from sim.profile import load_profile
from sim.runs import columns_of
from sim.units import three_digits

from .capacity import broken
from .probes import key

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sim.study import Point

    from .capacity import Capacity
    from .probes import Probe, Prober, Sets

TRIES = 4
"""Runs that try a configuration's answer, each with more GPUs than the one before."""
STEADY = 0.8
"""Share of the arriving requests a second that a run finishes if filling and draining it hardly
count."""
MOST_REPLICAS = 64
MOST_REQUESTS = 400_000
"""Of a run that tries an answer; larger ones are left out."""


@dataclass
class Provision:
    """How many GPUs one configuration needs for the target rate."""

    name: str
    """Of the configuration, as `probes.key` has it."""
    point: Point
    per_gpu: float
    """Requests a second that one GPU carries within the limits."""
    scale: float
    """Value of the searched path at the target rate."""
    by_capacity: int
    """GPUs by the capacity of one alone."""
    gpus: int
    """GPUs of the run tried last, or by capacity if none was."""
    cost_per_hour: float | None = None
    """Of `gpus`, in the price table's currency."""
    verified: bool | None = None
    """Whether a run with `gpus` replicas keeps the limits; None where it was not tried."""
    words: str = ""
    probes: list[Probe] = field(default_factory=list)

    def sets(self, path: str) -> Sets:
        """What the run that tries it sets: rate and replicas, and requests for all of them."""
        sets: Sets = {path: self.scale, "replicas.count": self.gpus}
        trace = self.point.scenario.trace
        if trace.file is None and trace.requests is not None:
            sets["trace.requests"] = (
                trace.requests * self.gpus // self.point.scenario.replicas.count
            )
        return sets


def offered(probe: Probe) -> float:
    """Requests a second that arrived in a probe, on average over its seeds."""
    rates = []
    for run in probe.runs:
        if run.summary["trace_closed_loop"]:
            rates.append(float(run.summary["request_throughput"]))
            continue
        arrivals = columns_of(run.folder / "requests.parquet", ("arrival_s",))["arrival_s"]
        last = float(arrivals.max(initial=0.0))
        rates.append(len(arrivals) / last if last > 0.0 else 0.0)
    return math.fsum(rates) / len(rates)


def unsteady(probe: Probe | None) -> list[str]:
    """A note if fewer requests are finished than arrive, which a long run could not bear."""
    if probe is None:
        return []
    finished, arriving = probe.value("request_throughput"), offered(probe)
    if finished is None or finished >= STEADY * arriving:
        return []
    return [
        f"too short to be steady: {three_digits(arriving)} requests/s arrive and"
        f" {three_digits(finished)} are finished, so a longer run may carry less; give more"
        " trace.requests"
    ]


def provision(
    found: Sequence[Capacity], points: Sequence[Point], prober: Prober
) -> list[Provision | None]:
    """What each configuration needs for the target; None where there is no capacity."""
    target = prober.search.target
    assert target is not None, "a search without a target provides nothing"
    first = {key(point.axes): point for point in reversed(points)}
    needs = [_by_capacity(c, first[key(c.axes)], target.rate) for c in found]
    open_ = [need for need in needs if need is not None]
    for attempt in range(1, TRIES + 1):
        open_ = [need for need in open_ if _can_try(need, prober)]
        if not open_:
            break
        tried = prober.probe([(need.name, need.sets(prober.search.path)) for need in open_])
        for need, probe in zip(open_, tried, strict=True):
            _judge(need, probe, prober)
        open_ = [need for need in open_ if need.verified is False]
        for need in open_ if attempt < TRIES else ():
            replicas = need.point.scenario.replicas.count
            need.gpus += replicas * max(1, need.gpus // replicas // 10)
    for need in filter(None, needs):
        need.cost_per_hour = _per_hour(need, prober)
    return needs


def _by_capacity(capacity: Capacity, point: Point, rate: float) -> Provision | None:
    """What the capacity of one configuration alone says."""
    best, low = capacity.best, capacity.bracket.low
    if best is None or low is None:
        return None
    carried, replicas = offered(best), point.scenario.replicas.count
    if carried <= 0.0:
        return None
    gpus = replicas * math.ceil(rate / carried - 1e-9)
    scale = float(f"{low * rate / carried:.6g}")
    return Provision(key(capacity.axes), point, carried / replicas, scale, gpus, gpus)


def _can_try(need: Provision, prober: Prober) -> bool:
    """Whether the answer can be tried in a run; if not, why stands in its words."""
    target, sets = prober.search.target, need.sets(prober.search.path)
    why = ""
    if target is None or not target.verify:
        why = "not tried (search.target.verify: false)"
    elif need.gpus > MOST_REPLICAS:
        why = f"not tried: more than {MOST_REPLICAS} replicas"
    elif sets.get("trace.requests", 0) > MOST_REQUESTS:
        why = f"not tried: the run would take more than {MOST_REQUESTS:,} requests"
    else:
        try:
            prober.points(sets)
        except InputError as error:
            why = f"not tried: {error.lines[0]}"
    if why:
        need.verified = None
        need.words = "; ".join(filter(None, (need.words, f"{need.gpus} {why}")))
    return not why


def _per_hour(need: Provision, prober: Prober) -> float | None:
    """Price of an hour of so many GPUs with their part of the host."""
    if prober.prices is None:
        return None
    name = load_profile(need.point.scenario.hardware.profile).name
    return need.gpus * (prober.prices.gpu_hour[name] + prober.prices.host_hour)


def _judge(need: Provision, probe: Probe, prober: Prober) -> None:
    """Takes the answer of the run that tried `need.gpus`."""
    need.probes.append(probe)
    need.verified = None if probe.failure is not None else probe.keeps
    if probe.failure is not None:
        said = f"the run failed: {probe.failure}"
    else:
        said = "keeps every limit" if probe.keeps else f"breaks one: {broken(probe, prober)}"
    need.words = "; ".join(filter(None, (need.words, f"a run with {need.gpus} {said}")))
