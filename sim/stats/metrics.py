"""Which metrics there are: what they are called, their unit, which way is better, how they are had.

The one rule: a metric is named by its key in `summary.json`. What is known here can be worked out
again from `requests.parquet` for a part of the run; every other number of a summary works by its
name too, for the whole run only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from sim.economics import METRICS as ECONOMICS
from sim.errors import InputError, shown
from sim.node import suggestion

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

Better = Literal["lower", "higher"] | None
Source = Literal["latency", "rate", "summary", "economics"]


@dataclass(frozen=True, slots=True)
class Metric:
    """One number of a run: *label* as a sentence says it, *unit* as an axis does."""

    name: str
    label: str
    unit: str
    better: Better
    source: Source
    column: str = ""
    """Of a latency, which: ttft, tpot, e2el or queue."""
    percent: float | None = None
    """Of a latency, its percentile; None if it is the mean."""

    @property
    def title(self) -> str:
        """Label and unit, for an axis or a column."""
        return f"{self.label} ({self.unit})" if self.unit else self.label

    @property
    def cut(self) -> bool:
        """Whether it can be had without the warm-up."""
        return self.source in ("latency", "rate")


_LATENCIES = {"ttft": "TTFT", "tpot": "TPOT", "e2el": "E2EL", "queue": "time in queue"}
_PERCENTS = {
    "median": 50.0, "p50": 50.0, "p90": 90.0, "p95": 95.0, "p99": 99.0, "p99.9": 99.9
}  # fmt: skip


def _latencies() -> dict[str, Metric]:
    found = {}
    for column, label in _LATENCIES.items():
        for word in ("mean", *_PERCENTS):
            name = f"{word}_{column}_ms"
            found[name] = Metric(
                name, f"{word} {label}", "ms", "lower", "latency", column, _PERCENTS.get(word)
            )
    return found


def _gaps() -> dict[str, Metric]:
    """ITL, of which a run keeps no single values, so a warm-up cannot be cut from it."""
    names = ((f"{word}_itl_ms", f"{word} ITL") for word in ("mean", *_PERCENTS))
    return {name: Metric(name, label, "ms", "lower", "summary") for name, label in names}


_RATES = {
    "request_throughput": ("request throughput", "requests/s"),
    "request_goodput": ("goodput", "requests/s"),
    "output_throughput": ("output throughput", "tokens/s"),
    "total_token_throughput": ("token throughput", "tokens/s"),
}
METRICS: dict[str, Metric] = {
    **_latencies(),
    **_gaps(),
    **{n: Metric(n, label, unit, "higher", "rate") for n, (label, unit) in _RATES.items()},
    **{n: Metric(n, label, unit, b, "economics") for n, (label, unit, b) in ECONOMICS.items()},
}
"""Metrics by name, of all that are known beforehand."""

_LOWER = {
    "failed", "requests_rejected", "requests_unfinished", "requests_preempted", "kv_preemptions",
    "loop_gap_s", "loop_gap_fraction", "loop_longest_stall_ms", "loop_tklqt_s", "loop_bubble_s",
    "loop_mean_waiting_requests", "kv_stall_s", "kv_stall_swap_s", "kv_stall_load_s", "duration",
}  # fmt: skip
_HIGHER = {
    "completed", "goodput_share", "max_output_tokens_per_s", "kv_prefill_tokens_saved",
    "spec_acceptance_rate", "spec_mean_acceptance_length", "spec_tokens_per_step",
}  # fmt: skip
_UNITS = {
    "_per_s": "/s", "_ms": "ms", "_s": "s", "_bytes": "B", "_kwh": "kWh", "_hours": "h",
    "_tokens": "tokens", "_blocks": "blocks", "_requests": "requests",
}  # fmt: skip


def metric_of(name: str, summaries: Sequence[Mapping[str, Any]] = ()) -> Metric:
    """The metric *name*: one of `METRICS`, or any number in *summaries*.

    Raises `InputError`, with the nearest name, if there is none.
    """
    if name in METRICS:
        return METRICS[name]
    numbers = {key for summary in summaries for key, value in summary.items() if _number(value)}
    if name in numbers:
        return _by_its_name(name)
    known = sorted(METRICS | dict.fromkeys(numbers))
    few = ["mean_ttft_ms", "p99_ttft_ms", "mean_tpot_ms", "request_goodput", "output_throughput"]
    hint = suggestion(name, known, "")
    hint = hint if hint.startswith("did") else f"e.g. {', '.join(few)}, or a key of summary.json"
    raise InputError(f"metric {shown(name)}: no such metric; {hint}")


def _by_its_name(name: str) -> Metric:
    suffix = next((suffix for suffix in _UNITS if name.endswith(suffix)), "")
    unit = _UNITS.get(suffix, "")
    label = name.removesuffix(suffix) if suffix in ("_ms", "_s", "_per_s") else name
    better: Better = "lower" if name in _LOWER else "higher" if name in _HIGHER else None
    if better is None and name.endswith("_hit_rate"):
        better = "higher"
    return Metric(name, label.replace("_", " "), unit, better, "summary")


def _number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
