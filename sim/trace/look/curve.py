"""Hit rate of an LRU prefix cache of any size, from the references of a trace that streams by.

One rule: memory is bounded. Up to 4,194,304 references all are kept and the curve is exact; above
that those of a part of the blocks, chosen by a hash of the id, and a block between two references
stands for as many as it was chosen from (SHARDS: Waldspurger, Park, Garthwaite and Ahmad, FAST
2015; with a bound on the references that are kept, since they are all looked at in the end).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from sim.memory.offline import belady
from sim.trace.ragged import Ragged

from .stack import stack_distances

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

MOST = 2**22
MOST_FOR_BOUND = 2**19
"""References up to which Belady's bound is worked out: some 0.3 s a cache size at most."""
_HASH_BITS = 32
_GROUPS = 32


@dataclass(frozen=True, slots=True)
class Curve:
    """The references of a trace to blocks, by how large an LRU cache must be for a hit.

    `distances` ascending, in blocks, of those sampled references whose block an earlier request
    has; `groups` to which of 32 parts of the sample each belongs. `cold` references find no such
    block. `reuse_s` seconds since the block's last request, of the same references in any order.
    `popularity` references of each sampled block, ascending.
    """

    references: int
    cold: float
    rate: float
    distances: NDArray[np.float64]
    groups: NDArray[np.uint8]
    reuse_s: NDArray[np.float64]
    popularity: NDArray[np.int64]

    @property
    def exact(self) -> bool:
        """Whether all references were kept."""
        return self.rate == 1.0

    def hit_rate(self, capacity: float) -> float:
        """Share of all references that hit an LRU cache of *capacity* blocks; inf for any size."""
        # Model: only misses are scaled up from the sample, since hot blocks, whose part in the
        # sample is a matter of luck, hardly miss (after SHARDS-adj: Waldspurger et al., FAST 2015)
        far = len(self.distances) - int(np.searchsorted(self.distances, capacity, side="right"))
        hits = 1.0 - (self.cold + far / self.rate) / self.references
        return min(1.0, max(0.0, hits))

    def error(self, capacity: float) -> float:
        """Standard error of `hit_rate` that comes from sampling, by 32 parts of the sample."""
        if self.exact:
            return 0.0
        at = int(np.searchsorted(self.distances, capacity, side="right"))
        misses = np.bincount(self.groups[at:], minlength=_GROUPS)
        spread = float(np.sqrt(_GROUPS * misses.var(ddof=1)))
        return spread / self.rate / self.references


class References:
    """Takes the block ids of a trace chunk by chunk and keeps at most *most* references."""

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._ids: list[NDArray[np.int64]] = []
        self._lengths: list[NDArray[np.int64]] = []
        self._times: list[NDArray[np.float64]] = []
        self._held = 0
        self.count = 0
        self.rate = 1.0

    def add(self, ids: Ragged, arrival_s: NDArray[np.float64]) -> None:
        """Take the next requests."""
        self.count += len(ids.values)
        self._keep(ids.values, ids.lengths, arrival_s)
        while self._held > self._most:
            self.rate /= 2
            parts = zip(self._ids, self._lengths, self._times, strict=True)
            held, self._ids, self._lengths, self._times, self._held = list(parts), [], [], [], 0
            for part in held:
                self._keep(*part)

    def _keep(
        self, ids: NDArray[np.int64], lengths: NDArray[np.int64], times: NDArray[np.float64]
    ) -> None:
        if self.rate < 1.0:
            chosen = _hash(ids) < int(self.rate * 2**_HASH_BITS)
            before = np.concatenate([[0], np.cumsum(chosen)])
            lengths = np.diff(before[np.concatenate([[0], np.cumsum(lengths)])])
            ids = ids[chosen]
        there = lengths > 0
        self._ids.append(ids)
        self._lengths.append(lengths[there])
        self._times.append(times[there])
        self._held += len(ids)

    def bound(self, capacities: Sequence[int]) -> list[float] | None:
        """Hit rates that no policy beats with caches of *capacities* blocks (Belady).

        None for more than `MOST_FOR_BOUND` references, of which it would take too long.
        """
        if self.count > MOST_FOR_BOUND or self.rate < 1.0:
            return None
        lengths = np.concatenate([np.zeros(1, dtype=np.int64), *self._lengths])
        ids = np.concatenate([np.zeros(0, dtype=np.int64), *self._ids])
        return belady(Ragged(ids, np.cumsum(lengths)), capacities)

    def curve(self, cold: int | None) -> Curve:
        """The curve of what was taken; *cold* references find no block (None: by the sample)."""
        ids = np.concatenate([np.zeros(0, dtype=np.int64), *self._ids])
        lengths = np.concatenate([np.zeros(0, dtype=np.int64), *self._lengths])
        times = np.repeat(np.concatenate([np.zeros(0), *self._times]), lengths)
        distances, sources = stack_distances(ids, lengths)
        warm = np.flatnonzero(sources >= 0)
        far = (distances[warm] - 1) / self.rate + 1
        order = np.argsort(far, kind="stable")
        if cold is None or self.rate == 1.0:
            cold = len(ids) - len(warm)
            scaled = cold / self.rate
        else:
            scaled = float(cold)
        return Curve(
            references=self.count,
            cold=scaled,
            rate=self.rate,
            distances=far[order],
            groups=(_hash(ids[warm[order]]) & np.uint64(_GROUPS - 1)).astype(np.uint8),
            reuse_s=times[warm] - times[sources[warm]],
            popularity=np.sort(np.unique(ids, return_counts=True)[1]),
        )


def _hash(ids: NDArray[np.int64]) -> NDArray[np.uint64]:
    """A mix of all bits of each id, from 0 to below 2^32 (the finalizer of SplitMix64)."""
    mixed = ids.view(np.uint64) + np.uint64(0x9E3779B97F4A7C15)
    mixed ^= mixed >> np.uint64(30)
    mixed *= np.uint64(0xBF58476D1CE4E5B9)
    mixed ^= mixed >> np.uint64(27)
    mixed *= np.uint64(0x94D049BB133111EB)
    return np.asarray(mixed >> np.uint64(64 - _HASH_BITS), dtype=np.uint64)
