"""The control's own memory on the device, and where it meets the host: `loop::Control`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .mailbox import CONTROL, GATE_WORDS

if TYPE_CHECKING:
    from ..backend import Array, Backend
    from .mailbox import Mailbox
    from .state import State


class Desk:
    """What a control over *state* keeps between launches; it is served through *mailbox*.

    One rule: every loop that decides on the device has one, whatever kernel does its steps.
    """

    def __init__(self, backend: Backend, state: State, mailbox: Mailbox) -> None:
        if (mailbox.slots, mailbox.new_tokens) != (state.slots, state.new_tokens):
            raise ValueError(f"mailbox for {mailbox.slots} slots, {state.slots} here")
        xp = backend.xp
        self.backend, self.state, self.mailbox = backend, state, mailbox
        self.queue: Array = xp.zeros(mailbox.entries.nbytes, np.uint8)
        self.counters: Array = xp.zeros(4, np.uint32)
        self.gates: Array = xp.zeros(GATE_WORDS, np.uint32)

    def control(
        self, *, watchdog_s: float | None = None, host_s: float = 0.0, dedicated: bool = False
    ) -> np.ndarray[Any, Any]:
        """The device's struct, as an array of one.

        A launch with nothing to do leaves after *host_s*; one that waits at a meeting for longer
        than *watchdog_s* aborts. Raises `ValueError` unless the first is the shorter.
        """
        if watchdog_s is not None and not 0 <= host_s < watchdog_s:
            raise ValueError(f"host_s {host_s} is not below watchdog_s {watchdog_s}")
        at, box = self.backend.address, self.mailbox
        value = np.zeros(1, CONTROL)
        for name in ("mail", "entries", "page_pool", "outputs", "status"):
            value[name] = at(getattr(box, name))
        for name in ("queue", "counters", "gates"):
            value[name] = at(getattr(self, name))
        value["request"] = at(self.state.request)
        value["queue_size"], value["outputs_size"] = len(box.entries), len(box.outputs)
        value["watchdog_ns"], value["host_ns"] = int((watchdog_s or 0) * 1e9), int(host_s * 1e9)
        value["dedicated"] = dedicated
        return value

    def restart(self) -> None:
        """Forgets steps and requests; for a new state between launches."""
        self.counters[...] = 0
        self.gates[...] = 0
        self.mailbox.restart()
        self.backend.synchronize()
