"""Times asynchronous copies and kernels without the host's submission in the figure.

One rule: the stream is held by a kernel until everything is queued, so that the events see the
device alone. Every sample is kept.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import numpy as np

from . import launch
from .movers import pinned

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..backend import Gpu

LIMIT_S = 0.5
QUEUE = 400
"""Most operations behind a hold: a full stream would block the host, which then never lets go."""


class Held:
    """A stream of its own with a hold; `with Held(gpu) as held:` makes it current."""

    def __init__(self, gpu: Gpu) -> None:
        self.gpu = gpu
        self.stream: Any = gpu.xp.cuda.Stream(non_blocking=True)
        self.flag = pinned(gpu, (1,), np.uint32)

    def __enter__(self) -> Held:
        self.stream.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self.stream.synchronize()
        self.stream.__exit__(*error)

    def close(self) -> None:
        """What is queued from here on waits for `release`."""
        self.flag[0] = 0
        launch.hold(self.gpu, self.flag, LIMIT_S)

    def release(self) -> None:
        """Lets what is queued run."""
        self.flag[0] = 1

    def event(self) -> Any:
        """An event recorded here and now on the stream."""
        event = self.gpu.xp.cuda.Event()
        event.record(self.stream)
        return event

    def seconds(
        self, work: Callable[[int], None], samples: int, warm: int = 2, hold: bool = True
    ) -> tuple[list[float], list[float]]:
        """Device seconds of `work(sample)`, and the host's seconds to queue it, of each sample.

        Without *hold* the stream is idle when the work comes, and waits for its submission.
        """
        device, host = [], []
        for sample in range(warm + samples):
            if hold:
                self.close()
            start = self.event()
            begin = time.perf_counter()
            work(sample)
            queued = time.perf_counter() - begin
            end = self.event()
            self.release()
            self.stream.synchronize()
            if sample >= warm:
                device.append(between(self.gpu, start, end))
                host.append(queued)
        return device, host


def between(gpu: Gpu, start: Any, end: Any) -> float:
    """Seconds from event *start* to event *end*, negative if it came earlier."""
    return float(gpu.xp.cuda.get_elapsed_time(start, end)) * 1e-3


def wall_seconds(gpu: Gpu, work: Callable[[int], None], samples: int, warm: int = 2) -> list[float]:
    """Seconds on the host's clock from the first submission of `work(sample)` to its end."""
    found = []
    stream = gpu.xp.cuda.get_current_stream()
    for sample in range(warm + samples):
        stream.synchronize()
        begin = time.perf_counter()
        work(sample)
        stream.synchronize()
        found.append(time.perf_counter() - begin)
    return found[warm:]
