"""Least squares with coefficients that are not negative, and a robust one on top of it.

Works on the normal equations, so that rows cost a product each and the rest depends on the number
of columns only.
"""

from __future__ import annotations

import numpy as np

_CUT = 4.685
"""Tukey's constant: 95 % efficient where errors are normal."""
_LEAST_SCALE = 1e-4


def nonnegative(
    gram: np.ndarray, target: np.ndarray, start: np.ndarray | None = None
) -> np.ndarray:
    """The x >= 0 that makes |Ax - b|^2 least; *gram* is A'A, *target* A'b.

    The active-set method of Lawson and Hanson (Solving Least Squares Problems, 1974, chapter 23),
    begun with what is positive in *start*, if that is given.
    """
    size = len(target)
    norm = np.sqrt(np.maximum(gram.diagonal(), 1e-300))
    scaled = gram / (norm[:, None] * norm)
    scaled.flat[:: size + 1] += 1e-10  # so that equal columns share
    goal = target / norm
    x, free = np.zeros(size), np.zeros(size, bool)
    if start is not None and (start > 0.0).any():
        free = start > 0.0
        x[free] = _solved(scaled, goal, free)
        if (x < 0.0).any():
            x, free = np.zeros(size), np.zeros(size, bool)
    slack = 1e-12 * max(1.0, float(np.abs(goal).max(initial=0.0)))
    for _ in range(5 * size):
        gradient = goal - scaled @ x
        gradient[free] = -np.inf
        entering = int(gradient.argmax())
        if gradient[entering] <= slack:
            break
        free[entering] = True
        x = _step(scaled, goal, x, free)
    result: np.ndarray = x / norm
    return result


def _step(gram: np.ndarray, goal: np.ndarray, x: np.ndarray, free: np.ndarray) -> np.ndarray:
    """The least over *free* columns, some of which leave so that none is negative."""
    while free.any():
        trial = np.zeros(len(goal))
        trial[free] = _solved(gram, goal, free)
        low = free & (trial <= 0.0)
        if not low.any():
            return trial
        steps = x[low] / (x[low] - trial[low] + 1e-300)
        least = float(steps.min())
        x = x + least * (trial - x)
        out = np.flatnonzero(low)[steps <= least + 1e-15]
        x[out] = 0.0
        free[out] = False
    return np.zeros(len(goal))


def _solved(gram: np.ndarray, goal: np.ndarray, free: np.ndarray) -> np.ndarray:
    found: np.ndarray = np.linalg.solve(gram[free][:, free], goal[free])
    return found


def robust(
    columns: np.ndarray, seconds: np.ndarray, weights: np.ndarray | None = None, rounds: int = 10
) -> np.ndarray:
    """Coefficients >= 0 of *columns* (rows x terms) for *seconds*, in relative error.

    Absolute errors (weights 1/|residual|) to begin with, then Tukey's biweight with its scale from
    the median of absolute residuals. With *weights* of rows, which unlike kinds of rows need,
    absolute errors to the end: nobody is thrown out.
    """
    relative = columns / seconds[:, None]
    base = np.ones(len(seconds)) if weights is None else weights
    weight = base
    found = np.zeros(columns.shape[1])
    for number in range(rounds):
        weighted = relative * weight[:, None]
        before = found
        found = nonnegative(weighted.T @ relative, weighted.sum(axis=0), before)
        if number and (np.abs(found - before) <= 1e-5 * np.abs(before)).all():
            break
        residual = relative @ found - 1.0
        size = np.abs(residual)
        scale = max(_LEAST_SCALE, 1.4826 * float(np.median(size)))
        if weights is not None or number < 3:
            weight = base * np.minimum(1.0, scale / np.maximum(size, 1e-12))
            continue
        inside = np.clip(1.0 - (residual / (_CUT * scale)) ** 2, 0.0, None)
        weight = inside * inside
    return found
