"""What readers of sessions share: rows that only name their session, ids against a block size."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from sim.trace.blocks import Blocks
from sim.trace.ragged import Ragged

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from sim.trace.chunk import Tally
    from sim.trace.rows import BadRowError
    from sim.trace.turns import Replay

NOBODY = -1


def before(
    sessions: Sequence[str], time: NDArray[Any], rank: NDArray[np.int64] | None = None
) -> tuple[NDArray[np.int64], dict[int, int]]:
    """Of each row the position of the row before it in its session, or `NOBODY`; shape [n].

    Rows of a session follow each other by *rank* if given, then by *time*, then as in the file.
    A row of session "" has nobody before it. Second come the rows whose time is below that of the
    one before them by rank, with that one: nobody follows them, and they follow nobody.
    """
    names: dict[str, int] = {"": 0}
    code = np.fromiter((names.setdefault(name, len(names)) for name in sessions), np.int64)
    order = np.lexsort((time, code) if rank is None else (time, rank, code))
    found = np.full(len(code), NOBODY, dtype=np.int64)
    same = (code[order[1:]] == code[order[:-1]]) & (code[order[1:]] != 0)
    found[order[1:][same]] = order[:-1][same]
    known = found != NOBODY
    if not (time[known] < time[found[known]]).any():
        return found, {}
    late: dict[int, int] = {}
    last = NOBODY
    for row in order.tolist():
        last = NOBODY if found[row] == NOBODY else last
        if last != NOBODY and time[row] < time[last]:
            late[row] = last
            found[row] = NOBODY
        else:
            found[row] = last
            last = NOBODY if code[row] == 0 else row
    return found, late


def misfits(
    path: Path,
    tally: Tally,
    replay: Replay,
    prompts: Sequence[int],
    ids: Sequence[NDArray[np.int64] | None],
) -> dict[int, BadRowError]:
    """The rows whose ids do not fit their prompts, by position; *tally* gets the block size.

    Raises `InputError` if the ids fit no block size at all.
    """
    counts = np.array([0 if row is None else len(row) for row in ids], dtype=np.int64)
    offsets = np.concatenate([[0], np.cumsum(counts)])
    values = np.broadcast_to(np.int64(0), (int(offsets[-1]),))  # only their number counts
    size = Blocks(path, tally, replay.block_tokens)
    wrong = size.wrong(np.array(prompts, dtype=np.int64), Ragged(values, offsets))
    return {row: size.bad(prompts[row], int(counts[row])) for row in np.flatnonzero(wrong).tolist()}
