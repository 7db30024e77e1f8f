"""Mooncake traces (FAST'25): one JSON object a line, times in milliseconds, prefix block ids.

An id stands for a block of 512 prompt tokens together with everything before it.
"""

from __future__ import annotations

import json
from typing import Any, NoReturn

from sim.errors import shown
from sim.trace.lines import text_of
from sim.trace.rows import BadRowError, Columns, Row, tokens

from .table import check_time

LINE_LIMIT = 16 * 2**20
KEYS = ("timestamp", "input_length", "output_length")
BLOCK_TOKENS = 512
_MAX_ID = 2**63 - 1


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


class Mooncake:
    """The adapter for Mooncake lines; unknown keys are ignored."""

    time_key = "timestamp"
    ticks_per_s = 1e3

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
        missing = [key for key in KEYS if key not in record]
        if missing:
            there = shown(", ".join(map(str, record)), 120)
            raise BadRowError(
                "missing key",
                f"{missing[0]}: not there, only {there}; add it or delete the line",
            )
        time = record["timestamp"]
        if type(time) not in (int, float):
            raise BadRowError(
                "bad time", f"timestamp: {_said(time)} is not a number; write milliseconds"
            )
        # an integer may be too large for a float: bound it before the division
        check_time("timestamp", time, time / 1e3 if abs(time) < 1e18 else float("inf"))
        prompt = _count("input_length", record["input_length"], output=False)
        output = _count("output_length", record["output_length"], output=True)
        return time, prompt, output, _ids(record.get("hash_ids"))

    def clean(self, data: bytes) -> Columns | None:
        """No short cut: the JSON decoder is fast enough."""
        del data
        return None


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
