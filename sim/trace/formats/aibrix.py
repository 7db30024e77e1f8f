"""AIBrix workloads: one JSON object a time stamp (ms), with the requests that arrive together."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from sim.trace.lines import blocks
from sim.trace.rows import BadRowError
from sim.trace.turns import Turn

from . import chains
from .objects import LINE_LIMIT, Unread, count, record_of, said, session_name, time_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from sim.trace.chunk import Tally
    from sim.trace.rows import Findings
    from sim.trace.turns import Replay

KEYS = ("timestamp", "requests")
PROMPT = ("prompt_length", "Prompt Length")
OUTPUT = ("output_length", "Output Length")
_MS = 1e3


def turns(path: Path, findings: Findings, tally: Tally, replay: Replay) -> Iterator[Turn]:
    """The requests in order of the file; of a session each after the one before it.

    The file does not have when an answer was complete, so delays are not known.
    """
    del replay
    found: list[tuple[int, float, int, int, str]] = []
    unread = Unread(KEYS, tally)
    unread_inside = Unread((*PROMPT, *OUTPUT, "session_id"), tally)
    for block in blocks(path, LINE_LIMIT):
        for number, line in block.numbered():
            try:
                record = record_of(line, KEYS)
                if record is None:
                    continue
                time = time_of(KEYS[0], record[KEYS[0]], _MS, "milliseconds") / _MS
                requests = _requests(record)
            except BadRowError as bad:
                findings.add(number, bad)
                continue
            unread.see(record)
            for request in requests:
                try:
                    found.append((number, time, *_request(request, unread_inside)))
                except BadRowError as bad:
                    findings.add(number, bad)
        findings.check()
    time_s = np.array([row[1] for row in found], dtype=np.float64)
    before, _ = chains.before([row[4] for row in found], time_s)
    every = enumerate(zip(found, before.tolist(), strict=True))
    for key, ((line_number, at_s, prompt, output, session), prior) in every:
        after = () if prior == chains.NOBODY else (prior,)
        yield Turn(key, line_number, prompt, output, session, at_s, after)


def _requests(record: dict[str, Any]) -> list[Any]:
    requests = record[KEYS[1]]
    if not isinstance(requests, list):
        raise BadRowError(
            "bad requests", f"requests: {said(requests)} is not a list; write one of objects"
        )
    return requests


def _request(request: object, unread: Unread) -> tuple[int, int, str]:
    """Prompt and output tokens and session of one entry; raises `BadRowError`."""
    if not isinstance(request, dict):
        raise BadRowError(
            "not an object", f"requests: {said(request)} is no object; write prompt_length in one"
        )
    prompt = _length(request, PROMPT, output=False)
    output = _length(request, OUTPUT, output=True)
    unread.see(request)
    return prompt, output, session_name("session_id", request.get("session_id"))


def _length(request: dict[str, Any], keys: tuple[str, str], *, output: bool) -> int:
    key = next((key for key in keys if key in request), keys[0])
    value = request.get(key)
    if value is None:
        raise BadRowError(
            "no output length" if output else "no prompt length",
            f"{key}: not known, only the text is there; write how many tokens it has, or leave "
            "such requests out (--on-error skip, trace.bad_rows: skip)",
        )
    return count(key, value, output=output)
