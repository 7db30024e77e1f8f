"""JSON lines as traces have them: one object a line, and what its values must be."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from sim.errors import shown
from sim.trace.lines import text_of
from sim.trace.rows import BadRowError, tokens

from .table import check_time

if TYPE_CHECKING:
    from collections.abc import Collection

    from numpy.typing import NDArray

    from sim.trace.chunk import Tally

LINE_LIMIT = 16 * 2**20
MAX_NAME = 200  # characters of a session's name
MAX_ID = 2**63 - 1
_MAX_UNREAD = 20


def _no_constant(name: str) -> NoReturn:
    raise BadRowError("not a number", f"the value {name} is no JSON number; correct the line")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        for name, _ in pairs:
            if name in seen:
                raise BadRowError("key twice", f"the key {shown(name)} is there twice; delete one")
            seen.add(name)
    return found


_STRICT = json.JSONDecoder(parse_constant=_no_constant, object_pairs_hook=_object)
LAST_WINS = json.JSONDecoder(parse_constant=_no_constant)
"""Takes the last of two equal keys, for formats whose fast path does not look at all keys."""


def decode(text: str, decoder: json.JSONDecoder = _STRICT) -> Any:
    """The JSON value of one line; raises `BadRowError`."""
    try:
        return decoder.decode(text)
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


def record_of(
    line: bytes, wanted: Collection[str], decoder: json.JSONDecoder = _STRICT
) -> dict[str, Any] | None:
    """The object of *line* with the *wanted* keys, or None if it is blank; raises `BadRowError`."""
    text = text_of(line, LINE_LIMIT)
    if not text or text.isspace():
        return None
    record = decode(text, decoder)
    if not isinstance(record, dict):
        keys = f"; one with {', '.join(wanted)} is needed" if wanted else "; write one a line"
        raise BadRowError("not an object", f"{said(record)} is no JSON object{keys}")
    need(record, wanted)
    return record


def need(record: dict[str, Any], wanted: Collection[str]) -> None:
    """Raise `BadRowError` unless *record* has the *wanted* keys."""
    missing = next((key for key in wanted if key not in record), None)
    if missing is not None:
        there = shown(", ".join(record), 120)
        raise BadRowError(
            "missing key", f"{missing}: not there, only {there}; add it or delete the line"
        )


class Unread:
    """Tells a tally of each key that rows have beside those *read*, of the first few at least."""

    def __init__(self, read: Collection[str], tally: Tally) -> None:
        self._known = set(read)
        self._most = len(self._known) + _MAX_UNREAD
        self._tally = tally

    def see(self, record: dict[str, Any]) -> None:
        """Take the keys of one row."""
        if record.keys() <= self._known or len(self._known) >= self._most:
            return
        for key in sorted(record.keys() - self._known)[:_MAX_UNREAD]:
            self._known.add(key)
            self._tally.note(f"key not read: {shown(key)}")


def said(value: object) -> str:
    """*value* as a message may have it: nested ones may be megabytes, or too deep to write."""
    return f"a {type(value).__name__}" if isinstance(value, list | dict) else shown(value)


def time_of(key: str, value: object, ticks_per_s: float, unit: str) -> int | float:
    """*value* if it can be a time in ticks; raises `BadRowError`."""
    if type(value) not in (int, float):
        raise BadRowError("bad time", f"{key}: {said(value)} is not a number; write {unit}")
    time: int | float = value  # type: ignore[assignment]
    # an integer may be too large for a float: bound it before the division
    check_time(key, time, time / ticks_per_s if abs(time) < 1e24 else float("inf"))
    return time


def count(key: str, value: object, *, output: bool) -> int:
    """*value* if it can be a number of tokens; raises `BadRowError`."""
    if type(value) is not int:
        raise BadRowError(
            "not a whole number",
            f"{key}: {said(value)} is not a whole number; write tokens as digits only",
        )
    return tokens(key, value, None, output=output)


def ids(key: str, value: object) -> NDArray[np.int64]:
    """The block ids in a list; raises `BadRowError`."""
    if not isinstance(value, list):
        raise BadRowError(
            f"bad {key}", f"{key}: {said(value)} is not a list of numbers; correct it"
        )
    if set(map(type, value)) - {int}:
        odd = next(item for item in value if type(item) is not int)
        raise BadRowError(f"bad {key}", f"{key}: {said(odd)} is not a whole number; correct it")
    if value and not (min(value) >= 0 and max(value) <= MAX_ID):
        odd = min(value) if min(value) < 0 else max(value)
        raise BadRowError(f"bad {key}", f"{key}: {said(odd)} is not in 0 to 2^63 - 1; correct it")
    return np.array(value, dtype=np.int64)


def session_name(key: str, value: object, column: int | None = None) -> str:
    """*value* as the name of a session: text, or a whole number; "" for none."""
    if value is None:
        return ""
    if type(value) not in (str, int):
        raise BadRowError(
            f"bad {key}", f"{key}: {said(value)} is not the name of a session; correct it", column
        )
    if type(value) is int and not -(2**63) <= value < 2**64:
        raise BadRowError(f"bad {key}", f"{key}: a number of too many digits; shorten it", column)
    name = str(value).strip()
    if len(name) > MAX_NAME or not name.isprintable():
        what = "is too long" if len(name) > MAX_NAME else "is not printable"
        raise BadRowError(
            f"bad {key}", f"{key}: {shown(name)} {what}; name sessions in plain text", column
        )
    return name
