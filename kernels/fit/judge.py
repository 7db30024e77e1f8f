"""Hold-outs and residuals: how far a fitted form is from points it has not seen.

One rule: which points are held out is a function of a point's identity (and, at the frontier, its
bytes), drawn before anything is fitted and never of the times.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import numpy as np

from .samples import identity

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from .forms import FloatArray
    from .samples import Point, Samples

HOLD_OUT = 0.2
SEED = "hold-out-1386"
"""Drawn before anything was measured: the first that leaves every kernel a fifth, more or less."""


def is_held_out(kernel: str, axes: Mapping[str, Any]) -> bool:
    """Whether a point belongs to the random fifth that no shipped fit has seen."""
    text = f"{SEED}|{kernel}|{identity(axes)}"
    drawn = int.from_bytes(hashlib.blake2b(text.encode(), digest_size=4).digest(), "big")
    return drawn < HOLD_OUT * 2**32


def at_frontier(points: Sequence[Point], size: Sequence[float]) -> list[bool]:
    """For each of *points* whether it is among the fifth with the largest *size* (bytes)."""
    order = sorted(range(len(points)), key=lambda i: (size[i], identity(points[i].axes)))
    far = set(order[len(order) - round(HOLD_OUT * len(order)) :])
    return [index in far for index in range(len(points))]


def residuals(predicted: FloatArray, measured: FloatArray) -> dict[str, float]:
    """n; median, p90, max of |predicted/measured - 1|; its signed median; RMS of the log ratio."""
    if not len(measured):
        return {"n": 0}
    error = predicted / measured - 1.0
    size = np.abs(error)
    figures = {
        "median": np.median(size),
        "p90": np.quantile(size, 0.9),
        "max": np.max(size),
        "signed_median": np.median(error),
        "rmsle": np.sqrt(np.mean(np.log(predicted / measured) ** 2)),
    }
    return {"n": len(error), **{key: round(float(value), 4) for key, value in figures.items()}}


def repeatability(points: Iterable[Point], samples: Samples) -> dict[str, float]:
    """How far the second measurement of a point is from its first, where there are two."""
    return ratios(points, samples.repeats)


def ratios(points: Iterable[Point], others: Mapping[tuple[str, str], Point]) -> dict[str, float]:
    """Residuals of *points* against the same points in *others*."""
    pairs = [(others[p.key].median, p.median) for p in points if p.key in others]
    again, first = np.array(pairs, np.float64).reshape(-1, 2).T
    return residuals(again, first)
