"""Fits a form's parameters to measured times: robust least squares on the logarithm of time.

One rule: a fit starts from several places and the best end wins, so that the result does not hang
on a guess. Parameters are positive and travel as logarithms.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.optimize import least_squares

from .forms import FORMS, FloatArray

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .forms import Axes

SCALE = 0.05
"""Residuals above about five percent count less than their square: outliers do not steer."""
STARTS = 5
SPREAD = 1.0
"""Further starts are drawn within a factor of e of the first."""
MOST_STEPS = 150
"""Where two parameters say the same, a search would creep along for ever."""
FLOOR = 1e-12
"""What a time that wants to be zero ends at, in seconds."""


def fit(
    form: str,
    start: Mapping[str, float],
    free: Sequence[str],
    axes: Axes,
    seconds: FloatArray,
    bounds: Mapping[str, tuple[float, float]] | None = None,
    starts: int = STARTS,
) -> dict[str, float]:
    """All parameters of *form*, those in *free* fitted to *seconds* at *axes*, six digits kept.

    *bounds* holds (low, high) of parameters that must not leave a physical range.
    """
    target, names = np.log(seconds), list(free)
    limits = [(bounds or {}).get(name, _limits(name)) for name in names]
    low, high = (np.log(np.array(side, np.float64)) for side in zip(*limits, strict=True))

    def error(logs: FloatArray) -> FloatArray:
        parameters = {**start, **dict(zip(names, np.exp(logs).tolist(), strict=True))}
        residual: FloatArray = np.log(FORMS[form](parameters, axes)) - target
        return residual

    rng = np.random.default_rng(0)
    first = np.log(np.array([start[name] for name in names], np.float64))
    best, cost = first, np.inf
    for number in range(starts):
        guess = first + (rng.uniform(-SPREAD, SPREAD, len(names)) if number else 0.0)
        guess = np.clip(guess, low + 1e-9, high - 1e-9)
        found = least_squares(
            error, guess, bounds=(low, high), loss="soft_l1", f_scale=SCALE, max_nfev=MOST_STEPS
        )
        if found.cost < cost * (1.0 - 1e-9):
            best, cost = found.x, found.cost
    fitted = dict(zip(names, np.exp(best).tolist(), strict=True))
    return {key: six(value) for key, value in {**start, **fitted}.items()}


def _limits(name: str) -> tuple[float, float]:
    """What a parameter may be at all, by the unit in its name; keeps a search out of overflow."""
    if name.endswith("_per_s"):
        return 1e8, 1e17
    if name.endswith(("score_s", "input_s")):
        return 1e-15, 1e-9
    return (FLOOR, 1.0) if name.endswith("_s") else (1e-2, 1e9)


def six(value: float) -> float:
    """*value* to six significant digits: more would only record rounding of the machine."""
    return float(f"{value:.6g}")


def line(size: FloatArray, seconds: FloatArray) -> tuple[float, float]:
    """(latency, rate) of seconds = latency + size/rate, fitted as everything else is."""
    slope = float((seconds[size.argmax()] - seconds[size.argmin()]) / np.ptp(size))
    rate = 1.0 / slope if slope > 0.0 else float(size.max() / seconds.min())
    start = {"t0_s": max(float(seconds.min()) / 2.0, 1e-9), "bytes_per_s": rate}
    found = fit("linear_bytes", start, ("t0_s", "bytes_per_s"), {"bytes": size}, seconds)
    return found["t0_s"], found["bytes_per_s"]
