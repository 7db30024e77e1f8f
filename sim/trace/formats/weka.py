"""Claude Code sessions of kv-cache-tester (Weka): one session a line, with sub-agents.

Times count from the session's start; there is no arrival process between sessions. A request waits
for the one before it and its think time. A sub-agent forks from the request before its marker, and
the request after it waits for it. Ids stand for full blocks and are unique within a session.
"""

from __future__ import annotations

from math import isnan, nan
from typing import TYPE_CHECKING, Any

import numpy as np

from sim.errors import InputError, shown
from sim.trace.bounds import MAX_BLOCK_TOKENS, MAX_SECONDS
from sim.trace.idruns import Dense
from sim.trace.lines import blocks, text_of
from sim.trace.naming import said
from sim.trace.rows import FAILED, BadRowError, NotServedError
from sim.trace.turns import Turn

from . import objects
from .weka_agents import Agent, Request, delay

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from sim.trace.chunk import Tally
    from sim.trace.rows import Findings
    from sim.trace.turns import Replay

LINE_LIMIT = 64 * 2**20
"""Sessions have up to 4.2 MB here, some 20 MB in later releases; 64 MiB take 0.5 GB to decode."""
KEYS = ("id", "block_size", "requests")
_SUBAGENT, _BACKGROUND = "subagent", "async_launched"
_TYPES = ("n", "s")
_PREFIX = ("tool_tokens", "system_tokens")


def turns(path: Path, findings: Findings, tally: Tally, replay: Replay) -> Iterator[Turn]:
    """The requests of each session; bad ones, and bad lines, go to *findings*."""
    reader = _Reader(path, findings, tally, replay)
    for block in blocks(path, LINE_LIMIT):
        for line, data in block.numbered():
            try:
                session = reader.session(line, data)
            except BadRowError as bad:
                findings.add(line, bad)
                continue
            if session is not None:
                yield from reader.turns(line, session)
    tally.note(
        "not read: model labels, types of content, stop reasons and times to the first token"
    )
    if replay.shared_prefix:
        tally.note(
            "sessions with as many tokens of tools, and of tools and system prompt, have the same "
            "ids for these blocks (shared prefix)"
        )


class _Reader:
    """Makes turns of sessions, one after another."""

    def __init__(self, path: Path, findings: Findings, tally: Tally, replay: Replay) -> None:
        self._path = path
        self._findings = findings
        self._tally = tally
        self._replay = replay
        self._block_tokens = 0
        self._dense = Dense()
        self._lines: dict[str, int] = {}

    def session(self, line: int, data: bytes) -> dict[str, Any] | None:
        """The session on *line*, or None if it is blank; raises `BadRowError`."""
        text = text_of(data, LINE_LIMIT)
        if not text or text.isspace():
            return None
        record = objects.decode(text)
        if not isinstance(record, dict):
            raise BadRowError(
                "not an object", f"{objects.said(record)} is no JSON object; a session is needed"
            )
        objects.need(record, KEYS)
        name = objects.session_name("id", record["id"])
        if not name:
            raise BadRowError("bad id", "id: is empty; name the session")
        if not isinstance(record["requests"], list) or not record["requests"]:
            raise BadRowError(
                "bad requests", "requests: no list, or an empty one; give the requests"
            )
        if record.get("hash_id_scope", "local") not in ("local", "global"):
            raise BadRowError(
                "bad hash_id_scope",
                f"hash_id_scope: {objects.said(record['hash_id_scope'])} is not known; write local",
            )
        for key in _PREFIX:
            _whole(key, record)
        self._check_block_size(line, record["block_size"])
        before = self._lines.setdefault(name, line)
        if before != line:
            raise BadRowError(
                "duplicate name", f"id: {shown(name)} is the name of line {before} already"
            )
        return record

    def _check_block_size(self, line: int, size: object) -> None:
        if type(size) is not int or not 1 <= size <= MAX_BLOCK_TOKENS:
            raise BadRowError(
                "block size",
                f"block_size: {objects.said(size)} is no size; write 1 to {MAX_BLOCK_TOKENS}",
            )
        if self._replay.block_tokens not in (None, size):
            raise InputError(
                f"{said(self._path)}:{line}: block_size: {size} in the file, but "
                f"{self._replay.block_tokens} is stated (--block-tokens, trace.block_tokens); "
                "leave it out"
            )
        if not self._block_tokens:
            self._block_tokens = self._tally.block_tokens = size
            self._tally.last_block = "full"
            self._tally.note(f"a block id stands for {size} prompt tokens: the file says so")
        if size != self._block_tokens:
            raise BadRowError(
                "block size",
                f"block_size: {size}, but {self._block_tokens} in the sessions before; read them "
                "from a file of their own",
            )

    def turns(self, line: int, record: dict[str, Any]) -> Iterator[Turn]:
        """The turns of one session in order of the file; a bad entry is left out of the chain."""
        name = objects.session_name("id", record["id"])
        space = line if record.get("hash_id_scope", "local") == "local" else ""
        self._share(space, record, record["requests"])
        parent: Request | None = None
        joins: list[Request] = []  # the last requests of sub-agents since the parent
        for number, entry in enumerate(record["requests"]):
            key = (line, number)
            try:
                if _kind(entry) != _SUBAGENT:
                    request = self._request(key, space, entry)
                else:
                    agent = self._agent(key, space, entry)
                    request = None
            except BadRowError as bad:
                self._bad(line, f"requests[{number}]", bad)
                continue
            if request is None:
                run = agent.on_session_clock(parent)
                yield from self._chain(name, parent, run)
                if run and not agent.background:
                    joins.append(run[-1])
                continue
            others = joins or ([] if parent is None else [parent])
            yield self._turn(name, request, others, think=not joins)
            parent, joins = request, []
        if space != "":
            self._dense.forget(space)

    def _chain(
        self, session: str, parent: Request | None, run: Sequence[Request]
    ) -> Iterator[Turn]:
        """The turns of a sub-agent that forks from *parent*."""
        before = parent
        for request in run:
            others = [] if before is None else [before]
            yield self._turn(session, request, others, think=before is not parent)
            before = request

    def _turn(
        self, session: str, request: Request, others: Sequence[Request], *, think: bool
    ) -> Turn:
        if request.failed:
            self._findings.add(request.key[0], NotServedError(FAILED, "out: 0 tokens"))
        return Turn(
            request.key, request.key[0], request.prompt, request.output, session, request.t_s,
            tuple(other.key for other in others),
            delay(request, others, think=think) if others else nan,
            request.ids, free_start=True, ghost=request.failed,
        )  # fmt: skip

    def _bad(self, line: int, place: str, bad: BadRowError) -> None:
        # the text begins with a key, or is about the entry itself
        dot = "" if bad.text.startswith(":") else "."
        self._findings.add(line, BadRowError(bad.reason, f"{place}{dot}{bad.text}"))

    def _request(self, key: tuple[int, ...], space: int | str, entry: Any) -> Request:
        """The request of *entry*; raises `BadRowError`."""
        if _kind(entry) not in _TYPES:
            raise BadRowError("bad type", f"type: {objects.said(entry['type'])} is not known")
        objects.need(entry, ("t", "in", "out"))
        prompt = objects.count("in", entry["in"], output=False)
        failed = type(entry["out"]) is int and entry["out"] == 0
        output = 1 if failed else objects.count("out", entry["out"], output=True)
        ids = _ids(entry.get("hash_ids"))
        return Request(
            key, _time(entry), prompt, output, _seconds("api_time", entry),
            _seconds("think_time", entry), self._dense.ids(space, ids), failed,
        )  # fmt: skip

    def _agent(self, key: tuple[int, ...], space: int | str, entry: Any) -> Agent:
        """The sub-agent of *entry*, without its bad requests; raises `BadRowError`."""
        objects.need(entry, ("t", "requests"))
        if not isinstance(entry["requests"], list):
            raise BadRowError(
                "bad requests", f"requests: {objects.said(entry['requests'])} is no list"
            )
        t_s, duration_s = _time(entry), _seconds("duration_ms", entry, 1e3)
        self._share(space, entry, entry["requests"])
        requests = []
        for number, inner in enumerate(entry["requests"]):
            try:
                requests.append(self._request((*key, number), space, inner))
            except BadRowError as bad:
                self._bad(key[0], f"requests[{key[1]}].requests[{number}]", bad)
        background = entry.get("status") == _BACKGROUND
        return Agent(t_s, duration_s, background, tuple(requests))

    def _share(self, space: int | str, owner: dict[str, Any], entries: Sequence[Any]) -> None:
        """Give the blocks of tools and system prompt of *owner* the ids they have everywhere.

        # Model: tools come first, then the system prompt (the order of the prompt cache in
        # Anthropic's documentation), and prompts with as many tokens of both are the same text. The
        # file has but the numbers of tokens: of 692 sessions, 343 pairs of numbers are different.
        """
        if not self._replay.shared_prefix:
            return
        size = self._block_tokens
        tools, system = (_whole(key, owner) for key in _PREFIX)
        first, both = tools // size, (tools + system) // size
        lists = (entry.get("hash_ids") for entry in entries if isinstance(entry, dict))
        whole = next((ids for ids in lists if isinstance(ids, list) and len(ids) >= both), None)
        if not both or whole is None:
            return
        try:
            local = _ids(whole[:both])
        except BadRowError:
            return  # told of when the request itself is read
        numbers = [
            self._dense.ids(("tools", tools), np.arange(first)),
            self._dense.ids(("system", tools, system), np.arange(both - first)),
        ]
        self._dense.same(space, local, np.concatenate(numbers))


def _kind(entry: Any) -> str:
    """The type of an entry; raises `BadRowError`."""
    if not isinstance(entry, dict):
        raise BadRowError("not an object", f": {objects.said(entry)} is no JSON object")
    objects.need(entry, ("type",))
    return entry["type"] if isinstance(entry["type"], str) else ""


def _time(entry: dict[str, Any]) -> float:
    """When an entry was, seconds on its clock; raises `BadRowError`."""
    time_s = _seconds("t", entry)
    if isnan(time_s):
        raise BadRowError("bad time", "t: null; give it a time")
    return time_s


def _seconds(key: str, entry: dict[str, Any], ticks_per_s: float = 1.0) -> float:
    """The time under *key* in seconds, nan if there is none; raises `BadRowError`."""
    value = entry.get(key)
    if value is None:
        return nan
    time_s = objects.time_of(key, value, ticks_per_s, "seconds") / ticks_per_s
    if time_s > MAX_SECONDS:
        raise BadRowError("bad time", f"{key}: {time_s:,.4g} s is too long; correct it")
    return time_s


def _whole(key: str, owner: dict[str, Any]) -> int:
    """The number of tokens under *key*, 0 if there is none; raises `BadRowError`."""
    value = owner.get(key)
    return objects.count(key, value, output=False) if value else 0


def _ids(value: object) -> NDArray[np.int64]:
    """The ids of a list, none for null; raises `BadRowError`."""
    if value is None:
        return np.zeros(0, dtype=np.int64)
    # the usual case without a look at each id
    if isinstance(value, list) and not set(map(type, value)) - {int}:
        try:
            ids = np.array(value, dtype=np.int64)
        except OverflowError:
            return objects.ids("hash_ids", value)
        if not len(ids) or ids.min() >= 0:
            return ids
    return objects.ids("hash_ids", value)
