"""Launchers of the stages, listened to: which kernel, how large, with which parameters.

One rule: every way to run a step uses what the stage's own launcher computed, so that the ways
differ in nothing but control.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..backend import Struct

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from ..backend import Array, Backend, Function


@dataclass(slots=True)
class Launch:
    """One kernel launch that a launcher asked for."""

    function: Function
    grid: tuple[int, int, int]
    block: int
    shared: int
    args: tuple[Any, ...]
    raw: Any = None
    """CuPy's kernel; `None` on the CPU."""
    values: tuple[Any, ...] = ()
    """The arguments as NumPy values, as the driver takes them."""

    def __post_init__(self) -> None:
        self.values = tuple(_value(arg) for arg in self.args)

    @property
    def handle(self) -> int:
        """The driver's handle of the function."""
        return int(self.raw.kernel.ptr)

    @property
    def struct(self) -> np.ndarray[Any, Any]:
        """The first argument, a stage's parameters, as an array of one struct."""
        first = self.args[0]
        assert isinstance(first, Struct)
        return first.value

    def __call__(self) -> None:
        """Launches it on the current stream, without the launcher's checks."""
        if self.raw is None:
            self.function(self.grid, self.block, self.args, self.shared)
        else:
            self.raw(self.grid, (self.block,), self.values, shared_mem=self.shared)


class Recorder:
    """A backend that keeps launches instead of running them."""

    def __init__(self, backend: Backend) -> None:
        self.backend, self.launches = backend, list[Launch]()
        self.xp, self.name, self.sms = backend.xp, backend.name, backend.sms
        self._raws: dict[tuple[str, str, tuple[str, ...]], Any] = {}

    def function(self, folder: str, kernel: str, defines: Iterable[str] = ()) -> Function:
        """See `Backend.function`; the call is kept in `launches`."""
        real = self.backend.function(folder, kernel, defines)
        key = (folder, kernel, tuple(defines))
        if self.name == "gpu" and key not in self._raws:
            self._raws[key] = getattr(self.backend, "raw")(*key)  # noqa: B009  a Gpu's own
        raw_kernel = self._raws.get(key)

        def call(
            grid: int | tuple[int, ...], block: int, args: Sequence[Any], shared: int = 0
        ) -> None:
            sizes = (grid,) if isinstance(grid, int) else tuple(grid)
            if raw_kernel is not None and shared > raw_kernel.max_dynamic_shared_size_bytes:
                raw_kernel.max_dynamic_shared_size_bytes = shared
            padded = (*sizes, *[1] * (3 - len(sizes)))
            self.launches.append(
                Launch(
                    real, (padded[0], padded[1], padded[2]), block, shared, tuple(args), raw_kernel
                )
            )

        return call

    def address(self, array: Array) -> int:
        """See `Backend.address`."""
        return self.backend.address(array)

    def synchronize(self) -> None:
        """See `Backend.synchronize`."""
        self.backend.synchronize()


def _value(arg: Any) -> Any:
    match arg:
        case Struct():
            return arg.value
        case np.generic():
            return arg
    return np.uint64(arg.data.ptr if hasattr(arg.data, "ptr") else arg.ctypes.data)
