"""The 16-bit element types of caches and activations, for NumPy and CuPy, which lack bf16.

A bf16 array travels as `uint16`; `encode` and `decode` convert from and to float32.
"""

from __future__ import annotations

from typing import Any

import numpy as np

C_TYPES = {"bf16": "__nv_bfloat16", "fp16": "__half"}


def encode(values: Any, element: str) -> Any:
    """*values* rounded to nearest even, as `uint16` (bf16) or `float16`; any array module."""
    if element == "fp16":
        return values.astype(np.float16)
    bits = values.astype(np.float32).view(np.uint32)
    rounded = bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))
    return (rounded >> np.uint32(16)).astype(np.uint16)


def decode(values: Any, element: str) -> Any:
    """The float32 values of what `encode` made."""
    if element == "fp16":
        return values.astype(np.float32)
    return (values.astype(np.uint32) << np.uint32(16)).view(np.float32)
