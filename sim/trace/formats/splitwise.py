"""Splitwise-sim CSV: times in seconds; a row of another `request_type` than 2 is no LLM request."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .csvlines import open_table
from .table import SPLITWISE, Table

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from sim.trace.chunk import Tally
    from sim.trace.lines import Block


def lines(path: Path, tally: Tally) -> tuple[Table, Iterator[Block]]:
    """The rows as a stream."""
    header, stream = open_table(path, SPLITWISE, ("request_type",))
    header.note_unread((*SPLITWISE, "request_type"), tally)
    return Table.of(SPLITWISE, header), stream
