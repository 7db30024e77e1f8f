"""Two studies, cell by cell: those with the same values on all axes are compared."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sim.errors import InputError
from sim.runs import read_study
from sim.stats import difference, metric_of

if TYPE_CHECKING:
    from pathlib import Path

    from sim.runs import Cell, Results
    from sim.stats import Difference

METRICS = ("p99_ttft_ms", "mean_ttft_ms", "mean_tpot_ms", "request_goodput", "output_throughput")


@dataclass(frozen=True)
class Row:
    """A cell of both studies, with B's differences in `METRICS`, None where one has no value."""

    name: str
    axes: dict[str, Any]
    differences: dict[str, Difference | None]


@dataclass(frozen=True)
class Studies:
    """Study *a*, and *b* against it."""

    a: Results
    b: Results
    rows: list[Row]
    notes: list[str]

    def data(self) -> dict[str, Any]:
        """All of it as JSON-able data."""
        return {
            "a": self.a.folder.resolve().name,
            "b": self.b.folder.resolve().name,
            "notes": self.notes,
            "cells": [
                {
                    "axes": row.axes,
                    "metrics": {
                        name: None if one is None or one.relative is None else {
                            "relative": one.relative, "low": one.low, "high": one.high,
                            "distinguishable": one.distinguishable, "better": one.better,
                            "interval": one.method,
                        }
                        for name, one in row.differences.items()
                    },
                }
                for row in self.rows
            ],
        }  # fmt: skip


def are_studies(a: Path, b: Path) -> bool:
    """Whether both folders hold studies."""
    return all((folder / "study.json").is_file() for folder in (a, b))


def compare_studies(a: Path, b: Path) -> Studies:
    """The studies in *a* and *b*; `InputError` if one is damaged or they have no cell in common."""
    one, other = read_study(a), read_study(b)
    theirs = {_key(cell): cell for cell in other.cells}
    mine = {_key(cell) for cell in one.cells}
    pairs = [(cell, theirs[_key(cell)]) for cell in one.cells if _key(cell) in theirs]
    if not pairs:
        raise InputError(
            f"{b}: has no point with the same values on all axes as {a}; compare two of their"
            f" runs, {b}/points/..."
        )
    notes = []
    for name, left in (
        ("A", len(one.cells) - len(pairs)), ("B", sum(key not in mine for key in theirs))
    ):  # fmt: skip
        if left:
            notes.append(f"{left} point(s) of {name} have no counterpart and are left out")
    rows = [_row(cell, counterpart, one) for cell, counterpart in pairs]
    return Studies(one, other, rows, notes)


def _key(cell: Cell) -> str:
    return json.dumps(cell.axes, sort_keys=True)


def _row(cell: Cell, counterpart: Cell, study: Results) -> Row:
    found: dict[str, Difference | None] = {}
    for name in METRICS:
        there = all(run.summary.get(name) is not None for run in (*cell.runs, *counterpart.runs))
        found[name] = (
            difference(counterpart, cell, name, study.statistics) if there else None
        )  # fmt: skip
    return Row(cell.name or "the run", cell.axes, found)


def labels() -> list[str]:
    """What `METRICS` are called."""
    return [metric_of(name).label for name in METRICS]
