"""How often nominal 95 % intervals hold the truth, on a queue whose answer is known.

The time in the system of an M/M/1 queue is exponential with mean 1 / (mu - lambda), so its mean and
all its quantiles are known. `pytest --slow -s tests/test_stats_coverage.py` prints the shares.
"""

from __future__ import annotations

from math import log
from typing import TYPE_CHECKING

import numpy as np
import pytest
from synthetic_runs import cell, made_up, with_values

from sim.stats import Statistics, difference, estimate

if TYPE_CHECKING:
    from sim.stats import Difference, Estimate

PLAIN = Statistics()
WARM = 1000


def mm1(load: float, count: int, seed: int, speed: float = 1.0) -> np.ndarray:
    """Times in the system of a queue in steady state, by Lindley's recursion.

    The mean service is 1 / *speed*; arrivals and services of a seed are the same at any speed.
    """
    rng = np.random.default_rng(seed)
    gaps = rng.exponential(1 / load, count + WARM)
    service = rng.exponential(1 / speed, count + WARM)
    walk = np.concatenate([[0.0], np.cumsum(service[:-1] - gaps[1:])])
    return np.asarray((walk - np.minimum.accumulate(walk) + service)[WARM:])


def holds(found: Estimate | Difference, truth: float) -> bool | None:
    """Whether the interval holds the *truth*; None if there is none."""
    if found.low is None or found.high is None:
        return None
    return found.low <= truth <= found.high


def share(outcomes: list[bool | None]) -> tuple[float, float]:
    """The share of intervals that hold the truth, and of cases with an interval."""
    known = [outcome for outcome in outcomes if outcome is not None]
    return sum(known) / max(len(known), 1), len(known) / len(outcomes)


@pytest.mark.parametrize("runs", [2, 3, 5])
def test_intervals_of_replications_hold_the_truth_as_often_as_they_say(runs: int) -> None:
    load, repeats = 0.7, 300
    truth = {"mean_e2el_ms": 1 / 0.3, "p90_e2el_ms": log(10) / 0.3}
    outcomes: dict[str, list[bool | None]] = {name: [] for name in truth}
    for repeat in range(repeats):
        times = [mm1(load, 1500, repeat * 100 + run) for run in range(runs)]
        found = with_values(
            {}, mean_e2el_ms=[float(t.mean()) for t in times],
            p90_e2el_ms=[float(np.quantile(t, 0.9)) for t in times],
        )  # fmt: skip
        for name, value in truth.items():
            outcomes[name].append(holds(estimate(found, name, PLAIN), value))
    for name, of_metric in outcomes.items():
        covered, given = share(of_metric)
        print(f"{runs} runs, {name}: {covered:.1%}")
        assert given == 1.0
        assert 0.90 <= covered <= 0.985


def test_paired_differences_hold_the_truth_and_are_shorter_than_unpaired() -> None:
    """A server that is 1 / 0.9 times as fast; the same arrivals and the same work."""
    outcomes, widths = [], {True: 0.0, False: 0.0}
    truth = (1 / (1 / 0.9 - 0.7)) / (1 / 0.3) - 1
    for repeat in range(150):
        slow, fast = (
            [float(mm1(0.7, 1500, repeat * 100 + run, speed).mean()) for run in range(5)]
            for speed in (1.0, 1 / 0.9)
        )
        base = with_values({"s": "slow"}, mean_e2el_ms=slow)
        for paired in (True, False):
            other = with_values({"s": "fast"}, mean_e2el_ms=fast)
            for run in other.runs:
                run.summary["seed"] += 0 if paired else 100
            found = difference(other, base, "mean_e2el_ms", PLAIN)
            assert found.paired == paired
            assert found.low is not None
            assert found.high is not None
            widths[paired] += found.high - found.low
            if paired:
                outcomes.append(holds(found, truth))
    covered, _ = share(outcomes)
    print(f"paired differences: {covered:.1%}, {widths[True] / widths[False]:.2f} of the width")
    assert 0.89 <= covered <= 0.985
    assert widths[True] < 0.7 * widths[False]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("load", "count", "least"),
    [(0.5, 2_000, 0.86), (0.5, 10_000, 0.91), (0.8, 10_000, 0.88), (0.8, 40_000, 0.90)],
)
def test_intervals_of_batches_hold_the_truth_nearly_as_often(
    load: float, count: int, least: float
) -> None:
    """A bit less than nominal, the shorter the run the worse; short ones mostly give none."""
    mean = 1 / (1 - load)
    truth = {
        "mean_e2el_ms": mean, "median_e2el_ms": mean * log(2), "p90_e2el_ms": mean * log(10),
        "p99_e2el_ms": mean * log(100),
    }  # fmt: skip
    outcomes: dict[str, list[bool | None]] = {name: [] for name in truth}
    for repeat in range(300):
        one = cell(made_up(mm1(load, count, repeat), tokens=1))
        for name, value in truth.items():
            outcomes[name].append(holds(estimate(one, name, PLAIN), 1000 * value))
    for name, of_metric in outcomes.items():
        covered, given = share(of_metric)
        print(f"load {load}, {count} requests, {name}: {covered:.1%} of {given:.0%} with interval")
        if given > 0.9:
            assert least <= covered <= 0.99


@pytest.mark.slow
def test_differences_by_request_hold_the_truth() -> None:
    truth = (1 / (1 / 0.9 - 0.7)) / (1 / 0.3) - 1
    outcomes: dict[str, list[bool | None]] = {"mean_e2el_ms": [], "p90_e2el_ms": []}
    for repeat in range(300):
        slow, fast = (
            cell(made_up(mm1(0.7, 10_000, repeat, speed), {"s": speed}, tokens=1))
            for speed in (1.0, 1 / 0.9)
        )
        for name, of_metric in outcomes.items():
            of_metric.append(holds(difference(fast, slow, name, PLAIN), truth))
    for name, of_metric in outcomes.items():
        covered, given = share(of_metric)
        print(f"by request, {name}: {covered:.1%} of {given:.0%} judged")
        assert given > 0.9
        assert 0.87 <= covered <= 0.99
