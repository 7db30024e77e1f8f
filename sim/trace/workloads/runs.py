"""Block ids as runs of consecutive numbers: what a generated prompt is made of.

A prompt of a thousand blocks is a handful of runs, since ids are given out in order. A run is a
pair (first id, ids).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sim.trace.ragged import Ragged

if TYPE_CHECKING:
    from collections.abc import Sequence

Run = tuple[int, int]


def cut(runs: tuple[Run, ...], ids: int) -> tuple[Run, ...]:
    """The first *ids* of the ids in *runs*, all if there are fewer."""
    for number, (first, count) in enumerate(runs):
        if ids <= count:
            return (*runs[:number], (first, ids)) if ids > 0 else runs[:number]
        ids -= count
    return runs


def ragged(rows: Sequence[tuple[Run, ...]]) -> Ragged:
    """The ids of *rows*, written out."""
    flat = [number for row in rows for run in row for number in run]
    firsts, counts = np.array(flat, dtype=np.int64).reshape(-1, 2).T
    ends = np.cumsum(counts)
    values = np.arange(ends[-1] if len(ends) else 0, dtype=np.int64)
    values += np.repeat(firsts - (ends - counts), counts)
    runs = np.cumsum([len(row) for row in rows], dtype=np.int64)
    offsets = np.concatenate([[0], np.concatenate([[0], ends])[runs]])
    return Ragged(values, offsets)
