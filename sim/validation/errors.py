"""Signed errors of a simulated run against a measured one, with bootstrap intervals.

Requests are drawn with replacement, a measured one and its simulated twin together, so that what
both share (lengths, bursts) does not widen the interval. The seed is fixed.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from sim.errors import InputError, shown

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .served import Served

BARS = {
    "throughput": 2.0, "ttft_p50": 5.0, "ttft_p90": 8.0, "ttft_p99": 10.0, "tpot_mean": 3.0,
    "itl_p99": 6.0, "step_median": 3.0, "step_p90": 7.0,
}  # fmt: skip
"""Per cent within which a run is said to be predicted."""
METRICS = {
    "throughput": "output tokens/s", "ttft_p50": "TTFT p50, ms", "ttft_p90": "TTFT p90, ms",
    "ttft_p99": "TTFT p99, ms", "tpot_mean": "TPOT mean, ms", "tpot_p50": "TPOT p50, ms",
    "tpot_p99": "TPOT p99, ms", "itl_p50": "ITL p50, ms", "itl_p99": "ITL p99, ms",
    "e2el_mean": "E2EL mean, ms", "e2el_p50": "E2EL p50, ms", "e2el_p99": "E2EL p99, ms",
}  # fmt: skip
_DRAWS = 1000
_DRAWS_OF_GAPS = 100
_MOST_GAPS = 200_000
_SEED = 20_260_101
_UNITS_APART = 200.0
"""Simulated over measured times above which a unit is doubted."""


@dataclass(frozen=True, slots=True)
class Row:
    """One metric: values in ms or tokens/s, the signed error and its 95 % interval as shares."""

    metric: str
    measured: float
    simulated: float
    error: float
    low: float | None = None
    high: float | None = None
    noise: float | None = None
    """The same metric of a second measured run against the first."""
    bar: float | None = None
    spread: float | None = None
    """Largest over smallest of several simulated runs, less one; the error is of their mean."""

    @property
    def verdict(self) -> str:
        """within or outside the bar; nothing where there is none."""
        if self.bar is None:
            return ""
        return "within" if abs(self.error) <= self.bar / 100.0 else "outside"


@dataclass
class Comparison:
    """All of a validation."""

    measured: Served
    simulated: Served
    rows: list[Row]
    ks: dict[str, float]
    per_request: dict[str, dict[str, float]]
    """By quantity: median and p90 of |simulated / measured - 1| of single requests."""
    steps: dict[str, dict[str, float]] = field(default_factory=dict)
    """Teacher-forced errors by region; none without a measured run's steps."""
    step_pairs: tuple[np.ndarray, np.ndarray] | None = None
    notes: list[str] = field(default_factory=list)

    def document(self) -> dict[str, Any]:
        """As JSON-able data."""
        return {
            "measured": self.measured.name, "simulated": self.simulated.name,
            "requests": len(self.measured),
            "metrics": {
                row.metric: {
                    "measured": row.measured, "simulated": row.simulated, "error": row.error,
                    "low": row.low, "high": row.high, "noise": row.noise, "bar": row.bar,
                    "verdict": row.verdict or None,
                } | ({} if row.spread is None else {"spread": row.spread})
                for row in self.rows
            },
            "ks": self.ks, "per_request": self.per_request, "teacher_forced": self.steps,
            "notes": self.notes,
        }  # fmt: skip


def bars(text: str | None) -> dict[str, float]:
    """The bars, those in *text* (`ttft_p50=5,throughput=2`, per cent) instead of the usual."""
    found = dict(BARS)
    for word in (text or "").split(","):
        if not word.strip():
            continue
        name, _, value = (part.strip() for part in word.partition("="))
        known = [*METRICS, "step_median", "step_p90"]
        if name not in known:
            raise InputError(f"--bars {shown(word)}: no metric {shown(name)}; {', '.join(known)}")
        try:
            found[name] = float(value)
        except ValueError:
            raise InputError(f"--bars {shown(word)}: write name=per cent, e.g. {name}=5") from None
        if not 0 <= found[name] < 1e6:
            raise InputError(f"--bars {shown(word)}: not a share in per cent")
    return found


def compare(
    measured: Served, simulated: Served, limits: dict[str, float], repeat: Served | None = None,
    also: Sequence[Served] = (),
) -> Comparison:  # fmt: skip
    """All errors of *simulated* against *measured*, matched already; *repeat* is matched, too.

    *also* are runs of the same scenario with other seeds: metrics are then means over all of them.
    """
    real, told = _values(measured), [_values(one) for one in (simulated, *also)]
    low, high = _intervals(measured, simulated)
    again = None if repeat is None else _values(repeat)
    rows = []
    for name in METRICS:
        if name not in real or not all(name in one for one in told) or real[name] <= 0:
            continue
        values = [one[name] for one in told]
        mean = sum(values) / len(values)
        ends: tuple[float | None, ...] = low.get(name), high.get(name)
        if also and values[0] > 0:
            # The interval says what the requests leave open, and is moved to where the mean is.
            ends = tuple(None if end is None else (1.0 + end) * mean / values[0] - 1.0
                         for end in ends)  # fmt: skip
        spread = max(values) / min(values) - 1.0 if also and min(values) > 0 else None
        rows.append(
            Row(
                name, real[name], mean, mean / real[name] - 1.0, ends[0], ends[1],
                again[name] / real[name] - 1.0 if again and name in again else None,
                limits.get(name), spread,
            )
        )  # fmt: skip
    quantities = {
        "ttft": (measured.ttft, simulated.ttft), "e2el": (measured.e2el, simulated.e2el),
        "tpot": (measured.tpot, simulated.tpot),
    }  # fmt: skip
    ks, each = {}, {}
    for name, (a, b) in quantities.items():
        good = np.isfinite(a) & np.isfinite(b) & (a > 0)
        if good.any():
            ks[name] = distance(a[good], b[good])
            size = np.abs(b[good] / a[good] - 1.0)
            each[name] = {"median": float(np.median(size)), "p90": float(np.quantile(size, 0.9))}
    mine, theirs = pooled(measured), pooled(simulated)
    if len(mine) and len(theirs):
        ks["itl"] = distance(mine, theirs)
    notes = []
    if not len(mine) or not len(theirs):
        notes.append("no ITL: times of tokens are not known for both runs")
    ratio = np.nanmedian(simulated.e2el / np.maximum(measured.e2el, 1e-12))
    if not 1.0 / _UNITS_APART < ratio < _UNITS_APART:
        notes.append(
            f"simulated times are {ratio:.3g} of the measured ones: is the unit of the log's times "
            "(--unit, --map NAME=THEIRS[ms]) right, here and for the profile?"
        )
    return Comparison(measured, simulated, rows, ks, each, notes=notes)


def pooled(served: Served) -> np.ndarray:
    """All gaps between tokens."""
    return np.concatenate(served.gaps) if served.gaps else np.empty(0)


def distance(a: np.ndarray, b: np.ndarray) -> float:
    """The largest difference between two empirical distributions (Kolmogorov, Smirnov)."""
    a, b = np.sort(a), np.sort(b)
    at = np.concatenate([a, b])
    first = np.searchsorted(a, at, "right") / len(a)
    second = np.searchsorted(b, at, "right") / len(b)
    return float(np.abs(first - second).max())


def _values(served: Served) -> dict[str, float]:
    found = {"throughput": served.throughput}
    found |= _of_requests(served.ttft, served.tpot, served.e2el)
    gaps = pooled(served)
    if len(gaps):
        found |= {f"itl_p{q}": float(np.percentile(gaps, q)) * 1e3 for q in (50, 99)}
    return found


def _of_requests(ttft: np.ndarray, tpot: np.ndarray, e2el: np.ndarray) -> dict[str, float]:
    found: dict[str, float] = {}
    for name, values in (("ttft", ttft), ("tpot", tpot[np.isfinite(tpot)]), ("e2el", e2el)):
        if not len(values):
            continue
        p50, p90, p99 = np.percentile(values, (50, 90, 99)) * 1e3
        mean = float(values.mean()) * 1e3
        found |= {f"{name}_mean": mean, f"{name}_p50": p50, f"{name}_p90": p90, f"{name}_p99": p99}
    return {name: float(value) for name, value in found.items()}


def _intervals(a: Served, b: Served) -> tuple[dict[str, float], dict[str, float]]:
    """Lower and upper ends of 95 % intervals of errors, by metric."""
    generator = np.random.Generator(np.random.PCG64(_SEED))
    count = len(a)
    errors: dict[str, list[float]] = {}
    columns = [(one.ttft, one.tpot, one.e2el) for one in (a, b)]
    for _ in range(_DRAWS):
        rows = generator.integers(0, count, count)
        real, told = (_of_requests(*(values[rows] for values in own)) for own in columns)
        for name in real:
            if name in told and real[name] > 0:
                errors.setdefault(name, []).append(told[name] / real[name] - 1.0)
    _gap_errors(a, b, generator, errors)
    ends = {name: np.percentile(values, (2.5, 97.5)) for name, values in errors.items()}
    return (
        {name: float(low) for name, (low, _) in ends.items()},
        {name: float(high) for name, (_, high) in ends.items()},
    )


def _gap_errors(
    a: Served, b: Served, generator: np.random.Generator, errors: dict[str, list[float]]
) -> None:
    if not a.gaps or not b.gaps:
        return
    total = max(sum(map(len, a.gaps)), sum(map(len, b.gaps)))
    step = max(1, -(-total // _MOST_GAPS))
    real, told = ([gaps[::step] for gaps in one.gaps] for one in (a, b))
    if not sum(map(len, real)) or not sum(map(len, told)):
        return
    for _ in range(min(_DRAWS_OF_GAPS, max(20, 40_000_000 * step // max(1, total)))):
        rows = generator.integers(0, len(a), len(a)).tolist()
        first, second = (_joined(gaps, rows) for gaps in (real, told))
        if not len(first) or not len(second):
            continue
        for q in (50, 99):
            error = np.percentile(second, q) / np.percentile(first, q) - 1.0
            errors.setdefault(f"itl_p{q}", []).append(float(error))


def _joined(gaps: Sequence[np.ndarray], rows: Sequence[int]) -> np.ndarray:
    return np.concatenate([gaps[row] for row in rows])
