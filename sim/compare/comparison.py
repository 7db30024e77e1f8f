"""Everything that is said about two runs, worked out once, for console, JSON and figures."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from sim.errors import InputError
from sim.runs import read_run

from . import keys, loop, parts, words
from .moved import Moved, moved

if TYPE_CHECKING:
    from pathlib import Path

    from sim.runs import Run

    from .keys import Key
    from .loop import Loop
    from .parts import Requests


@dataclass(frozen=True)
class Side:
    """A run with its requests and, where they were recorded, its loop."""

    run: Run
    requests: Requests
    loop: Loop | None

    @property
    def kind(self) -> str:
        """simulated or measured."""
        return str(self.run.summary.get("kind", "simulated"))

    @property
    def without_scenario(self) -> bool:
        """Whether the folder holds no scenario, as that of a measured run may."""
        return not (self.run.folder / "scenario.json").is_file()

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.run.folder.resolve().name


@dataclass(frozen=True)
class Comparison:
    """Run *a*, and *b* against it."""

    a: Side
    b: Side

    @property
    def both(self) -> tuple[Side, Side]:
        """a, then b."""
        return self.a, self.b

    @cached_property
    def keys(self) -> list[Key]:
        """Keys of the scenarios that differ."""
        if any(side.without_scenario for side in self.both):
            return []
        return keys.different(self.a.run.scenario, self.b.run.scenario)

    @cached_property
    def paired(self) -> bool:
        """Whether both runs were sent the same requests."""
        return all(
            np.array_equal(one, other)
            for one, other in zip(self.a.requests.sent, self.b.requests.sent, strict=True)
        )

    @cached_property
    def metrics(self) -> list[Moved]:
        """What both summaries have, by importance."""
        return moved(self.a.run, self.b.run)

    @cached_property
    def divided(self) -> bool:
        """Whether the iterations of both are known, so that prefill and decode are divided."""
        return self.a.loop is not None and self.b.loop is not None

    def means(self, name: str) -> list[tuple[str, float, float]]:
        """Parts of a mean of `parts.MEANS` that any request has: label's key, seconds in a and b;
        each column adds up to the mean."""
        a, b = (side.requests.mean(name) for side in self.both)
        if not a or not b:
            return []
        return [
            (part, a[part], b[part])
            for part in parts.LABELS
            if part in a and (abs(a[part]) > 1e-9 or abs(b[part]) > 1e-9)
        ]

    @cached_property
    def says(self) -> list[str]:
        """What moved and why, in a few sentences."""
        return words.answer(self)

    @cached_property
    def notes(self) -> list[str]:
        """What to know before believing it."""
        return words.notes(self)

    def data(self) -> dict[str, Any]:
        """All of it as JSON-able data; times in ms where a name says so, shares as fractions."""
        return {
            "a": {"folder": self.a.name, "kind": self.a.kind},
            "b": {"folder": self.b.name, "kind": self.b.kind},
            "says": self.says,
            "notes": self.notes,
            "paired_by_request": self.paired,
            "scenario": [key._asdict() for key in self.keys],
            "metrics": [_metric(row) for row in self.metrics],
            "time": {
                name: [
                    {"part": part, "says": parts.LABELS[part], "a_ms": a * 1e3, "b_ms": b * 1e3,
                     "difference_ms": (b - a) * 1e3}
                    for part, a, b in self.means(name)
                ]
                for name in parts.MEANS
            },
            "loop": self._loop(),
        }  # fmt: skip

    def _loop(self) -> dict[str, Any] | None:
        if self.a.loop is None or self.b.loop is None:
            return None
        found: dict[str, Any] = {}
        for name in loop.KINDS:
            a, b = self.a.loop.kind(name), self.b.loop.kind(name)
            change = loop.Change.of(a, b)
            found[name] = {
                side: {"iterations": one.count, "mean_ms": one.each_s * 1e3,
                       "gpu_ms": one.gpu_s * 1e3, "gap_ms": one.gap_s * 1e3,
                       "total_s": one.total_s}
                for side, one in (("a", a), ("b", b))
            } | {"difference_s": {"number": change.count_s, "gpu": change.gpu_s,
                                  "gap": change.gap_s}}  # fmt: skip
        for side, one in (("a", self.a.loop), ("b", self.b.loop)):
            found.setdefault("no_iteration_s", {})[side] = one.rest_s
            found.setdefault("whole_s", {})[side] = one.whole_s
            found.setdefault("beside_s", {})[side] = one.aside_s
        return found


def _metric(row: Moved) -> dict[str, Any]:
    return {
        "name": row.metric.name, "label": row.metric.label, "unit": row.metric.unit,
        "better": row.metric.better, "a": row.a, "b": row.b, "relative": row.relative,
        "low": row.low, "high": row.high, "interval": row.method, "verdict": row.verdict,
    }  # fmt: skip


def compare(a: Path, b: Path) -> Comparison:
    """The runs in the folders *a* and *b*; `InputError` if one is none, or is damaged."""
    one, other = _side(a), _side(b)
    if (one.loop is None) != (other.loop is None):
        # Both are divided or none is, so that parts can be compared.
        one, other = (_whole(side) for side in (one, other))
    return Comparison(one, other)


def _side(folder: Path) -> Side:
    if (folder / "study.json").exists():
        raise InputError(
            f"{folder}: is a study; name two of its runs, {folder}/points/..., or see all of it"
            f" with `residentsim report {folder}`"
        )
    if not (folder / "summary.json").is_file():
        raise InputError(f"{folder}: is not a run's folder; name one that `residentsim run` wrote")
    run = read_run(folder)
    rows = parts.iterations_of(run)
    loops = None if rows is None else loop.loop_of(run, rows)
    return Side(run, parts.requests_of(run, rows), loops)


def _whole(side: Side) -> Side:
    return Side(side.run, parts.requests_of(side.run, None), None)
