"""How much of the prompts an infinite prefix cache would hold: counted over block ids.

One rule: a block is a hit if an earlier request has its id (set membership over all ids); what a
server can reuse are a prompt's leading hits only, whole blocks, and never its last token, which it
needs to get an answer from.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .seen import Seen

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sim.trace.ragged import Ragged


class Reuse:
    """Prefix reuse over a stream of requests, in bounded memory.

    `exact` while all ids fit into it; afterwards only `blocks` goes on counting.
    """

    def __init__(self, block_tokens: int) -> None:
        self.block_tokens = block_tokens
        self.blocks = 0
        self.distinct = 0
        self.misses = 0
        self.saved_tokens = 0
        self.whole_blocks = 0
        """Blocks that their prompt fills; the last one of a prompt often is not."""
        self.reusable_blocks = 0
        """Of these, hits that a server can reuse."""
        self._seen = Seen()

    @property
    def exact(self) -> bool:
        """Whether hits, distinct blocks and saved tokens are of the whole trace."""
        return not self._seen.full

    def add(
        self, ids: Ragged, prompt_tokens: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Take the next requests; their blocks and hits, [n] each."""
        lengths = ids.lengths
        self.blocks += len(ids.values)
        if not len(ids.values) or not self.exact:
            return lengths, np.zeros_like(lengths)
        missed = self._missed(ids.values, ids.offsets)
        misses = np.concatenate([np.flatnonzero(missed), [len(missed)]])
        starts, ends = ids.offsets[:-1], ids.offsets[1:]
        first = np.searchsorted(misses, starts)
        leading = np.minimum(misses[first], ends) - starts
        self.saved_tokens += int(np.minimum(leading * self.block_tokens, prompt_tokens).sum())
        whole = np.minimum(prompt_tokens // self.block_tokens, lengths)
        self.whole_blocks += int(whole.sum())
        most = np.minimum(whole, np.maximum(0, prompt_tokens - 1) // self.block_tokens)
        self.reusable_blocks += int(np.minimum(leading, most).sum())
        self.misses += len(misses) - 1
        return lengths, lengths - (np.searchsorted(misses, ends) - first)

    def _missed(self, flat: NDArray[np.int64], offsets: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which references are to a block that no earlier request has; all are known after it."""
        missed = ~self._seen.has(flat)
        places = np.flatnonzero(missed)
        new = flat[places]
        head = first_of(new)
        repeats = head != np.arange(len(new))
        # again in these requests: a hit, but for a block that comes twice in its first request
        again = np.flatnonzero(repeats)
        request = np.searchsorted(offsets, places[again], side="right")
        born = np.searchsorted(offsets, places[head[again]], side="right")
        missed[places[again[request != born]]] = False
        fresh = new[~repeats]
        self.distinct += len(fresh)
        self._seen.add(fresh)
        return missed

    @property
    def hit_rate(self) -> float:
        """Share of all block references that an infinite cache has already."""
        return 1.0 - self.misses / self.blocks if self.blocks else 0.0

    @property
    def whole_hit_rate(self) -> float | None:
        """Share of the whole blocks that a server with an infinite cache reuses.

        None where there are none, or not all hits were counted.
        """
        known = self.exact and self.whole_blocks > 0
        return self.reusable_blocks / self.whole_blocks if known else None


def first_of(values: NDArray[np.int64]) -> NDArray[np.int64]:
    """For each of *values* the position of the first that is equal, [n]."""
    count = len(values)
    if not count:
        return np.zeros(0, dtype=np.int64)
    low, high = int(values.min()), int(values.max())
    if high - low <= 8 * count:  # no need to sort
        places = np.empty(high - low + 1, dtype=np.int64)
        places[values[::-1] - low] = np.arange(count - 1, -1, -1)
        return np.asarray(places[values - low], dtype=np.int64)
    _, index, inverse = np.unique(values, return_index=True, return_inverse=True)
    return np.asarray(index[inverse], dtype=np.int64)
