"""Seconds of each stage of a step, over all layers, each stage replayed as a graph of its own."""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import numpy as np

from ..loop_control.constants import capture
from .modes import new_stream

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..backend import Gpu

FLUSH_BYTES = 200 << 20
"""Written before each replay, so that no stage finds in L2 what only another step would leave."""
REPEATS = 8
"""Of stages that run once a step, lest the graph's own launch be counted as theirs."""
ONCE = ("begin", "embed", "commit")


def stage_calls(step: Any) -> dict[str, list[Callable[[], Any]]]:
    """Launches of each stage of a library or fused step, in the order of the stages."""
    found: dict[str, list[Callable[[], Any]]] = {}
    if step.name == "library":
        for item in step.items:
            stage = item.name if item.name in ("score", "select") else item.stage
            found.setdefault(stage, []).append(item.call)
        return found
    first, *inner = step.launches[:-2]
    found["begin"] = [first]
    for i, name in enumerate(step.stages):
        found[name] = inner[i :: len(step.stages)]
    # Its commit takes what the head left behind, and must not run alone.
    return {**found, "head": [step.launches[-2]]}


def stage_seconds(gpu: Gpu, step: Any, samples: int = 12) -> dict[str, float]:
    """Median seconds a step of each stage of *step*.

    Changes the state as *samples* * `REPEATS` steps would.
    """
    stream = new_stream(gpu)
    flush = gpu.xp.empty(FLUSH_BYTES, np.uint8)
    found = {}
    for stage, calls in stage_calls(step).items():
        times = REPEATS if stage in ONCE else 1

        def run(calls: list[Callable[[], Any]] = calls, times: int = times) -> None:
            with step.products.stream() if step.name == "library" else nullcontext():
                for call in calls * times:
                    call()

        graph = capture(stream, [run])
        seconds = []
        with stream:
            for _ in range(2 + samples):
                flush.fill(1)
                start, end = gpu.xp.cuda.Event(), gpu.xp.cuda.Event()
                start.record(stream)
                graph.launch(stream)
                end.record(stream)
                end.synchronize()
                seconds.append(gpu.xp.cuda.get_elapsed_time(start, end) * 1e-3 / times)
        found[stage] = float(np.median(seconds[2:]))
    if step.name == "fused":
        step.best.fill(0)  # as its commit would have left it
    return found
