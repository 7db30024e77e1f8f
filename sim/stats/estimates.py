"""A metric of a cell with its interval: from replications, else from batches of the one run.

The one rule: what differs only in the seed is independent, what is in one run is not. So several
runs are several numbers, never one heap of requests, and one run is cut into batches.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import sqrt
from typing import TYPE_CHECKING, Any

import numpy as np

from sim.economics import economics

from .batches import LEAST, Spread, of_batches, of_mean, of_quantile
from .metrics import metric_of
from .samples import latency, limits_of, rate, requests_of
from .student import quantile
from .warm_up import warm_up

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sim.runs import Cell, Run

    from .metrics import Metric
    from .samples import Requests
    from .settings import Statistics

_OF_THE_SEED = ("seed", "scenario_hash")


@dataclass(frozen=True, slots=True)
class Estimate:
    """A metric of a cell with its interval, in the metric's unit."""

    value: float | None
    low: float | None
    high: float | None
    n: int
    """Runs, or batches of the one run, that the interval rests on."""
    method: str
    """replications, batches, or none."""
    note: str = ""
    """Why there is no value or no interval, or what else to know."""
    error: float = 0.0
    """Standard error, where there is an interval, with *df* degrees of freedom."""
    df: float = 0.0

    @property
    def reach(self) -> float | None:
        """What stands after ±: the longer side of the interval, of which one may end at 0."""
        if self.value is None or self.low is None or self.high is None:
            return None
        return max(self.high - self.value, self.value - self.low)


def estimate(cell: Cell, metric: str, settings: Statistics) -> Estimate:
    """*metric* of *cell*, the mean over its runs, with an interval at the study's confidence.

    Raises `InputError` for a metric that there is not, and for damaged records.
    """
    chosen = metric_of(metric, [run.summary for run in cell.runs])
    runs = independent(cell.runs)
    if len(runs) > 1:
        return _of_replications(runs, chosen, settings)
    found = of_one_run(runs[0], chosen, settings)
    if len(cell.runs) > 1:
        said = f"nothing is random: {len(cell.runs)} seeds gave the same run"
        return replace(found, note="; ".join(filter(None, (said, found.note))))
    return found


def independent(runs: Sequence[Run]) -> list[Run]:
    """*runs*, or one of them if no seed has changed anything."""
    if len(runs) == 1:
        return list(runs)
    first = _without_seed(runs[0].summary)
    if all(_without_seed(run.summary) == first for run in runs[1:]):
        return [runs[0]]
    return list(runs)


def _without_seed(summary: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in summary.items() if key not in _OF_THE_SEED}


# ---------------------------------------------------------------------------- several runs
def values_of(runs: Sequence[Run], metric: Metric, settings: Statistics) -> list[tuple[Run, float]]:
    """Each run with its own value of *metric*; without those that have none."""
    found = [(run, value_of(run, metric, settings)) for run in runs]
    return [(run, value) for run, value in found if value is not None]


def _of_replications(runs: list[Run], metric: Metric, settings: Statistics) -> Estimate:
    """The mean of the runs' own values, within Student's t."""
    values = np.array([value for _, value in values_of(runs, metric, settings)])
    count = len(values)
    notes = [_cuts(runs, metric, settings)]
    if count < len(runs):
        notes.append(f"{len(runs) - count} of {len(runs)} runs have no value")
    note = "; ".join(filter(None, notes))
    if count == 0:
        return Estimate(None, None, None, 0, "none", _why_none(runs[0], metric, settings))
    mean = float(values.mean())
    if count == 1:
        return Estimate(mean, None, None, 1, "none", note)
    error = float(values.std(ddof=1)) / sqrt(count)
    low, high = _around(mean, error, count - 1.0, settings, positive=bool(values.min() >= 0))
    return Estimate(mean, low, high, count, "replications", note, error, count - 1.0)


def _cuts(runs: Sequence[Run], metric: Metric, settings: Statistics) -> str:
    """What the warm-up has left out of *runs*."""
    if settings.warm_up is None:
        return ""
    if not metric.cut:
        return "of whole runs: it cannot be had without the warm-up"
    notes = list(dict.fromkeys(filter(None, (warm_up(run, settings).note for run in runs))))
    return notes[0] if len(notes) == 1 else "each run from where it has settled" if notes else ""


def _around(
    value: float, error: float, df: float, settings: Statistics, *, positive: bool
) -> tuple[float, float]:
    """The interval around *value*; what is never negative does not reach below 0."""
    reach = quantile(settings.confidence, df) * error
    return max(value - reach, 0.0) if positive else value - reach, value + reach


# ---------------------------------------------------------------------------- one run
def value_of(run: Run, metric: Metric, settings: Statistics) -> float | None:
    """*metric* of *run* after its warm-up; None if it has none."""
    if metric.source == "economics":
        return _finite(economics(run, run.prices, run.power)[metric.name])
    cut = warm_up(run, settings).seconds if metric.cut else 0.0
    if cut <= 0:
        return _finite(run.summary.get(metric.name))
    requests = requests_of(run).after(cut)
    if metric.source == "latency":
        return latency(requests.milliseconds(metric), metric)
    return rate(requests, requests.weights(metric, limits_of(run)))


def _finite(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if np.isfinite(value) else None


def of_one_run(run: Run, metric: Metric, settings: Statistics) -> Estimate:
    """*metric* of one *run*, with what its batches say about its error."""
    if not metric.cut or (settings.warm_up is None and run.summary.get(metric.name) is None):
        return _of_one_run(run, metric, settings)
    kept = requests_of(run).kept
    key = (metric.name, settings.warm_up, settings.confidence)
    if key not in kept:
        kept[key] = _of_one_run(run, metric, settings)
    found: Estimate = kept[key]
    return found


def _of_one_run(run: Run, metric: Metric, settings: Statistics) -> Estimate:
    value = value_of(run, metric, settings)
    if value is None:
        return Estimate(None, None, None, 0, "none", _why_none(run, metric, settings))
    note = _cuts([run], metric, settings)
    if not metric.cut:
        why = "of one run alone there is no interval; replications (sweep.seeds) give one"
        return Estimate(value, None, None, 1, "none", "; ".join(filter(None, (note, why))))
    requests = requests_of(run).after(warm_up(run, settings).seconds)
    if metric.source == "rate":
        spread, interval = _of_slices(requests, run, metric), None
    else:
        values = requests.milliseconds(metric)
        spread, interval = of_latency(values[np.isfinite(values)], metric, settings.confidence)
    if spread.why:
        return Estimate(value, None, None, 1, "none", "; ".join(filter(None, (note, spread.why))))
    low, high = interval or _around(value, spread.error, spread.df, settings, positive=True)
    count = int(spread.df) + 1
    return Estimate(value, low, high, count, "batches", note, spread.error, spread.df)


def of_latency(
    values: np.ndarray, metric: Metric, confidence: float
) -> tuple[Spread, tuple[float, float] | None]:
    """The error of a latency's mean or percentile, and the interval if it has one of its own."""
    if metric.percent is None:
        return of_mean(values), None
    found = of_quantile(values, metric.percent, confidence)
    if found.why:
        return Spread(why=found.why), None
    error = (found.high - found.low) / 2 / quantile(confidence, found.df)
    return Spread(error, found.df), (found.low, found.high)


def _of_slices(requests: Requests, run: Run, metric: Metric) -> Spread:
    """The error of a rate: what was finished in equal slices of time."""
    if len(requests) < LEAST:
        return Spread(why=f"too few requests for batches: {len(requests)} of at least {LEAST}")
    return of_batches(lambda count: slices_of(requests, run, metric, count))


def slices_of(requests: Requests, run: Run, metric: Metric, count: int) -> np.ndarray:
    """A rate in each of *count* equal slices of time, by what finished there."""
    weights = requests.weights(metric, limits_of(run))
    assert weights is not None, "a rate with a value has weights"
    span = (requests.start, requests.end)
    sums, _ = np.histogram(requests["finished"], count, span, weights=weights)
    rates: np.ndarray = sums / ((span[1] - span[0]) / count)
    return rates


def _why_none(run: Run, metric: Metric, settings: Statistics) -> str:
    """Why *run* has no value of *metric*."""
    if metric.source == "economics":
        energy = metric.unit in ("kWh", "J", "W")
        return f"the study has no `{'power' if energy else 'prices'}`, or nothing to divide by"
    if metric.name in ("request_goodput", "goodput_share"):
        return "the scenario has no `slo`"
    if not metric.cut:
        return "the run has no such value"
    cut = warm_up(run, settings).seconds
    if cut > 0 and run.summary["completed"]:
        return f"no request that arrived after the warm-up of {cut:g} s has such a value"
    return "no request has finished" if not run.summary["completed"] else "no request has one"
