"""Two single runs of the same traffic, request by request."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from .batches import LEAST, MOST, of_batches, of_mean, of_quantile
from .estimates import slices_of
from .samples import latency, requests_of
from .warm_up import warm_up

if TYPE_CHECKING:
    from sim.runs import Run

    from .metrics import Metric
    from .samples import Requests
    from .settings import Statistics

_LEAST_COMMON = 0.9
"""Share of the requests that both must have finished."""


@dataclass(frozen=True, slots=True)
class Pair:
    """A relative difference with its standard error, or *why* there is none."""

    relative: float = 0.0
    error: float = 0.0
    df: float = 0.0
    n: int = 0
    why: str = ""
    partial: bool = False
    """Whether some requests are on one side only."""


def by_slice(mine: Run, theirs: Run, metric: Metric, settings: Statistics) -> Pair:
    """The relative difference of a rate over equal slices of the two runs' times.

    # Model: as `_difference`; slice k of one run is paired with slice k of the other, whose
    arrivals are the same where the traffic is.
    """
    cut = max(warm_up(run, settings).seconds for run in (mine, theirs))
    sides = [requests_of(run).after(cut) for run in (mine, theirs)]
    if min(map(len, sides)) < LEAST:
        return Pair(why=f"too few requests for batches: {min(map(len, sides))} of {LEAST}")
    here, there = (
        slices_of(side, run, metric, MOST) for side, run in zip(sides, (mine, theirs), strict=True)
    )
    base = float(there.mean())
    if base == 0:
        return Pair(why="the baseline has 0")
    ratio = float(here.mean()) / base

    def batches(count: int) -> np.ndarray:
        means: np.ndarray = (here - ratio * there).reshape(count, -1).mean(axis=1)
        return means

    spread = of_batches(batches)
    if spread.why:
        return Pair(why=spread.why)
    return Pair(ratio - 1.0, spread.error / base, spread.df, int(spread.df) + 1)


def by_request(mine: Run, theirs: Run, metric: Metric, settings: Statistics) -> Pair | None:
    """The relative difference of a latency over the requests that both runs finished.

    None if the two did not play the same requests.
    """
    one, two = requests_of(mine), requests_of(theirs)
    both = _in_common(one, two)
    if both is None:
        return None
    cuts = [warm_up(run, settings).seconds for run in (mine, theirs)]
    late = (both[0]["arrival"] >= cuts[0]) & (both[1]["arrival"] >= cuts[1])
    here, there = (side.milliseconds(metric)[late] for side in both)
    known = np.isfinite(here) & np.isfinite(there)
    here, there = here[known], there[known]
    most = max(
        int(np.isfinite(whole.after(cut).milliseconds(metric)).sum())
        for whole, cut in ((one, cuts[0]), (two, cuts[1]))
    )
    if len(here) < _LEAST_COMMON * most:
        share = len(here) / most
        return Pair(why=f"the two finished different requests ({share:.0%} in common); use seeds")
    return _difference(here, there, metric, settings.confidence, partial=len(here) < most)


@lru_cache(maxsize=8)
def _in_common(one: Requests, two: Requests) -> tuple[Requests, Requests] | None:
    """The requests that both finished, in order of arrival at *two*; None if these differ."""
    _, at_one, at_two = np.intersect1d(
        one["id"], two["id"], assume_unique=True, return_indices=True
    )
    order = np.argsort(at_two, kind="stable")
    both = one.only(at_one[order]), two.only(at_two[order])
    return both if _same_traffic(*both) else None


def _same_traffic(one: Requests, two: Requests) -> bool:
    return np.array_equal(one["prompt_tokens"], two["prompt_tokens"]) and np.array_equal(
        one["output_tokens"], two["output_tokens"]
    )


def _difference(
    here: np.ndarray, there: np.ndarray, metric: Metric, confidence: float, *, partial: bool
) -> Pair:
    """The ratio of the two values less 1, its error from batches of what each request adds.

    # Model: a ratio R is as far off as the mean of c - R b over b, c and b what each request adds
    to either value: itself for a mean; for a quantile its influence, (share - (1 if it is at or
    below it)) / density (Serfling, Approximation Theorems of Mathematical Statistics, 2.5).
    """
    value, base = latency(here, metric), latency(there, metric)
    if value is None or base is None:
        return Pair(why="no request that both finished has such a value")
    if base == 0:
        return Pair(why="the baseline has 0 over the requests that both finished")
    added = [here, there]
    if metric.percent is not None:
        for side, values in enumerate((here, there)):
            found = of_quantile(values, metric.percent, confidence)
            if found.why:
                return Pair(why=found.why)
            if found.density <= 0:
                return Pair(why="too many requests have the very same value")
            at = latency(values, metric)
            added[side] = (metric.percent / 100.0 - (values <= at)) / found.density
    spread = of_mean(added[0] - value / base * added[1])
    if spread.why:
        return Pair(why=spread.why)
    relative = (value - base) / abs(base)
    return Pair(relative, spread.error / abs(base), spread.df, int(spread.df) + 1, partial=partial)
