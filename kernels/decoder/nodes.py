"""A C host for any captured step: the nodes of its graph, launched one by one (`nodes.c`).

Nothing of the step is written twice: what a graph of cuBLAS calls and our kernels holds is what the
host launches, with the same parameters, clusters and copies, so that the two differ in submission
alone. Also graphs whose kernels start before their predecessors end, and mode H2.
"""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING, Any

import numpy as np

from ..build import HERE
from ..graph_control.driver import Handle, driver
from ..loop_control.constants import capture
from ..loop_control.host_c import HostError, LaunchList
from ..loop_control.mailbox import pinned
from .modes import capture_step, new_stream

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..backend import Gpu
    from ..loop_control.record import Launch
    from .modes import Step

SOURCE = HERE / "decoder" / "nodes.c"
KINDS = {0: "kernels", 1: "copies", 2: "memsets"}
"""By the driver's number of a node's type."""
MOST_HELD = 900
"""Launches that fit a stream's queue while something holds it."""
HOLD_NS = np.uint64(1_000_000_000)


class _List(ctypes.Structure):
    _fields_ = (
        ("count", ctypes.c_int),
        ("kinds", ctypes.c_int * 16),
        ("chain", ctypes.c_int),
        ("clusters", ctypes.c_int),
        ("early", ctypes.c_int),
        ("node", ctypes.c_void_p),
    )


class NodeList(LaunchList):
    """Steps as the nodes of *graphs* (one, or one a set), ended by a copy of *slab* to *host*.

    The graphs are CuPy's and are kept, for the nodes' parameters lie in them. *host* is pinned;
    without *slab* nothing is copied. With *sync* every step waits for its end. Raises
    `HostError` for a node that no host can launch.
    """

    def __init__(
        self, graphs: Any, stream: Any, slab: Any = None, host: Any = None, sync: bool = True
    ) -> None:
        self.graphs = list(graphs) if isinstance(graphs, (list, tuple)) else [graphs]
        super().__init__([()] * len(self.graphs), stream, slab, host, sync)
        self._driver = driver(SOURCE)
        self._lists: list[_List] = []
        for graph in self.graphs:
            found = _List()
            self._lists.append(found)
            self._driver("read_nodes", Handle(graph.graph), stream, ctypes.byref(found))
        self._array = (ctypes.POINTER(_List) * len(self._lists))(
            *(ctypes.pointer(one) for one in self._lists)
        )
        self.submitted = np.zeros(0)
        """Seconds that the launches alone took, of each step of the last run."""

    def __del__(self) -> None:
        for found in getattr(self, "_lists", ()):
            self._driver.free("free_nodes", ctypes.byref(found))

    @property
    def nodes(self) -> int:
        """Launches of a step."""
        return int(self._lists[0].count)

    @property
    def about(self) -> dict[str, Any]:
        """What the first step's graph holds, and whether it is a `chain`."""
        first = self._lists[0]
        found = {name: first.kinds[kind] for kind, name in KINDS.items()}
        return found | {
            "clusters": first.clusters,
            "early": first.early,
            "chain": bool(first.chain),
        }

    def run(self, begin: int, steps: int) -> np.ndarray[Any, Any]:
        """Runs *steps* steps from number *begin*: wall seconds of each."""
        seconds: np.ndarray[Any, Any] = self.launch(begin, steps)[0]
        return seconds

    def launch(self, begin: int, steps: int, keep: bool = False) -> tuple[Any, Any]:
        """`run`, and every step's copy of the slab if *keep*."""
        self.submitted = np.zeros(steps)
        return self._run(
            lambda results, seconds: self._driver(
                "run_nodes",
                self._array,
                len(self._lists),
                begin,
                steps,
                ctypes.byref(self._back),
                results,
                self.stream,
                self.submitted,
                seconds,
            ),
            steps,
            keep,
        )

    def submission(self, gpu: Gpu, samples: int = 30) -> np.ndarray[Any, Any]:
        """Seconds to submit a step while the stream is held, so that no launch waits for room.

        Changes the state as *samples* steps do.
        """
        if self.nodes > MOST_HELD:
            raise HostError(f"{self.nodes} nodes do not fit the stream's queue")
        hold = gpu.function("loop_control", "probe_echo")
        mail, reply = pinned(gpu, 4, np.uint32), pinned(gpu, 1, np.uint64)
        words = (np.uint64(gpu.address(mail)), np.uint64(gpu.address(reply)))
        seconds = np.zeros(samples)
        for i in range(samples):
            mail[:] = 0
            with self.stream:
                hold(1, 32, (*words, np.uint32(1), HOLD_NS))
            self._driver(
                "submit_nodes",
                ctypes.byref(self._lists[i % len(self._lists)]),
                self.stream,
                seconds[i:],
            )
            mail[0] = 1
            self.stream.synchronize()
        return seconds


class EarlyLaunches:
    """Launches that may start before their predecessors have ended, on CuPy's current stream.

    A kernel that may must wait by griddepcontrol.wait before it reads what another wrote or writes
    what another reads: also if it needs its own predecessor only, lest the order break for its
    successor. *early* says which kernels do, all or none or one by one; the first waits for
    whatever the stream holds. *stream* is one in the current one's place.
    """

    def __init__(
        self, launches: Sequence[Launch], stream: Any = None, early: bool | Sequence[bool] = True
    ) -> None:
        self.stream, self._count = stream, len(launches)
        self._flat = LaunchList([launches], stream)
        self._early = np.zeros(len(launches), np.int32)
        self._early[:] = early

    def __call__(self) -> None:
        """Launches all, or adds them to the graph that is being captured on the stream."""
        stream = self.stream
        if stream is None:
            import cupy

            stream = cupy.cuda.get_current_stream()
        driver(SOURCE)("launch_early", self._flat.launches, self._count, self._early, stream)


def programmatic_graph(
    launches: Sequence[Launch], stream: Any, early: bool | Sequence[bool] = True
) -> Any:
    """The CuPy graph of `EarlyLaunches`: good for `LaunchList.replay` and for `NodeList`."""
    return capture(stream, [EarlyLaunches(launches, early=early)])


class HostC:
    """H2: a C host launches the kernels of a step one by one, copies the slab back and waits."""

    name = "host-c"

    def __init__(self, step: Step, graph: Any = None) -> None:
        """*graph* is the captured *step*, if there is one already."""
        self.step, self.stream = step, new_stream(step.backend)
        slab = step.state.slots.slab
        self.host = pinned(step.backend, slab.shape, np.int32)
        graph = graph or capture_step(step, self.stream)
        self.list: NodeList | None = NodeList(graph, self.stream, slab, self.host)
        self.nodes: int | None = self.list.nodes

    def run(self, steps: int) -> list[float]:
        """See `modes.Mode.run`."""
        assert self.list is not None
        self.step.backend.synchronize()
        return [float(one) for one in self.list.run(0, steps)]

    def close(self) -> None:
        """Drops the graph and its nodes."""
        self.list = None
