"""What a target is and how a measurement is held against it.

One rule: a row without samples says so, and a row without a bar is recorded, never met.
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ..fit.samples import Point
    from .inputs import Evidence
    from .public import Public

Verdict = Literal["met", "missed", "recorded", "not measured"]


@dataclass(frozen=True, slots=True)
class Found:
    """A measured value, in the unit of its row."""

    value: float
    bytes: float | None = None
    floor: float | None = None
    """The least time, or for a rate the ceiling."""
    floor_kind: str = ""
    """`bytes` at the read ceiling, `link` for the best copy, `data sheet` or `estimated`."""
    baseline: tuple[str, float] | None = None
    """A library's name and its value, timed in the same run."""
    note: str = ""
    kind: str = "measured"
    is_rate: bool = False

    @property
    def fraction(self) -> float | None:
        """Floor over time, or rate over ceiling."""
        if not self.floor:
            return None
        return self.value / self.floor if self.is_rate else self.floor / self.value

    @property
    def score(self) -> float | None:
        """1/(1 + (value - floor)/(baseline - floor)): 0.5 at the baseline, 1 at the floor."""
        if self.baseline is None or self.floor is None or self.is_rate:
            return None
        if self.baseline[1] <= self.floor:
            return None
        over = (self.value - self.floor) / (self.baseline[1] - self.floor)
        return 1.0 / (1.0 + max(over, 0.0))


@dataclass(frozen=True, slots=True)
class Target:
    """A row of the target table; without a *bar* it is only recorded."""

    number: str
    case: str
    unit: str
    bar: float | None
    measure: Callable[[Evidence], Found | None]
    reference: Callable[[Evidence], str] = lambda _: ""
    better: Literal["less", "more"] = "less"
    stretch: float | None = None

    def holds(self, value: float, bar: float) -> bool:
        """Whether *value* is on the good side of *bar*."""
        return value <= bar if self.better == "less" else value >= bar


@dataclass(frozen=True, slots=True)
class Row:
    """A target with what was measured."""

    target: Target
    found: Found | None
    reference: str

    @property
    def verdict(self) -> Verdict:
        """Met, missed, recorded (no bar) or not measured."""
        if self.found is None:
            return "not measured"
        if self.target.bar is None:
            return "recorded"
        return "met" if self.target.holds(self.found.value, self.target.bar) else "missed"

    @property
    def stretched(self) -> bool:
        """Whether the stretch goal is met too."""
        stretch = self.target.stretch
        met = self.verdict == "met" and stretch is not None and self.found is not None
        return met and self.target.holds(self.found.value, stretch)  # type: ignore[union-attr,arg-type]

    @property
    def gap(self) -> float:
        """How far beyond the bar a missed row is, as a ratio less one."""
        if self.verdict != "missed" or self.found is None or not self.target.bar:
            return 0.0
        value, bar = self.found.value, self.target.bar
        if self.target.unit == "%":  # of a whole, which both exceed
            value, bar = 100.0 + value, 100.0 + bar
        ratio = value / bar
        if self.target.better == "more":
            ratio = 1.0 / ratio if ratio > 0.0 else float("inf")
        return ratio - 1.0


def judge(targets: tuple[Target, ...], evidence: Evidence) -> list[Row]:
    """Every target with what was measured; a point that lacks an axis counts as not measured."""
    rows = []
    for target in targets:
        try:
            found = target.measure(evidence)
        except (KeyError, TypeError, ValueError, ZeroDivisionError) as error:
            evidence.troubles.append(f"target {target.number} ({target.case}): {error!r}")
            found = None
        rows.append(Row(target, found, target.reference(evidence)))
    return rows


# ------------------------------------------------------------------------------ measuring
def best(folder: str, pick: str = "", **axes: Any) -> Callable[[Evidence], Found | None]:
    """The fastest point of *folder* at these axes, in microseconds, with floor and baseline."""

    def measure(evidence: Evidence) -> Found | None:
        points = evidence.find(folder, **axes)
        return of_point(evidence, points[0], pick) if points else None

    return measure


def of_point(evidence: Evidence, point: Point, pick: str = "") -> Found:
    """One point in microseconds; *pick* names an axis that was chosen for speed."""
    note = f"error {point.error:.1e}" if point.error else "exact"
    note += f"; {pick} {point.axes[pick]}, the fastest" if pick else ""
    return Found(
        value=point.median * 1e6,
        bytes=point.bytes,
        floor=evidence.floor(point.bytes) * 1e6,
        floor_kind="bytes",
        baseline=baseline(point),
        note=note,
    )


def baseline(point: Point) -> tuple[str, float] | None:
    """The fastest library timed beside *point*, in microseconds."""
    times = {name: statistics.median(t) * 1e6 for name, t in point.baselines.items() if t}
    return min(times.items(), key=lambda item: item[1], default=None)


def stated(
    measure: Callable[[Evidence], Found | None], floor: float
) -> Callable[[Evidence], Found | None]:
    """*measure* with a floor that is no matter of bytes: latency, in the row's unit, estimated."""

    def measured(evidence: Evidence) -> Found | None:
        found = measure(evidence)
        return replace(found, floor=floor, floor_kind="estimated") if found else None

    return measured


def total(*parts: Callable[[Evidence], Found | None]) -> Callable[[Evidence], Found | None]:
    """The sum of kernels that were timed one by one; None unless all were."""

    def measure(evidence: Evidence) -> Found | None:
        found = [part(evidence) for part in parts]
        if any(part is None for part in found):
            return None
        known = [part for part in found if part is not None]
        return Found(
            value=sum(part.value for part in known),
            bytes=sum(part.bytes or 0.0 for part in known),
            floor=sum(evidence.floor(part.bytes or 0.0) for part in known) * 1e6,
            floor_kind="bytes",
            note=" + ".join(f"{part.value:.1f}" for part in known),
            kind="sum of measured",
        )

    return measure


def ratio(
    over: Callable[[Evidence], Found | None],
    under: Callable[[Evidence], Found | None],
    percent: bool = False,
) -> Callable[[Evidence], Found | None]:
    """One measured time over another, or by how many percent it is longer."""

    def measure(evidence: Evidence) -> Found | None:
        top, low = over(evidence), under(evidence)
        if top is None or low is None:
            return None
        value = top.value / low.value
        note = f"{top.value:.1f} / {low.value:.1f} us"
        return Found(100.0 * (value - 1.0) if percent else value, note=note)

    return measure


# ------------------------------------------------------------------------------ references
def said(text: str) -> Callable[[Evidence], str]:
    """A reference that is in no table of ours: words."""
    return lambda _: text


def public(
    op: str, shape: Mapping[str, float], note: str = "", dtype: str = "", mode: str = ""
) -> Callable[[Evidence], str]:
    """The fastest public row at exactly this *shape*, with its source; `none` without one."""

    def reference(evidence: Evidence) -> str:
        row = evidence.public.best(op, dtype, mode, **shape)
        return public_text(row) + (f" {note}" if note and row else "")

    return reference


def public_text(row: Public | None) -> str:
    """A public row in words."""
    return f"public: {row.seconds * 1e6:.4g} us, {row.source}" if row else "none"
