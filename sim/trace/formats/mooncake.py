"""Mooncake traces (FAST'25): one JSON object a line, times in milliseconds, prefix block ids.

An id stands for a block of prompt tokens (512 in the published files) together with everything
before it. `Mooncake.row` says what a line must be; `json_blocks` reads plain blocks at once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sim.errors import shown
from sim.trace.bounds import MAX_STAMP_S, MAX_TOKENS
from sim.trace.json_blocks import Plain
from sim.trace.rows import BadRowError, Columns, Row

from . import objects

if TYPE_CHECKING:
    from sim.trace.chunk import Tally

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
_MAX_NOTED = 20


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
        self._plain = Plain(KEYS, ALIASES, IDS, objects.LINE_LIMIT)

    def row(self, line: bytes) -> Row | None:
        """The row of *line*, or None if it is blank; raises `BadRowError`."""
        record = objects.record_of(line, (), objects.LAST_WINS)
        if record is None:
            return None
        time_key, time = named(record, "timestamp")
        prompt_key, prompt = named(record, "input_length")
        output_key, output = named(record, "output_length")
        time = objects.time_of(time_key, time, self.ticks_per_s, "milliseconds")
        prompt = objects.count(prompt_key, prompt, output=False)
        output = objects.count(output_key, output, output=True)
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


def _ids(value: object) -> tuple[int, ...] | None:
    return None if value is None else tuple(objects.ids(IDS, value).tolist())
