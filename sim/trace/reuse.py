"""How much of the prompts an infinite prefix cache would hold: counted over block ids.

One rule: a block is a hit if its id occurred before (set membership over all ids), so hits are
all references less the distinct ids; saved prefill counts a prompt's leading hits only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .ragged import Ragged

_DENSE = 2**26  # ids below are remembered in a bitmap, ids above in a set


class Reuse:
    """Prefix reuse over a stream of requests; memory grows with the largest id only."""

    def __init__(self, block_tokens: int) -> None:
        self.block_tokens = block_tokens
        self.blocks = 0
        self.distinct = 0
        self.saved_tokens = 0
        self.odd_rows = 0  # requests whose number of ids is not ceil(prompt / block_tokens)
        self._dense = np.zeros(1024, dtype=bool)
        self._sparse: set[int] = set()

    def add(
        self, ids: Ragged, prompt_tokens: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Take the next requests; their blocks and hits, [n] each."""
        lengths = ids.lengths
        self.odd_rows += int((lengths != -(-prompt_tokens // self.block_tokens)).sum())
        flat = ids.values
        if not len(flat):
            return lengths, np.zeros_like(lengths)
        distinct, first = np.unique(flat, return_index=True)
        new = np.zeros(len(flat), dtype=bool)
        new[first[~self._known(distinct)]] = True
        misses = np.concatenate([np.flatnonzero(new), [len(flat)]])
        ends = np.cumsum(lengths)
        starts = ends - lengths
        leading = np.minimum(misses[np.searchsorted(misses, starts)], ends) - starts
        self.saved_tokens += int(np.minimum(leading * self.block_tokens, prompt_tokens).sum())
        self.blocks += len(flat)
        self.distinct += int(new.sum())
        hits_before = np.concatenate([[0], np.cumsum(~new)])
        return lengths, hits_before[ends] - hits_before[starts]

    def _known(self, ids: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which of the ascending *ids* were seen before; all are afterwards."""
        dense = ids[: np.searchsorted(ids, _DENSE)]
        if len(dense) and dense[-1] >= len(self._dense):
            grown = np.zeros(max(2 * len(self._dense), int(dense[-1]) + 1), dtype=bool)
            grown[: len(self._dense)] = self._dense
            self._dense = grown
        known = np.zeros(len(ids), dtype=bool)
        known[: len(dense)] = self._dense[dense]
        self._dense[dense] = True
        sparse = ids[len(dense) :].tolist()
        known[len(dense) :] = [i in self._sparse for i in sparse]
        self._sparse.update(sparse)
        return known

    @property
    def hit_rate(self) -> float:
        """Share of all block references that an infinite cache has already."""
        return 1.0 - self.distinct / self.blocks if self.blocks else 0.0
