"""Stack distances under LRU, of all references of a trace at once.

One rule: a request looks all its blocks up in the cache as it was before it, then touches them
from the last to the first, so that the beginning of a prompt is more recent than its end (the
order in which vLLM frees the blocks of a finished request). A reference then hits a cache of C
blocks if its distance is at most C, whatever C is (Mattson et al. 1970).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Index = NDArray[np.int32]

_INDEX = np.int32  # positions; half the memory of whole words


def stack_distances(ids: NDArray[np.int64], lengths: NDArray[np.int64]) -> tuple[Index, Index]:
    """For the references *ids* of consecutive requests of *lengths*, two columns [references].

    The stack distance in blocks, from 1, or 0 where no earlier request has the block; and the
    position of the last reference to it by such a request, or -1. At most 2^31 - 1 references.
    """
    ends = np.cumsum(lengths, dtype=_INDEX)
    starts = np.repeat(ends - lengths.astype(_INDEX), lengths)
    # touch order: each request reversed, which is its own inverse
    mirror = starts + np.repeat(ends - _INDEX(1), lengths) - np.arange(len(ids), dtype=_INDEX)
    before, again = _before(ids[mirror], starts)
    rank = np.cumsum(~again, dtype=_INDEX) - ~again  # a request touches a block once
    asked = before >= 0
    touched_before = before[~again]
    previous = np.where(touched_before >= 0, rank[touched_before], _INDEX(-1))
    distances = np.zeros(len(ids), dtype=_INDEX)
    distances[asked] = _distinct_between(previous, rank[before[asked]], rank[starts[asked]]) + 1
    sources = np.where(asked, mirror[before], _INDEX(-1))
    return distances[mirror], sources[mirror]


def _before(ids: NDArray[np.int64], starts: Index) -> tuple[Index, NDArray[np.bool_]]:
    """For each touch the last one of its block before its request (or -1).

    And whether the request touches the block again after it.
    """
    order = np.argsort(ids, kind="stable").astype(_INDEX)
    same = np.diff(ids[order], prepend=0) == 0
    twice = same & (np.diff(starts[order], prepend=_INDEX(-1)) == 0)
    same[:1] = False
    heads = np.flatnonzero(~twice)  # the first touch of a block by a request
    earlier = np.where(same[heads], order[heads - 1], _INDEX(-1))
    before = np.empty(len(ids), dtype=_INDEX)
    before[order] = np.repeat(earlier, np.diff(heads, append=len(ids)))
    again = np.zeros(len(ids), dtype=bool)
    again[order[:-1][twice[1:]]] = True
    return before, again


def _distinct_between(previous: Index, last: Index, stop: Index) -> Index:
    """How many blocks are touched after touch *last* and before touch *stop*, [questions].

    *previous* is for each touch the one of the same block before it, or -1. A block counts where
    it is touched first in that span: where its previous touch is not in it.
    """
    # a step back in the same span, as within a prompt that comes again, has one block more
    follows = np.zeros(len(last), dtype=bool)
    follows[1:] = (np.diff(last) == 1) & (np.diff(stop) == 0)
    heads = np.flatnonzero(~follows)
    inside = _above(previous, last[heads], stop[heads])
    found = stop[heads] - last[heads] - 1 - inside
    runs = np.diff(heads, append=len(last))
    steps = np.arange(len(last), dtype=_INDEX) - np.repeat(heads.astype(_INDEX), runs)
    return np.asarray(np.repeat(found, runs) - steps, dtype=_INDEX)


def _above(values: Index, floor: Index, stop: Index) -> Index:
    """How many of `values[:stop]` are above *floor*, [questions]; values from -1.

    Bit by bit from the highest: values are parted by it, stably, and each question follows its
    floor into one half (a wavelet matrix: Claude, Navarro and Ordonez 2015).
    """
    left, target = values + _INDEX(1), floor + _INDEX(1)
    low, high = np.zeros(len(stop), dtype=_INDEX), stop
    count = np.zeros(len(stop), dtype=_INDEX)
    zeros = np.zeros(len(left) + 1, dtype=_INDEX)
    for bit in reversed(range(len(values).bit_length())):
        one = (left >> bit) & 1 == 1
        np.cumsum(~one, out=zeros[1:])
        zero_low, zero_high = zeros[low], zeros[high]
        one_low, one_high = low - zero_low + zeros[-1], high - zero_high + zeros[-1]
        up = (target >> bit) & 1 == 1
        count += np.where(up, _INDEX(0), one_high - one_low)
        low, high = np.where(up, one_low, zero_low), np.where(up, one_high, zero_high)
        left = np.concatenate([left[~one], left[one]])
    return count
