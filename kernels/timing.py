"""Times GPU work by CUDA-graph replay, so that a launch's cost on the host is not part of it.

One rule: every sample is kept; nobody averages here. A time includes the gap between two nodes of a
graph, as in a real step (`graph_node_s` of the profile).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .backend import Gpu

SAMPLE_S = 400e-6
"""A sample spans at least this long, so that the graph's own launch is below one percent."""


def graph_seconds(
    gpu: Gpu,
    calls: Sequence[Callable[[], None]],
    samples: int = 30,
    warm: int = 3,
    least_calls: int = 20,
) -> list[float]:
    """Seconds a call, one figure a sample; each sample replays every call at least once.

    A sample spans `SAMPLE_S` and *least_calls* calls at least; with 1, the span alone decides.

    Give *calls* that rotate over buffers of more than five times the L2 cache together, so that
    they find it cold. All launches must go to CuPy's current stream.
    """
    xp: Any = gpu.xp
    stream = xp.cuda.Stream(non_blocking=True)
    with stream:
        for call in calls:
            call()
        stream.synchronize()
        once = _replay(xp, stream, _capture(stream, calls, 1), 2)[-1]
        rounds = max(1, -(-least_calls // len(calls)), round(SAMPLE_S / max(once, 1e-7)))
        graph = _capture(stream, calls, min(rounds, -(-400 // len(calls))))
        count = min(rounds, -(-400 // len(calls))) * len(calls)
        return [seconds / count for seconds in _replay(xp, stream, graph, warm + samples)[warm:]]


def _capture(stream: Any, calls: Sequence[Callable[[], None]], rounds: int) -> Any:
    stream.begin_capture()
    for _ in range(rounds):
        for call in calls:
            call()
    graph = stream.end_capture()
    graph.upload(stream)
    return graph


def _replay(xp: Any, stream: Any, graph: Any, times: int) -> list[float]:
    events = [(xp.cuda.Event(), xp.cuda.Event()) for _ in range(times)]
    for start, end in events:
        start.record(stream)
        graph.launch(stream)
        end.record(stream)
    stream.synchronize()
    return [xp.cuda.get_elapsed_time(start, end) * 1e-3 for start, end in events]
