"""Two cells against each other: how much, how sure, and a verdict in words.

The one rule: what is compared is paired wherever it can be. Replications of one number have the
same seed, so the same requests at the same times (common random numbers); two single runs of the
same traffic are paired request by request. Otherwise the two sides are taken as independent.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import sqrt
from typing import TYPE_CHECKING, Any

import numpy as np

from sim.axis_names import called

from . import words
from .baseline import baseline_axes, baselines
from .estimates import estimate, independent, value_of
from .metrics import metric_of
from .pairs import Pair, by_request, by_slice
from .student import quantile, two_sided

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sim.runs import Cell, Results, Run

    from .estimates import Estimate
    from .metrics import Metric
    from .settings import Statistics


@dataclass(frozen=True, slots=True)
class Difference:
    """A cell against its baseline in one metric, relative to the baseline's value."""

    cell: str
    baseline: str
    axes: dict[str, Any]
    """Those of the cell."""
    metric: str
    relative: float | None
    """(value - baseline) / baseline, negative where the cell's is lower."""
    low: float | None
    high: float | None
    n: int
    """Pairs of runs, batches, or runs of both sides that the interval rests on."""
    paired: bool
    p: float | None
    """Chance of such a difference if there were none; None if that is not judged."""
    alpha: float
    distinguishable: bool
    better: bool | None
    """Whether it is better; None where that cannot be told, or the metric has no better way."""
    method: str
    """replications, requests (in batches), batches (slices of time), or none."""
    note: str = ""
    """Why it is not judged, or what else to know."""
    verdict: str = ""

    @property
    def judged(self) -> bool:
        """Whether there was enough to judge by."""
        return self.p is not None


def difference(cell: Cell, baseline: Cell, metric: str, settings: Statistics) -> Difference:
    """How *cell* differs from *baseline* in *metric*, judged for itself.

    Raises `InputError` for a metric that there is not, and for damaged records.
    """
    chosen = metric_of(metric, [run.summary for run in (*cell.runs, *baseline.runs)])
    row = _row(cell, baseline, chosen, settings)
    return _said(row, chosen, row.p is not None and row.p < row.alpha)


def differences(
    results: Results, metrics: Sequence[str], settings: Statistics | None = None
) -> list[Difference]:
    """Every cell against its baseline in every metric, cell by cell, all judged together.

    # Model: Holm's procedure (Scandinavian Journal of Statistics 6, 1979): with the smallest chance
    of k first, each is held against the level over what is left, so that at the study's confidence
    no verdict of the list is wrong. Intervals are each for itself.
    """
    settings = settings or results.statistics
    results = replace(results, statistics=settings)
    rows, wanted = [], baseline_axes(results)
    for cell, baseline in zip(results.cells, baselines(results), strict=True):
        if baseline is None:
            rows += [_alone(cell, name, wanted, settings) for name in metrics if wanted]
        elif baseline is not cell:
            rows += [difference(cell, baseline, name, settings) for name in metrics]
    kept = holm([row.p for row in rows], 1.0 - settings.confidence)
    judged = sum(row.judged for row in rows)
    summaries = [run.summary for run in results.runs]
    return [
        _said(row, metric_of(row.metric, summaries), keep, judged)
        for row, keep in zip(rows, kept, strict=True)
    ]


def holm(chances: Sequence[float | None], alpha: float) -> list[bool]:
    """Which of *chances* hold together at *alpha*; None is not among them and does not hold."""
    order = sorted((p, i) for i, p in enumerate(chances) if p is not None)
    held = [False] * len(chances)
    for rank, (p, i) in enumerate(order):
        if p > alpha / (len(order) - rank):
            break
        held[i] = True
    return held


def sentence(rows: Sequence[Difference], results: Results) -> str:
    """All *rows* of one cell in a sentence; empty if there are none."""
    summaries = [run.summary for run in results.runs]
    return words.sentence([(row, metric_of(row.metric, summaries)) for row in rows])


def _said(row: Difference, metric: Metric, held: bool, together: int = 1) -> Difference:
    """*row* with what follows from whether its difference is *held* for real."""
    held = held and row.relative != 0
    better = None
    if held and metric.better is not None and row.relative is not None:
        better = (row.relative > 0) == (metric.better == "higher")
    row = replace(row, distinguishable=held, better=better)
    return replace(row, verdict=words.verdict(row, metric, together))


# ---------------------------------------------------------------------------- how it is judged
def _row(cell: Cell, baseline: Cell, metric: Metric, settings: Statistics) -> Difference:
    """The difference, not yet judged by any level."""
    blank = _blank(cell, baseline, metric, settings)
    one, two = (estimate(side, metric.name, settings) for side in (cell, baseline))
    if one.value is None or two.value is None:
        side, name = (one, blank.cell) if one.value is None else (two, blank.baseline)
        return replace(blank, note=f"{name} has no value: {side.note}")
    if two.value == 0:
        both = "both are 0"
        note = f"{blank.baseline} has 0, of which there is no share" if one.value else both
        return replace(blank, note=note)
    blank = replace(blank, relative=(one.value - two.value) / abs(two.value))
    mine, theirs = independent(cell.runs), independent(baseline.runs)
    if len(mine) == len(theirs) == 1:
        single = _of_single_runs(blank, mine[0], theirs[0], metric, settings)
        return single or _of_estimates(blank, one, two, settings)
    pairs = _pairs(cell.runs, baseline.runs, metric, settings)
    if len(pairs) < 2:
        return _of_estimates(blank, one, two, settings)
    left = max(len(cell.runs), len(baseline.runs)) - len(pairs)
    note = f"without a partner, so left out: {left} of the runs" if left else ""
    return _judged(blank, _of_pairs(pairs), "replications", settings, note)


def _alone(cell: Cell, metric: str, wanted: dict[str, Any], settings: Statistics) -> Difference:
    """What there is to say of a cell whose baseline, *wanted*, has no run."""
    apart = {key: value for key, value in cell.axes.items() if key in wanted}
    return Difference(
        called(apart) or cell.name or "it", called(wanted), cell.axes, metric, None, None, None, 0,
        False, None, 1.0 - settings.confidence, False, None, "none",
        "there is no such point to compare with",
    )  # fmt: skip


def _blank(cell: Cell, baseline: Cell, metric: Metric, settings: Statistics) -> Difference:
    """Who is compared with whom, without a result."""
    apart = {key: v for key, v in cell.axes.items() if baseline.axes.get(key) != v}
    first, other = cell.runs[0], baseline.runs[0]
    return Difference(
        called(apart, first.common) or cell.name or "it",
        called({k: baseline.axes[k] for k in apart if k in baseline.axes}, other.common) or "it",
        cell.axes, metric.name, None, None, None, 0, False, None, 1.0 - settings.confidence,
        False, None, "none",
    )  # fmt: skip


def _of_single_runs(
    blank: Difference, mine: Run, theirs: Run, metric: Metric, settings: Statistics
) -> Difference | None:
    """Of two runs, by their requests or by time; None if they cannot be paired."""
    if metric.source == "rate":
        pair = by_slice(mine, theirs, metric, settings)
        return _judged(blank, pair, "batches", settings)
    if metric.source != "latency":
        return None
    found = by_request(mine, theirs, metric, settings)
    if found is None:
        return None
    note = "of the requests that both finished" if found.partial else ""
    return _judged(blank, found, "requests", settings, note)


def _of_estimates(
    blank: Difference, one: Estimate, two: Estimate, settings: Statistics
) -> Difference:
    """Of two sides that are independent; degrees of freedom by Welch and Satterthwaite."""
    assert one.value is not None, "there is no difference without values"
    assert two.value is not None, "there is no difference without values"
    for side, name in ((one, blank.cell), (two, blank.baseline)):
        if side.low is None:
            return replace(blank, note=f"{name}: {side.note or 'one run without an interval'}")
    scale = abs(two.value)
    parts = (one.error / scale, one.value / two.value * two.error / scale)
    error = sqrt(parts[0] ** 2 + parts[1] ** 2)
    below = parts[0] ** 4 / max(one.df, 1) + parts[1] ** 4 / max(two.df, 1)
    df = error**4 / below if below > 0 else one.df + two.df
    method = one.method if one.method == two.method else "replications, batches"
    pair = Pair((one.value - two.value) / scale, error, df, one.n + two.n)
    return replace(_judged(blank, pair, method, settings), paired=False)


def _pairs(
    mine: Sequence[Run], theirs: Sequence[Run], metric: Metric, settings: Statistics
) -> list[tuple[float, float]]:
    """Values of runs with the same number and seed on both sides."""
    partner = {(run.replication, run.summary.get("seed")): run for run in theirs}
    pairs = []
    for run in mine:
        other = partner.get((run.replication, run.summary.get("seed")))
        if other is None:
            continue
        values = value_of(run, metric, settings), value_of(other, metric, settings)
        if values[0] is not None and values[1] is not None:
            pairs.append((values[0], values[1]))
    return pairs


def _of_pairs(pairs: Sequence[tuple[float, float]]) -> Pair:
    """The ratio of means of *pairs*, less 1.

    # Model: the ratio estimator of surveys (Cochran, Sampling Techniques, 2.11): the error of a
    ratio R is that of the mean of c - R b over the mean of b.
    """
    mine, theirs = (np.array(side) for side in zip(*pairs, strict=True))
    scale = abs(float(theirs.mean()))
    if scale == 0:
        return Pair(why="the baseline's runs with a partner have 0")
    ratio = float(mine.mean()) / float(theirs.mean())
    error = float((mine - ratio * theirs).std(ddof=1)) / sqrt(len(pairs)) / scale
    relative = float(mine.mean() - theirs.mean()) / scale
    if error <= 1e-12 * max(1.0, abs(ratio)):
        error = 0.0  # the same in every pair, but for rounding
    return Pair(relative, error, len(pairs) - 1.0, len(pairs))


def _judged(
    blank: Difference, pair: Pair, method: str, settings: Statistics, note: str = ""
) -> Difference:
    """*blank* with what *pair* says: the interval, and the chance if there were no difference."""
    if pair.why:
        return replace(blank, note=pair.why)
    reach = quantile(settings.confidence, pair.df) * pair.error
    if pair.error > 0:
        p = two_sided(pair.relative / pair.error, pair.df)
    else:
        p = 0.0 if pair.relative else 1.0
    return replace(
        blank, relative=pair.relative, low=pair.relative - reach, high=pair.relative + reach,
        n=pair.n, paired=True, p=p, method=method, note=note,
    )  # fmt: skip
