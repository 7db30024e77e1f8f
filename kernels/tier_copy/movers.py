"""The three ways of moving pages between HBM and pinned DRAM, behind one call.

Each mover is `move(source, target, source_pages, target_pages)` on CuPy's current stream; pools are
uint8 [pages, page_bytes], lists NumPy int32. The first two run on copy engines, the third on SMs.
"""

from __future__ import annotations

import ctypes
import math
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from . import launch

if TYPE_CHECKING:
    from ..backend import Array, Backend, Gpu

STREAM_ORDER = 1
"""`CU_MEMCPY_SRC_ACCESS_ORDER_STREAM`: a source is read in stream order."""
OVERLAP = 1
"""`CU_MEMCPY_FLAG_PREFER_OVERLAP_WITH_COMPUTE`: prefer a copy engine to the SMs."""


def pinned(backend: Backend, shape: tuple[int, ...], dtype: Any) -> np.ndarray[Any, Any]:
    """An array in host memory that *backend*'s kernels reach; its contents are undefined."""
    if backend.name == "cpu":
        return np.empty(shape, dtype)
    count = math.prod(shape)
    memory = backend.xp.cuda.alloc_pinned_memory(count * np.dtype(dtype).itemsize)
    return np.frombuffer(memory, dtype, count).reshape(shape)


def gather(
    backend: Backend,
    source: Array,
    target: Array,
    source_pages: Any,
    target_pages: Any,
    blocks: int = launch.BLOCKS,
    threads: int = launch.THREADS,
) -> None:
    """One kernel that reads and writes pinned memory itself; takes NumPy or device lists."""
    first, second = (backend.xp.asarray(pages) for pages in (source_pages, target_pages))
    launch.move_pages(backend, source, target, first, second, blocks, threads)


def engine(gpu: Gpu, source: Array, target: Array, source_pages: Any, target_pages: Any) -> None:
    """One `cudaMemcpyAsync` a page."""
    stream = gpu.xp.cuda.get_current_stream().ptr
    copy, size = gpu.xp.cuda.runtime.memcpyAsync, source.shape[1]
    sources = (gpu.address(source) + np.asarray(source_pages, np.int64) * size).tolist()
    targets = (gpu.address(target) + np.asarray(target_pages, np.int64) * size).tolist()
    for to, start in zip(targets, sources, strict=True):
        copy(to, start, size, 4, stream)


def batch(gpu: Gpu, source: Array, target: Array, source_pages: Any, target_pages: Any) -> None:
    """One `cuMemcpyBatchAsync` for all pages; raises `OSError` where the driver has none.

    Needs a stream of its own: the driver refuses the default one.
    """
    size, count = source.shape[1], len(source_pages)
    starts = gpu.address(source) + np.asarray(source_pages, np.uint64) * np.uint64(size)
    ends = gpu.address(target) + np.asarray(target_pages, np.uint64) * np.uint64(size)
    sizes = np.full(count, size, np.uint64)
    attributes = np.array([STREAM_ORDER, 0, 0, 0, 0, OVERLAP], np.int32)
    first = np.zeros(1, np.uint64)
    stream = gpu.xp.cuda.get_current_stream().ptr
    arrays = [ctypes.c_void_p(a.ctypes.data) for a in (ends, starts, sizes, attributes, first)]
    code = _driver_batch()(*arrays[:3], count, *arrays[3:], 1, ctypes.c_void_p(stream))
    if code:
        raise OSError(f"cuMemcpyBatchAsync: error {code} for {count} copies of {size} bytes")


def why_no_batch() -> str | None:
    """The reason why `batch` cannot run here; `None` if it can."""
    try:
        _driver_batch()
    except OSError as error:
        return str(error)
    return None


@cache
def _driver_batch() -> Any:
    """The driver's function, CUDA 13's form, which has no failing index.

    Called through ctypes: a binding that takes lists would spend more time on them than the driver.
    """
    try:
        function = ctypes.CDLL("libcuda.so.1").cuMemcpyBatchAsync_v2
    except (OSError, AttributeError) as error:
        raise OSError(f"no batched copies: {error}") from error
    size, pointer = ctypes.c_size_t, ctypes.c_void_p
    function.argtypes = [pointer, pointer, pointer, size, pointer, pointer, size, pointer]
    function.restype = ctypes.c_int
    return function
