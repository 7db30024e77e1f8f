"""Reading a trace of any known format as a stream of chunks.

One rule: what comes out is valid (times from 0 and non-decreasing, lengths at least 1), or an
`InputError` says where the file is not.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sim.errors import InputError, shown

from . import turns
from .bounds import MAX_SECONDS
from .chunk import Chunk, Tally
from .detect import explain
from .formats import columns, lines_of, turns_of
from .lines import Block, check_file
from .names import FORMATS
from .naming import said
from .ragged import Ragged
from .rows import Adapter, BadRowError, Findings, OnBadRow, Row, Rows, stack
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
    the prompt tokens of a prefix block id; None finds them out by the ids. *replay* says what
    becomes of sessions.

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
    tally = Tally() if tally is None else tally
    tally.format, tally.told_by = explain(path) if format == "auto" else (format, "--format")
    if tally.format in turns_of:
        findings = Findings(path, bad_rows, tally)
        how = Replay() if replay is None else replay
        found = turns_of[tally.format](path, findings, tally, how)
        return turns.chunks(found, path, findings, tally, how, limit=limit, chunk_rows=chunk_rows)
    return _chunks(path, tally.format, limit, sort, bad_rows, tally, chunk_rows)


def _chunks(
    path: Path,
    format: str,
    limit: int | None,
    sort: bool,
    bad_rows: OnBadRow,
    tally: Tally,
    chunk_rows: int,
) -> Iterator[Chunk]:
    unit = "row" if format == "parquet" else "line"
    if format == "parquet":
        key, ticks_per_s = columns.NAMES[0], 1.0
        findings = Findings(path, bad_rows, tally, unit="row ")
        parts = columns.parquet_rows(path, findings, chunk_rows)
    else:
        findings = Findings(path, bad_rows, tally)
        first, stream = lines_of[format](path, tally)
        key, ticks_per_s = first.time_key, first.ticks_per_s
        parts = _text_rows(first, stream, findings, None if sort else limit)
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
        why = f", {tally.skipped} bad rows skipped" if tally.skipped else ""
        raise InputError(f"{said(path)}: no requests in the file{why}; fetch or write it again")


def _text_rows(
    adapter: Adapter, stream: Iterator[Block], findings: Findings, limit: int | None
) -> Iterator[Rows]:
    got = 0
    for block in stream:
        clean = adapter.clean(block.data)
        if clean is not None:
            lines = np.arange(block.first, block.first + len(clean[0]), dtype=np.int64)
            time, prompt, output, ids = clean
            rows = Rows(time, prompt, output, lines, ids)
        else:
            rows = careful(adapter, block, findings, None if limit is None else limit - got)
        got += len(rows)
        yield rows
        if limit is not None and got >= limit:
            return


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
