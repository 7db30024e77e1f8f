"""The C host: `launch_list.c`, compiled once and called through ctypes."""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import shutil
import subprocess
from typing import TYPE_CHECKING, Any

import numpy as np

from ..build import HERE, BuildError, _cache

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from .mailbox import Mailbox
    from .record import Launch

SOURCE = HERE / "loop_control" / "launch_list.c"
PATIENCE_S = 5.0


class HostError(RuntimeError):
    """The driver refused a call, or the device did not answer in time."""


class _Launch(ctypes.Structure):
    _fields_ = (
        ("function", ctypes.c_void_p),
        ("grid", ctypes.c_uint * 3),
        ("block", ctypes.c_uint * 3),
        ("shared", ctypes.c_uint),
        ("unused", ctypes.c_uint),
        ("params", ctypes.POINTER(ctypes.c_void_p)),
    )


class _CopyBack(ctypes.Structure):
    _fields_ = (
        ("host", ctypes.c_void_p),
        ("device", ctypes.c_uint64),
        ("bytes", ctypes.c_uint64),
        ("sync", ctypes.c_int),
    )


@functools.cache
def library() -> Any:
    """The compiled library; raises `BuildError` with the compiler's words."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        raise BuildError("no C compiler: install gcc")
    digest = hashlib.blake2b(SOURCE.read_bytes(), digest_size=6).hexdigest()
    target: Path = _cache() / f"launch_list-{digest}.so"
    if not target.exists():
        draft = target.with_name(f"{target.name}.{os.getpid()}")
        flags = ["-O2", "-shared", "-fPIC", str(SOURCE), "-o", str(draft), "-ldl"]
        done = subprocess.run([compiler, *flags], capture_output=True, text=True)
        if done.returncode:
            raise BuildError(done.stderr)
        draft.replace(target)
    return ctypes.CDLL(str(target))


def run(call: Any, *args: Any) -> None:
    """Calls a function of the library; raises `HostError` if it does not return 0."""
    if error := call(*args):
        raise HostError(f"{call.__name__}: {error}")


def open_driver() -> Any:
    """The library with the CUDA driver loaded."""
    run(library().open_driver)
    return library()


class LaunchList:
    """Steps as launches, or as graphs, one list a set, ended by a copy to *host* (pinned).

    *slab* is the device array that each step copies back; `None` copies nothing.
    """

    def __init__(
        self,
        sets: Sequence[Sequence[Launch]],
        stream: Any,
        slab: Any = None,
        host: Any = None,
        sync: bool = True,
    ) -> None:
        self.library, self.stream, self.sets = open_driver(), stream, len(sets)
        flat = [launch for launches in sets for launch in launches]
        self._keep: list[Any] = [slab, host, flat]
        self.launches = (_Launch * max(1, len(flat)))(*(self._packed(one) for one in flat))
        self._first = np.cumsum([0, *(len(launches) for launches in sets)]).astype(np.int32)
        self._host = host
        self._back = _CopyBack(
            0 if slab is None else host.ctypes.data,
            0 if slab is None else slab.data.ptr,
            0 if slab is None else slab.nbytes,
            int(sync),
        )

    def launch(self, begin: int, steps: int, keep: bool = False) -> tuple[Any, Any]:
        """Runs *steps* steps from number *begin*; seconds of each, and the copies if *keep*."""
        return self._run(
            lambda results, seconds: run(
                self.library.run_list,
                self.launches,
                ctypes.c_void_p(self._first.ctypes.data),
                self.sets,
                begin,
                steps,
                ctypes.byref(self._back),
                results,
                ctypes.c_void_p(self.stream.ptr),
                seconds,
            ),
            steps,
            keep,
        )

    def replay(
        self, graphs: Sequence[Any], begin: int, steps: int, keep: bool = False
    ) -> tuple[Any, Any]:
        """The same by CuPy graphs, one a set."""
        handles = (ctypes.c_void_p * len(graphs))(*(graph.graphExec for graph in graphs))
        return self._run(
            lambda results, seconds: run(
                self.library.run_graphs,
                handles,
                len(graphs),
                begin,
                steps,
                ctypes.byref(self._back),
                results,
                ctypes.c_void_p(self.stream.ptr),
                seconds,
            ),
            steps,
            keep,
        )

    def _run(self, call: Any, steps: int, keep: bool) -> tuple[Any, Any]:
        seconds = np.zeros(steps)
        results = None
        if keep:
            results = np.zeros((steps, *self._host.shape), self._host.dtype)
        call(
            ctypes.c_void_p(None if results is None else results.ctypes.data),
            ctypes.c_void_p(seconds.ctypes.data),
        )
        return seconds, results

    def _packed(self, launch: Launch) -> _Launch:
        values = [np.ascontiguousarray(value) for value in launch.values]
        pointers = (ctypes.c_void_p * len(values))(*(value.ctypes.data for value in values))
        self._keep += [values, pointers]
        return _Launch(
            launch.handle,
            (ctypes.c_uint * 3)(*launch.grid),
            (ctypes.c_uint * 3)(launch.block, 1, 1),
            launch.shared,
            0,
            ctypes.cast(pointers, ctypes.POINTER(ctypes.c_void_p)),
        )


def launch_and_read(launch: Launch, stream: Any, mailbox: Mailbox) -> tuple[float, float]:
    """Starts a recorded loop from C: seconds until the call returned, and until a step was sent."""
    library = open_driver()
    one = LaunchList([[launch]], stream)
    seconds = np.zeros(2)
    rows, words = mailbox.outputs.shape
    mailbox.status[:] = 0
    run(
        library.launch_and_read,
        one.launches,
        ctypes.c_void_p(stream.ptr),
        ctypes.c_void_p(mailbox.outputs[mailbox.read_steps % rows].ctypes.data),
        words,
        ctypes.c_uint(mailbox.read_steps + 1),
        ctypes.c_double(PATIENCE_S),
        ctypes.c_void_p(seconds.ctypes.data),
    )
    return float(seconds[0]), float(seconds[1])


def read_outputs(
    mailbox: Mailbox, steps: int, keep: bool = False, patience_s: float = PATIENCE_S
) -> tuple[Any, Any]:
    """Waits in C for *steps* rows of the loop's outputs; seconds of each, low words if *keep*.

    The first figure counts from the call. Raises `HostError` if nothing comes for *patience_s*.
    """
    rows, words = mailbox.outputs.shape
    seconds = np.zeros(steps)
    results = np.zeros((steps, words), np.uint32) if keep else None
    run(
        library().read_outputs,
        ctypes.c_void_p(mailbox.outputs.ctypes.data),
        rows,
        words,
        ctypes.c_void_p(mailbox.mail.ctypes.data),
        ctypes.c_uint(mailbox.read_steps),
        steps,
        ctypes.c_double(patience_s),
        ctypes.c_void_p(None if results is None else results.ctypes.data),
        ctypes.c_void_p(seconds.ctypes.data),
    )
    mailbox.read_steps += steps
    mailbox.taken = int(mailbox.outputs[(mailbox.read_steps - 1) % rows, 0] & 0xFFFFFFFF)
    return seconds, results
