"""One kernel of the profile: fitted on its training points, judged on all kinds of hold-out.

The one rule: the parameters that ship are those of the training split. Every other fit here is
made to be judged and thrown away.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .forms import FORMS, FloatArray
from .judge import at_frontier, is_held_out, ratios, repeatability, residuals
from .solve import STARTS, fit

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .recipe import Recipe
    from .samples import Point, Samples


def points_of(recipe: Recipe, samples: Samples) -> list[Point]:
    """The points that *recipe* takes."""
    return [point for point in samples.of(recipe.folder) if recipe.where(point.axes)]


def fitted(recipe: Recipe, samples: Samples, second: Samples | None) -> dict[str, Any] | None:
    """The profile's entry of *recipe*; None if too few of its points are measured."""
    points = points_of(recipe, samples)
    held = [is_held_out(point.kernel, point.axes) for point in points]
    if held.count(False) < recipe.least:
        return None
    table = Table(recipe, points)
    train = [not out for out in held]
    parameters = table.fit(train)
    far = at_frontier(points, [point.bytes for point in points])
    near = [not out for out in far]
    found: dict[str, Any] = {
        "holdout": table.judged(parameters, held),
        "left_out_shapes": _shapes(recipe, table, parameters),
        "frontier": table.judged(table.fit(near), far),
        "training": table.judged(parameters, train),
        "repeatability": repeatability(points, samples),
    }
    if second is not None:
        found["second_run"] = ratios(points, second.points)
        found["second_run_model"] = _elsewhere(recipe, parameters, second)
    found["groups"] = _groups(recipe, table, parameters, held)
    if recipe.outside is not None:
        beyond = [p for p in samples.of(recipe.folder) if recipe.outside(p.axes)]
        beyond = [point for point in beyond if not recipe.where(point.axes)]
        if beyond:
            rest = Table(recipe, beyond).judged(parameters, [True] * len(beyond))
            found["groups"]["outside the domain"] = rest
    return {
        "form": recipe.form,
        "parameters": parameters,
        "fixed": {key: dict(entry) for key, entry in recipe.fixed.items()},
        "kind": "fitted",
        "domain": table.domain(),
        "source": "run",
        "includes_node_gap": True,
        "residuals": found,
        "note": recipe.note,
    }


class Table:
    """The points of a recipe as arrays."""

    def __init__(self, recipe: Recipe, points: Sequence[Point]) -> None:
        self.recipe, self.points = recipe, points
        rows = [recipe.inputs(point) for point in points]
        names = rows[0].keys() if rows else ()
        self.axes = {name: np.array([row[name] for row in rows], np.float64) for name in names}
        self.seconds = np.array([point.median for point in points], np.float64)

    def fit(
        self, mask: Sequence[bool], near: Mapping[str, float] | None = None
    ) -> dict[str, float]:
        """Parameters fitted on the points in *mask*; *near* a fit that is known, twice as fast."""
        at, recipe = np.array(mask, bool), self.recipe
        axes = {name: values[at] for name, values in self.axes.items()}
        start, starts = (recipe.start, STARTS) if near is None else (near, 2)
        seconds = self.seconds[at]
        return fit(recipe.form, start, recipe.free, axes, seconds, recipe.bounds, starts)

    def predict(self, parameters: Mapping[str, float]) -> FloatArray:
        """Seconds of every point."""
        return FORMS[self.recipe.form](parameters, self.axes)

    def judged(self, parameters: Mapping[str, float], mask: Sequence[bool]) -> dict[str, float]:
        """Residuals of *parameters* on the points in *mask*."""
        at = np.array(mask, bool)
        return residuals(self.predict(parameters)[at], self.seconds[at])

    def domain(self) -> dict[str, list[float]]:
        """Smallest and largest value of each axis that the recipe names."""
        spans = {axis: self.axes[axis] for axis in self.recipe.domain}
        return {axis: [float(span.min()), float(span.max())] for axis, span in spans.items()}


def _shapes(recipe: Recipe, table: Table, near: Mapping[str, float]) -> dict[str, float]:
    """Each shape predicted by a fit that saw none of its points; all shapes together."""
    labels = [recipe.shape(point.axes) for point in table.points]
    if len(set(labels)) < 2:
        return {"n": 0}
    predicted = np.empty_like(table.seconds)
    for shape in sorted(set(labels)):
        out = np.array([label == shape for label in labels], bool)
        predicted[out] = table.predict(table.fit((~out).tolist(), near))[out]
    return residuals(predicted, table.seconds)


def _groups(
    recipe: Recipe, table: Table, parameters: Mapping[str, float], held: Sequence[bool]
) -> dict[str, dict[str, float]]:
    found = {}
    for name, label in recipe.groups.items():
        labels = [label(point.axes) for point in table.points]
        for value in sorted(set(labels)):
            mask = [out and mine == value for out, mine in zip(held, labels, strict=True)]
            found[f"{name} {value}"] = table.judged(parameters, mask)
    return found


def _elsewhere(
    recipe: Recipe, parameters: Mapping[str, float], second: Samples
) -> dict[str, float]:
    """Residuals of *parameters* on the points of another run."""
    points = points_of(recipe, second)
    table = Table(recipe, points)
    return table.judged(parameters, [True] * len(points)) if points else {"n": 0}
