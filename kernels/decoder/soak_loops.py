"""The loops that a soak drives through a mailbox: two on the device, and a host that schedules."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

import numpy as np

from ..checking import on_host
from ..loop_control.launch import edit_slot
from ..loop_control.mailbox import ADMIT, CANCEL, FINISHED, NO_REQUEST, Reason
from .modes import HOST_S, Graph, HostPython, new_stream, on_stream

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..loop_control.mailbox import Mailbox

Entry = tuple[Any, ...]


class DeviceLoop:
    """A loop on the device, started by *start* on *stream*."""

    def __init__(self, start: Callable[[int], None], stream: Any) -> None:
        self._start, self._stream = start, stream

    def launch(self, most: int) -> None:
        """Starts it for *most* steps at most."""
        with on_stream(self._stream):
            self._start(most)

    def wait(self) -> None:
        """Until the launch has ended."""
        if self._stream is not None:
            self._stream.synchronize()


def resident_loop(step: Any, box: Mailbox, watchdog_s: float = 2.0) -> DeviceLoop:
    """The fused step in one persistent kernel."""
    from ..fused_step.resident import Resident

    stream = new_stream(step.backend)
    loop = Resident(step, box, watchdog_s=watchdog_s, host_s=HOST_S)
    step.backend.synchronize()
    return DeviceLoop(loop.launch, stream)


def control_loop(step: Any, box: Mailbox) -> DeviceLoop:
    """The launches of *step*, repeated by the device."""
    from .control import ResidentControl

    mode = ResidentControl(step, mailbox=box)
    return DeviceLoop(mode.launch, mode.stream)


class HostLoop:
    """A host that replays the step and, between steps, does what the device's loops do.

    It reads the mailbox and writes its outputs in the device's stead; `launch` returns at the end.
    """

    def __init__(self, step: Any, box: Mailbox) -> None:
        self.step, self.box, self.slots = step, box, step.state.slots
        self.mode: Any = Graph(step) if step.backend.name == "gpu" else HostPython(step)
        self.waiting: deque[Entry] = deque()
        self.seen = self.steps = 0
        self.request = np.full(self.slots.slots, NO_REQUEST, np.uint32)
        self._done = step.backend.xp.zeros(1, np.int32)
        self._slab()

    def launch(self, most: int) -> None:
        """Runs *most* steps at most."""
        box = self.box
        box.status[:] = 0
        reason = Reason.STEPS
        for _ in range(most):
            if (left := self._serve()) is not None:
                reason = left
                break
            before = self.lengths.copy()
            self.mode.run(1)
            self._slab(self.mode.host)
            self._publish(before)
        self.slots.request[0] = self.step.backend.xp.asarray(self.request)
        box.status[1] = self.steps
        box.status[0] = reason + 1

    def wait(self) -> None:
        """Nothing to wait for."""

    def _slab(self, host: Any = None) -> None:
        """Lengths, free pages and the tokens of the step, as the host holds them."""
        slots = self.slots
        slab = on_host(self.step.backend, slots.slab) if host is None else host
        self.lengths = slab[: slots.slots].copy()
        self.free = (int(slab[slots.slots + 1]) - int(slab[slots.slots])) % 2**32
        step = slab[slots.slots + 4 :].reshape(slots.sets, -1)[0]
        self.emitted = step[: slots.slots]
        self.tokens = step[slots.slots :].reshape(slots.slots, -1)

    def _serve(self) -> Reason | None:
        """Takes the mail, admits who fits; why there is no step to run."""
        box, slots = self.box, self.slots
        while self.seen != box.posted:
            entry = tuple(box.entries[self.seen % len(box.entries)].tolist())
            self.seen += 1
            if entry[0] == ADMIT:
                self.waiting.append(entry)
                continue
            self.waiting = deque(one for one in self.waiting if one[1] != entry[1])
            for slot in np.flatnonzero(self.request == entry[1]):
                self._edit((CANCEL, *entry[1:]), int(slot))
                self.request[slot] = NO_REQUEST
        for slot in np.flatnonzero(self.lengths == -1):
            if not self.waiting:
                break
            _, request, length, *_ = self.waiting[0]
            if -(-(length + slots.new_tokens) // slots.page_tokens) > self.free:
                break
            self._edit(self.waiting.popleft(), int(slot))
            self.request[slot] = request
        active = self.lengths[self.lengths != -1]
        if box.mail[1]:
            return Reason.ASKED
        if not len(active):
            return Reason.NO_PAGES if self.waiting else Reason.IDLE
        return Reason.NO_PAGES if (active < -1).all() else None

    def _edit(self, entry: Entry, slot: int) -> None:
        slots = self.slots
        edit_slot(self.step.backend, slots, entry, slot, slots.ring, self._done)
        self._slab()

    def _publish(self, before: Any) -> None:
        """The output row of the step, as control.cuh sends it."""
        row = self.box.outputs[self.steps % len(self.box.outputs)]
        held = self.request != NO_REQUEST
        ended = held & (self.lengths == -1)
        body = np.zeros((self.slots.slots, 2 + self.slots.new_tokens), np.uint64)
        body[:, 0] = np.where(held & (before >= 0), self.emitted, 0) + FINISHED * ended
        body[:, 1] = self.request
        body[:, 2:] = self.tokens.astype(np.uint32)
        self.request[ended] = NO_REQUEST
        self.steps += 1
        row[0], row[1] = self.seen - len(self.waiting), int((self.lengths != -1).sum())
        row[2:] = body.reshape(-1)
        row += np.uint64(self.steps << 32)
