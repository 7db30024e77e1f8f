"""Measured decode steps sorted into blocks of one kind, whose cells are computed as arrays."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .decode_points import StepPoint
    from .forms import FloatArray


@dataclass(frozen=True, slots=True)
class Block:
    """Steps of one model, kernel set, mode and formats, all dense or all sparse."""

    points: Sequence[StepPoint]

    @property
    def first(self) -> StepPoint:
        """Any of them."""
        return self.points[0]

    def axis(self, name: str) -> FloatArray:
        """The cells' values of *name*."""
        return np.array([point.cell[name] for point in self.points], np.float64)

    @property
    def measured(self) -> FloatArray:
        """Seconds of each step."""
        return np.array([point.seconds for point in self.points], np.float64)

    def stage(self, name: str) -> FloatArray:
        """Measured GPU seconds of a stage, NaN where nobody took them."""
        found = np.array([(p.stages or {}).get(name, np.nan) for p in self.points], np.float64)
        found[found <= 0.0] = np.nan
        return found


def blocks(points: Sequence[StepPoint]) -> list[Block]:
    """*points* sorted into blocks."""
    found: dict[tuple[Any, ...], list[StepPoint]] = {}
    for point in points:
        cell = point.cell
        sparse = cell["budget_tokens"] > 0
        alike = (cell["model"], cell["weights"], cell["kv"], cell["page_tokens"], sparse)
        several = cell["tokens"] > 1
        key = (point.kernels, point.mode, *alike, several, attention_kind(point))
        found.setdefault(key, []).append(point)
    return [Block(found[key]) for key in sorted(found)]


def attention_kind(point: StepPoint) -> str:
    """Which attention a step runs: over a list of selected pages, or the build for 16 rows."""
    cell = point.cell
    if cell["budget_tokens"]:
        return "selected"
    # Up to 8 token rows and up to 16 are two builds of the fused kernels.
    wide = point.place != "library" and cell["batch"] * cell["tokens"] > 8
    return "rows16" if wide else ""
