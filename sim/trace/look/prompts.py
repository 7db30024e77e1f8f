"""How a prompt continues the one before it: the latest prompts of sessions, kept for comparison."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from sim.trace.ragged import Ragged

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sim.trace.chunk import Chunk

_MOST_ROWS = 2**18
MOST_IDS = 2**22


@dataclass(frozen=True, slots=True)
class Continued:
    """Prompts and the ones before them, [n] each: tokens and blocks of both, blocks in common."""

    tokens: NDArray[np.int64]
    tokens_before: NDArray[np.int64]
    blocks: NDArray[np.int64]
    blocks_before: NDArray[np.int64]
    common: NDArray[np.int64]


class Prompts:
    """The latest prompts: at most 262,144 of them with at most 4,194,304 block ids."""

    def __init__(self, most_rows: int = _MOST_ROWS, most_ids: int = MOST_IDS) -> None:
        self._most = most_rows, most_ids
        self._positions = np.zeros(0, dtype=np.int64)  # ascending
        self._tokens = np.zeros(0, dtype=np.int64)
        self._ids = Ragged.empty(0)

    def add(
        self,
        chunk: Chunk,
        first: int,
        rows: NDArray[np.int64],
        positions: NDArray[np.int64],
    ) -> Continued:
        """Take the next requests, from position *first* on; *rows* of them follow *positions*.

        A row may follow several; it is compared with the one that it has most blocks in common
        with, the latest of these. Rows whose prompts before are no longer held are left out.
        """
        ids = Ragged.empty(len(chunk)) if chunk.block_ids is None else chunk.block_ids
        self._positions = np.append(self._positions, np.arange(first, first + len(chunk)))
        self._tokens = np.append(self._tokens, chunk.prompt_tokens)
        self._ids = Ragged.joined([self._ids, ids])
        held = len(self._positions) - len(chunk)
        at = np.minimum(np.searchsorted(self._positions, positions), len(self._positions) - 1)
        there = self._positions[at] == positions
        now, at = rows[there] + held, at[there]
        common = self._common(now, at)
        order = np.lexsort((at, common, now))
        last = np.flatnonzero(np.diff(now[order], append=-1))
        now, at, common = (column[order[last]] for column in (now, at, common))
        blocks = self._ids.lengths
        found = Continued(self._tokens[now], self._tokens[at], blocks[now], blocks[at], common)
        self._forget()
        return found

    def _common(self, a: NDArray[np.int64], b: NDArray[np.int64]) -> NDArray[np.int64]:
        """Leading ids that the held prompts *a* and *b* have in common, [pairs]; by bisection."""
        # Model: a prefix id stands for its block and all before it (as Mooncake and vLLM give
        # them out), so equal ids at a place mean equal prompts up to it
        starts, lengths = self._ids.offsets[:-1], self._ids.lengths
        low, high = np.zeros(len(a), dtype=np.int64), np.minimum(lengths[a], lengths[b])
        if not len(self._ids.values):
            return low
        top = len(self._ids.values) - 1
        while (low < high).any():
            middle = (low + high + 1) // 2  # so many in common?
            place = np.maximum(middle - 1, 0)
            one, two = (np.minimum(starts[x] + place, top) for x in (a, b))
            same = (self._ids.values[one] == self._ids.values[two]) & (middle > 0)
            low = np.where(same, middle, low)
            high = np.where(same, high, np.maximum(middle - 1, low))
        return low

    def _forget(self) -> None:
        """Let go of the oldest prompts until the rest is within bounds."""
        rows, ids = self._most
        too_many = max(0, len(self._positions) - rows)
        over = int(self._ids.offsets[-1]) - ids
        start = max(too_many, int(np.searchsorted(self._ids.offsets, over)) if over > 0 else 0)
        if not start:
            return
        self._positions, self._tokens = self._positions[start:], self._tokens[start:]
        kept = self._ids.part(start, len(self._ids))
        self._ids = Ragged(kept.values.copy(), kept.offsets)
