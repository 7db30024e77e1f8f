"""The fused step in one persistent kernel."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ..loop_control.desk import Desk
from ..loop_control.launch import Packed
from ..loop_control.mailbox import CONTROL
from ..loop_control.record import Recorder
from ..loop_control.state import SLOTS
from ..page_score.launch import PARAMS as SCORE
from ..topk_select.launch import PARAMS as SELECT
from .launch import PARAMS, THREADS

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..backend import Array
    from ..loop_control.mailbox import Mailbox
    from .launch import FusedStep


class Resident:
    """The fused step in one persistent kernel, served through *mailbox*.

    Block 0 keeps the control and commits; the model's workers do the rest. A launch that waits at a
    meeting for longer than *watchdog_s* aborts; with nothing to do it leaves after *host_s*. With
    *stamps*, `stamps` int64 [workers, events] holds the clocks of the last step: begin and end of
    each stage of each layer, then of the head.
    """

    def __init__(
        self,
        step: FusedStep,
        mailbox: Mailbox,
        *,
        watchdog_s: float = 2.0,
        host_s: float = 0.0,
        stamps: bool = False,
    ) -> None:
        backend, state = step.backend, step.state
        xp: Any = backend.xp
        self.backend, self.step, self.mailbox = backend, step, mailbox
        if step.model.workers + 1 > backend.sms and backend.name == "gpu":
            raise ValueError(f"fused_step: {step.model.workers} workers and the control block")
        self.desk = Desk(backend, state.slots, mailbox)
        events = 2 * (len(step.stages) * step.model.shape.layers + 1)
        self.stamps: Array = xp.zeros((step.model.workers, events), np.int64)
        value = np.zeros(1, _layout(bool(step.budget_pages)))
        value["common"] = step.params.value
        value["control"] = self.desk.control(watchdog_s=watchdog_s, host_s=host_s, dedicated=True)
        value["slots"] = state.slots.fields()
        value["sets"], value["stamp_words"] = state.slots.sets, events
        value["stamps"] = backend.address(self.stamps) if stamps else 0
        if step.budget_pages:
            for name in ("score", "select"):
                value[name] = step.selection(name, 0).struct
        self.params = Packed(value, (step, mailbox, self))
        self._most = value["control"]["max_steps"]
        recorder = Recorder(backend)
        kernel = recorder.function("fused_step", "resident", step.defines)
        kernel(step.model.workers + 1, THREADS, (self.params,), step.shared)
        self.recorded = recorder.launches[0]
        self.start: Callable[[], None] = self.recorded
        """Launches `recorded`, on the current stream; a host in C may put its own way here."""

    def launch(self, max_steps: int) -> None:
        """Starts the loop on the current stream for *max_steps* steps at most."""
        self.mailbox.status[:] = 0
        self._most[0] = max_steps
        self.start()

    def restart(self) -> None:
        """See `Desk.restart`."""
        self.desk.restart()


def _layout(sparse: bool) -> np.dtype[Any]:
    stages = [("score", SCORE), ("select", SELECT)] if sparse else []
    fields = [("common", PARAMS), ("control", CONTROL), ("slots", SLOTS), *stages]
    return np.dtype([*fields, ("stamps", "u8"), ("sets", "i4"), ("stamp_words", "i4")], align=True)
