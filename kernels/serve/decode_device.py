"""Decode loops on the device: R1 (a captured step under a WHILE node) and R2 (one kernel).

The host enters such a loop with the slots as they are, reads its tokens from pinned memory, and has
it leave at a token boundary; nothing is admitted inside. Each size of batch has a loop of its own.
"""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from ..decoder.modes import HOST_S, launch_of, on_stream, warm
from ..loop_control.host_c import HostError
from ..loop_control.mailbox import NO_REQUEST, Mailbox, Reason, pinned
from .from_c import from_c

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..backend import Array, Backend
    from ..decoder.modes import Step
    from .slots import Slots

WATCHDOG_S = 2.0
"""A meeting inside the kernel that takes longer aborts the launch."""
PATIENCE_S = 5.0
"""How long the host waits for a loop that says nothing."""
POLLS = 4096
"""Looks at the row between two looks at the clock."""
BAD = (Reason.ABORTED, Reason.UNREAD, Reason.NO_PAGES)


class Loop:
    """One loop over the slots of *step*, by mode `control` or `resident`."""

    def __init__(self, mode: str, step: Any, stream: Any) -> None:
        slots = step.state.slots
        self.slots, self.words = slots, pinned(step.backend, slots.request.shape, np.uint32)
        self._send = _upload(step.backend, slots.request, self.words, stream)
        self.box = Mailbox(step.backend, slots.slots, slots.new_tokens)
        self.loop: Any
        with on_stream(stream):
            if mode == "control":
                from ..graph_control.launch import Control

                warm(step)
                self.loop = Control(
                    step.backend, launch_of(step, stream), slots, self.box,
                    way="while", stream=stream, host_s=HOST_S,
                )  # fmt: skip
            else:
                from ..fused_step.resident import Resident

                self.loop = Resident(step, self.box, watchdog_s=WATCHDOG_S, host_s=HOST_S)
                if stream is not None:
                    self.loop.start = from_c([self.loop.recorded], stream)
            step.backend.synchronize()

    def enter(self, holders: list[int], most: int) -> None:
        """Starts it for *most* steps at most over requests *holders* (-1 for an idle slot).

        The last run must be over and its stream waited for: what is sent lies in pinned memory.
        """
        self.words[0] = [NO_REQUEST if one < 0 else one for one in holders]
        self._send()
        self.box.ask_to_leave(False)
        self.loop.launch(most)


def _upload(
    backend: Backend, array: Array, host: np.ndarray[Any, Any], stream: Any
) -> Callable[[], None]:
    """A call that copies *host*, pinned, to *array* as *stream* gets there."""
    if stream is None:

        def copy() -> None:
            array[...] = host

        return copy
    ends = array.data.ptr, host.ctypes.data
    return partial(backend.xp.cuda.runtime.memcpyAsync, *ends, host.nbytes, 1, stream.ptr)


class LoopRunner:
    """Enters, reads and leaves the loops of *steps*, by size of batch."""

    def __init__(self, mode: str, steps: dict[int, Step], stream: Any) -> None:
        self.loops = {size: Loop(mode, step, stream) for size, step in steps.items()}
        self.stream = stream
        self.inside: Loop | None = None

    def enter(self, slots: Slots, size: int, most: int) -> None:
        """Starts the loop of *size* over what *slots* say."""
        self.inside = self.loops[size]
        holders = [-1 if one is None else one.id for one in slots.holders[:size]]
        self.inside.enter(holders, most)

    def ask(self) -> None:
        """Wishes the loop to leave."""
        assert self.inside is not None
        self.inside.box.ask_to_leave()

    def row(self, meanwhile: Callable[[], None]) -> tuple[list[int], list[list[int]]] | None:
        """See `engine.ResidentDevice.row`; raises `HostError` if the loop hangs or gave up."""
        assert self.inside is not None
        box, since, polls = self.inside.box, time.perf_counter(), 0
        while True:
            ended = box.reason()  # before the row: its last one came first
            row = box.read()
            if row is not None:
                counts = row.emitted.tolist()
                return counts, [t[:n] for t, n in zip(row.tokens.tolist(), counts, strict=True)]
            if ended is not None:
                break
            meanwhile()
            polls += 1
            if polls % POLLS == 0 and time.perf_counter() - since > PATIENCE_S:
                raise HostError(f"the loop has said nothing for {PATIENCE_S} s")
        if self.stream is not None:
            self.stream.synchronize()
        if ended in BAD:
            raise HostError(f"the loop left because of {ended!r}")
        self.inside = None
        return None
