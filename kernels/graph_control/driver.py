"""C files that call the CUDA driver: compiled on the spot, and their errors in the driver's words.

One rule: structs of the driver are laid out by its own header, in C; Python holds only pointers.
"""

from __future__ import annotations

import ctypes
import functools
from typing import TYPE_CHECKING, Any

from ..build import host_library
from ..loop_control.host_c import HostError, LaunchList

if TYPE_CHECKING:
    from pathlib import Path

    from ..loop_control.record import Launch

OWN_ERRORS = {
    -1: "no CUDA driver (libcuda.so.1), or an old one",
    -3: "a node of a kind that a host cannot launch",
    -4: "the nodes wait for each other",
    -5: "out of memory",
}
Handle = ctypes.c_void_p


class Driver:
    """The functions of one C file; each call raises `HostError` unless it returns 0."""

    def __init__(self, source: Path) -> None:
        self._library = ctypes.CDLL(str(host_library(source)))
        self._library.error_name.restype = ctypes.c_char_p

    def __call__(self, name: str, *args: Any) -> None:
        """Calls *name*; a NumPy array, a stream and an address go as pointers."""
        if error := getattr(self._library, name)(*(_pointer(arg) for arg in args)):
            raise HostError(f"{name}: {self._words(error)}")

    def free(self, name: str, *args: Any) -> None:
        """Calls *name* and forgets its error: for `__del__`, when the driver may be gone."""
        getattr(self._library, name)(*args)

    def _words(self, error: int) -> str:
        if error < 0:
            return OWN_ERRORS.get(error, str(error))
        name: bytes = self._library.error_name(error) or b"unknown error"
        return f"{name.decode()} ({error})"


@functools.cache
def driver(source: Path) -> Driver:
    """The compiled *source* with the CUDA driver open; `BuildError`, `HostError`."""
    found = Driver(source)
    found("open_driver")
    return found


def packed(launch: Launch, stream: Any) -> LaunchList:
    """*launch* as C takes it: `.launches` is an array of one, alive as long as the result."""
    return LaunchList([[launch]], stream)


def _pointer(arg: Any) -> Any:
    if hasattr(arg, "ctypes"):
        return Handle(arg.ctypes.data)
    return Handle(arg.ptr) if hasattr(arg, "ptr") else arg
