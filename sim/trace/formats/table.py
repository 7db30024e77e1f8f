"""CSV traces: Azure LLM inference (2023, 2024, 2025) and Vidur.

Columns are found by name. A line is read twice over if need be: `clean` takes whole blocks of
plain lines by one regular expression; the slow `row` is the specification, and writes the errors.
"""

from __future__ import annotations

import csv
import math
import re
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING

import numpy as np

from sim.errors import InputError, shown
from sim.trace.bounds import MAX_STAMP_S, MAX_TOKENS
from sim.trace.lines import Block, text_of
from sim.trace.naming import said
from sim.trace.rows import BadRowError, Columns, Row, tokens, whole

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from pathlib import Path

LINE_LIMIT = 2**20
AZURE = ("TIMESTAMP", "ContextTokens", "GeneratedTokens")
VIDUR = ("arrived_at", "num_prefill_tokens", "num_decode_tokens")

_STAMP = re.compile(
    r"([0-9]{4})-([0-9]{2})-([0-9]{2})[ T]([0-9]{2}):([0-9]{2}):([0-9]{2})"
    r"(?:\.([0-9]{1,9}))?(?:(Z)|([+-])([0-9]{2}):?([0-9]{2}))?"
)
_EPOCH = date(1970, 1, 1).toordinal()
_CLEAN_STAMP = rb"(20\d\d-\d\d-\d\d[ T]\d\d:\d\d:\d\d(?:\.\d{1,9})?)(?:Z|\+00:00)?"
_CLEAN_SECONDS = rb"(\d{1,15}(?:\.\d{1,20})?(?:[eE][-+]?\d{1,3})?)"
_CLEAN_TOKENS = rb"(\d{1,8})"


def cells_of(text: str) -> tuple[list[str], bool]:
    """The cells of one CSV line, and whether they stand in it verbatim (no quotes)."""
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


def header(path: Path, line: int, raw: bytes, wanted: Sequence[str]) -> tuple[int, ...]:
    """Where the *wanted* columns are in the header line; raises `InputError`."""
    try:
        names = [cell.strip() for cell in cells_of(text_of(raw, LINE_LIMIT))[0]]
    except BadRowError as bad:
        column = "" if bad.column is None else f":{bad.column}"
        raise InputError(f"{said(path)}:{line}{column}: header: {bad.text}") from None
    there = shown(",".join(names), 200)
    missing = [name for name in wanted if name not in names]
    if missing and (mark := separator(raw.decode(errors="replace"), wanted[1:])):
        raise not_commas(f"{said(path)}:{line}", mark)
    if missing == [VIDUR[0]]:
        raise InputError(
            f"{said(path)}:{line}: header: no arrived_at column, so this file has lengths but no "
            "arrival times; add a column arrived_at (seconds, from 0) or use a replay file"
        )
    if missing:
        raise InputError(
            f"{said(path)}:{line}: header: no column {', '.join(missing)}; there are {there}; "
            "rename the columns or choose another format (--format, trace.format)"
        )
    twice = [name for name in wanted if names.count(name) > 1]
    if twice:
        raise InputError(
            f"{said(path)}:{line}: header: column {', '.join(twice)} occurs more than once in "
            f"{there}; delete or rename one"
        )
    return (*(names.index(name) for name in wanted), len(names))


def after_header(
    path: Path, block: Block, wanted: Sequence[str]
) -> tuple[tuple[int, ...] | None, Block]:
    """Column positions and the rest of the block; None when the block holds blank lines only."""
    for number, raw in block.numbered():
        if raw.strip():
            rest = block.data.split(b"\n", number - block.first + 1)
            left = rest[-1] if len(rest) > number - block.first + 1 else b""
            return header(path, number, raw, wanted), Block(number + 1, left)
    return None, Block(block.first, b"")


def nanoseconds(key: str, text: str, column: int | None) -> int:
    """An Azure time stamp as whole nanoseconds since 1970, UTC where no zone is given."""
    match = _STAMP.fullmatch(text.strip())
    if match is None:
        raise BadRowError(
            "bad time",
            f"{key}: {shown(text)} is no time stamp; write 2023-11-16 18:17:03.979960",
            column,
        )
    year, month, day, hour, minute, second = (int(part) for part in match.groups()[:6])
    try:
        if not 1970 <= year < 2262 or hour > 23 or minute > 59 or second > 59:
            raise ValueError
        days = date(year, month, day).toordinal() - _EPOCH
    except ValueError:
        raise BadRowError(
            "bad time", f"{key}: {shown(text)} is no date of 1970 to 2261; correct it", column
        ) from None
    fraction = int((match[7] or "").ljust(9, "0"))
    zone = int(match[10] or 0) * 60 + int(match[11] or 0)
    minutes = hour * 60 + minute - (-zone if match[9] == "-" else zone)
    return ((days * 1440 + minutes) * 60 + second) * 1_000_000_000 + fraction


def seconds(key: str, text: str, column: int | None) -> float:
    """A Vidur arrival time in seconds."""
    try:
        if "_" in text or not text.isascii():
            raise ValueError
        value = float(text)
    except ValueError:
        raise BadRowError(
            "bad time", f"{key}: {shown(text)} is not a number of seconds; correct it", column
        ) from None
    check_time(key, value, value, column)
    return value


def check_time(key: str, value: float, value_s: float, column: int | None = None) -> None:
    """Raise `BadRowError` unless *value_s*, *value* in seconds, is finite, >= 0 and plausible."""
    if math.isfinite(value_s) and 0 <= value_s <= MAX_STAMP_S:
        return
    what = "is not a finite, plausible time"
    if value_s < 0:
        what = "is negative"
    elif math.isfinite(value_s):
        what = f"is not a plausible time, {value_s:.4g} s and above {MAX_STAMP_S:,.10g} s"
    raise BadRowError(
        "bad time", f"{key}: {shown(value)} {what}; correct or delete the line", column
    )


@dataclass(frozen=True, slots=True)
class Table:
    """A CSV format with its columns found: positions of time, prompt, output, and the width."""

    names: tuple[str, str, str]
    at: tuple[int, ...]
    ticks_per_s: float
    pattern: re.Pattern[bytes]

    @classmethod
    def of(cls, names: tuple[str, str, str], at: tuple[int, ...]) -> Table:
        """The adapter for *names* (AZURE or VIDUR) at the positions *at*, from `header`."""
        stamp, ticks = (_CLEAN_STAMP, 1e9) if names == AZURE else (_CLEAN_SECONDS, 1.0)
        parts = [rb'[^,"\r\n]{0,200}'] * at[3]
        parts[at[0]], parts[at[1]], parts[at[2]] = stamp, _CLEAN_TOKENS, _CLEAN_TOKENS
        return cls(names, at, ticks, re.compile(rb"^" + b",".join(parts) + rb"\r?$", re.M))

    @property
    def time_key(self) -> str:
        """The name of the time column."""
        return self.names[0]

    def row(self, line: bytes) -> Row | None:
        """The row of *line*, or None if it is blank; raises `BadRowError`."""
        text = text_of(line, LINE_LIMIT)
        if not text.strip():
            return None
        cells, verbatim = cells_of(text)
        if len(cells) != self.at[3]:
            raise BadRowError(
                "wrong number of columns",
                f"{len(cells)} columns where the header has {self.at[3]}; a cut-off line?",
            )
        places = [
            1 + sum(len(cell) + 1 for cell in cells[:at]) if verbatim else None
            for at in self.at[:3]
        ]
        key, prompt_key, output_key = self.names
        read_time = nanoseconds if self.names == AZURE else seconds
        time = read_time(key, cells[self.at[0]], places[0])
        prompt = whole(prompt_key, cells[self.at[1]], places[1])
        output = whole(output_key, cells[self.at[2]], places[2])
        tokens(prompt_key, prompt, places[1], output=False)
        tokens(output_key, output, places[2], output=True)
        return time, prompt, output, None

    def clean(self, data: bytes) -> Columns | None:
        """All rows of *data* if every line has the plain form, else None."""
        found = self.pattern.findall(data)
        lines = data.count(b"\n") + (not data.endswith(b"\n"))
        if not found or len(found) != lines or not data.isascii() or b"\0" in data:
            return None
        columns = list(zip(*found, strict=True))
        time, prompt, output = (columns[i] for i in np.argsort(np.argsort(self.at[:3])).tolist())
        try:
            times = self._times(time)
        except ValueError:
            return None
        prompts = np.array(list(map(int, prompt)), dtype=np.int64)
        outputs = np.array(list(map(int, output)), dtype=np.int64)
        for column in (prompts, outputs):
            if column.min() < 1 or column.max() > MAX_TOKENS:
                return None
        return times, prompts, outputs, None

    def _times(self, cells: Sequence[bytes]) -> np.ndarray:
        if self.names == AZURE:
            stamps = np.array(cells).astype("datetime64[ns]")
            return stamps.astype(np.int64)
        times = np.array(list(map(float, cells)), dtype=np.float64)
        if times.max() > MAX_STAMP_S:
            raise ValueError
        return times
