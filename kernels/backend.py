"""Where a kernel runs: `Cpu` (g++, for correctness) or `Gpu` (CuPy), behind one interface.

A launcher takes a backend and arrays of that backend (`backend.xp` is NumPy or CuPy), so that one
check drives both. Scalars are NumPy scalars of the kernel's exact type, structs are made by
`Struct`.
"""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from .build import cpu_library, cubin

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

Array = Any
"""`numpy.ndarray` on the CPU, `cupy.ndarray` on the GPU."""


class Function(Protocol):
    """A compiled kernel, called with the sizes of grid and block and its arguments."""

    def __call__(
        self, grid: int | tuple[int, ...], block: int, args: Sequence[Any], shared: int = 0
    ) -> None:
        """Runs the kernel with *shared* bytes of dynamic shared memory."""


class Backend(Protocol):
    """A place where kernels run."""

    xp: Any
    """NumPy or CuPy."""
    name: str
    """`cpu` or `gpu`."""
    sms: int
    """How many blocks a persistent kernel starts: one an SM, or a few on the CPU."""

    def function(self, folder: str, kernel: str, defines: Iterable[str] = ()) -> Function:
        """The kernel named *kernel* of `kernels/<folder>/kernel.cu`, compiled with *defines*."""

    def address(self, array: Array) -> int:
        """Address of the first element of *array*, for a struct's pointer."""

    def synchronize(self) -> None:
        """Waits until everything launched has ended; raises if a kernel failed."""


class Struct:
    """One C struct passed by value: the layout from a NumPy dtype, arrays turned into pointers.

    `Struct(backend, dtype, pages=array, count=3)`; fields of type `u8` take arrays, whose memory
    lives as long as the struct. A missing or unknown field raises `TypeError`.
    """

    def __init__(self, backend: Backend, layout: np.dtype[Any], /, **fields: Any) -> None:
        names = set(layout.names or ())
        if names != set(fields):
            raise TypeError(f"struct fields {sorted(names ^ set(fields))} missing or unknown")
        self.value = np.zeros(1, layout)
        self.keep = fields
        for name, value in fields.items():
            is_array = hasattr(value, "dtype") and getattr(value, "ndim", 0) > 0
            if value is None:
                value = 0
            self.value[name] = backend.address(value) if is_array else value


def layout(*fields: tuple[str, str]) -> np.dtype[Any]:
    """A C struct's layout: ("pages", "u8") for a pointer, "i4", "u4", "f4", "i8" for scalars."""
    return np.dtype(list(fields), align=True)


class Cpu:
    """Runs kernels on the CPU: slow, and meant for small shapes."""

    name = "cpu"
    xp = np

    def __init__(self, sms: int = 4) -> None:
        self.sms = sms

    def function(self, folder: str, kernel: str, defines: Iterable[str] = ()) -> Function:
        """See `Backend.function`; raises `BuildError` if g++ refuses the source."""
        library = ctypes.CDLL(str(cpu_library(folder, defines)))
        run = getattr(library, f"run_{kernel}")

        def call(
            grid: int | tuple[int, ...], block: int, args: Sequence[Any], shared: int = 0
        ) -> None:
            values = [_cpu_value(arg) for arg in args]
            pointers = (ctypes.c_void_p * len(values))(*(v.ctypes.data for v in values))
            run(_dim3(grid), _dim3(block), ctypes.c_uint(shared), pointers)

        return call

    def address(self, array: Array) -> int:
        """See `Backend.address`."""
        return int(array.ctypes.data)

    def synchronize(self) -> None:
        """Nothing to wait for: a launch returns when the kernel has ended."""


def _cpu_value(arg: Any) -> np.ndarray[Any, Any]:
    match arg:
        case Struct():
            return arg.value
        case np.ndarray():
            return np.array([arg.ctypes.data], np.uintp)
        case np.generic():
            return np.array([arg])
    raise TypeError(f"{arg!r} is neither an array, a Struct nor a NumPy scalar such as np.int32(4)")


def _dim3(size: int | tuple[int, ...]) -> ctypes.Array[ctypes.c_uint]:
    sizes = (size,) if isinstance(size, int) else size
    return (ctypes.c_uint * 3)(*sizes, *[1] * (3 - len(sizes)))


class Gpu:
    """Runs kernels on the current CUDA device through CuPy's RawModule and RawKernel."""

    name = "gpu"

    def __init__(self) -> None:
        import cupy

        self.xp = cupy
        device = cupy.cuda.Device()
        self.sms = int(device.attributes["MultiProcessorCount"])
        self.arch = f"sm_{device.compute_capability}"
        self._functions: dict[tuple[str, str, tuple[str, ...]], Function] = {}

    def raw(self, folder: str, kernel: str, defines: Iterable[str] = ()) -> Any:
        """CuPy's RawKernel, for its attributes and its handle."""
        module = self.xp.RawModule(path=str(cubin(folder, self.arch, defines)))
        return module.get_function(kernel)

    def function(self, folder: str, kernel: str, defines: Iterable[str] = ()) -> Function:
        """See `Backend.function`; raises `BuildError` if nvcc refuses the source."""
        key = (folder, kernel, tuple(defines))
        if key not in self._functions:
            raw = self.raw(*key)

            def call(
                grid: int | tuple[int, ...], block: int, args: Sequence[Any], shared: int = 0
            ) -> None:
                if shared > raw.max_dynamic_shared_size_bytes:
                    raw.max_dynamic_shared_size_bytes = shared
                sizes = (grid,) if isinstance(grid, int) else grid
                values = tuple(a.value if isinstance(a, Struct) else a for a in args)
                raw(sizes, (block,), values, shared_mem=shared)

            self._functions[key] = call
        return self._functions[key]

    def address(self, array: Array) -> int:
        """See `Backend.address`; a NumPy array must lie in pinned memory."""
        return int(array.data.ptr) if hasattr(array.data, "ptr") else int(array.ctypes.data)

    def synchronize(self) -> None:
        """See `Backend.synchronize`."""
        self.xp.cuda.get_current_stream().synchronize()
