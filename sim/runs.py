"""What runs and studies left on disk, read back: everything after a run starts here.

The one rule: nothing is believed. What is missing or damaged gives one line that says which folder
and what to do; a point that failed, or was never run, is listed and not dropped.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from functools import cached_property
from math import isfinite
from typing import TYPE_CHECKING, Any

from .axis_names import named, shared
from .errors import InputError
from .result import read_json, read_summary
from .stats.settings import Statistics

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import numpy as np
    import pandas as pd

    from .economics import Power, Prices
    from .sweeping import Failure

_POINT = re.compile(r"[0-9a-f]+-[0-9a-f]+")
"""What a point's folder is called; nothing else is opened."""


@dataclass(frozen=True)
class Run:
    """One run's folder, with the axes of its study."""

    folder: Path
    axes: dict[str, Any]
    summary: dict[str, Any]
    common: frozenset[tuple[str, str]] = frozenset()
    """Keys and values in maps on its axes of which names say nothing."""
    replication: int = 0
    """Which of the runs of its point: number r has seed + r."""
    prices: Prices | None = None
    power: Power | None = None

    @property
    def series(self) -> str:
        """What its curve is called: every axis but the rate."""
        rest = {key: v for key, v in self.axes.items() if key != "trace.rate_scale"}
        return self.named(rest) or str(self.summary["loop_mode"])

    def named(self, axes: dict[str, Any]) -> str:
        """The values of *axes* in a few words."""
        return named(axes, self.common)

    @property
    def rate(self) -> float:
        """Requests a second that arrived."""
        return float(self.summary["requests_in"] / self.summary["duration"])

    @property
    def replicas(self) -> int:
        """GPUs that served them."""
        return len(self.summary.get("replicas", (None,)))

    @cached_property
    def scenario(self) -> dict[str, Any]:
        """The resolved scenario, SI values."""
        return read_json(self.folder / "scenario.json")

    def requests(self, *names: str) -> dict[str, np.ndarray]:
        """Columns of the finished requests."""
        table = self.columns("requests", *names, "status")
        done = table["status"] == "finished"
        return {name: table[name][done].astype(float) for name in names}

    def iterations(self, *names: str) -> dict[str, np.ndarray]:
        """Columns of the iterations."""
        return self.columns("iterations", *names)

    def columns(self, table: str, *names: str) -> dict[str, np.ndarray]:
        """Columns of *table*: requests, iterations or transfers."""
        return columns_of(self.folder / f"{table}.parquet", names)


@dataclass(frozen=True)
class Cell:
    """A point of the study without its seeds: the runs that differ in their seed alone."""

    axes: dict[str, Any]
    runs: tuple[Run, ...]
    """In order of their replications; those that failed are not among them."""

    @property
    def name(self) -> str:
        """Its axes in a few words."""
        return self.runs[0].named(self.axes)


@dataclass(frozen=True)
class Results:
    """A study's folder, or a single run's as a study of one point without axes."""

    folder: Path
    name: str
    question: str
    axes: dict[str, list[Any]]
    """Values of each axis, in the order of the file."""
    cells: tuple[Cell, ...]
    failures: tuple[Failure, ...] = ()
    missing: tuple[str, ...] = ()
    """Ids of points that neither ran nor failed yet."""
    statistics: Statistics = field(default_factory=Statistics)
    manifest: dict[str, Any] = field(default_factory=dict)
    """The whole of `study.json`."""
    prices: Prices | None = None
    power: Power | None = None

    @property
    def runs(self) -> tuple[Run, ...]:
        """All runs, cell by cell."""
        return tuple(run for cell in self.cells for run in cell.runs)

    def frame(self) -> pd.DataFrame:
        """A row a run: the axes, the replication, and the summary's keys."""
        from .stats.frames import runs_frame

        return runs_frame(self)

    def estimates(self, metric: str) -> pd.DataFrame:
        """A row a cell: the axes, then value, low, high, n and method of *metric*."""
        from .stats.frames import estimates_frame

        return estimates_frame(self, metric)

    def differences(self, metric: str | Sequence[str]) -> pd.DataFrame:
        """A row a cell but the baseline's and metric: relative difference and verdict."""
        from .stats.frames import differences_frame

        return differences_frame(self, metric)

    def _repr_html_(self) -> str:
        """A small table for notebooks."""
        from .stats.frames import results_html

        return results_html(self)


# ---------------------------------------------------------------------------- reading folders
def read_run(folder: Path, prices: Prices | None = None, power: Power | None = None) -> Run:
    """The run in *folder*; `InputError` if there is none or it is damaged."""
    return Run(folder, {}, _summary(folder), prices=prices, power=power)


def read_study(folder: Path) -> Results:
    """The study in *folder*, or the run there as a study of its own.

    Raises `InputError` if it is neither, if it is damaged, and if nothing in it has run.
    """
    if not (folder / "study.json").exists() and (folder / "summary.json").exists():
        run = read_run(folder)
        name = str(run.summary.get("scenario", folder.name))
        return Results(folder, name, "", {}, (Cell({}, (run,)),))
    path = folder / "study.json"
    manifest = read_json(path)
    points = _points(manifest, path)
    failures = _failures(folder / "failures", {name for name, _, _ in points})
    failed = {failure.id for failure in failures}
    money, power = _economics(manifest, path)
    common = shared([axes for _, axes, _ in points])
    cells: dict[str, list[Run]] = {}
    missing = []
    for name, axes, replication in points:
        place = folder / "points" / name
        if place.is_dir():
            run = Run(place, axes, _summary(place), common, replication, money, power)
            cells.setdefault(json.dumps(axes, sort_keys=True), []).append(run)
            failed.discard(name)  # another attempt has done it
        elif name not in failed:
            missing.append(name)
    if not cells and not failures:
        raise InputError(f"{folder}: no point has run yet; run `residentsim sweep` first")
    return Results(
        folder,
        str(manifest.get("name", folder.name)),
        str(manifest.get("question") or ""),
        _axes(manifest, points),
        tuple(Cell(runs[0].axes, tuple(_in_order(runs))) for runs in cells.values()),
        tuple(failure for failure in failures if failure.id in failed),
        tuple(missing),
        _statistics(manifest, path),
        manifest,
        money,
        power,
    )


def _in_order(runs: list[Run]) -> list[Run]:
    return sorted(runs, key=lambda run: run.replication)


def _summary(folder: Path) -> dict[str, Any]:
    """The summary of a run with all that is asked of every run; `InputError` names the folder."""
    summary = read_summary(folder)
    for key in ("duration", "requests_in", "completed"):
        value = summary.get(key)
        if type(value) not in (int, float) or not isfinite(float(value or 0)):
            raise InputError(f"{folder}/summary.json: is damaged; delete {folder} and run it again")
    return summary


def _points(manifest: dict[str, Any], path: Path) -> list[tuple[str, dict[str, Any], int]]:
    """Id, axes and replication of each point, once."""
    points = manifest.get("points")
    found: dict[str, tuple[str, dict[str, Any], int]] = {}
    try:
        for point in points or ():
            name, axes, number = point["id"], dict(point["axes"]), point.get("replication", 0)
            if not _POINT.fullmatch(name) or type(number) is not int or number < 0:
                raise ValueError
            found[name] = (name, axes, number)
    except (TypeError, ValueError, KeyError, AttributeError):
        raise _damaged(path) from None
    if not found:
        raise InputError(f"{path.parent}: holds no points; run `residentsim sweep` first")
    return list(found.values())


def _axes(
    manifest: dict[str, Any], points: list[tuple[str, dict[str, Any], int]]
) -> dict[str, list[Any]]:
    """Values by axis as the file has them, or as they come in the points of an older one."""
    given = manifest.get("axes")
    if isinstance(given, dict) and all(isinstance(values, list) for values in given.values()):
        return {str(key): list(values) for key, values in given.items()}
    axes: dict[str, list[Any]] = {}
    for _, of_point, _ in points:
        for key, value in of_point.items():
            values = axes.setdefault(key, [])
            if value not in values:
                values.append(value)
    return axes


def _failures(folder: Path, known: set[str]) -> list[Failure]:
    """The failures recorded for the points that are *known*, by id."""
    from .sweeping.failure import Failure

    found = []
    for path in sorted(folder.glob("*.json")) if folder.is_dir() else ():
        if path.stem not in known:
            continue
        data = read_json(path)
        try:
            found.append(
                Failure(
                    path.stem, dict(data["axes"]), int(data.get("replication", 0)),
                    str(data["error"]), str(data["message"]), str(data.get("traceback", "")),
                    int(data.get("attempts", 1)),
                )
            )  # fmt: skip
        except (TypeError, ValueError, KeyError):
            what = "is damaged; delete it and run `residentsim sweep` again"
            raise InputError(f"{path}: {what}") from None
    return found


def _statistics(manifest: dict[str, Any], path: Path) -> Statistics:
    try:
        return Statistics.model_validate(manifest.get("statistics") or {})
    except ValueError:
        raise _damaged(path) from None


def _economics(manifest: dict[str, Any], path: Path) -> tuple[Prices | None, Power | None]:
    """The study's prices and power model, None where it has none."""
    if not manifest.get("prices") and not manifest.get("power"):
        return None, None
    from .economics import Power, Prices

    try:
        si = {"si": True}
        found = manifest.get("prices"), manifest.get("power")
        return (
            Prices.model_validate(found[0], context=si) if found[0] else None,
            Power.model_validate(found[1], context=si) if found[1] else None,
        )
    except ValueError:
        raise _damaged(path) from None


def _damaged(path: Path) -> InputError:
    return InputError(f"{path}: is damaged; run `residentsim sweep` again")


def columns_of(path: Path, names: Sequence[str]) -> dict[str, np.ndarray]:
    """Columns of a Parquet file; `InputError` if it lacks them."""
    import pyarrow.parquet as pq

    if not path.is_file():
        of_iterations = path.name == "iterations.parquet"
        needs = "figures need it (record.iterations: true)" if of_iterations else "run it again"
        raise InputError(f"{path}: no such file; {needs}")
    try:
        with pq.ParquetFile(path) as file:
            table = file.read(columns=list(names), use_threads=False)
        return {name: table[name].to_numpy() for name in names}
    except (OSError, ValueError, KeyError):
        raise InputError(f"{path}: is not a table of a run; delete the run and repeat it") from None
