"""Launchers of the small stages; each checks its arrays by name and returns nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..backend import Struct, layout
from ..element import C_TYPES

if TYPE_CHECKING:
    from ..backend import Array, Backend

RMSNORM = layout(
    ("x", "u8"), ("weight", "u8"), ("y", "u8"), ("rows", "i4"), ("width", "i4"), ("epsilon", "f4")
)


def rmsnorm(
    backend: Backend,
    x: Array,
    weight: Array,
    y: Array,
    epsilon: float = 1e-5,
    element: str = "bf16",
) -> None:
    """y = x / rms(x) * weight for *x* [rows, width]; raises `ValueError` if a shape is off."""
    rows, width = x.shape
    if width % 8 or weight.shape != (width,) or y.shape != x.shape:
        raise ValueError(f"rmsnorm: x {x.shape}, weight {weight.shape}, y {y.shape}; width % 8")
    kernel = backend.function("small_ops", "rmsnorm", (f"ELEMENT={C_TYPES[element]}",))
    params = Struct(
        backend, RMSNORM, x=x, weight=weight, y=y, rows=rows, width=width, epsilon=epsilon
    )
    kernel(min(rows, 2 * backend.sms), 256, (params,))
