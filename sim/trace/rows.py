"""Between a file's text and a chunk: rows with raw times, and the findings about bad ones.

One rule: a bad row never passes in silence. It ends in an `InputError` that names its line, or,
if the caller asked for skipping, in the tally.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from sim.errors import InputError, shown

from .bounds import MAX_TOKENS
from .naming import said
from .ragged import Ragged

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from .chunk import Tally

MAX_FINDINGS = 10
OnBadRow = Literal["error", "skip"]
# reasons of requests that were never served
FAILED = "failed request"
NO_PROMPT = "no prompt tokens"

# time in the format's ticks, prompt tokens, output tokens, prefix block ids
Row = tuple[int | float, int, int, tuple[int, ...] | None]
# the same as columns
Columns = tuple[NDArray[Any], NDArray[np.int64], NDArray[np.int64], Ragged | None]

_WHOLE = re.compile(r"[+-]?[0-9]{1,30}")


class BadRowError(Exception):
    """One row that is no request: a *reason* to count it under, and the finding in words."""

    def __init__(self, reason: str, text: str, column: int | None = None) -> None:
        super().__init__(text)
        self.reason = reason
        self.text = text
        self.column = column


class NotServedError(BadRowError):
    """A row as it should be, of a request that was never served: no tokens went in or came out.

    It is kept apart and counted, whatever is to become of bad rows.
    """


@dataclass(frozen=True, slots=True)
class Rows:
    """Good rows as columns; `time` in ticks of the format, `lines` their numbers in the file."""

    time: NDArray[Any]
    prompt: NDArray[np.int64]
    output: NDArray[np.int64]
    lines: NDArray[np.int64]
    ids: Ragged | None = None

    @classmethod
    def joined(cls, parts: Sequence[Rows]) -> Rows:
        """All rows of *parts*, one after another, without their ids."""
        none = np.zeros(0, dtype=np.int64)
        return cls(
            np.concatenate([part.time for part in parts] or [np.zeros(0)]),
            np.concatenate([part.prompt for part in parts] or [none]),
            np.concatenate([part.output for part in parts] or [none]),
            np.concatenate([part.lines for part in parts] or [none]),
        )

    def __len__(self) -> int:
        return len(self.time)

    def take(self, which: slice | NDArray[np.intp]) -> Rows:
        """The rows *which* names, in its order."""
        if isinstance(which, slice):
            which = np.arange(len(self), dtype=np.intp)[which]
        return Rows(
            self.time[which],
            self.prompt[which],
            self.output[which],
            self.lines[which],
            None if self.ids is None else self.ids.take(which),
        )


class Adapter(Protocol):
    """One text format: how a line becomes a row."""

    @property
    def time_key(self) -> str:
        """The name of the time column or key."""

    @property
    def ticks_per_s(self) -> float:
        """How many units of the file's time make a second."""

    def row(self, line: bytes) -> Row | None:
        """The row of *line*; None for a blank line; raises `BadRowError`."""

    def clean(self, data: bytes) -> Columns | None:
        """All rows of *data* at once if each line is plainly good, else None.

        Never more lenient than `row`, which is the specification; but where `row` raises
        `NotServedError`, the row is there with its 0 tokens (see `Findings.served`).
        """


class Findings:
    """Collects bad rows of one file: up to ten in one `InputError`, or in a tally.

    The tally gets a count by reason and the first ten in words. Requests that were never served
    are counted there in any case, and not among the ten.
    """

    def __init__(self, path: Path, bad_rows: OnBadRow, tally: Tally, unit: str = "") -> None:
        self._name = said(path)
        self._skip = bad_rows == "skip"
        self._tally = tally
        self._unit = unit
        self._lines: list[str] = []

    def add(self, line: int, bad: BadRowError) -> None:
        """Take one bad row at *line*; raises `InputError` when ten have come together."""
        if isinstance(bad, NotServedError):
            self._tally.skip(bad.reason)
            return
        column = "" if bad.column is None else f":{bad.column}"
        text = f"{self._name}:{self._unit}{line}{column}: {bad.text}"
        if self._skip:
            self._tally.skip(bad.reason)
            if len(self._tally.examples) < MAX_FINDINGS:
                self._tally.examples.append(text)
            return
        self._lines.append(text)
        if len(self._lines) >= MAX_FINDINGS:
            raise InputError([*self._lines, f"... stopped after {MAX_FINDINGS}"])

    def served(self, rows: Rows) -> Rows:
        """*rows* without those of 0 tokens, which are counted."""
        failed, empty = rows.output == 0, rows.prompt == 0
        if not (failed.any() or empty.any()):
            return rows
        for reason, which in ((FAILED, failed), (NO_PROMPT, empty & ~failed)):
            if count := int(which.sum()):
                self._tally.skip(reason, count)
        return rows.take(np.nonzero(~(failed | empty))[0])

    def check(self) -> None:
        """Raise `InputError` with what was collected, if anything was."""
        if self._lines:
            raise InputError(self._lines)


def no_requests(path: Path, tally: Tally) -> InputError:
    """The finding about a file without one good row."""
    why = f", {tally.skipped} bad rows skipped" if tally.skipped else ""
    return InputError(f"{said(path)}: no requests in the file{why}; fetch or write it again")


def stack(rows: Sequence[Row], lines: Sequence[int], time_type: type[np.generic]) -> Rows:
    """*rows* as columns; a row without ids gets an empty tuple if another row has some."""
    ids = None
    if any(row[3] is not None for row in rows):
        ids = Ragged.of(row[3] or () for row in rows)
    return Rows(
        np.array([row[0] for row in rows], dtype=time_type),
        np.array([row[1] for row in rows], dtype=np.int64),
        np.array([row[2] for row in rows], dtype=np.int64),
        np.array(lines, dtype=np.int64),
        ids,
    )


def whole(key: str, text: str, column: int | None) -> int:
    """The whole number in a text cell of column *key*; raises `BadRowError`."""
    cell = text.strip()
    if not cell:
        raise BadRowError(
            "empty value", f"{key}: is empty; fill the cell or delete the line", column
        )
    if not _WHOLE.fullmatch(cell):
        raise BadRowError(
            "not a whole number",
            f"{key}: {shown(text)} is not a whole number; write tokens as digits only",
            column,
        )
    return int(cell)


def tokens(key: str, value: int, column: int | None, *, output: bool) -> int:
    """*value* if it can be a number of tokens, else `BadRowError`."""
    if value < 0:
        reason, what = "negative tokens", f"{shown(value)} is negative; correct or delete the line"
    elif value == 0 and output:
        reason, what = "zero output tokens", "0 tokens, a failed request; delete the line"
    elif value == 0:
        reason, what = "zero prompt tokens", "0 tokens, a prompt has at least 1; delete the line"
    elif value > MAX_TOKENS:
        reason = "too many tokens"
        what = f"{shown(value)} is above {MAX_TOKENS:,} tokens; correct or delete the line"
    else:
        return value
    raise BadRowError(reason, f"{key}: {what}", column)
