"""One decoder under four kinds of control: same launches or stages, same inputs, same outputs."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from ..page_score.launch import shared_bytes as score_bytes
from ..topk_select.launch import shared_bytes as select_bytes
from ..verify_commit.launch import shared_bytes as verify_bytes
from . import host_c
from .constants import capture
from .launch import Loop, edit_slot
from .mailbox import ADMIT, Mailbox, pinned

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ..backend import Array, Backend
    from .inputs import Inputs
    from .record import Launch

SPARSE, DENSE = (0, 1, 2, 3, 4), (0, 3, 4)
"""Which stages run, in the order of `launch.STAGES`."""


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

    The step number goes on from run to run; `rewind` puts it back to zero.
    """

    def __init__(self, backend: Backend, inputs: Inputs, sparse: bool) -> None:
        self.backend, self.inputs, self.state = backend, inputs, inputs.state
        self.sparse, self.step = sparse, 0
        self.recorded = inputs.record(sparse)
        chosen = SPARSE if sparse else DENSE
        self.launches: list[list[Launch]] = [[one[i] for i in chosen] for one in self.recorded]
        self.host: Array = pinned(backend, self.state.slab.shape, np.int32)
        self._done: Array = backend.xp.zeros(1, np.int32)
        self._request = np.zeros(0, np.int64)
        self._graphs: list[Any] = []

    def rewind(self, request: Any) -> None:
        """Back to step zero, with *request* [slots] in the slots."""
        self.step = 0
        self._request = np.asarray(request).astype(np.int64)

    # ------------------------------------------------------------------------ the host decides
    def copy_back(self, stream: Any) -> None:
        """Waits for the step and brings the slab to `host`."""
        if stream is None:
            self.host[...] = self.state.slab
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
    def loop(self, mailbox: Mailbox, *, threads: int = 256, **options: Any) -> Loop:
        """The resident loop over the same stages; *options* are `Loop`'s."""
        inputs, state = self.inputs, self.state
        shape = type(inputs.shape)(
            head_dim=inputs.shape.head_dim,
            group=inputs.shape.group,
            tokens=inputs.shape.tokens,
            page_tokens=inputs.shape.page_tokens,
            workers=min(8, threads // 32),
            shared_kb=220,
            blocks_per_sm=1,
        )
        rows = state.slots * inputs.model.kv_heads
        shared = max(
            shape.shared_bytes,
            score_bytes(state.slots),
            verify_bytes(state.slots, state.new_tokens),
            *(
                select_bytes(threads, blocks, rows, state.max_pages)
                for blocks in (self.backend.sms, max(1, self.backend.sms - 1))
            ),
        )
        defines = [d for d in shape.defines if not d.startswith("BLOCKS_PER_SM")]
        return Loop(
            self.backend,
            state,
            mailbox,
            [[launch.struct for launch in one] for one in self.recorded],
            defines=(*defines, "TARGET=__nv_bfloat16"),
            threads=threads,
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
