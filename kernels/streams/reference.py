"""What the streams compute."""

from __future__ import annotations

from typing import Any

import numpy as np


def wrapped_sum(source: Any, passes: int = 1) -> int:
    """Sum of the 32-bit words of *source* (NumPy or CuPy), *passes* times, modulo 2**32."""
    total = int(source.reshape(-1).view(np.uint32).sum(dtype=np.uint64))
    return total * passes % 2**32
