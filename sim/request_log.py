"""Requests as columns, in order of arrival, written as soon as a whole slice has ended.

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

_TIMES = ("arrival", "admitted", "first_token", "finished")
_COUNTS = ("id", "prompt_tokens", "output_tokens", "generated", "preemptions")


class RequestLog:
    """Collects ended requests and hands slices of columns to *sink*, sorted by id."""

    def __init__(self, sink: Callable[[Columns], None]) -> None:
        self.sink = sink
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
        columns["status"] = np.array([_STATUS[row.status] for row in rows], np.int8)
        columns["reason"] = np.array([_REASON[row.reason] for row in rows], np.int8)
        self.sink(columns)


STATUSES = tuple(status.value for status in Status)
REASONS = tuple(reason.value for reason in Reason)
_REASON = {None: -1} | {reason: number for number, reason in enumerate(Reason)}
_STATUS = {status: number for number, status in enumerate(Status)}
