"""Measured decode steps: the file of them, and which of them a fit may see.

JSON lines, first a header, then one line a step (`kind` step). The one rule: whether a step is
fitted on depends on its cell alone (model, formats, batch, tokens, context, budget), drawn by hash
before anything was measured, and all modes of a cell share the draw.
"""

from __future__ import annotations

import hashlib
import math
import statistics
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from ..decoder.shape import SHAPES
from .samples import SamplesError, entries, identity

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

TRAIN = 0.3
SEED = "decode-steps-9"
"""The first of its kind that puts every batch and every context among the training cells."""
CELL = ("model", "weights", "kv", "batch", "tokens", "context", "budget_tokens", "page_tokens")
WARMED = 8
"""Steps that are run before the timed ones."""
MODES = ("host-python", "host-c", "graph", "control", "resident")
SETS = ("library", "fused")


@dataclass(frozen=True, slots=True)
class StepPoint:
    """A cell in one mode over one kernel set, measured."""

    cell: Mapping[str, Any]
    kernels: str
    mode: str
    seconds: float
    """Median of the samples."""
    samples: int
    stages: Mapping[str, float] | None
    """GPU seconds of a step by stage."""

    @property
    def place(self) -> str:
        """Where its kernels run: a kernel set, or the persistent kernel."""
        return "resident" if self.mode == "resident" else self.kernels

    @property
    def context(self) -> int:
        """Committed tokens of a request halfway through the timed steps, each of which adds one."""
        return int(self.cell["context"]) + WARMED + self.samples // 2

    @property
    def loop(self) -> str:
        """Its loop's name in a profile."""
        return f"{self.mode}/{self.kernels}"

    @property
    def train(self) -> bool:
        """Whether a fit may see it."""
        return is_train(self.cell)


@dataclass(slots=True)
class Steps:
    """What a file of measured steps holds."""

    place: str
    headers: list[dict[str, Any]] = field(default_factory=list)
    points: list[StepPoint] = field(default_factory=list)
    constants: dict[tuple[str, str], list[float]] = field(default_factory=dict)
    """Seconds of what is no step, by loop and name."""
    others: list[StepPoint] = field(default_factory=list)
    """Of engines that are none of ours: yardsticks."""


def is_train(cell: Mapping[str, Any]) -> bool:
    """Whether the steps of *cell* may be fitted on."""
    text = f"{SEED}|{identity({key: cell[key] for key in CELL})}"
    drawn = int.from_bytes(hashlib.blake2b(text.encode(), digest_size=4).digest(), "big")
    return drawn < TRAIN * 2**32


def read_steps(path: Path) -> Steps:
    """The steps in *path*, plain or gzip.

    A step measured again of the same commit adds its samples; of another, it replaces the old one.
    Raises `SamplesError`, one line, if it is no such file.
    """
    found = Steps(str(path))
    last: dict[tuple[str, str, str], tuple[Any, list[Any]]] = {}
    for number, entry in entries(path):
        try:
            match entry["kind"]:
                case "header":
                    found.headers.append(entry)
                case "step":
                    point = _point(entry)
                    key = identity(point.cell), point.kernels, point.mode
                    sha, before = last.get(key, (None, []))
                    again = [*before, entry] if sha == entry.get("sha") else [entry]
                    last[key] = entry.get("sha"), again
                case "constant":
                    loop = f"{entry['mode']}/{entry['kernels']}"
                    times = [_time(value) for value in entry["seconds"]]
                    found.constants.setdefault((loop, str(entry["name"])), []).extend(times)
        except (KeyError, TypeError, ValueError) as error:
            what = f"field {error}" if isinstance(error, KeyError) else str(error)
            raise SamplesError(f"{path}:{number}: {what[:200]}; remove the line") from None
    for _, again in last.values():
        point = _together([_point(entry) for entry in again])
        ours = point.kernels in SETS and point.mode in MODES
        (found.points if ours else found.others).append(point)
    return found


def _together(points: list[StepPoint]) -> StepPoint:
    """Measurements of one step as one: the median of their medians, as two captures differ."""
    stages = [point.stages for point in points if point.stages is not None]
    middle = statistics.median(point.seconds for point in points)
    return replace(points[-1], seconds=middle, stages=stages[-1] if stages else None)


def _point(entry: Mapping[str, Any]) -> StepPoint:
    cell = {key: entry[key] for key in CELL}
    if cell["model"] not in SHAPES:
        raise ValueError(f"model: {str(cell['model'])[:40]!r} is unknown")
    for key in ("batch", "tokens", "context", "budget_tokens", "page_tokens"):
        if not isinstance(cell[key], int) or isinstance(cell[key], bool) or cell[key] < 0:
            raise ValueError(f"{key}: {str(cell[key])[:40]} is no count")
    seconds = [_time(value) for value in entry["seconds"]]
    if not seconds:
        raise ValueError("seconds: no sample")
    stages = entry["stages"]
    if stages is not None:
        stages = {str(name): _time(value) for name, value in stages.items()}
    return StepPoint(
        cell, str(entry["kernels"]), str(entry["mode"]), statistics.median(seconds), len(seconds),
        stages,
    )  # fmt: skip


def _time(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"seconds: {str(value)[:40]} is no time")
    if not 0.0 <= value < 1e6:
        raise ValueError(f"seconds: {value} is no time")
    return float(value)
