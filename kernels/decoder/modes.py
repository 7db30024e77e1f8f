"""Ways to drive a step from the host: launched from Python, or replayed as one CUDA graph.

One rule: a step ends when the host holds its tokens, so every mode copies the slab back and waits.
"""

from __future__ import annotations

import contextlib
import ctypes
import time
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from ..checking import on_host
from ..loop_control.constants import capture
from ..loop_control.host_c import LaunchList, read_outputs
from ..loop_control.mailbox import Mailbox, pinned

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ..backend import Array, Backend
    from .state import DecoderState

HOST_S, PATIENCE_S = 0.1, 2.0
"""How long a loop waits for a host that does not read, and a host for a loop that does not send."""


class Step(Protocol):
    """A step that can be launched on CuPy's current stream, and captured."""

    backend: Backend
    state: DecoderState

    def launch(self) -> None:
        """Launches one step."""


class Mode(Protocol):
    """A way to run steps."""

    name: str
    nodes: int | None
    """Kernel launches or graph nodes of a step; None where there are none."""

    def run(self, steps: int) -> Sequence[float]:
        """Runs *steps* steps; wall seconds of each, until the host holds the tokens."""

    def close(self) -> None:
        """Gives back what the mode holds."""


class HostPython:
    """H1: Python launches every kernel of a step."""

    name = "host-python"

    def __init__(self, step: Step) -> None:
        launches: Any = getattr(step, "items", None) or getattr(step, "launches", ())
        self.step, self.nodes = step, len(launches) or None
        self.stream = new_stream(step.backend)
        self.host: Array = pinned(step.backend, step.state.slots.slab.shape, np.int32)
        with on_stream(self.stream):
            warm(step)

    def run(self, steps: int) -> list[float]:
        """See `Mode.run`."""
        step, slab, seconds = self.step, self.step.state.slots.slab, []
        self.step.backend.synchronize()
        with on_stream(self.stream):
            for _ in range(steps):
                begin = time.perf_counter()
                step.launch()
                if self.stream is None:
                    self.host[...] = on_host(step.backend, slab)
                else:
                    slab.get(stream=self.stream, out=self.host, blocking=False)
                    self.stream.synchronize()
                seconds.append(time.perf_counter() - begin)
        return seconds

    def close(self) -> None:
        """Nothing to give back."""


class Graph:
    """G: the step captured once, for its batch and its number of tokens, and replayed from C."""

    name = "graph"

    def __init__(self, step: Step) -> None:
        self.step, self.stream = step, new_stream(step.backend)
        self.graph: Any = capture_step(step, self.stream)
        self.nodes: int | None = len(graph_nodes(self.graph))
        slab = step.state.slots.slab
        self.host: Array = pinned(step.backend, slab.shape, np.int32)
        self._list = LaunchList([[]], self.stream, slab, self.host)

    def run(self, steps: int) -> list[float]:
        """See `Mode.run`."""
        self.step.backend.synchronize()
        return [float(one) for one in self._list.replay([self.graph], 0, steps)[0]]

    def close(self) -> None:
        """Drops the graph."""
        self.graph = None


def new_stream(backend: Backend) -> Any:
    """A stream of its own; None on the CPU."""
    return backend.xp.cuda.Stream(non_blocking=True) if backend.name == "gpu" else None


def on_stream(stream: Any) -> contextlib.AbstractContextManager[Any]:
    """*stream* as CuPy's current one."""
    return contextlib.nullcontext() if stream is None else stream


def warm(step: Step) -> None:
    """Launches *step* with every slot idle, so that nothing is left to load; no state changes."""
    lengths = step.state.slots.lengths
    held = lengths.copy()
    lengths.fill(-1)
    step.launch()
    lengths[...] = held
    step.backend.synchronize()


def capture_step(step: Step, stream: Any) -> Any:
    """The step as a CuPy graph, uploaded to *stream*."""
    step.backend.synchronize()
    with stream:
        warm(step)
    return capture(stream, [launch_of(step, stream)])


def launch_of(step: Step, stream: Any) -> Callable[[], None]:
    """How a step is launched where no Python stands between its kernels.

    A step that can let its kernels start early (`FusedStep`) does so, on *stream*.
    """
    early = getattr(step, "launch_early", None)
    return step.launch if early is None or stream is None else partial(early, stream)


def graph_nodes(graph: Any) -> list[int]:
    """The driver's handles of the nodes of a CuPy *graph*."""
    driver = ctypes.CDLL("libcuda.so.1")
    count = ctypes.c_size_t()
    if error := driver.cuGraphGetNodes(ctypes.c_void_p(graph.graph), None, ctypes.byref(count)):
        raise RuntimeError(f"cuGraphGetNodes: error {error}")
    nodes = (ctypes.c_void_p * count.value)()
    if error := driver.cuGraphGetNodes(ctypes.c_void_p(graph.graph), nodes, ctypes.byref(count)):
        raise RuntimeError(f"cuGraphGetNodes: error {error}")
    return [int(node or 0) for node in nodes]


class ResidentMath:
    """R2: the fused step in one persistent kernel, which the host only reads from."""

    name = "resident"
    nodes: int | None = None

    def __init__(self, step: Any) -> None:
        from ..fused_step.resident import Resident

        slots = step.state.slots
        self.step, self.stream = step, new_stream(step.backend)
        self.mailbox = Mailbox(step.backend, slots.slots, slots.new_tokens)
        self.loop: Any = Resident(step, self.mailbox, host_s=HOST_S)
        self.barriers = len(step.stages) * step.model.shape.layers + 2

    def run(self, steps: int) -> list[float]:
        """See `Mode.run`; the first step's seconds hold the launch of the loop."""
        self.step.backend.synchronize()
        with on_stream(self.stream):
            self.loop.launch(steps)
        try:
            seconds = read_outputs(self.mailbox, steps, patience_s=PATIENCE_S)[0]
        finally:
            if self.stream is not None:
                self.stream.synchronize()
        return [float(one) for one in seconds]

    def close(self) -> None:
        """Drops the loop."""
        self.loop = None


def make_mode(step: Step, name: str) -> Mode:
    """The mode called *name* over *step*; raises `ValueError` for a name that nobody knows."""
    match name:
        case "host-python":
            return HostPython(step)
        case "graph":
            return Graph(step)
        case "host-c":
            from .nodes import HostC

            return HostC(step)
        case "control":
            from .control import ResidentControl

            return ResidentControl(step)
        case "resident":
            return ResidentMath(step)
    raise ValueError(f"mode {name!r}")
