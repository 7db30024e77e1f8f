"""Vidur CSV: times in seconds; later forks add sessions and prefix blocks in columns of their own.

Without those columns the file is a stream of rows; with one of them it is loaded whole.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from sim.errors import shown
from sim.trace.rows import BadRowError, Rows, whole
from sim.trace.turns import Turn

from . import chains
from .csvlines import open_table
from .objects import MAX_ID, session_name
from .table import VIDUR, Extra, Table

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from sim.trace.chunk import Tally
    from sim.trace.lines import Block
    from sim.trace.rows import Findings
    from sim.trace.turns import Replay

SESSION, IDS, TURN = "session_id", "block_hash_ids", "session_turn_index"
_MAX_TURN = 10**9


def _block_ids(key: str, text: str, column: int | None) -> NDArray[np.int64]:
    """The ids of a cell, joined by |."""
    cells = text.split("|") if text.strip() else []
    found = [whole(key, cell, column) for cell in cells]
    if found and not (min(found) >= 0 and max(found) <= MAX_ID):
        raise BadRowError(
            f"bad {key}", f"{key}: an id of {shown(text)} is not in 0 to 2^63 - 1", column
        )
    return np.array(found, dtype=np.int64)


def _turn_index(key: str, text: str, column: int | None) -> int:
    index = whole(key, text, column)
    if not 0 <= index <= _MAX_TURN:
        raise BadRowError(f"bad {key}", f"{key}: {shown(text)} is no turn; correct it", column)
    return index


_EXTRAS = (
    Extra(SESSION, rb'([^,"\r\n]{0,200})', session_name),
    Extra(IDS, rb"([0-9|]{0,500000})", _block_ids),
    Extra(TURN, rb"(\d{1,9})", _turn_index),
)


def lines(path: Path, tally: Tally) -> tuple[Table, Iterator[Block]]:
    """The rows as a stream, sessions left aside."""
    header, stream = open_table(path, VIDUR)
    header.note_unread(VIDUR, tally)
    return Table.of(VIDUR, header), stream


def has_sessions(path: Path) -> bool:
    """Whether the file has columns of sessions or of blocks."""
    names = open_table(path, VIDUR)[0].names
    return SESSION in names or IDS in names


def turns(path: Path, findings: Findings, tally: Tally, replay: Replay) -> Iterator[Turn]:
    """The rows with sessions and blocks: a turn comes after the one before it in its session.

    The file does not have when an answer was complete, so delays are not known.
    """
    rows, held = _load(path, findings, tally)
    if not len(rows):
        return
    lines, prompt = rows.lines.tolist(), rows.prompt.tolist()
    sessions = held.get(SESSION, [""] * len(rows))
    index = held.get(TURN)
    rank = None if index is None else np.array(index, dtype=np.int64)
    before, late = chains.before(sessions, rows.time, rank)
    for row, prior in late.items():
        assert index is not None
        text = (
            f"{VIDUR[0]}: turn {index[row]} of session {shown(sessions[row])} is before turn "
            f"{index[prior]} in line {lines[prior]}; correct the time or the turn"
        )
        findings.add(lines[row], BadRowError("turns out of order", text))
    ids = held.get(IDS, [None] * len(rows))
    misfits = chains.misfits(path, tally, replay, prompt, ids)
    for row, bad in misfits.items():
        findings.add(lines[row], bad)
    every = zip(rows.time.tolist(), rows.output.tolist(), before.tolist(), strict=True)
    for row, (time_s, output, prior) in enumerate(every):
        if row not in late:
            after = () if prior == chains.NOBODY else (prior,)
            yield Turn(
                row, lines[row], prompt[row], output, sessions[row], time_s, after,
                ids=ids[row], ghost=row in misfits,
            )  # fmt: skip


def _load(path: Path, findings: Findings, tally: Tally) -> tuple[Rows, dict[str, list[Any]]]:
    """All good rows, and those of the extra columns that the file has."""
    header, stream = open_table(path, VIDUR, (SESSION, IDS, TURN))
    extras = [extra for extra in _EXTRAS if extra.name in header.names]
    header.note_unread((*VIDUR, *(extra.name for extra in extras)), tally)
    held: dict[str, list[Any]] = {extra.name: [] for extra in extras}
    parts: list[Rows] = []
    for rows, values in Table.of(VIDUR, header, extras).records(stream, findings):
        parts.append(rows)
        for extra, column in zip(extras, values, strict=True):
            held[extra.name] += column
    return Rows.joined(parts), held
