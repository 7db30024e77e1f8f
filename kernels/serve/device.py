"""The device of the engine: decode steps of one mode, prompts, and slots that both sides know."""

from __future__ import annotations

from dataclasses import dataclass
from math import nan
from typing import TYPE_CHECKING, Any

import numpy as np

from ..checking import on_host
from ..decoder.state import DecoderState, Pool
from ..loop_control.mailbox import pinned
from ..loop_control.record import Recorder
from . import launch as own
from .blocks import Pages, slack
from .decode_device import LoopRunner
from .decode_host import Runner, make_runner
from .engine import Outcome
from .from_c import from_c
from .parts import FirstRequests, fill_ring, sizes_up_to
from .prefill import Piece, Prefill
from .script import Script
from .slots import Slots
from .steps import StepMaker
from .swap import DramPages

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..backend import Array, Backend
    from ..decoder.weights import Weights
    from .clock import Clock
    from .engine import Mover
    from .request import Request
    from .scheduler import Chunk, Plan

PAGE_TOKENS = 16
LOOPS = ("control", "resident")
PATHS = {"host-python": "host", "host-c": "host", "graph": "graph"} | {one: one for one in LOOPS}
"""Modes -> how the simulator calls the way that a step takes."""


@dataclass(frozen=True, slots=True)
class Setup:
    """How a device is made: its loop *mode*, *kernels*, and sizes.

    *blocks* of KV for *max_batch* requests of *max_context* tokens; a step puts *new_tokens* of
    each through the model and *token_budget* of prompts at most. *budget_pages* above 0 selects
    pages. *swap_pages* may lie in DRAM.
    """

    mode: str
    kernels: str
    blocks: int
    max_batch: int = 64
    max_context: int = 8192
    token_budget: int = 2048
    new_tokens: int = 1
    budget_pages: int = 0
    swap_pages: int = 0
    acceptance: float = 0.7
    seed: int = 1


class ModelDevice:
    """Runs plans on *backend* with *weights*; see `engine.Device`.

    *prompts* gives the prompt of a request, int32. All work is in one stream, the current one.
    """

    def __init__(
        self,
        backend: Backend,
        weights: Weights,
        setup: Setup,
        clock: Clock,
        prompts: Callable[[Request], np.ndarray[Any, Any]],
        stream: Any = None,
        maker: StepMaker | None = None,
    ) -> None:
        self.backend, self.setup, self.clock = backend, setup, clock
        self.path, self.prompts, self.stream = PATHS[setup.mode], prompts, stream
        batch, new = setup.max_batch, setup.new_tokens
        self.sizes = sizes_up_to(batch)
        total = setup.blocks + slack(batch, new, PAGE_TOKENS)
        text = 4 * PAGE_TOKENS
        self.state = DecoderState(
            backend, weights.shape, batch, new, PAGE_TOKENS,
            text_size=-(-(setup.max_context + new) // text) * text,
            pool=Pool(backend, weights.shape, total, PAGE_TOKENS, seed=setup.seed),
        )  # fmt: skip
        order = np.random.default_rng(setup.seed).permutation(total).tolist()
        fill_ring(self.state, order)
        self.slots = Slots(Pages(order), batch, PAGE_TOKENS, new, self.sizes)
        self.prefill = Prefill(
            backend, weights, self.state.pool,
            most_tokens=setup.token_budget,
            most_keys=setup.max_context + setup.token_budget,
            bounds=setup.budget_pages > 0,
        )  # fmt: skip
        self.mover: Mover | None = None
        if setup.swap_pages:
            bounds = setup.budget_pages > 0
            self.mover = DramPages(backend, self.state.pool, setup.swap_pages, bounds)
        self.script = Script(backend, self.state, setup.acceptance, setup.seed) if new > 1 else None
        maker = maker or StepMaker(backend, weights)
        self.steps = {
            size: maker.make(
                setup, FirstRequests(self.state, size), self.script and self.script.first(size)
            )
            for size in self.sizes
        }
        backend.synchronize()
        self.runner: Runner | None = None
        self.loops: LoopRunner | None = None
        if setup.mode in LOOPS:
            self.loops = LoopRunner(setup.mode, self.steps, stream)
        else:
            self.runner = make_runner(setup.mode, self.steps, stream)
        slab = self.state.slots.slab
        self.host: np.ndarray[Any, Any] = pinned(backend, slab.shape, np.int32)
        words = 64 + total + batch * (16 + self.state.slots.max_pages)
        self.packet: np.ndarray[Any, Any] = pinned(backend, words, np.int32)
        self._edit = _edit_call(backend, self.packet, self.state, stream)
        self._events: Any = None
        if stream is not None:
            event = backend.xp.cuda.Event
            self._events = event(), event()
        backend.synchronize()

    # ---------------------------------------------------------------------------- host steps
    def step(self, plan: Plan, timed: bool) -> Outcome:
        """See `engine.Device.step`."""
        size = self.slots.size() if plan.decode else 0
        timed = timed and self._events is not None
        if timed:
            self._events[0].record(self.stream)
        if size:
            self._tell()
            assert self.runner is not None
            self.runner.launch(size)
            self._copy_back()
        last = self.prefill.launch([self._piece(one) for one in plan.chunks]) if plan.chunks else 0
        if timed:
            self._events[1].record(self.stream)
        submitted = self.clock.now()
        if self.stream is not None:
            self.stream.synchronize()
        tokens = self._read(plan, size) if size else []
        first = self.prefill.first(last) if last else []
        return Outcome(tokens, first, submitted, size, self._seconds() if timed else nan)

    def _tell(self) -> None:
        if self.slots.dirty:
            if self.script is not None:
                self.script.tell(self.slots)
            self.slots.packet(self.packet)
            self._edit()

    def _copy_back(self) -> None:
        slab = self.state.slots.slab
        if self.stream is None:
            self.host[...] = on_host(self.backend, slab)
        else:
            self.backend.xp.cuda.runtime.memcpyAsync(
                self.host.ctypes.data, slab.data.ptr, slab.nbytes, 2, self.stream.ptr
            )

    def _read(self, plan: Plan, size: int) -> list[list[int]]:
        """What the step emitted, by request of *plan*."""
        batch, new = self.setup.max_batch, self.setup.new_tokens
        out = self.host[batch + 4 :]
        counts = out[:size].tolist()
        rows = out[batch : batch + size * new].reshape(size, new).tolist()
        tokens = [rows[r.slot][: counts[r.slot]] for r in plan.decode]
        self.slots.commit(counts)
        return tokens

    def _piece(self, chunk: Chunk) -> Piece:
        request, start, count = chunk
        ids = self.prompts(request)
        if request.tokens:
            ids = np.concatenate([ids, np.array(request.tokens, np.int32)])
        ids = ids[start : start + count]
        if len(ids) != count:
            raise ValueError(f"request {request.id}: {len(ids)} tokens of a prompt, not {count}")
        return Piece(ids, start, request.pages, chunk.completes)

    def _seconds(self) -> float:
        begin, end = self._events
        return float(self.backend.xp.cuda.get_elapsed_time(begin, end)) * 1e-3

    # ---------------------------------------------------------------------------- resident
    def enter(self, most: int) -> None:
        """See `engine.ResidentDevice.enter`."""
        assert self.loops is not None
        size = self.slots.size()
        self._tell()
        self.loops.enter(self.slots, size, most)

    def row(self, meanwhile: Callable[[], None]) -> tuple[list[int], list[list[int]]] | None:
        """See `engine.ResidentDevice.row`."""
        assert self.loops is not None
        return self.loops.row(meanwhile)

    def ask(self) -> None:
        """See `engine.ResidentDevice.ask`."""
        assert self.loops is not None
        self.loops.ask()

    # ---------------------------------------------------------------------------- the end
    def check(self) -> None:
        """Raises `AssertionError` unless host and device agree on every slot and every page."""
        slots, state = self.slots, self.state.slots
        arrays = (state.lengths, state.page_counts, state.table, state.ring, state.free)
        lengths, counts, table, ring, ends = (on_host(self.backend, one) for one in arrays)
        if slots.dirty:
            raise AssertionError("the device has not been told all")
        head, tail = (int(end) for end in ends)
        pages = slots.pages
        if (head, tail) != (pages.head % 2**32, pages.tail % 2**32):
            raise AssertionError(f"ring {head} to {tail}, expected {pages.head} to {pages.tail}")
        free = ring[np.arange(head, head + (tail - head) % 2**32) % len(ring)].tolist()
        if free != list(pages.free):
            raise AssertionError("other pages are free on the device")
        for slot, request in enumerate(slots.holders):
            held = table[slot, : counts[slot]].tolist() if lengths[slot] != -1 else []
            if held != (request.pages if request else []):
                raise AssertionError(f"slot {slot}: other pages on the device")
        if slots.lost():
            raise AssertionError(f"{slots.lost()} pages lost")

    def settle(self) -> None:
        """Tells the device what is left to tell; for a look at it between two steps."""
        self._tell()
        if self.stream is not None:
            self.stream.synchronize()
        self.backend.synchronize()


def _edit_call(
    backend: Backend, packet: Array, state: DecoderState, stream: Any
) -> Callable[[], None]:
    recorder = Recorder(backend)
    own.edit(recorder, packet, state)
    return recorder.launches[0] if stream is None else from_c(recorder.launches, stream)
