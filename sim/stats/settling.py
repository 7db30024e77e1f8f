"""When a run has settled, told from its latencies alone."""

from __future__ import annotations

import numpy as np

BATCH = 5
FEWEST = 100
"""Values that MSER-5 needs to say anything."""


def mser(values: np.ndarray) -> int | None:
    """How many of the first *values* to leave out, a multiple of 5; None if it is over half.

    # Model: MSER-5 (White, Simulation 69, 1997; White, Cobb and Spratt, Winter Simulation
    Conference 2000): of the means of five values each, so many are left out that the squared
    deviations of the others, over their squared count, are fewest. If that is over half of them,
    the run does not settle.
    """
    count = len(values) // BATCH
    means = values[: count * BATCH].reshape(count, BATCH).mean(axis=1)
    middle = means.mean()
    apart = means - middle  # else squares would cancel
    apart[np.abs(apart) <= 1e-9 * abs(middle)] = 0.0  # rounding settles nothing
    left = np.arange(count, 0, -1)
    total = np.cumsum(apart[::-1])[::-1]
    squares = np.cumsum(apart[::-1] ** 2)[::-1]
    error = np.maximum(squares - total**2 / left, 0.0) / left.astype(float) ** 2
    best = int(np.argmin(error[: count - BATCH]))
    return best * BATCH if best <= count // 2 else None
