"""Mooncake traces (FAST'25): one JSON object a line, times in milliseconds, prefix block ids.

An id stands for a block of prompt tokens (512 in the published files) together with everything
before it. `Mooncake.row` says what a line must be; `json_blocks` reads plain blocks at once.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NoReturn

from sim.errors import shown
from sim.trace.bounds import MAX_STAMP_S, MAX_TOKENS
from sim.trace.json_blocks import Plain
from sim.trace.lines import text_of
from sim.trace.rows import BadRowError, Columns, Row, tokens

from .table import check_time

if TYPE_CHECKING:
    from sim.trace.chunk import Tally

LINE_LIMIT = 16 * 2**20
KEYS = ("timestamp", "input_length", "output_length")
ALIASES = {
    "timestamp": "created_time",
    "input_length": "input_tokens",
    "output_length": "output_tokens",
}
"""Second names of keys that replay tools accept."""
IDS = "hash_ids"
_KNOWN = {*KEYS, *ALIASES.values(), IDS}
_LINKING = ("session_id", "delay", "delay_ms", "wait_for", "tool_wait_ms")
_MAX_ID = 2**63 - 1
_MAX_NOTED = 20


def _no_constant(name: str) -> NoReturn:
    raise BadRowError("not a number", f"the value {name} is no JSON number; correct the line")


_DECODER = json.JSONDecoder(parse_constant=_no_constant)


def decode(text: str) -> Any:
    """The JSON value of one line; raises `BadRowError`."""
    try:
        return _DECODER.decode(text)
    except json.JSONDecodeError as error:
        raise BadRowError(
            "not JSON",
            f"not JSON: {error.msg}; one complete object a line is needed",
            error.colno,
        ) from None
    except RecursionError:
        raise BadRowError("not JSON", "nested too deeply; a request is a flat object") from None
    except ValueError:
        raise BadRowError("huge number", "a number with too many digits; correct it") from None


def named(record: dict[str, Any], key: str) -> tuple[str, Any]:
    """The value of *key* or of its alias, after the name it has; raises `BadRowError`."""
    alias = ALIASES.get(key, key)
    if alias in record and alias != key:
        if key in record:
            raise BadRowError(
                "two keys of one meaning", f"{key}: there is also {alias}; delete one of them"
            )
        return alias, record[alias]
    if key not in record:
        there = shown(", ".join(map(str, record)), 120)
        raise BadRowError(
            "missing key", f"{key}: not there, only {there}; add it or delete the line"
        )
    return key, record[key]


class Mooncake:
    """The adapter for Mooncake lines; keys that are not used are noted in the *tally*."""

    time_key = "timestamp"
    ticks_per_s = 1e3

    def __init__(self, tally: Tally | None = None) -> None:
        self._tally = tally
        self._noted: set[str] = set()
        self._plain = Plain(KEYS, ALIASES, IDS, LINE_LIMIT)

    def row(self, line: bytes) -> Row | None:
        """The row of *line*, or None if it is blank; raises `BadRowError`."""
        text = text_of(line, LINE_LIMIT)
        if not text or text.isspace():
            return None
        record = decode(text)
        if not isinstance(record, dict):
            raise BadRowError(
                "not an object",
                f"{shown(text)} is no JSON object; one with {', '.join(KEYS)} is needed",
            )
        time_key, time = named(record, "timestamp")
        prompt_key, prompt = named(record, "input_length")
        output_key, output = named(record, "output_length")
        if type(time) not in (int, float):
            raise BadRowError(
                "bad time", f"{time_key}: {_said(time)} is not a number; write milliseconds"
            )
        # an integer may be too large for a float: bound it before the division
        check_time(time_key, time, time / 1e3 if abs(time) < 1e18 else float("inf"))
        prompt = _count(prompt_key, prompt, output=False)
        output = _count(output_key, output, output=True)
        ids = _ids(record.get(IDS))
        if not record.keys() <= _KNOWN:
            self._note(record.keys() - _KNOWN)
        return time, prompt, output, ids

    def clean(self, data: bytes) -> Columns | None:
        """All rows of *data* if every line is a plain object, else None."""
        found = self._plain.columns(data)
        if found is None:
            return None
        times, prompt, output, ids, others = found
        if not (times >= 0).all() or times.max() / 1e3 > MAX_STAMP_S:  # also at nan
            return None
        for column in (prompt, output):
            if column.min() < 1 or column.max() > MAX_TOKENS:
                return None
        if ids is not None and len(ids.values) and ids.values.min() < 0:
            return None
        self._note(others)
        return times, prompt, output, ids

    def _note(self, keys: set[str]) -> None:
        """Say once of each of *keys* that it is not used."""
        if self._tally is None or keys <= self._noted:
            return
        for key in sorted(keys - self._noted):
            if len(self._noted) >= _MAX_NOTED:
                self._tally.note("further keys that are not used")
                return
            self._noted.add(key)
            why = "; --format mooncake-sessions or agentic-mooncake uses it"
            self._tally.note(f"key {shown(key)} is not used{why if key in _LINKING else ''}")


def _said(value: object) -> str:
    # the text of a nested value may be megabytes, or too deep to write
    return f"a {type(value).__name__}" if isinstance(value, list | dict) else shown(value)


def _count(key: str, value: object, *, output: bool) -> int:
    if type(value) is not int:
        raise BadRowError(
            "not a whole number",
            f"{key}: {_said(value)} is not a whole number; write tokens as digits only",
        )
    return tokens(key, value, None, output=output)


def _ids(value: object) -> tuple[int, ...] | None:
    if value is None:
        return None
    if not isinstance(value, list):
        raise BadRowError(
            "bad hash_ids", f"hash_ids: {_said(value)} is not a list of numbers; correct it"
        )
    if not value:
        return ()
    if set(map(type, value)) != {int}:
        odd = next(item for item in value if type(item) is not int)
        raise BadRowError(
            "bad hash_ids", f"hash_ids: {_said(odd)} is not a whole number; correct it"
        )
    if min(value) < 0 or max(value) > _MAX_ID:
        odd = min(value) if min(value) < 0 else max(value)
        raise BadRowError(
            "bad hash_ids", f"hash_ids: {_said(odd)} is not in 0 to 2^63 - 1; correct it"
        )
    return tuple(value)
