"""One file a format; `lines_of` and `turns_of` are the registry of those that are text.

A format without sessions is an adapter: a line becomes a row, and the file is a stream. A format
with sessions gives turns, which know each other by key; `sim.trace.turns` puts them in order.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sim.errors import InputError
from sim.trace.lines import Block, blocks
from sim.trace.naming import said

from . import mooncake, table

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from sim.trace.chunk import Tally
    from sim.trace.rows import Adapter, Findings
    from sim.trace.turns import Replay, Turn

    Lines = Callable[[Path, Tally], tuple[Adapter, Iterator[Block]]]
    """Opens a file: the adapter of its rows, and the blocks of lines that hold them."""
    Turns = Callable[[Path, Findings, Tally, Replay], Iterator[Turn]]
    """The good turns of a file in its order; bad ones go to the findings."""


def _mooncake(path: Path, tally: Tally) -> tuple[Adapter, Iterator[Block]]:
    del tally
    return mooncake.Mooncake(), blocks(path, mooncake.LINE_LIMIT)


def _azure(path: Path, tally: Tally) -> tuple[Adapter, Iterator[Block]]:
    del tally
    return _table(path, table.AZURE)


def _vidur(path: Path, tally: Tally) -> tuple[Adapter, Iterator[Block]]:
    del tally
    return _table(path, table.VIDUR)


def _table(path: Path, names: tuple[str, str, str]) -> tuple[Adapter, Iterator[Block]]:
    """The adapter of a CSV file and the blocks of lines after its header."""
    stream = blocks(path, table.LINE_LIMIT)
    for block in stream:
        at, rest = table.after_header(path, block, names)
        if at is not None:
            return table.Table.of(names, at), _chain(rest, stream)
    raise InputError(f"{said(path)}: nothing but blank lines; fetch or write the file again")


def _chain(first: Block, others: Iterator[Block]) -> Iterator[Block]:
    if first.data:
        yield first
    yield from others


lines_of: dict[str, Lines] = {"mooncake": _mooncake, "azure": _azure, "vidur": _vidur}
turns_of: dict[str, Turns] = {}
