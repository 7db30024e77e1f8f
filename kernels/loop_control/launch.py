"""Launcher of the resident loop, and of what a host uses that decides itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ..backend import Struct, layout
from .desk import Desk
from .mailbox import CONTROL, ENTRY, Mailbox
from .record import Launch, Recorder
from .state import SLOTS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..backend import Array, Backend
    from .state import State

STAGES = ("append", "score", "select", "attend", "verify")
MOVES = {
    "append": ("k", "v", "cache", "minmax"),
    "score": ("q", "minmax"),
    "select": (),
    "attend": ("q", "cache", "out"),
    "verify": ("target", "draft", "tokens", "emitted"),
}
"""Pointers of each stage that differ between input sets."""
MOVING = layout(
    *((name, "i8") for name in (*MOVES["append"], "q", "out", *MOVES["verify"])),
    ("sent_emitted", "u8"),
    ("sent_tokens", "u8"),
)
STAMPS = 16


class Packed(Struct):
    """A struct whose bytes are ready; *keep* are the arrays that it points to."""

    def __init__(self, value: np.ndarray[Any, Any], keep: Any = ()) -> None:
        self.value = value
        self.keep = {"keep": keep}


class Loop:
    """The resident loop over *state*, served through *mailbox*.

    *steps* holds for each input set the stages' parameter structs in the order of `STAGES`, and
    *defines* are the macros of their build; with none given only the control runs. *sparse* turns
    scoring and selection on; *dedicated* keeps block 0 for the control alone. A launch that waits
    at a meeting for longer than *watchdog_s* aborts; with nothing to do, or with outputs that
    nobody reads, it leaves after *host_s*.
    """

    def __init__(
        self,
        backend: Backend,
        state: State,
        mailbox: Mailbox,
        steps: Sequence[Sequence[np.ndarray[Any, Any]]] = (),
        *,
        defines: Sequence[str] = ("STAGES=0",),
        threads: int = 256,
        shared: int = 0,
        sparse: bool = True,
        dedicated: bool = False,
        watchdog_s: float = 2.0,
        host_s: float = 0.0,
        stamp_rows: int = 0,
    ) -> None:
        if steps and len(steps) != state.sets:
            raise ValueError(f"loop_control: {len(steps)} steps for {state.sets} sets")
        if threads % 32 or not 64 <= threads <= 1024:
            raise ValueError(f"loop_control: {threads} threads")
        xp = backend.xp
        self.backend, self.state, self.mailbox = backend, state, mailbox
        self.threads, self.shared, self.dedicated = threads, shared, dedicated
        self.desk = Desk(backend, state, mailbox)
        self.stamps: Array = xp.zeros((max(1, stamp_rows), STAMPS), np.int64)
        control = self.desk.control(watchdog_s=watchdog_s, host_s=host_s, dedicated=dedicated)
        control["stamps"], control["stamp_rows"] = backend.address(self.stamps), stamp_rows
        self.params = self._params(control, steps, sparse)
        self._defines = (*defines, f"THREADS={threads}")
        self._kernel = backend.function("loop_control", "resident", self._defines)

    def launch(self, max_steps: int, blocks: int | None = None) -> None:
        """Starts the loop on the current stream for *max_steps* steps at most.

        At most one block an SM, so that all are resident at once. On the CPU it returns when the
        loop has ended.
        """
        grid = blocks or self.backend.sms
        if grid <= self.dedicated:
            raise ValueError(f"loop_control: {grid} blocks, dedicated {self.dedicated}")
        self.mailbox.status[:] = 0
        self.params.value["control"]["max_steps"] = max_steps
        self._kernel(grid, self.threads, (self.params,), self.shared)

    def recorded(self, max_steps: int) -> Launch:
        """What `launch` would do, for a host in C; it must clear the status word itself."""
        recorder = Recorder(self.backend)
        self.params.value["control"]["max_steps"] = max_steps
        kernel = recorder.function("loop_control", "resident", self._defines)
        kernel(self.backend.sms, self.threads, (self.params,), self.shared)
        return recorder.launches[0]

    def restart(self) -> None:
        """See `Desk.restart`."""
        self.desk.restart()

    def _params(
        self,
        control: np.ndarray[Any, Any],
        steps: Sequence[Sequence[np.ndarray[Any, Any]]],
        sparse: bool,
    ) -> Packed:
        state, box, at = self.state, self.mailbox, self.backend.address
        structs = steps[0] if steps else ()
        value = np.zeros(1, params_layout(structs))
        value["control"] = control
        value["slots"] = state.fields()
        value["sets"], value["sparse"] = state.sets, sparse
        for name, struct in zip(STAGES, structs, strict=False):
            value["step"][name] = struct[0]
        moving = np.zeros(state.sets, MOVING)
        for index, one in enumerate(moving):
            for stage, struct in zip(STAGES, steps[index] if steps else (), strict=False):
                _take_moving(one, stage, struct, structs[STAGES.index(stage)])
            one["sent_emitted"] = at(state.emitted[index])
            one["sent_tokens"] = at(state.tokens[index])
        self._moving = self.backend.xp.asarray(moving.view(np.uint8))
        value["moving"] = at(self._moving)
        return Packed(value, (state, box, steps))


def _take_moving(one: Any, stage: str, struct: Any, first: Any) -> None:
    """Notes how far *struct* lies from *first*; fields that may not move must be equal."""
    for name in struct.dtype.names:
        if name in MOVES[stage]:
            one[name] = int(struct[name][0]) - int(first[name][0])
        elif struct[name][0] != first[name][0]:
            raise ValueError(f"loop_control: {stage}.{name} differs between input sets")


def step_layout(structs: Sequence[np.ndarray[Any, Any]]) -> np.dtype[Any]:
    """The device's `loop::Step` for stages with these parameters; without any, empty stages."""
    types = [struct.dtype for struct in structs] or [np.dtype([("unused", "i4")])] * len(STAGES)
    return np.dtype(list(zip(STAGES, types, strict=True)), align=True)


def params_layout(structs: Sequence[np.ndarray[Any, Any]]) -> np.dtype[Any]:
    """The device's `loop::Params` for such stages."""
    fields = [("control", CONTROL), ("slots", SLOTS), ("step", step_layout(structs))]
    return np.dtype([*fields, ("moving", "u8"), ("sets", "i4"), ("sparse", "i4")], align=True)


def edit_slot(
    backend: Backend, state: State, entry: tuple[Any, ...], slot: int, pool: Array, done: Array
) -> None:
    """One block admits *entry* (an `ENTRY` tuple) to *slot* or ends the request there.

    *pool* holds pages handed over, *done* int32 [1] receives 1 if it worked.
    """
    kernel = backend.function("loop_control", "edit_slot")
    packed = Packed(np.array([entry], ENTRY))
    where = np.uint64(backend.address(pool))
    kernel(1, 128, (Packed(state.fields()), where, packed, np.int32(slot), done))
