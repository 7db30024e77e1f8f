"""What a report rests on: samples, the profile fitted to them, public rows, predicted steps.

One rule: nothing is fitted here. Predictions are those of the profile's parameters, and a point
counts as held out by the same draw that the fit used.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ..fit.judge import at_frontier, is_held_out, residuals
from ..fit.kernel import Table, points_of
from ..fit.recipes import RECIPES
from ..fit.samples import SamplesError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from ..fit.forms import FloatArray
    from ..fit.recipe import Recipe
    from ..fit.samples import Point, Samples
    from .public import PublicTable

EARLIER_READ = 4.61e12
"""Read ceiling of an earlier run on the same kind of GPU, where this run measured none."""


@dataclass(frozen=True, slots=True)
class Ceiling:
    """Bytes a second that nothing passes, and where the figure is from."""

    bytes_per_s: float
    measured: bool
    note: str


@dataclass(frozen=True, slots=True)
class Fit:
    """A kernel of the profile at the points it was fitted to and judged by."""

    name: str
    entry: Mapping[str, Any]
    points: Sequence[Point]
    predicted: FloatArray
    measured: FloatArray
    held: np.ndarray[Any, np.dtype[np.bool_]]
    far: np.ndarray[Any, np.dtype[np.bool_]]
    own: bool
    """Whether it was fitted to our samples, as the profile says."""

    @property
    def error(self) -> FloatArray:
        """Predicted over measured, less one."""
        return self.predicted / self.measured - 1.0

    def only(self, keys: set[tuple[str, str]]) -> Fit:
        """The same fit at those of its points whose keys are in *keys*."""
        at = np.array([point.key in keys for point in self.points], bool)
        return replace(
            self,
            points=[point for point in self.points if point.key in keys],
            predicted=self.predicted[at],
            measured=self.measured[at],
            held=self.held[at],
            far=self.far[at],
        )

    def agrees(self) -> bool:
        """Whether the profile's residuals on the hold-out are those of these samples."""
        told = self.entry["residuals"].get("holdout", {})
        found = residuals(self.predicted[self.held], self.measured[self.held])
        difference = float(told.get("median", 0.0)) - found.get("median", 0.0)
        return told.get("n") == found["n"] and abs(difference) <= 2e-4


@dataclass(slots=True)
class Evidence:
    """All inputs of a report, joined."""

    samples: Samples
    profile: Mapping[str, Any]
    public: PublicTable
    read: Ceiling
    copy: Ceiling | None
    fits: dict[str, Fit] = field(default_factory=dict)
    troubles: list[str] = field(default_factory=list)
    """What could not be used, in words."""
    predicted: list[dict[str, Any]] = field(default_factory=list)
    """Decode steps that somebody predicted, one a cell of the loop table."""
    _fit_of: dict[tuple[str, str], tuple[Fit, int]] = field(default_factory=dict)
    outside: dict[tuple[str, str], float] = field(default_factory=dict)
    """Seconds predicted for points beyond a model's domain, on which no fit was made."""

    def floor(self, nbytes: float) -> float:
        """Seconds that *nbytes* take at the read ceiling."""
        return nbytes / self.read.bytes_per_s

    def find(
        self, folder: str, where: Callable[[Mapping[str, Any]], bool] | None = None, **axes: Any
    ) -> list[Point]:
        """Points of *folder* with exactly these *axes*, fastest first."""
        found = [
            point
            for point in self.samples.of(folder)
            if all(point.axes.get(name) == value for name, value in axes.items())
            and (where is None or where(point.axes))
        ]
        return sorted(found, key=lambda point: point.median)

    def prediction(self, point: Point) -> tuple[float, bool] | None:
        """Seconds that the profile predicts for *point*, and whether it was held out."""
        found = self._fit_of.get(point.key)
        if found is None:
            return None
        fit, index = found
        return float(fit.predicted[index]), bool(fit.held[index])

    def constant(self, name: str) -> Mapping[str, Any] | None:
        """The profile's constant *name*."""
        entry: Mapping[str, Any] | None = self.profile.get("constants", {}).get(name)
        return entry


def gather(
    samples: Samples,
    profile: Mapping[str, Any],
    public: PublicTable,
    predicted: list[dict[str, Any]],
) -> Evidence:
    """Joins the inputs: ceilings of this run, predictions for every point."""
    found = Evidence(samples, profile, public, _read_ceiling(samples, profile), _copy(samples))
    found.predicted = predicted
    for recipe in RECIPES:
        entry = profile.get("kernels", {}).get(recipe.name)
        points = points_of(recipe, samples)
        if entry is None or not points:
            missing = "not in the profile" if entry is None else "no points in the samples"
            found.troubles.append(f"kernel model `{recipe.name}`: {missing}")
            continue
        try:
            fit = _fit(recipe, entry, points)
        except (KeyError, TypeError, ValueError) as error:
            found.troubles.append(
                f"kernel model `{recipe.name}`: cannot be set beside the samples ({error!r})"
            )
            continue
        found.fits[recipe.name] = fit
        if recipe.outside is not None:
            inside = {point.key for point in points}
            beyond = [p for p in samples.of(recipe.folder) if recipe.outside(p.axes)]
            beyond = [point for point in beyond if point.key not in inside]
            if beyond:
                seconds = Table(recipe, beyond).predict(entry["parameters"]).tolist()
                keys = [point.key for point in beyond]
                found.outside |= dict(zip(keys, seconds, strict=True))
        for index, point in enumerate(points):
            found._fit_of[point.key] = fit, index  # a later model is the more special one
        if fit.own and not fit.agrees():
            found.troubles.append(
                f"kernel model `{recipe.name}`: the profile's hold-out is not that of these samples"
            )
    return found


def _fit(recipe: Recipe, entry: Mapping[str, Any], points: list[Point]) -> Fit:
    table = Table(recipe, points)
    if entry["form"] != recipe.form:
        raise ValueError(f"form {entry['form']}, expected {recipe.form}")
    return Fit(
        name=recipe.name,
        entry=entry,
        points=points,
        predicted=table.predict(entry["parameters"]),
        measured=table.seconds,
        held=np.array([is_held_out(point.kernel, point.axes) for point in points], bool),
        far=np.array(at_frontier(points, [point.bytes for point in points]), bool),
        own=entry.get("source") == "run" and entry.get("kind") == "fitted",
    )


def _read_ceiling(samples: Samples, profile: Mapping[str, Any]) -> Ceiling:
    """The best read stream of this run, else the profile's, else an earlier run's."""
    rates = [
        point.bytes / point.median
        for point in samples.of("streams")
        if point.axes.get("level") == "hbm" and point.axes.get("op") in ("read", "read_bulk")
    ]
    if rates:
        return Ceiling(max(rates), True, "best read-only stream of this run")
    entry = profile.get("constants", {}).get("hbm_read_bytes_per_s")
    if entry is not None:
        return Ceiling(float(entry["value"]), False, f"from the profile ({entry['kind']})")
    return Ceiling(EARLIER_READ, False, "of an earlier run; this one measured none")


def _copy(samples: Samples) -> Ceiling | None:
    """The best device copy of this run, read plus written."""
    rates = [
        point.bytes / median
        for point in samples.of("streams")
        if point.axes.get("op") == "copy"
        for median in (point.median, *(float(np.median(t)) for t in point.baselines.values()))
    ]
    return Ceiling(max(rates), True, "best device copy of this run") if rates else None


def read_json(path: Path, what: str) -> Any:
    """The document in *path*; raises `SamplesError`, one line, if it is no JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SamplesError(f"{path}: {error.strerror}; give {what}") from None
    except (ValueError, RecursionError):
        raise SamplesError(f"{path}: not JSON; give {what}") from None


def read_profile(path: Path) -> dict[str, Any]:
    """A profile as far as the report needs it."""
    found = read_json(path, "the profile that bench wrote")
    if not isinstance(found, dict) or not isinstance(found.get("kernels"), dict):
        raise SamplesError(f"{path}: no profile; give the file that bench wrote")
    return found


def read_predicted(path: Path | None) -> list[dict[str, Any]]:
    """Predicted steps: records with batch, context, mode, sparse and predicted_s."""
    if path is None:
        return []
    found = read_json(path, "a list of predicted steps")
    rows = found.get("records", found.get("cells")) if isinstance(found, dict) else found
    needed = {"batch", "context", "mode", "sparse", "predicted_s"}
    if not isinstance(rows, list) or not all(
        isinstance(row, dict) and needed <= row.keys() for row in rows
    ):
        raise SamplesError(f"{path}: each record needs {', '.join(sorted(needed))}")
    return rows
