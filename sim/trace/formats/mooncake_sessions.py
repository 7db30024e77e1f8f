"""Mooncake lines with sessions: `mooncake-sessions` and `mooncake-delta`.

The keys are those of Dynamo, AISimulate and AIPerf. Rows with the same `session_id` are turns in
order of the file, and `delay` counts from the completion of the turn before; rows without are a
stream. In a delta file the later rows of a session hold only what is new.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import isnan
from typing import TYPE_CHECKING, Any

import numpy as np

from sim.errors import shown
from sim.trace.idruns import Dense
from sim.trace.rows import BadRowError, tokens
from sim.trace.turns import Turn

from . import objects
from .mooncake_keys import (
    BLOCK_TOKENS,
    DELAY,
    IDS,
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

    from numpy.typing import NDArray

    from sim.trace.chunk import Tally
    from sim.trace.rows import Findings
    from sim.trace.turns import Replay


def turns(path: Path, findings: Findings, tally: Tally, replay: Replay) -> Iterator[Turn]:
    """The turns of a `mooncake-sessions` file; bad rows go to *findings*."""
    return _turns(path, findings, tally, replay.block_tokens or BLOCK_TOKENS, None)


def delta_turns(path: Path, findings: Findings, tally: Tally, replay: Replay) -> Iterator[Turn]:
    """The turns of a `mooncake-delta` file with whole prompts; bad rows go to *findings*."""
    tally.block_tokens = replay.block_tokens or BLOCK_TOKENS
    told = "as asked for" if replay.block_tokens else "usual, and each row is checked"
    tally.note(f"a block id stands for {tally.block_tokens} prompt tokens: {told}")
    return _turns(path, findings, tally, tally.block_tokens, _Growing(tally.block_tokens))


def _turns(
    path: Path, findings: Findings, tally: Tally, block_tokens: int, growing: _Growing | None
) -> Iterator[Turn]:
    places = _Places(tally)
    unread = objects.Unread(KEYS, tally)
    for line, record in records(path, findings):
        unread.see(record)
        place = None
        try:
            place = places.next(line, record)
            if growing is None:
                prompt = Prompt.of(record, block_tokens, tally)
            else:
                prompt = growing.whole(place.session, record, tally)
            output = answer(record)
        except BadRowError as bad:
            findings.add(line, bad)
            if place is not None and place.session:
                yield place.turn(line, 1, 1, None, ghost=True)
            continue
        if growing is not None:
            growing.answered(place.session, output)
        yield place.turn(line, prompt.tokens, output, prompt.ids)


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a row stands: its session ("" for none), when it is sent, and after which line."""

    session: str
    time_s: float
    delay_s: float
    before: int | None
    free: bool

    def turn(
        self, line: int, prompt: int, output: int, ids: NDArray[np.int64] | None, *,
        ghost: bool = False,
    ) -> Turn:  # fmt: skip
        """The turn of *line* at this place."""
        after = () if self.before is None else (self.before,)
        return Turn(
            line, line, prompt, output, self.session, self.time_s, after, self.delay_s, ids,
            free_start=self.free, ghost=ghost,
        )  # fmt: skip


class _Places:
    """Keeps the last row of each session."""

    def __init__(self, tally: Tally) -> None:
        self._tally = tally
        self._last: dict[str, _Place] = {}
        self._lines: dict[str, int] = {}

    def next(self, line: int, record: dict[str, Any]) -> _Place:
        """The place of the row on *line*; raises `BadRowError`.

        A session whose first row has no time has no start.
        """
        session = objects.session_name(SESSION, record.get(SESSION))
        time_s, delay_s = milliseconds(record, TIME), wait_s(record, DELAY)
        first = self._last.get(session)
        if not session:
            if isnan(time_s):
                objects.need({k: v for k, v in record.items() if v is not None}, TIME[:1])
            return _Place("", time_s, delay_s, None, free=False)
        if first is None:
            if delay_s > 0:
                raise BadRowError(
                    "delay without a turn before",
                    f"{DELAY[0]}: {delay_s * 1e3:g} ms on the first turn of session "
                    f"{shown(session)}, which waits for nobody; delete it",
                )
            place = _Place(session, time_s, delay_s, None, free=isnan(time_s))
        elif first.free and not isnan(time_s):
            raise BadRowError(
                "time without a start",
                f"{TIME[0]}: the first turn of session {shown(session)} has none; give it one or "
                "delete this one",
            )
        else:
            if isnan(delay_s) and isnan(time_s):
                self._tally.note("later turns with neither delay nor time follow at once")
                delay_s = 0.0
            place = _Place(session, time_s, delay_s, self._lines[session], first.free)
        self._last.setdefault(session, place)
        self._lines[session] = line
        return place


@dataclass(slots=True)
class _Grown:
    """The prompt of a session so far, and the answer to it; None if it is not known."""

    prompt: Prompt | None
    output: int = 0


class _Growing:
    """Puts the prompts of a delta file together.

    # Model: a prompt is the one before, the answer to it, and the row's own input (AISimulate, docs
    # of replay workloads, "Mooncake Delta"). The answer has no ids, and after it no block begins
    # where one of the row's begins; so the full blocks of the prompt before are shared, and all
    # later ones are the session's own.
    """

    def __init__(self, block_tokens: int) -> None:
        self._block_tokens = block_tokens
        self._dense = Dense()
        self._sessions: dict[str, _Grown] = {}

    def whole(self, session: str, record: dict[str, Any], tally: Tally) -> Prompt:
        """The whole prompt of the next row of *session*; raises `BadRowError`."""
        before = self._sessions.get(session)
        if before is not None and before.prompt is None:
            raise BadRowError(
                "turn before left out",
                f"an earlier turn of session {shown(session)} is left out, so that the prompt is "
                "not known; delete the session",
            )
        if session:
            self._sessions[session] = _Grown(None)  # should this row be bad
        own = Prompt.of(record, self._block_tokens, tally)
        self._check(own)
        prompt = self._first(own) if before is None else self._longer(before, own)
        if session:
            self._sessions[session] = _Grown(prompt)
        return prompt

    def answered(self, session: str, output: int) -> None:
        """Take the *output* tokens of the answer to the last prompt of *session*."""
        if session:
            self._sessions[session].output = output

    def _check(self, own: Prompt) -> None:
        size, ids = self._block_tokens, own.ids
        if ids is not None and len(ids) != -(-own.tokens // size):
            raise BadRowError(
                "block size",
                f"{IDS}: {len(ids)} ids for {own.tokens} tokens do not fit blocks of {size} "
                "tokens; state the block size (--block-tokens)",
            )

    def _first(self, own: Prompt) -> Prompt:
        return Prompt(own.tokens, None if own.ids is None else self._dense.ids("", own.ids))

    def _longer(self, grown: _Grown, own: Prompt) -> Prompt:
        assert grown.prompt is not None
        before = grown.prompt
        total = tokens(
            "the whole prompt", before.tokens + grown.output + own.tokens, None, output=False
        )
        if before.ids is None:
            return Prompt(total, None)
        kept = before.tokens // self._block_tokens
        rest = self._dense.fresh(-(-total // self._block_tokens) - kept)
        return Prompt(total, np.concatenate([before.ids[:kept], rest]))
