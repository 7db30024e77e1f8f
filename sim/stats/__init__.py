"""From runs to answers: estimates with intervals, and differences with a verdict in words."""

from __future__ import annotations

from .baseline import baseline_faults, baseline_of
from .differences import Difference, difference, differences, sentence
from .estimates import Estimate, estimate
from .metrics import METRICS, Metric, metric_of
from .settings import Statistics
from .warm_up import Cut, warm_up

__all__ = [
    "METRICS",
    "Cut",
    "Difference",
    "Estimate",
    "Metric",
    "Statistics",
    "baseline_faults",
    "baseline_of",
    "difference",
    "differences",
    "estimate",
    "metric_of",
    "sentence",
    "warm_up",
]
