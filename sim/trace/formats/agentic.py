"""Agentic Mooncake: requests that wait for others by name, version 1 (no header) and 2.

Version 1: `wait_for` names requests, after the last of which `delay` and `tool_wait_ms` pass.
Version 2 begins with a header; each of its `dependencies` has a trigger and a delay of its own, and
no request is sent before its `not_before_ms`. Block ids of version 2 are local to a play.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import isnan, nan
from typing import TYPE_CHECKING, Any

from sim.errors import InputError
from sim.trace.bounds import MAX_BLOCK_TOKENS
from sim.trace.idruns import Dense
from sim.trace.naming import said
from sim.trace.rows import BadRowError
from sim.trace.turns import Turn, Wait

from . import objects
from .mooncake_keys import (
    BLOCK_TOKENS,
    DELAY,
    KEYS,
    SESSION,
    TIME,
    Prompt,
    answer,
    milliseconds,
    records,
    wait_s,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from sim.trace.chunk import Tally
    from sim.trace.rows import Findings
    from sim.trace.turns import Replay

SCHEMA = "dynamo.agentic_mooncake"
NAME, PLAY, NOT_BEFORE = "request_id", "play_id", "not_before_ms"
WAIT_FOR, TOOL_WAIT, DEPENDENCIES = "wait_for", "tool_wait_ms", "dependencies"
# when a dependency is met, and whether that is when it was sent
_TRIGGERS = {"completion": False, "dispatch": True}
_SCOPES = ("local", "global")


def turns(path: Path, findings: Findings, tally: Tally, replay: Replay) -> Iterator[Turn]:
    """The turns of the file at *path*; bad rows go to *findings*."""
    reader: _First | _Second | None = None
    unread: objects.Unread | None = None
    for line, record in records(path, findings):
        if reader is None and "schema" in record:
            reader = _Second(_header(path, line, record, replay), tally, replay)
            size = tally.block_tokens = reader.header.block_tokens
            tally.note(f"a block id stands for {size} prompt tokens: the file says so")
            continue
        if reader is None:
            reader = _First(tally, replay)
        if unread is None:
            unread = objects.Unread(reader.keys, tally)
        unread.see(record)
        turn = None
        try:
            turn = reader.place(line, record)
            prompt, output = reader.prompt(record), answer(record)
        except BadRowError as bad:
            findings.add(line, bad)
            if turn is not None:
                yield turn
            continue
        yield reader.filled(turn, prompt, output)
    if reader is not None:
        reader.note()


@dataclass(frozen=True, slots=True)
class _Header:
    block_tokens: int
    local: bool


def _header(path: Path, line: int, record: dict[str, Any], replay: Replay) -> _Header:
    """The header line of version 2; raises `InputError` about one that cannot be used."""
    place = f"{said(path)}:{line}"
    if record["schema"] != SCHEMA or record.get("version") != 2:
        raise InputError(
            f"{place}: schema: {objects.said(record['schema'])} version "
            f"{objects.said(record.get('version'))} is not known; {SCHEMA} version 2 is read"
        )
    size, scope = record.get("block_size"), record.get("hash_id_scope")
    if type(size) is not int or not 1 <= size <= MAX_BLOCK_TOKENS:
        raise InputError(
            f"{place}: block_size: {objects.said(size)} is no size; write 1 to {MAX_BLOCK_TOKENS}"
        )
    if replay.block_tokens not in (None, size):
        raise InputError(
            f"{place}: block_size: {size} in the file, but {replay.block_tokens} is stated "
            "(--block-tokens, trace.block_tokens); leave it out"
        )
    if scope not in _SCOPES:
        raise InputError(
            f"{place}: hash_id_scope: {objects.said(scope)} is not known; write local or global"
        )
    return _Header(size, scope == "local")


class _First:
    """Makes turns of rows of version 1."""

    keys: tuple[str, ...] = (*KEYS, NAME, WAIT_FOR, TOOL_WAIT)

    def __init__(self, tally: Tally, replay: Replay) -> None:
        self._tally = tally
        self._block_tokens = replay.block_tokens or BLOCK_TOKENS

    def place(self, line: int, record: dict[str, Any]) -> Turn:
        """The row's name, time and dependencies, as a ghost; raises `BadRowError`."""
        after = _names(WAIT_FOR, record.get(WAIT_FOR))
        parts = [wait_s(record, DELAY), wait_s(record, (TOOL_WAIT,))]
        delay_s = sum(part for part in parts if not isnan(part))
        time_s = milliseconds(record, TIME)
        if not after and isnan(time_s):
            time_s = 0.0
            self._tally.note("requests that wait for nobody and have no time begin at 0")
        session = objects.session_name(SESSION, record.get(SESSION))
        return Turn(
            _name(record), line, 1, 1, session, time_s, after, delay_s, ghost=True
        )  # fmt: skip

    def prompt(self, record: dict[str, Any]) -> Prompt:
        """The prompt of a row; raises `BadRowError`."""
        return Prompt.of(record, self._block_tokens, self._tally)

    def filled(self, turn: Turn, prompt: Prompt, output: int) -> Turn:
        """The ghost *turn* as a request."""
        return replace(turn, prompt=prompt.tokens, output=output, ids=prompt.ids, ghost=False)

    def note(self) -> None:
        """Tell what was found over the whole file."""


class _Second(_First):
    """Makes turns of rows of version 2; a play is a session.

    Plays are free to start where a rate of sessions is stated, since producers begin each at 0.
    """

    keys = (*KEYS, NAME, PLAY, NOT_BEFORE, DEPENDENCIES)

    def __init__(self, header: _Header, tally: Tally, replay: Replay) -> None:
        super().__init__(tally, replay)
        self.header = header
        self._free = replay.rate_per_s is not None
        self._dense = Dense()
        self._starts: dict[str, float] = {}
        self._play = ""

    def place(self, line: int, record: dict[str, Any]) -> Turn:
        """The row's name, time and dependencies, as a ghost; raises `BadRowError`."""
        play = objects.session_name(PLAY, record.get(PLAY))
        if not play:
            raise BadRowError("missing key", f"{PLAY}: not there; name the play of the request")
        objects.need(record, (NOT_BEFORE,))
        waits = _dependencies(record.get(DEPENDENCIES))
        not_before_s = milliseconds(record, (NOT_BEFORE,))
        self._starts[play] = min(self._starts.get(play, not_before_s), not_before_s)
        self._play = play
        # producers without recorded times write 0 for requests that wait
        time_s = nan if waits and not not_before_s else not_before_s
        return Turn(
            _name(record), line, 1, 1, play, time_s, waits=waits, not_before_s=not_before_s,
            free_start=self._free, ghost=True,
        )  # fmt: skip

    def prompt(self, record: dict[str, Any]) -> Prompt:
        """The prompt of a row, its ids numbered over all plays; raises `BadRowError`."""
        prompt = Prompt.of(record, self.header.block_tokens, self._tally)
        if prompt.ids is None:
            return prompt
        space = self._play if self.header.local else ""
        return Prompt(prompt.tokens, self._dense.ids(space, prompt.ids))

    def note(self) -> None:
        """Tell what was found over the whole file."""
        if not self._free and len(self._starts) > 1 and len(set(self._starts.values())) == 1:
            self._tally.note(
                f"all {len(self._starts):,} plays begin at the same time; to spread them, state "
                "how many begin a second (--session-rate, trace.session_arrivals)"
            )


def _name(record: dict[str, Any]) -> str:
    name = objects.session_name(NAME, record.get(NAME))
    if not name:
        raise BadRowError("missing key", f"{NAME}: not there; each request needs a name")
    return name


def _names(key: str, value: object) -> tuple[str, ...]:
    """The different names in a list; null is an empty one."""
    if value is None:
        return ()
    if not isinstance(value, list):
        raise BadRowError(f"bad {key}", f"{key}: {objects.said(value)} is no list of names")
    return tuple(dict.fromkeys(objects.session_name(key, item) for item in value))


def _dependencies(value: object) -> tuple[Wait, ...]:
    """The typed dependencies of a row of version 2; raises `BadRowError`."""
    if value is None:
        return ()
    if not isinstance(value, list):
        raise BadRowError(
            f"bad {DEPENDENCIES}", f"{DEPENDENCIES}: {objects.said(value)} is no list of objects"
        )
    waits: dict[Wait, None] = {}
    for item in value:
        if not isinstance(item, dict):
            raise BadRowError(
                f"bad {DEPENDENCIES}", f"{DEPENDENCIES}: {objects.said(item)} is no object"
            )
        trigger = item.get("trigger")
        if not isinstance(trigger, str) or trigger not in _TRIGGERS:
            raise BadRowError(
                f"bad {DEPENDENCIES}",
                f"trigger: {objects.said(trigger)} is not known; write {' or '.join(_TRIGGERS)}",
            )
        delay_s = wait_s(item, ("delay_ms",))
        waits[Wait(_name(item), 0.0 if isnan(delay_s) else delay_s, _TRIGGERS[trigger])] = None
    return tuple(waits)
