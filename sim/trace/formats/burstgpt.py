"""BurstGPT: part 1 and 2 a stream of requests, part 3 with sessions and the time each one took.

Requests of 0 response tokens failed: they are kept apart and counted, and stop no read.
"""

from __future__ import annotations

from math import nan
from typing import TYPE_CHECKING

import numpy as np

from sim.trace.rows import BadRowError, Rows
from sim.trace.turns import Turn

from . import chains
from .csvlines import open_table
from .objects import session_name
from .table import BURSTGPT, Extra, Table, seconds

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from sim.trace.chunk import Tally
    from sim.trace.lines import Block
    from sim.trace.rows import Findings
    from sim.trace.turns import Replay

SESSION, ELAPSED = "Session ID", "Elapsed time"


def _elapsed(key: str, text: str, column: int | None) -> float:
    """Seconds from sending to the last token; nan for an empty cell."""
    if not text.strip():
        return nan
    try:
        return seconds(key, text, column)
    except BadRowError as bad:
        raise BadRowError("bad elapsed time", bad.text, column) from None


_EXTRAS = (
    Extra(SESSION, rb'([^,"\r\n]{0,200})', session_name),
    Extra(ELAPSED, rb"(\d{0,15}(?:\.\d{1,20})?)", _elapsed),
)


def lines(path: Path, tally: Tally) -> tuple[Table, Iterator[Block]]:
    """The rows as a stream, sessions left aside."""
    header, stream = open_table(path, BURSTGPT)
    _note(tally)
    header.note_unread(BURSTGPT, tally)
    return Table.of(BURSTGPT, header), stream


def has_sessions(path: Path) -> bool:
    """Whether the file has the column of sessions."""
    return SESSION in open_table(path, BURSTGPT)[0].names


def turns(path: Path, findings: Findings, tally: Tally, replay: Replay) -> Iterator[Turn]:
    """The rows with their sessions, loaded whole.

    A turn comes after the one before it in its session. The file has when it was sent and when the
    one before it was complete; closed, the time between counts as the user's.
    """
    extras = [extra for extra in _EXTRAS if extra.name != ELAPSED]
    header, stream = open_table(path, BURSTGPT, (SESSION, ELAPSED))
    if has_elapsed := ELAPSED in header.names:
        extras = list(_EXTRAS)
    _note(tally)
    header.note_unread((*BURSTGPT, *(extra.name for extra in extras)), tally)
    parts: list[Rows] = []
    sessions: list[str] = []
    elapsed: list[float] = []
    for part, values in Table.of(BURSTGPT, header, extras).records(stream, findings):
        parts.append(part)
        sessions += values[0]
        elapsed += values[1] if has_elapsed else [nan] * len(part)
    rows = Rows.joined(parts)
    closed = replay.sessions == "closed"
    before = np.full(len(rows), chains.NOBODY, dtype=np.int64)
    if closed:
        before, _ = chains.before(sessions, rows.time)
    else:
        tally.note(
            "sessions are replayed at their recorded times; with trace.sessions: closed "
            "(--sessions closed) a turn waits for the answer to the one before it"
        )
    delay = _delays(rows.time, np.array(elapsed, dtype=np.float64), before)
    columns = (rows.lines, rows.prompt, rows.output, rows.time, before, delay)
    every = zip(sessions, *(column.tolist() for column in columns), strict=True)
    for key, (session, line, prompt, output, time_s, prior, delay_s) in enumerate(every):
        after = () if prior == chains.NOBODY else (prior,)
        yield Turn(key, line, prompt, output, session, time_s, after, delay_s)


def _delays(
    time: NDArray[np.float64], elapsed: NDArray[np.float64], before: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Seconds from the completion of the turn before until a turn was sent, at least 0.

    # Model: a turn sent before the answer to the one before it was complete is sent as soon as it
    # is; `Elapsed time` is submission to last token (BurstGPT, arXiv 2401.17644, data description).
    """
    delay = np.maximum(time - time[before] - elapsed[before], 0.0)
    delay[before == chains.NOBODY] = nan
    return delay


def _note(tally: Tally) -> None:
    tally.note(
        "rows with 0 response tokens are failed requests, and rows with 0 request tokens were "
        "never served: both are left out and counted, and stop no read"
    )
