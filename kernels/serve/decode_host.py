"""Decode steps that the host submits: kernel by kernel from Python or C, or as a graph.

A runner launches a step over the first slots and does not wait; who copies back is the device's
business, so that a prompt's work can follow in the same stream.
"""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from ..decoder.modes import capture_step, on_stream, warm
from ..loop_control.host_c import HostError

if TYPE_CHECKING:
    from ..decoder.modes import Step


class Runner(Protocol):
    """Launches decode steps, one size of batch each."""

    def launch(self, size: int) -> None:
        """One step over the first *size* slots, on the engine's stream."""


class FromPython:
    """H1: Python launches every kernel."""

    def __init__(self, steps: dict[int, Step], stream: Any) -> None:
        self.steps = steps
        with on_stream(stream):
            for step in steps.values():
                warm(step)

    def launch(self, size: int) -> None:
        """See `Runner.launch`."""
        self.steps[size].launch()


class AsGraphs:
    """G: a graph a size, captured once."""

    def __init__(self, steps: dict[int, Step], stream: Any) -> None:
        self.stream = stream
        self.graphs: dict[int, Any] = {
            size: capture_step(step, stream) for size, step in steps.items()
        }

    def launch(self, size: int) -> None:
        """See `Runner.launch`."""
        self.graphs[size].launch(self.stream)


class FromC:
    """H2: a C host launches the nodes of those graphs one by one."""

    def __init__(self, steps: dict[int, Step], stream: Any) -> None:
        from ..decoder.nodes import SOURCE, NodeList
        from ..graph_control.driver import driver

        self.lists = {
            size: NodeList(capture_step(step, stream), stream) for size, step in steps.items()
        }
        self._seconds = np.zeros(1)
        pointer = ctypes.c_void_p
        rest = pointer(stream.ptr), pointer(self._seconds.ctypes.data)
        self._submit = driver(SOURCE)._library.submit_nodes
        self._arguments = {
            size: (ctypes.byref(nodes._lists[0]), *rest) for size, nodes in self.lists.items()
        }

    def launch(self, size: int) -> None:
        """See `Runner.launch`; raises `HostError` if the driver refuses a launch."""
        if error := self._submit(*self._arguments[size]):
            raise HostError(f"a node was refused: {error}")


RUNNERS: dict[str, type[Any]] = {"host-python": FromPython, "graph": AsGraphs, "host-c": FromC}


def make_runner(mode: str, steps: dict[int, Step], stream: Any) -> Runner:
    """The runner called *mode*; on the CPU there is `host-python` only."""
    runner: Runner = RUNNERS[mode](steps, stream)
    return runner
