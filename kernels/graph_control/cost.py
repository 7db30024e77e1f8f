"""What a turn on the device costs beyond the step: empty steps of a few sizes, every way.

Every figure is a list of samples in seconds a turn; nobody averages here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ..loop_control.constants import capture, event_seconds
from ..loop_control.host_c import LaunchList
from ..loop_control.record import Launch
from .launch import PARAMS, WAYS, Repeat

if TYPE_CHECKING:
    from ..backend import Gpu

NODES = (1, 10, 100)


def turns(gpu: Gpu, many: int = 2000, samples: int = 7) -> list[dict[str, Any]]:
    """One record a way and a number of empty nodes: a turn of the device, or of a C host.

    `host` are graphs that a C host replays and waits for, `stream` those it only submits.
    """
    raw = gpu.raw("loop_control", "probe_empty")
    call = gpu.function("loop_control", "probe_empty")
    empty = Launch(call, (gpu.sms, 1, 1), 128, 0, (np.uint64(0),), raw)
    stream, records = gpu.xp.cuda.Stream(non_blocking=True), []
    for nodes in NODES:

        def step(nodes: int = nodes) -> None:
            for _ in range(nodes):
                empty()

        graph = capture(stream, [step])
        for way in WAYS:
            repeat = Repeat(
                gpu, step, np.zeros(1, PARAMS), kernel="probe_repeat", way=way, stream=stream
            )

            def once(repeat: Repeat = repeat) -> None:
                repeat.start(many)

            with stream:
                spent = [event_seconds(gpu, once) / many for _ in range(samples + 1)]
            if int(repeat.words[1]) != many:
                raise RuntimeError(f"{way}: {int(repeat.words[1])} turns instead of {many}")
            records.append({"way": way, "nodes": nodes, "samples_s": spent[1:]})
        for way, sync in (("host", True), ("stream", False)):
            host = LaunchList([[empty]], stream, sync=sync)
            host.replay([graph], 0, 50)
            with stream:
                spent = [
                    event_seconds(gpu, lambda host=host, graph=graph: host.replay([graph], 0, 200))  # type: ignore[misc]
                    / 200
                    for _ in range(samples)
                ]
            records.append({"way": way, "nodes": nodes, "samples_s": spent})
    return records
