"""CSV traces: Azure LLM inference (2023 to 2025), BurstGPT, Vidur, Splitwise-sim, plain ones.

A line is read twice over if need be: `clean` takes whole blocks of plain lines by one regular
expression; the slow `row` is the specification, and writes the errors.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING, Any

import numpy as np

from sim.errors import shown
from sim.trace.bounds import MAX_STAMP_S, MAX_TOKENS
from sim.trace.csv_blocks import PlainTable
from sim.trace.rows import (
    FAILED,
    NO_PROMPT,
    BadRowError,
    Columns,
    NotServedError,
    Row,
    Rows,
    tokens,
    whole,
)

from .csvlines import LINE_LIMIT, Header, cells

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

    from sim.trace.lines import Block
    from sim.trace.rows import Findings

AZURE = ("TIMESTAMP", "ContextTokens", "GeneratedTokens")
BURSTGPT = ("Timestamp", "Request tokens", "Response tokens")
VIDUR = ("arrived_at", "num_prefill_tokens", "num_decode_tokens")
SPLITWISE = ("arrival_timestamp", "prompt_size", "token_size")
REQUESTS = ("arrival_s", "prompt_tokens", "output_tokens")
_LLM_TYPE = ("request_type", "2")  # what a row of Splitwise-sim must have there

_STAMP = re.compile(
    r"([0-9]{4})-([0-9]{2})-([0-9]{2})[ T]([0-9]{2}):([0-9]{2}):([0-9]{2})"
    r"(?:\.([0-9]{1,9}))?(?:(Z)|([+-])([0-9]{2}):?([0-9]{2}))?"
)
_EPOCH = date(1970, 1, 1).toordinal()
_CLEAN_STAMP = rb"(20\d\d-\d\d-\d\d[ T]\d\d:\d\d:\d\d(?:\.\d{1,9})?)(?:Z|\+00:00)?"
_CLEAN_SECONDS = rb"(\d{1,15}(?:\.\d{1,20})?(?:[eE][-+]?\d{1,3})?)"
_CLEAN_TOKENS = rb"(\d{1,8})"
_CLEAN_TEXT = rb'[^,"\r\n]{0,200}'


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
    """A time in seconds."""
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
class Extra:
    """A column that is read beside the usual three.

    `plain` the pattern of a cell that the fast path takes, in one group; `read` what makes a value
    of the column's name, the text of a cell and its place in the line, or raises `BadRowError`.
    """

    name: str
    plain: bytes
    read: Callable[[str, str, int | None], Any]


@dataclass(frozen=True, slots=True)
class Table:
    """A CSV format with its columns found: those of time, prompt and output, and the extra ones."""

    names: tuple[str, str, str]
    header: Header
    extras: tuple[Extra, ...]
    pattern: re.Pattern[bytes]

    @classmethod
    def of(cls, names: tuple[str, str, str], header: Header, extras: Sequence[Extra] = ()) -> Table:
        """The adapter for *names* (AZURE, BURSTGPT, VIDUR, SPLITWISE, REQUESTS) under *header*."""
        parts = [_CLEAN_TEXT] * len(header.names)
        parts[header.at(names[0])] = _CLEAN_STAMP if names == AZURE else _CLEAN_SECONDS
        parts[header.at(names[1])] = parts[header.at(names[2])] = _CLEAN_TOKENS
        for extra in extras:
            parts[header.at(extra.name)] = extra.plain
        if names == SPLITWISE and _LLM_TYPE[0] in header.names:
            parts[header.at(_LLM_TYPE[0])] = _LLM_TYPE[1].encode()
        pattern = re.compile(rb"^" + b",".join(parts) + rb"\r?$", re.M)
        return cls(names, header, tuple(extras), pattern)

    @property
    def time_key(self) -> str:
        """The name of the time column."""
        return self.names[0]

    @property
    def _least(self) -> int:
        """Tokens that a plain row has at least; BurstGPT writes 0 where a request failed."""
        return 0 if self.names == BURSTGPT else 1

    @property
    def ticks_per_s(self) -> float:
        """Calendar times are whole nanoseconds, others seconds."""
        return 1e9 if self.names == AZURE else 1.0

    def row(self, line: bytes) -> Row | None:
        """The row of *line*, or None if it is blank; raises `BadRowError`."""
        fields = self.fields(line)
        return None if fields is None else (fields[0], fields[1], fields[2], None)

    def fields(self, line: bytes) -> tuple[Any, ...] | None:
        """Time, prompt and output tokens and the extra columns; None for a blank line."""
        found = cells(self.header, line)
        if found is None:
            return None
        stamp, prompt_cell, output_cell = (found.of(name) for name in self.names)
        time = nanoseconds(*stamp) if self.names == AZURE else seconds(*stamp)
        prompt, output = whole(*prompt_cell), whole(*output_cell)
        if self.names == BURSTGPT:
            _check_served(prompt, output)
        tokens(prompt_cell[0], prompt, prompt_cell[2], output=False)
        tokens(output_cell[0], output, output_cell[2], output=True)
        if self.names == SPLITWISE and _LLM_TYPE[0] in self.header.names:
            _check_type(*found.of(_LLM_TYPE[0]))
        return time, prompt, output, *(e.read(*found.of(e.name)) for e in self.extras)

    def clean(self, data: bytes) -> Columns | None:
        """All rows of *data* if every line has the plain form, else None."""
        found = self._at_once(data) or self._plain(data)
        return None if found is None else (*found[:3], None)

    def _at_once(
        self, data: bytes
    ) -> tuple[NDArray[Any], NDArray[np.int64], NDArray[np.int64]] | None:
        """All rows of *data* through Arrow, which is several times as fast."""
        if self.extras or self.names == SPLITWISE:
            return None
        header, stamps = self.header, self.names == AZURE
        at = (header.at(self.names[0]), header.at(self.names[1]), header.at(self.names[2]))
        found = PlainTable(len(header.names), at, stamps, LINE_LIMIT).columns(data)
        if found is None or not _in_bounds(found[1:], self._least):
            return None
        if not stamps and not 0 <= found[0].min() <= found[0].max() <= MAX_STAMP_S:
            return None
        return found

    def records(
        self, stream: Iterator[Block], findings: Findings
    ) -> Iterator[tuple[Rows, list[list[Any]]]]:
        """The good rows of each block with the extra columns; bad ones go to *findings*."""
        for block in stream:
            plain = self._plain(block.data)
            if plain is not None:
                lines = np.arange(block.first, block.first + len(plain[0]), dtype=np.int64)
                rows = Rows(plain[0], plain[1], plain[2], lines)
                kept = np.nonzero((rows.prompt > 0) & (rows.output > 0))[0].tolist()
                extras = [[column[i] for i in kept] for column in plain[3]]
                yield findings.served(rows), extras
            else:
                yield self._careful(block, findings)
            findings.check()

    def _careful(self, block: Block, findings: Findings) -> tuple[Rows, list[list[Any]]]:
        good, lines = [], []
        for number, line in block.numbered():
            try:
                fields = self.fields(line)
            except BadRowError as bad:
                findings.add(number, bad)
                continue
            if fields is not None:
                good.append(fields)
                lines.append(number)
        held: list[list[Any]] = [list(column) for column in zip(*good, strict=True)]
        time, prompt, output, *extras = held or [[] for _ in range(3 + len(self.extras))]
        rows = Rows(
            np.array(time, dtype=np.float64),
            np.array(prompt, dtype=np.int64),
            np.array(output, dtype=np.int64),
            np.array(lines, dtype=np.int64),
        )
        return rows, extras

    def _plain(
        self, data: bytes
    ) -> tuple[NDArray[Any], NDArray[np.int64], NDArray[np.int64], list[list[Any]]] | None:
        found = self.pattern.findall(data)
        lines = data.count(b"\n") + (not data.endswith(b"\n"))
        if not found or len(found) != lines or not data.isascii() or b"\0" in data:
            return None
        captured = [*self.names, *(extra.name for extra in self.extras)]
        by_place = sorted(captured, key=self.header.at)
        columns = dict(zip(by_place, zip(*found, strict=True), strict=True))
        prompts, outputs = (
            np.array(list(map(int, columns[name])), dtype=np.int64) for name in self.names[1:]
        )
        if not _in_bounds((prompts, outputs), self._least):
            return None
        try:
            times = self._times(columns[self.names[0]])
            extras = [
                [extra.read(extra.name, cell.decode(), None) for cell in columns[extra.name]]
                for extra in self.extras
            ]
        except (ValueError, BadRowError):
            return None
        return times, prompts, outputs, extras

    def _times(self, column: Sequence[bytes]) -> NDArray[Any]:
        if self.names == AZURE:
            stamps = np.array(column).astype("datetime64[ns]")
            return stamps.astype(np.int64)
        times = np.array(list(map(float, column)), dtype=np.float64)
        if times.max() > MAX_STAMP_S:
            raise ValueError
        return times


def _in_bounds(columns: Sequence[NDArray[np.int64]], least: int) -> bool:
    return all(column.min() >= least and column.max() <= MAX_TOKENS for column in columns)


def _check_served(prompt: int, output: int) -> None:
    """Raise `NotServedError` for what BurstGPT writes where a request failed."""
    if output == 0 and prompt >= 0:
        raise NotServedError(FAILED, "0 response tokens, a failed request")
    if prompt == 0 and output > 0:
        raise NotServedError(NO_PROMPT, "0 request tokens")


def _check_type(key: str, text: str, column: int | None) -> None:
    if text.strip() != _LLM_TYPE[1]:
        raise BadRowError(
            "not an LLM request", f"{key}: {shown(text)} is not 2, an LLM; delete the line", column
        )
