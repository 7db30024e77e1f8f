"""Plain CSV of requests: arrival_s in seconds, prompt_tokens, output_tokens; no sessions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .csvlines import open_table
from .table import REQUESTS, Table

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from sim.trace.chunk import Tally
    from sim.trace.lines import Block


def lines(path: Path, tally: Tally) -> tuple[Table, Iterator[Block]]:
    """The rows as a stream."""
    header, stream = open_table(path, REQUESTS)
    header.note_unread(REQUESTS, tally)
    return Table.of(REQUESTS, header), stream
