"""What the small stages compute, in float64."""

from __future__ import annotations

from typing import Any

import numpy as np


def rmsnorm(x: Any, weight: Any, epsilon: float) -> Any:
    """*x* [rows, width] over its root mean square, times *weight* [width]."""
    x = np.asarray(x, np.float64)
    return x / np.sqrt((x * x).mean(axis=1, keepdims=True) + epsilon) * weight
