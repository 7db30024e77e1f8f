"""Vidur CSV: arrived_at in seconds, lengths, and where there are any, sessions and block ids.

The columns of sessions and blocks are those of Vidur's forks, of which some want sessions as
numbers; names stay what they are. A file gets the columns if its trace has what they hold; the
place in a session counts from 0.
"""

from __future__ import annotations

import csv
import io
import itertools
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from sim.trace.arrow import digits, joined, texts, woven
from sim.trace.blocks import USUAL_TOKENS
from sim.trace.formats.table import VIDUR
from sim.trace.formats.vidur import IDS, SESSION, TURN

from .ids import KeptIds
from .spool import PART_ROWS, unlinked

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from sim.trace.chunk import Chunk

    from .target import Target


_COPY_BYTES = 2**20


def write(chunks: Iterable[Chunk], file: IO[bytes], target: Target) -> int:
    """Write *chunks* to *file*; the number of requests."""
    table: _Table | None = None
    for chunk in chunks:
        if table is None:
            table = _Table(file, target)
        for part in chunk.split(PART_ROWS):
            table.add(part)
    if table is None:
        return 0
    table.say_lost()
    return table.rows


class _Table:
    """A CSV file that grows, and gets further columns when a chunk has what they hold."""

    def __init__(self, file: IO[bytes], target: Target) -> None:
        self.rows = 0
        self._file = file
        self._target = target
        self._ids = False
        self._links = False
        self._turns: dict[str, int] = {}  # so far of a session
        self._last: dict[str, int] = {}  # the last request of a session
        self._block_ids = KeptIds(target)
        self._delays = 0

    def add(self, part: Chunk) -> None:
        """Write the next requests."""
        ids = self._ids or part.block_ids is not None
        links = self._links or part.links is not None
        if self.rows and (ids, links) != (self._ids, self._links):
            self._widen(ids, links)
        self._ids, self._links = ids, links
        if not self.rows:
            self._file.write((",".join(_columns(ids, links)) + "\n").encode())
        self._file.write(self._lines(part))
        self.rows += len(part)

    def _lines(self, part: Chunk) -> bytes:
        # repr: the shortest text that reads back as the same float
        cells: list[Any] = [texts(list(map(repr, part.arrival_s.tolist())))]
        cells += [digits(part.prompt_tokens), digits(part.output_tokens)]
        if self._links:
            cells += [texts(column) for column in self._sessions(part)]
        if self._ids:
            cells.append(joined(self._block_ids.of(part), "|"))
        marks = [","] * (len(cells) - 1) + ["\n"]
        return woven(*itertools.chain.from_iterable(zip(cells, marks, strict=True)))

    def _sessions(self, part: Chunk) -> tuple[list[str], list[str]]:
        """The cells of session and place in the session."""
        links = part.links or unlinked(len(part))
        waits = links.after.lengths > 0
        self._delays += int(waits.sum())
        recorded = np.isfinite(links.recorded_s) & waits
        self._target.lose(
            "recorded times of # requests that wait for others are not kept", int(recorded.sum())
        )
        turns, others = [], 0
        for row, (name, after) in enumerate(zip(links.session, links.after, strict=True)):
            others += bool(after) and after != (self._last.get(name),)
            turns.append(str(self._turns.get(name, 0)))
            if name:
                self._turns[name] = self._turns.get(name, 0) + 1
                self._last[name] = self.rows + row
        self._target.lose(
            "# requests wait for others than the one before them in their session, "
            "which is not kept",
            others,
        )
        return [_cell(name) for name in links.session], turns

    def say_lost(self) -> None:
        """Tell the target what the file does not hold."""
        self._target.lose(
            "delays of # requests are not kept, nor that they wait: their times are the earliest "
            "(--sessions open writes the recorded ones)",
            self._delays,
        )
        if self._ids:
            size = self._target.block_tokens or self._target.source_tokens
            if size != USUAL_TOKENS:
                self._target.lose(f"the size of the blocks, {size:,} tokens, is not in the file")

    def _widen(self, ids: bool, links: bool) -> None:
        """Give the rows so far empty cells for the columns that come."""
        self._file.flush()
        self._file.seek(0)
        with self._target.scratch() as copy:
            while data := self._file.read(_COPY_BYTES):
                copy.write(data)
            copy.seek(0)
            self._file.seek(0)
            self._file.truncate()
            copy.readline()
            self._file.write((",".join(_columns(ids, links)) + "\n").encode())
            before, after = b"", b""
            if links and not self._links:
                before = b",,0"  # between the lengths and the ids, if these are there
            if ids and not self._ids:
                after = b","
            self._file.writelines(_widened(copy, before, after))


def _widened(lines: Iterable[bytes], before: bytes, after: bytes) -> Iterator[bytes]:
    for line in lines:
        cells = line.rstrip(b"\n").split(b",", 3)
        rest = b"".join(b"," + cell for cell in cells[3:])
        yield b",".join(cells[:3]) + before + rest + after + b"\n"


def _columns(ids: bool, links: bool) -> list[str]:
    return [*VIDUR, *([SESSION, TURN] if links else []), *([IDS] if ids else [])]


def _cell(name: str) -> str:
    """*name* as a cell, in quotes if it needs them."""
    if not any(mark in name for mark in ',"\r\n'):
        return name
    text = io.StringIO()
    csv.writer(text, lineterminator="").writerow([name])
    return text.getvalue()
