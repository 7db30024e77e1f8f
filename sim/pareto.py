"""The Pareto front: which of several points no other point beats in every direction.

The one rule: a point goes only if another is at least as good everywhere and better somewhere, so
points that are equal in everything stay together.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

Direction = Literal["lower", "higher"]


def pareto(points: Sequence[Sequence[float]], directions: Sequence[Direction]) -> list[int]:
    """Indices, ascending, of the *points* on the front; *directions* say what is better.

    *points* is [points, objectives]. A point with a value that is no finite number is never on the
    front and beats nobody. Raises `ValueError` unless there is a direction for each objective.

    >>> pareto([(1.0, 5.0), (2.0, 9.0), (2.0, 5.0), (1.0, 5.0)], ("lower", "higher"))
    [0, 1, 3]
    """
    if not len(points):
        return []
    values = np.array([[float(value) for value in point] for point in points], np.float64)
    if values.ndim != 2 or values.shape[1] != len(directions):
        raise ValueError(f"{len(directions)} directions for points of shape {values.shape}")
    values = values * np.array([1.0 if way == "lower" else -1.0 for way in directions])
    known = np.flatnonzero(np.isfinite(values).all(axis=1))
    front = []
    for i in known:
        others = values[known]
        beaten = (others <= values[i]).all(axis=1) & (others < values[i]).any(axis=1)
        if not beaten.any():
            front.append(int(i))
    return front
