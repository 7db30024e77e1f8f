"""CSV as traces have it: a header line, then one request a line; columns are found by name."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sim.errors import InputError, shown
from sim.trace.lines import Block, blocks, text_of
from sim.trace.naming import said
from sim.trace.rows import BadRowError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence
    from pathlib import Path

    from sim.trace.chunk import Tally

LINE_LIMIT = 2**20
_MAX_COLUMNS = 1_000


@dataclass(frozen=True, slots=True)
class Header:
    """The names of a table's columns, in its order."""

    names: tuple[str, ...]

    def at(self, name: str) -> int:
        """The position of the column *name*, from 0."""
        return self.names.index(name)

    def note_unread(self, read: Collection[str], tally: Tally) -> None:
        """Tell *tally* which columns are not among those *read*."""
        rest = [name for name in self.names if name not in read]
        if rest:
            tally.note(f"columns not read: {shown(', '.join(rest), 200)}")


@dataclass(frozen=True, slots=True)
class Cells:
    """The cells of one line; `verbatim` if they stand in it as they are, without quotes."""

    header: Header
    texts: Sequence[str]
    verbatim: bool

    def of(self, name: str) -> tuple[str, str, int | None]:
        """*name*, the text of its cell, and where that begins in the line, if this is known."""
        at = self.header.at(name)
        column = 1 + sum(len(cell) + 1 for cell in self.texts[:at]) if self.verbatim else None
        return name, self.texts[at], column


def cells(header: Header, line: bytes) -> Cells | None:
    """The cells of *line*, or None if it is blank; raises `BadRowError`."""
    text = text_of(line, LINE_LIMIT)
    if not text.strip():
        return None
    texts, verbatim = _split(text)
    if len(texts) != len(header.names):
        raise BadRowError(
            "wrong number of columns",
            f"{len(texts)} columns where the header has {len(header.names)}; a cut-off line?",
        )
    return Cells(header, texts, verbatim)


def _split(text: str) -> tuple[list[str], bool]:
    if "\r" in text:
        raise BadRowError(
            "carriage return",
            "a carriage return inside the line; convert the line ends to \\n",
            text.index("\r") + 1,
        )
    if '"' not in text:
        return text.split(","), True
    try:
        rows = list(csv.reader([text], strict=True))
    except csv.Error as error:
        raise BadRowError("broken quoting", f"not CSV: {error}; mend the quotes") from None
    return (rows[0] if rows else []), False


def separator(line: str, wanted: Collection[str]) -> str | None:
    """What stands between the *wanted* columns of a header line, if not a comma."""
    for mark in (";", "\t", "|"):
        if set(wanted) <= {name.strip(' "') for name in line.split(mark)}:
            return mark
    return None


def not_commas(place: str, mark: str) -> InputError:
    """The finding for a table whose columns are separated by *mark*."""
    return InputError(f"{place}: columns are separated by {mark!r}; convert to commas")


def _header(
    path: Path, line: int, raw: bytes, wanted: Sequence[str], optional: Sequence[str]
) -> Header:
    place = f"{said(path)}:{line}"
    try:
        names = tuple(cell.strip() for cell in _split(text_of(raw, LINE_LIMIT))[0])
    except BadRowError as bad:
        column = "" if bad.column is None else f":{bad.column}"
        raise InputError(f"{place}{column}: header: {bad.text}") from None
    there = shown(",".join(names), 200)
    missing = [name for name in wanted if name not in names]
    if missing and (mark := separator(raw.decode(errors="replace"), wanted[1:])):
        raise not_commas(place, mark)
    if missing == ["arrived_at"]:
        raise InputError(
            f"{place}: header: no arrived_at column, so this file has lengths but no "
            "arrival times; add a column arrived_at (seconds, from 0) or use a replay file"
        )
    if missing:
        raise InputError(
            f"{place}: header: no column {', '.join(missing)}; there are {there}; "
            "rename the columns or choose another format (--format, trace.format)"
        )
    twice = [name for name in (*wanted, *optional) if names.count(name) > 1]
    if twice:
        raise InputError(
            f"{place}: header: column {', '.join(twice)} occurs more than once in "
            f"{there}; delete or rename one"
        )
    if len(names) > _MAX_COLUMNS:
        raise InputError(
            f"{place}: header: {len(names):,} columns, no trace has more than {_MAX_COLUMNS:,}; "
            "keep those that are read"
        )
    return Header(names)


def open_table(
    path: Path, wanted: Sequence[str], optional: Sequence[str] = ()
) -> tuple[Header, Iterator[Block]]:
    """The header of a CSV file and the lines after it.

    Raises `InputError` if one of the *wanted* columns is missing, or one of these or of the
    *optional* ones is there twice.
    """
    stream = blocks(path, LINE_LIMIT)
    for block in stream:
        for number, raw in block.numbered():
            if raw.strip():
                header = _header(path, number, raw, wanted, optional)
                parts = block.data.split(b"\n", number - block.first + 1)
                rest = parts[-1] if len(parts) > number - block.first + 1 else b""
                return header, _chain(Block(number + 1, rest), stream)
    raise InputError(f"{said(path)}: nothing but blank lines; fetch or write the file again")


def _chain(first: Block, others: Iterator[Block]) -> Iterator[Block]:
    if first.data:
        yield first
    yield from others
