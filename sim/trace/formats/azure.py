"""Azure LLM inference CSV of 2023, 2024 and 2025: calendar times, no sessions, no blocks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .csvlines import open_table
from .table import AZURE, Table

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from sim.trace.chunk import Tally
    from sim.trace.lines import Block

IMAGES = "NumImages"


def lines(path: Path, tally: Tally) -> tuple[Table, Iterator[Block]]:
    """The rows as a stream."""
    header, stream = open_table(path, AZURE)
    if IMAGES in header.names:
        tally.note(
            f"{IMAGES} is not read: a request counts with its ContextTokens, and what encoding its "
            "images costs is left out"
        )
    header.note_unread((*AZURE, IMAGES), tally)
    return Table.of(AZURE, header), stream
