"""Requests as columns, in the order of the trace, written as soon as a whole slice has ended.

A slice is kept until its last request is done, so memory follows the requests in flight and not
the trace.
"""

from __future__ import annotations

from operator import attrgetter
from typing import TYPE_CHECKING

import numpy as np

from .request import Reason, Request, Status

if TYPE_CHECKING:
    from collections.abc import Callable

SLICE = 8_192

Columns = dict[str, np.ndarray]

_TIMES = ("arrival", "admitted", "first_token", "finished", "think")
_OF_MEMORY = ("cached_hbm", "cached_dram", "cached_ssd", "cached_remote")
_OF_DRAFTS = ("drafts", "draft_tokens", "accepted_tokens")
_COUNTS = ("id", "prompt_tokens", "output_tokens", "generated", "preemptions", "waits_for")


class RequestLog:
    """Collects ended requests and hands slices of columns to *sink*, sorted by id.

    Those about cached KV only if `memory` was set before the first of them, those about drafts only
    if `drafts` was, and the replica only if there are *several*.
    """

    def __init__(self, sink: Callable[[Columns], None], several: bool = False) -> None:
        self.sink = sink
        self.several = several
        self.memory = False
        self.drafts = False
        self.delays = (0.0, 0.0)
        """Seconds from a send until the engine knows of it, and from a token to its client."""
        self.ended = 0
        self._slices: dict[int, list[Request]] = {}
        self._next = 0

    def add(self, request: Request) -> None:
        """Takes *request*, which has finished or was rejected."""
        self.ended += 1
        number = request.id // SLICE
        rows = self._slices.get(number)
        if rows is None:
            rows = self._slices[number] = []
        rows.append(request)
        while len(self._slices.get(self._next, ())) == SLICE:
            self._hand_on(self._next)
            self._next += 1

    def close(self, unfinished: list[Request]) -> None:
        """Adds the requests that the end of the run cut off, and hands on what is left."""
        for request in unfinished:
            self.add(request)
        for number in sorted(self._slices):
            self._hand_on(number)

    def _hand_on(self, number: int) -> None:
        rows = self._slices.pop(number)
        rows.sort(key=attrgetter("id"))
        columns: Columns = {
            name: np.array([getattr(row, name) for row in rows], np.int64) for name in _COUNTS
        }
        for name in _TIMES:
            columns[name] = np.array([getattr(row, name) for row in rows])
        # Model: what clients see is on their clock, `admitted` on the engine's.
        if self.delays[0]:
            columns["arrival"] = np.array([row.sent for row in rows])
        columns["first_token"] += self.delays[1]
        columns["finished"] += self.delays[1]
        columns["status"] = np.array([_STATUS[row.status] for row in rows], np.int8)
        columns["reason"] = np.array([_REASON[row.reason] for row in rows], np.int8)
        columns["session"] = np.array([row.session for row in rows], object)
        if self.memory:
            for name in _OF_MEMORY:
                columns[name] = np.array([getattr(row, name) for row in rows], np.int64)
            columns["load"] = np.array([row.load_s for row in rows])
        if self.drafts:
            for name in _OF_DRAFTS:
                columns[name] = np.array([getattr(row, name) for row in rows], np.int64)
        if self.several:
            columns["replica"] = np.array([row.replica for row in rows], np.int64)
        self.sink(columns)


STATUSES = tuple(status.value for status in Status)
REASONS = tuple(reason.value for reason in Reason)
_REASON = {None: -1} | {reason: number for number, reason in enumerate(Reason)}
_STATUS = {status: number for number, status in enumerate(Status)}
