"""Which metrics moved, by how much, and how sure that is."""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite
from typing import TYPE_CHECKING

from sim.errors import InputError
from sim.runs import Cell
from sim.stats import Statistics, difference, metric_of

if TYPE_CHECKING:
    from sim.runs import Run
    from sim.stats import Metric

SAME = 5e-4
"""A relative difference below this is none."""
GROUPS = (
    ("request_goodput", "goodput_share", "output_throughput", "request_throughput", "duration",
     "p99_ttft_ms", "median_ttft_ms", "mean_ttft_ms", "p99_tpot_ms", "median_tpot_ms",
     "mean_tpot_ms", "p99_itl_ms", "mean_itl_ms", "p99_e2el_ms", "mean_e2el_ms", "p99_queue_ms",
     "mean_queue_ms", "trace_session_median_s"),
    ("requests_rejected", "requests_unfinished", "kv_preemptions"),
    ("loop_iterations", "loop_gpu_busy_fraction", "loop_gap_fraction", "loop_gap_s",
     "loop_mean_decode_requests", "loop_mean_waiting_requests", "loop_longest_stall_ms",
     "loop_tokens_per_launch", "loop_exits"),
    ("kv_mean_utilization", "kv_prefix_hit_rate", "kv_prefill_tokens_saved", "kv_stall_s",
     "kv_h2d_bytes", "kv_d2h_bytes", "kv_ssd_read_bytes", "kv_ssd_write_bytes",
     "kv_blocks_fetched"),
    ("spec_acceptance_rate", "spec_mean_acceptance_length", "spec_tokens_per_step"),
)  # fmt: skip
"""What users see, what was lost, what the loop did, what memory did, what drafts did."""


@dataclass(frozen=True, slots=True)
class Moved:
    """A metric in both runs; the interval is that of the relative difference."""

    metric: Metric
    a: float
    b: float
    low: float | None = None
    high: float | None = None
    sure: bool | None = None
    """Whether a difference can be told from chance; None if that is not judged."""
    method: str = "none"
    """What the interval rests on: requests, batches, or none."""

    @property
    def relative(self) -> float | None:
        """(b - a) / a; None from zero."""
        return (self.b - self.a) / abs(self.a) if self.a else None

    @property
    def same(self) -> bool:
        """Whether the values hardly differ."""
        return abs(self.b - self.a) <= SAME * max(abs(self.a), abs(self.b))

    @property
    def verdict(self) -> str:
        """better, worse, same, or not sure."""
        if self.same:
            return "same"
        if self.sure is False:
            return "not distinguishable"
        if self.metric.better is None:
            return ""
        return "better" if (self.b > self.a) == (self.metric.better == "higher") else "worse"


def moved(a: Run, b: Run) -> list[Moved]:
    """The metrics of both summaries: by group, and in it those first that differ most."""
    found = []
    for group in GROUPS:
        rows = [row for name in group if (row := _row(a, b, name)) is not None]
        found += sorted(rows, key=_rank)
    return found


def _rank(row: Moved) -> tuple[bool, float]:
    relative = row.relative
    return row.same, -(float("inf") if relative is None else abs(relative))


def _row(a: Run, b: Run, name: str) -> Moved | None:
    """The metric *name*, None if one of the runs has no such number."""
    values = a.summary.get(name), b.summary.get(name)
    if not all(_number(value) for value in values):
        return None
    try:
        metric = metric_of(name, (a.summary, b.summary))
    except InputError:
        return None
    row = Moved(metric, float(values[0]), float(values[1]))  # type: ignore[arg-type]
    if row.same:
        return row
    judged = difference(Cell({}, (b,)), Cell({}, (a,)), name, Statistics())
    sure = judged.distinguishable if judged.judged else None
    return Moved(metric, row.a, row.b, judged.low, judged.high, sure, judged.method)


def _number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value)
