"""The host's end of the resident loop: requests go in, tokens come out, through pinned memory.

One rule: a word that the device polls is written after what it announces. The order of two stores
is the program's on x86; another host needs a fence between them.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Any

import numpy as np

from ..backend import layout

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..backend import Array, Backend

ENTRY = np.dtype(
    [
        ("kind", "i4"),
        ("request", "u4"),
        ("length", "i4"),
        ("remaining", "i4"),
        ("pages", "i4"),
        ("first_page", "i4"),
        ("unused", "i4", (2,)),
    ],
    align=True,
)
ADMIT, CANCEL = 1, 2
NO_REQUEST = 0xFFFFFFFF
FINISHED = 1 << 16

MAIL_WORDS, GATE_WORDS = 4, 80


class Reason(IntEnum):
    """Why a launch of the loop ended; the device's `loop::Reason`."""

    ASKED = 1
    STEPS = 2
    IDLE = 3
    UNREAD = 4
    NO_PAGES = 5
    ABORTED = 6


@dataclass(slots=True)
class StepOutput:
    """What one step sent: arrays over slots; *tokens* [slots, T], valid up to *emitted*."""

    step: int
    taken: int
    """Entries that have left the queue so far."""
    active: int
    emitted: np.ndarray[Any, Any]
    finished: np.ndarray[Any, Any]
    request: np.ndarray[Any, Any]
    tokens: np.ndarray[Any, Any]


class Mailbox:
    """Pinned memory between one host thread and the loop; see control.cuh for each array."""

    def __init__(
        self,
        backend: Backend,
        slots: int,
        new_tokens: int,
        queue: int = 256,
        outputs: int = 1024,
        pool: int = 4096,
    ) -> None:
        self.slots, self.new_tokens = slots, new_tokens
        self.mail = pinned(backend, MAIL_WORDS, np.uint32)
        self.entries = pinned(backend, queue, ENTRY)
        self.page_pool = pinned(backend, pool, np.int32)
        self.outputs = pinned(backend, (outputs, 2 + slots * (2 + new_tokens)), np.uint64)
        self.status = pinned(backend, 4, np.uint32)
        self.posted = self.taken = self.read_steps = self.pool_used = 0

    def admit(self, request: int, length: int, remaining: int, pages: Sequence[int] = ()) -> None:
        """Posts a request of *length* tokens in the cache that wants *remaining* more.

        Its first pages are *pages*; the loop takes the others from its ring. Raises `BufferError`
        if the queue or the page pool is full, and `ValueError` if a number is out of range.
        """
        if length < 1 or remaining < 1 or not 0 <= request < NO_REQUEST:
            raise ValueError(f"request {request}: length {length}, remaining {remaining}")
        first = self.pool_used
        if first + len(pages) > len(self.page_pool):
            first = 0  # the device has copied what lay there once the queue is short
            if self.posted != self.taken:
                raise BufferError("page pool full: read outputs first")
        self.page_pool[first : first + len(pages)] = pages
        self._post((ADMIT, request, length, remaining, len(pages), first, (0, 0)))
        self.pool_used = first + len(pages)

    def cancel(self, request: int) -> None:
        """Ends *request* at the next boundary, waiting or running; unknown ones are ignored."""
        self._post((CANCEL, request, 0, 0, 0, 0, (0, 0)))

    def ask_to_leave(self, leave: bool = True) -> None:
        """Makes the loop end at the next token boundary; `False` takes the wish back."""
        self.mail[1] = leave

    def read(self) -> StepOutput | None:
        """The next step's output, or `None` while it is not complete."""
        tag = self.read_steps + 1
        row = self.outputs[self.read_steps % len(self.outputs)]
        if int(row[0] >> np.uint64(32)) != tag:
            return None
        row = row.copy()
        if ((row >> np.uint64(32)) != tag).any():
            return None
        low = (row & np.uint64(0xFFFFFFFF)).astype(np.uint32)
        body = low[2:].reshape(self.slots, 2 + self.new_tokens)
        self.read_steps = tag
        self.taken = int(low[0])
        self.mail[2] = tag
        return StepOutput(
            step=tag - 1,
            taken=int(low[0]),
            active=int(low[1]),
            emitted=(body[:, 0] & np.uint32(FINISHED - 1)).astype(np.int32),
            finished=(body[:, 0] & np.uint32(FINISHED)) != 0,
            request=body[:, 1],
            tokens=body[:, 2:].astype(np.int32),
        )

    def read_all(self) -> list[StepOutput]:
        """Every step that is complete, in order."""
        found = []
        while (row := self.read()) is not None:
            found.append(row)
        return found

    def restart(self) -> None:
        """Forgets what was posted and read; nobody may be at the other end."""
        self.mail[:] = 0
        self.outputs[:] = 0
        self.posted = self.taken = self.read_steps = self.pool_used = 0

    def reason(self) -> Reason | None:
        """Why the last launch ended; `None` while it runs."""
        return Reason(int(self.status[0]) - 1) if self.status[0] else None

    def _post(self, entry: tuple[Any, ...]) -> None:
        if self.posted - self.taken >= len(self.entries):
            raise BufferError(f"queue full: {self.posted - self.taken} entries wait")
        self.entries[self.posted % len(self.entries)] = entry
        self.posted += 1
        self.mail[0] = self.posted


def pinned(backend: Backend, shape: Any, dtype: Any) -> Array:
    """A zeroed NumPy array that the device can reach."""
    if backend.name == "cpu":
        return np.zeros(shape, dtype)
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    memory = backend.xp.cuda.alloc_pinned_memory(max(1, size))
    array = np.frombuffer(memory, dtype, int(np.prod(shape))).reshape(shape)
    array.view(np.uint8)[...] = 0
    return array


CONTROL = layout(
    ("mail", "u8"),
    ("entries", "u8"),
    ("page_pool", "u8"),
    ("outputs", "u8"),
    ("status", "u8"),
    ("queue", "u8"),
    ("request", "u8"),
    ("counters", "u8"),
    ("gates", "u8"),
    ("stamps", "u8"),
    ("watchdog_ns", "u8"),
    ("host_ns", "u8"),
    ("queue_size", "i4"),
    ("outputs_size", "i4"),
    ("max_steps", "u4"),
    ("dedicated", "i4"),
    ("stamp_rows", "i4"),
    ("unused", "i4"),
)
