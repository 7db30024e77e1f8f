"""How many drafts each step accepts: drawn by request and place, for random weights accept none.

The device reads the count where a request stands, so that every loop and every schedule sees the
same draws. Times alone are meant by it: the tokens are the model's, whatever was drafted.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ..loop_control.mailbox import pinned

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ..backend import Array, Backend
    from ..decoder.state import DecoderState
    from .request import Request
    from .slots import Slots

_MIX = (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB)


def uniforms(seed: int, request: int, count: int) -> np.ndarray[Any, Any]:
    """float64 [count] in [0, 1): one for each place of *request*'s text."""
    base = np.uint64(((seed << 40) + (request << 20) + _MIX[0]) % 2**64)
    with np.errstate(over="ignore"):
        x: np.ndarray[Any, Any] = np.arange(count, dtype=np.uint64) + base
        x = (x ^ (x >> np.uint64(30))) * np.uint64(_MIX[1])
        x = (x ^ (x >> np.uint64(27))) * np.uint64(_MIX[2])
    found: np.ndarray[Any, Any] = ((x ^ (x >> np.uint64(31))) >> np.uint64(11)) * 2.0**-53
    return found


def counts(
    seed: int, request: int, size: int, new_tokens: int, acceptance: float
) -> np.ndarray[Any, Any]:
    """uint8 [size]: tokens that a step of *request* emits where it stands at each length.

    A draft is accepted if those before it are and its place's draw lies below *acceptance*.
    """
    good = uniforms(seed, request, size + new_tokens) < acceptance
    run, found = np.ones(size, bool), np.ones(size, np.uint8)
    for i in range(1, new_tokens):
        run &= good[i : i + size]
        found += run
    return found


class Script:
    """The counts of every slot's request, uint8 [slots, text size] on the device."""

    def __init__(self, backend: Backend, state: DecoderState, acceptance: float, seed: int) -> None:
        size = state.slots.max_pages * state.page_tokens
        self.backend, self.seed, self.acceptance = backend, seed, acceptance
        self.new_tokens, self.size = state.tokens, size
        self.host: np.ndarray[Any, Any] = pinned(backend, (state.batch, size), np.uint8)
        self.array: Array = backend.xp.ones((state.batch, size), np.uint8)
        self._kept: dict[int, np.ndarray[Any, Any]] = {}

    def prepare(self, requests: Iterable[Request]) -> None:
        """Draws for *requests* beforehand: no other engine has to, and a row takes about as long as
        all else that the host does between two steps."""
        for request in requests:
            self._kept[request.id] = self._drawn(request)

    def first(self, count: int) -> Array:
        """Those of the first *count* slots."""
        return self.array[:count]

    def tell(self, slots: Slots) -> None:
        """Sends the counts of the requests in changed slots, on the current stream."""
        for slot in slots.changed:
            request = slots.holders[slot]
            if request is not None:
                row = self._kept.get(request.id)
                self.host[slot] = self._drawn(request) if row is None else row
                self._send(slot)

    def _drawn(self, request: Request) -> np.ndarray[Any, Any]:
        return counts(self.seed, request.id, self.size, self.new_tokens, self.acceptance)

    def _send(self, slot: int) -> None:
        if self.backend.name == "cpu":
            self.array[slot] = self.host[slot]
            return
        runtime = self.backend.xp.cuda.runtime
        stream = self.backend.xp.cuda.get_current_stream().ptr
        ends = self.array[slot].data.ptr, self.host[slot].ctypes.data
        runtime.memcpyAsync(*ends, self.size, 1, stream)
