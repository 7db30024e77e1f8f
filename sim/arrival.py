"""Arrivals: one process walks the trace and hands each request over at its time.

The trace's clock is divided by `rate_scale`: at 2, the same requests come twice as fast.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

from .errors import InputError
from .request import Request
from .trace.bounds import MAX_SECONDS

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable

    from simpy.events import Event

    from .clock import Clock
    from .trace.chunk import Chunk


class Arrivals:
    """Counts what arrived; `arrive` is the process."""

    def __init__(
        self,
        clock: Clock,
        chunks: Iterable[Chunk],
        rate_scale: float,
        submit: Callable[[Request], None],
        stop_at: float = inf,
    ) -> None:
        self.clock = clock
        self.chunks = chunks
        self.rate_scale = rate_scale
        self.submit = submit
        self.stop_at = stop_at
        self.count = 0
        self.prefix_ids = False
        """Whether the trace says which prompts share a prefix."""
        clock.process(self.arrive())

    def arrive(self) -> Generator[Event, None, None]:
        """Open loop: arrivals do not wait for answers. Ends with the trace or at *stop_at*."""
        clock, submit = self.clock, self.submit
        for chunk in self.chunks:
            self.prefix_ids |= chunk.block_ids is not None
            times = (chunk.arrival_s / self.rate_scale).tolist()
            if times[-1] > MAX_SECONDS:
                raise InputError(
                    f"trace: a request arrives after {times[-1]:g} s, beyond {MAX_SECONDS:g} s, "
                    "where a clock no longer resolves microseconds; raise trace.rate_scale or cut "
                    "the trace"
                )
            prompts, outputs = chunk.prompt_tokens.tolist(), chunk.output_tokens.tolist()
            for time, prompt, output in zip(times, prompts, outputs, strict=True):
                if time > clock.now:
                    if time > self.stop_at:
                        return
                    yield clock.at(time)
                submit(Request(self.count, time, prompt, output))
                self.count += 1
