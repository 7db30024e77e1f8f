"""Transfers as columns, in order of their ends, handed on in slices so that memory is bounded."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from .link import Row

Columns = dict[str, np.ndarray]

SLICE = 32_768

_KINDS = {
    "start_s": np.float64, "queued_s": np.float64, "end_s": np.float64, "link": object,
    "bytes": np.int64, "blocks": np.int64, "reason": object, "request_id": np.int64,
    "replica": np.int64,
}  # fmt: skip


class TransferLog:
    """Takes the row of each ended transfer and hands slices of columns to *sink*."""

    def __init__(self, sink: Callable[[Columns], None]) -> None:
        self.sink = sink
        self._rows: list[Row] = []

    def add(self, row: Row) -> None:
        """Takes the next transfer that has ended."""
        self._rows.append(row)
        if len(self._rows) == SLICE:
            self.close()

    def close(self) -> None:
        """Hands on what is left."""
        if self._rows:
            rows, self._rows = self._rows, []
            values = zip(*rows, strict=True)
            self.sink(
                {
                    name: np.array(column, kind)
                    for (name, kind), column in zip(_KINDS.items(), values, strict=True)
                }
            )
