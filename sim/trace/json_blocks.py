"""Whole blocks of JSON lines at once, if every line is plainly good: digit by digit or by Arrow.

One rule: never more lenient than Python's `json` line by line. Where Arrow takes what that would
not (NaN, two objects on a line, an object over several lines, bytes that are no UTF-8, a number of
5,000 digits or a deep nest in a key that is not used), or where the two might differ, the block is
given back for the careful way.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np

from .json_digits import Form, numbers
from .ragged import Ragged

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    Found = tuple[
        NDArray[np.float64], NDArray[np.int64], NDArray[np.int64], Ragged | None, set[str]
    ]
    """Times, two counts, ids, and the names of the other keys."""

_MAX_DIGITS = 4300  # of an integer that Python takes
_MAX_BRACKETS = 60  # on a line with keys that Arrow skips: a depth that every decoder takes
_LONG_NUMBER = re.compile(rb"[0-9]{%d}" % (_MAX_DIGITS + 1))
_KEY = re.compile(rb'"([^"]*)"\s*:')


class Plain:
    """Reads blocks of lines that are objects with three numbers and, maybe, a list of ids.

    *keys* are the names of a time and two counts, *aliases* their second names, *ids* the name of
    the list. Other keys are skipped, and their names given back.
    """

    def __init__(
        self, keys: tuple[str, str, str], aliases: Mapping[str, str], ids: str, line_limit: int
    ) -> None:
        self._keys = keys
        self._aliases = aliases
        self._ids = ids
        self._line_limit = line_limit
        self._others = False  # whether keys that we do not know have been seen

    def columns(self, data: bytes) -> Found | None:
        """The columns of all lines of *data*, or None if one of them is not plain."""
        data = data.replace(b"\r\n", b"\n") if b"\r" in data else data
        if len(data) > self._line_limit:
            return None
        names = self._names(data)
        form = Form.of(data[: data.find(b"\n")] if b"\n" in data else data, names, self._ids)
        alike = None if form is None else numbers(data, form)
        if alike is not None:
            times, prompt, output, ids = alike
            return times.astype(np.float64), prompt, output, ids, set()
        return self._by_arrow(data, names)

    def _by_arrow(self, data: bytes, names: list[str]) -> Found | None:
        rows = _one_object_a_line(data)
        if not rows or not _plain_text(data):
            return None
        others: set[str] = set()
        table = None if self._others else self._table(data, names, "error")
        if table is None:
            if not self._others:
                return None
            found = {match.decode() for match in set(_KEY.findall(data))}
            others = found - {*names, self._ids}
            if others & {*self._keys, *self._aliases.values()} or not _safe_to_skip(data):
                return None
            table = self._table(data, names, "ignore")
        if table is None or table.num_rows != rows:
            return None
        *columns, lists = (column.combine_chunks() for column in table.columns)
        if any(column.null_count for column in columns):
            return None
        times, prompt, output = (column.to_numpy() for column in columns)
        if lists.null_count == rows:
            return times, prompt, output, None, others
        values, offsets = lists.values, lists.offsets.to_numpy().astype(np.int64)
        if values.null_count or offsets[0] or offsets[-1] != len(values):
            return None
        return times, prompt, output, Ragged(values.to_numpy(), offsets), others

    def _names(self, data: bytes) -> list[str]:
        """The names that the keys have in the first line, and then, it is hoped, in all."""
        first = data[: data.find(b"\n") + 1] or data
        names = []
        for key in self._keys:
            alias = self._aliases.get(key, key)
            names.append(alias if f'"{alias}"'.encode() in first else key)
        return names

    def _table(self, data: bytes, names: list[str], others: str) -> Any | None:
        """*data* as an Arrow table, or None if Arrow will not have it so."""
        import pyarrow as pa
        import pyarrow.json as pj

        kinds = (pa.float64(), pa.int64(), pa.int64(), pa.list_(pa.int64()))
        fields = list(zip((*names, self._ids), kinds, strict=True))
        try:
            return pj.read_json(
                pa.BufferReader(data),
                read_options=pj.ReadOptions(use_threads=False, block_size=len(data) + 1),
                parse_options=pj.ParseOptions(
                    explicit_schema=pa.schema(fields), unexpected_field_behavior=others
                ),
            )
        except pa.ArrowException as error:
            self._others |= "unexpected field" in str(error)
            return None


def _one_object_a_line(data: bytes) -> int:
    """How many lines there are if each begins with { and ends with }, else 0.

    Then no line end is inside an object, so with as many objects as lines each line has one.
    """
    open_end = not data.endswith(b"\n")
    lines = data.count(b"\n") + open_end
    if not data.startswith(b"{") or data.count(b"\n{") != lines - 1:
        return 0
    ends = data.count(b"}\n") + (open_end and data.endswith(b"}"))
    return lines if ends == lines else 0


def _plain_text(data: bytes) -> bool:
    """Whether *data* is UTF-8 without NUL, escapes, and what may be read as NaN or Infinity."""
    if any(mark in data for mark in (b"\0", b"\\", b"NaN", b"Inf")):
        return False
    if data.isascii():
        return True
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def _safe_to_skip(data: bytes) -> bool:
    """Whether whatever Arrow skips in *data* is something that Python's decoder would take."""
    raw = np.frombuffer(data, dtype=np.uint8)
    ends = np.concatenate([np.flatnonzero(raw == ord("\n")), [len(raw)]])
    brackets = np.flatnonzero((raw == ord("[")) | (raw == ord("{")))
    a_line = np.diff(np.searchsorted(brackets, ends), prepend=0)
    if a_line.max() > _MAX_BRACKETS:
        return False
    return np.diff(ends, prepend=0).max() <= _MAX_DIGITS or not _LONG_NUMBER.search(data)
