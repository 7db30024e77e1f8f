"""Reading a trace of any known format as a stream of chunks.

One rule: what comes out is valid (times from 0 and non-decreasing, lengths at least 1), or an
`InputError` says where the file is not.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sim.errors import InputError, shown

from . import turns
from .blocks import Blocks, check_size
from .bounds import MAX_SECONDS
from .chunk import Chunk, Tally
from .detect import explain
from .formats import columns, lines_of, linked, turns_reader
from .lines import Block, check_file
from .names import FORMATS
from .naming import said
from .ragged import Ragged
from .rows import Adapter, BadRowError, Findings, OnBadRow, Row, Rows, no_requests, stack
from .turns import Replay

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray


def read(
    path: Path,
    format: str = "auto",
    *,
    limit: int | None = None,
    sort: bool = False,
    bad_rows: OnBadRow = "error",
    tally: Tally | None = None,
    chunk_rows: int = 16384,
    block_tokens: int | None = None,
    replay: Replay | None = None,
) -> Iterator[Chunk]:
    """The requests of the trace at *path*, as chunks of at most *chunk_rows*.

    *format* is one of `FORMATS`, or "auto" to look at the file. *limit* ends after so many
    requests. *sort* puts the requests in order of time (ties in order of the file) and loads the
    whole trace, as formats with sessions do in any case. *bad_rows* "skip" leaves rows out that
    are no requests and counts them in *tally*, which is filled while reading. *block_tokens* are
    the prompt tokens of a prefix block id; None finds them out by the ids, see `blocks`. *replay*
    says what becomes of sessions.

    Raises `InputError` at once for a file that cannot be used, and while reading for bad rows
    (up to ten of the same block together) and for times that go back.
    """
    path = Path(path)
    check_file(path)
    if limit is not None and limit < 1:
        raise InputError(f"limit: {limit} is not a number of requests; write 1 or more")
    if format != "auto" and format not in FORMATS:
        raise InputError(
            f"format: {shown(format)} is unknown; write auto or one of {', '.join(FORMATS)}"
        )
    if block_tokens is not None:
        check_size("block tokens", block_tokens)
    tally = Tally() if tally is None else tally
    tally.format, tally.told_by = explain(path) if format == "auto" else (format, "--format")
    reader = turns_reader(tally.format, path)
    if reader is not None:
        findings = Findings(path, bad_rows, tally)
        how = Replay() if replay is None else replay
        how = replace(how, block_tokens=block_tokens) if block_tokens is not None else how
        found = reader(path, findings, tally, how)
        return turns.chunks(found, path, findings, tally, how, limit=limit, chunk_rows=chunk_rows)
    size = Blocks(path, tally, block_tokens)
    if tally.format == "parquet":
        findings = Findings(path, bad_rows, tally, unit="row ")
        if columns.has_links(path):
            how = Replay() if replay is None else replay
            return linked.chunks(
                path, findings, tally, size, how, limit=limit, sort=sort, chunk_rows=chunk_rows
            )
        parts = columns.parquet_rows(path, findings, tally, chunk_rows)
        parts = _fitting(parts, size, findings, None if sort else limit)
        return _chunks(parts, path, columns.TIME, "row", findings, tally, limit, sort, chunk_rows)
    findings = Findings(path, bad_rows, tally)
    adapter, stream = lines_of[tally.format](path, tally)
    parts = _text_rows(path, adapter, stream, findings, size, None if sort else limit)
    clock = (adapter.time_key, adapter.ticks_per_s)
    return _chunks(parts, path, clock, "line", findings, tally, limit, sort, chunk_rows)


def _chunks(
    parts: Iterator[Rows],
    path: Path,
    clock: tuple[str, float],
    unit: str,
    findings: Findings,
    tally: Tally,
    limit: int | None,
    sort: bool,
    chunk_rows: int,
) -> Iterator[Chunk]:
    """The good rows in *parts* as chunks; *clock* is the key of the times, and ticks a second."""
    key, ticks_per_s = clock
    if sort:
        parts = _sorted(parts)
    start = last = None
    for rows in _cut(parts, limit):
        findings.check()
        if not len(rows):
            continue
        _check_order(path, key, rows, last, unit)
        start = rows.time[0] if start is None else start
        last = (rows.time[-1], int(rows.lines[-1]))
        arrival_s = (rows.time - start) / ticks_per_s
        if arrival_s[-1] > MAX_SECONDS:
            raise _too_late(path, key, rows, arrival_s, unit)
        tally.rows += len(rows)
        yield from Chunk(arrival_s, rows.prompt, rows.output, rows.ids).split(chunk_rows)
    findings.check()
    if last is None:
        raise no_requests(path, tally)


def _text_rows(
    path: Path,
    adapter: Adapter,
    stream: Iterator[Block],
    findings: Findings,
    size: Blocks,
    limit: int | None,
) -> Iterator[Rows]:
    """The good rows of a text file, at most *limit*; of what comes after them nothing is said."""
    left = limit
    for block in stream:
        rest: Block | None = block
        while rest is not None and (left is None or left > 0):
            clean = adapter.clean(rest.data)
            if clean is not None:
                lines = np.arange(rest.first, rest.first + len(clean[0]), dtype=np.int64)
                time, prompt, output, ids = clean
                rows = findings.served(Rows(time, prompt, output, lines, ids))
                size.look(rows.prompt, rows.ids)
                rest = None
            else:
                if left is not None and not size.known:
                    # the size is told by all rows of the block, whatever the limit
                    sample = careful(adapter, rest, Findings(path, "skip", Tally()))
                    size.look(sample.prompt, sample.ids)
                rows = careful(adapter, rest, findings, left)
                size.look(rows.prompt, rows.ids)
                rest = _after(rest, int(rows.lines[-1])) if left == len(rows) else None
            rows = _fit(rows, size, findings, left)
            left = None if left is None else left - len(rows)
            yield rows
        if left is not None and left <= 0:
            return


def _after(block: Block, line: int) -> Block | None:
    """The lines of *block* after number *line*, or None."""
    rest = block.data.split(b"\n", line - block.first + 1)[-1]
    return Block(line + 1, rest) if rest and line < block.first + block.data.count(b"\n") else None


def _fitting(
    parts: Iterator[Rows], size: Blocks, findings: Findings, limit: int | None
) -> Iterator[Rows]:
    """The rows of *parts* whose number of block ids is right, about *limit* of them."""
    left = limit
    for rows in parts:
        size.look(rows.prompt, rows.ids)
        rows = _fit(rows, size, findings, left)
        left = None if left is None else left - len(rows)
        yield rows
        if left is not None and left <= 0:
            return


def _fit(rows: Rows, size: Blocks, findings: Findings, left: int | None) -> Rows:
    """The first *left* of *rows* with the right number of block ids; others go to *findings*."""
    wrong = size.wrong(rows.prompt, rows.ids)
    if not wrong.any():
        return rows if left is None else rows.take(slice(left))
    good = np.flatnonzero(~wrong)[:left]
    end = good[-1] if left is not None and len(good) == left else len(rows)
    counts = rows.ids.lengths if rows.ids is not None else np.zeros(len(rows), dtype=np.int64)
    for at in np.flatnonzero(wrong[:end]).tolist():
        findings.add(int(rows.lines[at]), size.bad(int(rows.prompt[at]), int(counts[at])))
    return rows.take(good)


def careful(adapter: Adapter, block: Block, findings: Findings, limit: int | None = None) -> Rows:
    """The good rows of a block line by line, at most *limit*; the bad ones go to *findings*."""
    good: list[Row] = []
    lines: list[int] = []
    for number, line in block.numbered():
        if limit is not None and len(good) >= limit:
            break
        try:
            row = adapter.row(line)
        except BadRowError as bad:
            findings.add(number, bad)
            continue
        if row is not None:
            good.append(row)
            lines.append(number)
    whole_ticks = adapter.ticks_per_s == 1e9
    return stack(good, lines, np.int64 if whole_ticks else np.float64)


def _sorted(parts: Iterator[Rows]) -> Iterator[Rows]:
    """All rows as one part, stably sorted by time."""
    held = [rows for rows in parts if len(rows)]
    if not held:
        return
    ids = None
    if any(rows.ids is not None for rows in held):
        known = (Ragged.empty(len(rows)) if rows.ids is None else rows.ids for rows in held)
        ids = Ragged.joined(list(known))
    joined = Rows(
        np.concatenate([rows.time for rows in held]),
        np.concatenate([rows.prompt for rows in held]),
        np.concatenate([rows.output for rows in held]),
        np.concatenate([rows.lines for rows in held]),
        ids,
    )
    yield joined.take(np.argsort(joined.time, kind="stable"))


def _cut(parts: Iterator[Rows], limit: int | None) -> Iterator[Rows]:
    """The parts, ending after *limit* rows."""
    left = limit
    for rows in parts:
        part = rows if left is None else rows.take(slice(left))
        yield part
        if left is not None:
            left -= len(part)
            if left <= 0:
                return


def _check_order(
    path: Path, key: str, rows: Rows, last: tuple[np.generic, int] | None, unit: str
) -> None:
    """Raise `InputError` where a time is before the one in the row before it."""
    back = np.nonzero(np.diff(rows.time) < 0)[0]
    if last is not None and rows.time[0] < last[0]:
        here, before = int(rows.lines[0]), last[1]
    elif len(back):
        here, before = int(rows.lines[back[0] + 1]), int(rows.lines[back[0]])
    else:
        return
    raise InputError(
        f"{said(path)}:{_place(unit, here)}: {key}: {unit} {here} arrives before {unit} {before}; "
        "sort the file or set trace.sort: true (--sort)"
    )


def _too_late(
    path: Path, key: str, rows: Rows, arrival_s: NDArray[np.float64], unit: str
) -> InputError:
    """The finding about the first row that is too long after the trace's first."""
    first = int(np.searchsorted(arrival_s, MAX_SECONDS, side="right"))
    return InputError(
        f"{said(path)}:{_place(unit, int(rows.lines[first]))}: {key}: {arrival_s[first]:,.10g} s "
        f"after the first request, a trace spans at most {MAX_SECONDS:,.10g} s (31 years); "
        f"correct or delete the {unit}"
    )


def _place(unit: str, number: int) -> str:
    """Where row *number* is, as it stands after the file's name."""
    return str(number) if unit == "line" else f"{unit} {number}"
