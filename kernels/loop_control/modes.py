"""One decoder under four kinds of control: same launches or stages, same inputs, same outputs."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ..checking import on_host
from . import host_c
from .constants import capture
from .launch import STAGES, Loop, Packed, edit_slot, step_layout
from .mailbox import ADMIT, Mailbox, pinned
from .record import Recorder

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ..backend import Array, Backend
    from .inputs import Inputs
    from .record import Launch

SPARSE, DENSE = (0, 1, 2, 3, 4), (0, 3, 4)
"""Which stages run, in the order of `launch.STAGES`."""
SHARED_KB = 220
"""Shared memory that attention's rings may fill."""
THREADS = 256
"""A block of every mode: eight warps, so that attention's accumulators fit."""


@dataclass(slots=True)
class Emitted:
    """What requests received, over all steps."""

    tokens: dict[int, list[int]] = field(default_factory=dict)
    steps: int = 0

    def add(self, request: int, tokens: Iterable[int]) -> None:
        """Appends *tokens* to those of *request*."""
        self.tokens.setdefault(int(request), []).extend(int(token) for token in tokens)


class Decoder:
    """Stages of *inputs* over its state, to be driven by any of the modes.

    Hosts launch the loop's own stages: same code, same block, one block an SM. `own` are the
    launches that the stages' launchers would make instead. The step number goes on from run to run;
    `rewind` puts it back to zero.
    """

    def __init__(self, backend: Backend, inputs: Inputs, sparse: bool) -> None:
        self.backend, self.inputs, self.state = backend, inputs, inputs.state
        self.sparse, self.step = sparse, 0
        self.stages = SPARSE if sparse else DENSE
        self.own = inputs.record(sparse)
        shape = replace(
            inputs.shape, workers=min(8, THREADS // 32), shared_kb=SHARED_KB, blocks_per_sm=1
        )
        macros = [macro for macro in shape.defines if not macro.startswith("BLOCKS_PER_SM")]
        self.defines = ("STAGES=1", *macros, "TARGET=__nv_bfloat16")
        self.shared = self._sizes(backend.sms)
        self.recorded = [self._as_stages(one) for one in self.own]
        self.launches = [[one[i] for i in self.stages] for one in self.recorded]
        self.host: Array = pinned(backend, self.state.slab.shape, np.int32)
        self._done: Array = backend.xp.zeros(1, np.int32)
        self._request = np.zeros(0, np.int64)
        self._graphs: list[Any] = []

    def _sizes(self, blocks: int) -> list[int]:
        """Dynamic shared memory of each stage."""
        structs = [launch.struct for launch in self.own[0]]
        step = np.zeros(1, step_layout(structs))
        for name, struct in zip(STAGES, structs, strict=True):
            step[name] = struct
        sizes = self.backend.xp.zeros(len(STAGES), np.int32)
        macros = (*self.defines, f"THREADS={THREADS}")
        kernel = self.backend.function("loop_control", "stage_sizes", macros)
        kernel(1, 32, (Packed(step), np.int32(THREADS), np.int32(blocks), sizes))
        found = [int(size) for size in on_host(self.backend, sizes)]
        found[1] = self.own[0][1].shared  # the same for any block
        return found

    def _as_stages(self, own: list[Launch]) -> list[Launch]:
        recorder = Recorder(self.backend)
        macros = (*self.defines, f"THREADS={THREADS}")
        for name, shared, launch in zip(STAGES, self.shared, own, strict=True):
            kernel = recorder.function("loop_control", f"stage_{name}", macros)
            kernel(self.backend.sms, THREADS, launch.args, shared)
        return recorder.launches

    def rewind(self, request: Any) -> None:
        """Back to step zero, with *request* [slots] in the slots."""
        self.step = 0
        self._request = np.asarray(request).astype(np.int64)

    # ------------------------------------------------------------------------ the host decides
    def copy_back(self, stream: Any) -> None:
        """Waits for the step and brings the slab to `host`."""
        if stream is None:
            self.host[...] = on_host(self.backend, self.state.slab)
        else:
            self.state.slab.get(stream=stream, out=self.host, blocking=False)
            stream.synchronize()

    def host_steps(self, steps: int, stream: Any = None) -> list[float]:
        """Launches *steps* steps from Python, with a copy-back and a sync each; seconds of each."""
        seconds = []
        for _ in range(steps):
            begin = time.perf_counter()
            for launch in self.launches[self.step % self.state.sets]:
                launch()
            self.copy_back(stream)
            self.step += 1
            seconds.append(time.perf_counter() - begin)
        return seconds

    def c_steps(self, steps: int, stream: Any) -> list[float]:
        """`host_steps`, launched from C."""
        seconds = self.host_list(stream).launch(self.step, steps)[0]
        self.step += steps
        return [float(one) for one in seconds]

    def graph_steps(self, steps: int, stream: Any) -> list[float]:
        """`host_steps`, each a graph that is replayed."""
        if not self._graphs:
            self._graphs = [capture(stream, launches) for launches in self.launches]
        seconds = self.host_list(stream).replay(self._graphs, self.step, steps)[0]
        self.step += steps
        return [float(one) for one in seconds]

    def schedule(self, before: Any, waiting: list[tuple[int, int, int]], emitted: Emitted) -> None:
        """What a host does after a step: reads tokens, frees slots, admits from *waiting*.

        *before* are the slots' lengths when the step began; an entry is (request, length,
        remaining).
        """
        state, slots = self.state, self.state.slots
        index = (self.step - 1) % state.sets
        lengths = self.host[:slots]
        step = self.host[slots + 4 :].reshape(state.sets, -1)[index]
        tokens = step[slots:].reshape(slots, -1)
        for slot in np.flatnonzero(before >= 0):
            emitted.add(self._request[slot], tokens[slot, : step[slot]])
        emitted.steps += 1
        free = int(self.host[slots + 1]) - int(self.host[slots])
        for slot in np.flatnonzero(lengths == -1):
            if not waiting:
                break
            request, length, remaining = waiting[0]
            needed = -(-(length + state.new_tokens) // state.page_tokens)
            if needed > free:
                break
            waiting.pop(0)
            entry = (ADMIT, request, length, remaining, 0, 0, (0, 0))
            edit_slot(self.backend, state, entry, int(slot), state.ring, self._done)
            self._request[slot], free = request, free - needed
            self.host[slot] = length

    # ------------------------------------------------------------------------ the loop decides
    def loop(self, mailbox: Mailbox, **options: Any) -> Loop:
        """The resident loop over the same stages; *options* are `Loop`'s."""
        shared = max(self.shared + self._sizes(max(1, self.backend.sms - 1)))
        return Loop(
            self.backend,
            self.state,
            mailbox,
            [[launch.struct for launch in one] for one in self.own],
            defines=self.defines,
            threads=THREADS,
            shared=shared,
            sparse=self.sparse,
            **options,
        )

    def host_list(self, stream: Any, sync: bool = True, copy: bool = True) -> host_c.LaunchList:
        """The steps as a launch list of the C host, with or without its copy-back."""
        slab, host = (self.state.slab, self.host) if copy else (None, None)
        return host_c.LaunchList(self.launches, stream, slab, host, sync)


def drain(mailbox: Mailbox, emitted: Emitted) -> None:
    """Adds every complete output row of *mailbox* to *emitted*."""
    for row in mailbox.read_all():
        busy = False
        for slot in np.flatnonzero(row.request != 0xFFFFFFFF):
            emitted.add(row.request[slot], row.tokens[slot, : row.emitted[slot]])
            busy = True
        emitted.steps += busy
