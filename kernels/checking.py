"""How a kernel's output is held against its reference; the same words for every kernel.

One rule: outputs are poisoned before a launch, so that an element nobody wrote is a NaN or an
absurd number, and a NaN never passes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from .backend import Array, Backend


class CheckError(AssertionError):
    """A kernel's output differs from its reference."""


def poisoned(backend: Backend, shape: tuple[int, ...] | int, dtype: Any) -> Array:
    """An array filled with 0xff bytes: NaN in every float format, -1 in signed integers."""
    array = backend.xp.empty(shape, dtype)
    array.view(np.uint8)[...] = 0xFF
    return array


def on_device(backend: Backend, array: Any) -> Array:
    """*array* (NumPy) where *backend* can reach it."""
    return backend.xp.ascontiguousarray(backend.xp.asarray(array))


def on_host(backend: Backend, array: Array) -> np.ndarray[Any, Any]:
    """*array* as NumPy, after everything launched has ended."""
    backend.synchronize()
    host: np.ndarray[Any, Any] = array.get() if hasattr(array, "get") else array
    return host


def close(got: Array, want: Array, tolerance: float, what: str = "output") -> float:
    """||got - want|| / ||want||; raises `CheckError` above *tolerance*, at a NaN or another shape.

    Works on NumPy and CuPy arrays.
    """
    if got.shape != want.shape:
        raise CheckError(f"{what}: shape {got.shape}, expected {want.shape}")
    difference = got.astype(np.float64) - want
    norm: float = float((want.astype(np.float64) ** 2).sum()) ** 0.5
    error: float = float((difference**2).sum()) ** 0.5 / max(norm, 1e-30)
    if not error <= tolerance:
        bad = int((~(abs(difference) <= tolerance * max(1.0, float(abs(want).max())))).sum())
        raise CheckError(
            f"{what}: relative error {error:.3g} above {tolerance:g}, {bad} of {got.size} elements"
        )
    return error


def equal(got: Any, want: Any, what: str = "output") -> float:
    """0.0; raises `CheckError`, naming the first difference, unless *got* equals *want*."""
    if got.shape != want.shape:
        raise CheckError(f"{what}: shape {got.shape}, expected {want.shape}")
    different = np.argwhere(np.asarray(got) != np.asarray(want))
    if len(different):
        at = tuple(int(i) for i in different[0])
        count = f"{len(different)} of {got.size} differ"
        raise CheckError(f"{what}{list(at)}: {got[at]}, expected {want[at]}; {count}")
    return 0.0
