"""A captured step that the device runs again and again, with a control kernel after each.

Two ways: the step and the control as the body of a WHILE node, or as a graph that launches itself.
On the CPU, which has neither, the host runs step and control in turn. Mailbox, outputs and reasons
to leave are those of the resident loop.

Seen on an H200 with driver 580: a process has two speeds for all its graphs, 0.55 and 0.73 us an
empty node at the same clocks. A graph that was uploaded and not yet launched by the host brings the
slow one, so `tail` always does, and so do other captures for good; nothing found brings it back.
"""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING, Any

import numpy as np

from ..backend import layout
from ..build import HERE
from ..loop_control.constants import capture
from ..loop_control.desk import Desk
from ..loop_control.launch import Packed
from ..loop_control.mailbox import CONTROL, Mailbox, pinned
from ..loop_control.record import Recorder
from ..loop_control.state import SLOTS
from .driver import Handle, driver, packed

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..backend import Array, Backend
    from ..loop_control.record import Launch
    from ..loop_control.state import State

SOURCE = HERE / "graph_control" / "relaunch.c"
WAYS = {"while": 1, "tail": 2}
"""The macro WAY of the kernel; 0 is the host's own way, on the CPU."""
THREADS = 256
PARAMS = np.dtype(
    [
        ("control", CONTROL),
        ("slots", SLOTS),
        *layout(("emitted", "u8"), ("tokens", "u8"), ("words", "u8"), ("target", "u8")).descr,
        ("first", "i4"),
        ("unused", "i4"),
    ],
    align=True,
)


class Repeat:
    """*step* under a kernel of `kernel.cu` named *kernel*, which decides on the next turn.

    *step* launches one whole step on the current stream without allocating or waiting; on a GPU it
    is captured, on *stream*. *params* is a `PARAMS` record without target and first.
    """

    def __init__(
        self,
        backend: Backend,
        step: Callable[[], None],
        params: np.ndarray[Any, Any],
        *,
        kernel: str = "graph_control",
        way: str = "while",
        stream: Any = None,
    ) -> None:
        if way not in WAYS:
            raise ValueError(f"way {way!r}, expected one of {', '.join(WAYS)}")
        self.backend, self.step, self.way, self.stream = backend, step, way, stream
        self.kernel, self._params = kernel, params
        self.words: Array = backend.xp.zeros(4, np.uint32)
        params["words"] = backend.address(self.words)
        self._order = pinned(backend, 4, np.uint32)
        self._graphs: list[tuple[Handle, Handle]] = []
        self._keep: list[Any] = []
        """Kernels and graphs that the driver's graphs came from."""
        if backend.name == "cpu":
            self._enter, self._control = self._launch(0, 1), self._launch(0, 0)
        else:
            self._driver = driver(SOURCE)
            ends = self.words.data.ptr, self._order.ctypes.data
            self._upload = *ends, self._order.nbytes, 1, stream.ptr
            self._exec = self._while() if way == "while" else self._tail()

    def __del__(self) -> None:
        for graph, graph_exec in getattr(self, "_graphs", ()):
            self._driver.free("close_graph", graph, graph_exec)

    def start(self, steps: int) -> None:
        """Lets it run for *steps* steps at most, when the last run is over.

        On the CPU it returns when this one is.
        """
        self._order[:] = (steps, 0, 0, 0)
        if self.backend.name == "cpu":
            self.words[:] = self._order
            self._enter()
            while self.words[2]:
                self.step()
                self._control()
        else:
            self.backend.xp.cuda.runtime.memcpyAsync(*self._upload)
            self._driver("start_graph", self._exec, self.stream)

    def _launch(self, target: int, first: int) -> Launch:
        params = self._params.copy()
        params["target"], params["first"] = target, first
        recorder = Recorder(self.backend)
        way = WAYS[self.way] if self.backend.name == "gpu" else 0
        kernel = recorder.function("graph_control", self.kernel, (f"WAY={way}",))
        kernel(1, THREADS, (Packed(params),))
        self._keep += recorder.launches
        return recorder.launches[0]

    def _new(self) -> tuple[Handle, Handle]:
        self._graphs.append((Handle(), Handle()))
        return self._graphs[-1]

    def _while(self) -> Handle:
        """One graph: the control once, then step and control while the condition holds."""
        (graph, graph_exec), condition = self._new(), ctypes.c_uint64()
        self._driver("open_while", ctypes.byref(graph), ctypes.byref(condition))
        enter, control = (self._launch(condition.value, first) for first in (1, 0))
        first = packed(enter, self.stream)
        self._driver("begin_while", graph, condition, first.launches, self.stream)
        try:
            with self.stream:
                self.step()
                control()
        finally:
            self._driver("finish_while", graph, self.stream, ctypes.byref(graph_exec))
        return graph_exec

    def _tail(self) -> Handle:
        """A graph of step and control, which launches itself, and one that launches it first."""
        again = self._device_graph([self.step, self._launch(0, 0)])
        return self._device_graph([self._launch(again.value or 0, 1)])

    def _device_graph(self, calls: list[Callable[[], None]]) -> Handle:
        captured = capture(self.stream, calls)
        self._keep.append(captured)
        _, graph_exec = self._new()  # the graph itself is CuPy's to destroy
        self._driver("device_graph", Handle(captured.graph), self.stream, ctypes.byref(graph_exec))
        return graph_exec


class Control(Repeat):
    """*step* over *state* in the device's hands, served through *mailbox* as the resident loop is.

    *step* is what `Repeat` takes; it leaves its tokens in *state*'s set number *output_set*. With
    nothing to do, or with outputs that nobody reads, the launch ends after *host_s*.
    """

    def __init__(
        self,
        backend: Backend,
        step: Callable[[], None],
        state: State,
        mailbox: Mailbox,
        *,
        way: str = "while",
        stream: Any = None,
        output_set: int = 0,
        host_s: float = 0.0,
    ) -> None:
        at = backend.address
        self.state, self.mailbox, self.desk = state, mailbox, Desk(backend, state, mailbox)
        params = np.zeros(1, PARAMS)
        params["control"] = self.desk.control(host_s=host_s)
        params["slots"] = state.fields()
        params["emitted"] = at(state.emitted[output_set])
        params["tokens"] = at(state.tokens[output_set])
        super().__init__(backend, step, params, way=way, stream=stream)

    def launch(self, max_steps: int) -> None:
        """Starts it for *max_steps* steps at most; it leaves sooner if the mailbox says so."""
        self.mailbox.status[:] = 0
        self.start(max_steps)

    def restart(self) -> None:
        """See `Desk.restart`."""
        self.desk.restart()
