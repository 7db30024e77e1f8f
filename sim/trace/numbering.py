"""Numbers for keys, from 0 in order of first appearance, over a stream of arrays.

Small keys are looked up in a table, large and negative ones in a hash table of NumPy arrays: a
Python dictionary would take ten times the memory and the time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

_TABLE = 2**26  # keys below are looked up in a table of up to 256 MiB
_NONE = -1


class Numbering:
    """Gives every key a number; equal keys get the same, for good. `count` numbers are out.

    Most traces have ids that are numbered so already: as long as they are, nothing is looked up.
    Keys from *table* on are hashed.
    """

    def __init__(self, table: int = _TABLE) -> None:
        self.count = 0
        self._most = table
        self._as_they_are = True  # whether every key so far has itself as its number
        self._table = np.full(min(1024, table), _NONE, dtype=np.int32)
        self._others = _Hashed()

    def of(
        self, keys: NDArray[np.int64], fresh: NDArray[np.bool_] | None = None
    ) -> NDArray[np.int64]:
        """The numbers of *keys*, [n]; what *fresh* flags gets a number that nothing else has."""
        if self._as_they_are:
            if fresh is None and self._in_order(keys):
                return keys
            self._as_they_are = False
            own = np.arange(self.count, dtype=np.int64)
            self._remember(own, own)
        found = self._known(keys)
        if fresh is not None:
            found[fresh] = _NONE
        new = np.flatnonzero(found == _NONE)
        if not len(new):
            return found
        head = np.arange(len(new))
        shared = head if fresh is None else np.flatnonzero(~fresh[new])
        head[shared] = shared[first_of(keys[new[shared]])]
        first = head == np.arange(len(new))
        numbers = self.count + np.cumsum(first) - 1
        found[new] = numbers[head]
        self.count += int(first.sum())
        born = shared[first[shared]]
        self._remember(keys[new[born]], numbers[born])
        return found

    def _in_order(self, keys: NDArray[np.int64]) -> bool:
        """Whether *keys* go on from 0 in order of first appearance; they are known then."""
        if not len(keys):
            return True
        highest = np.maximum.accumulate(np.maximum(keys, self.count - 1))
        steps = np.diff(highest, prepend=np.int64(self.count - 1))
        if keys.min() < 0 or steps.max() > 1:
            return False
        self.count = int(highest[-1]) + 1
        return True

    def _known(self, keys: NDArray[np.int64]) -> NDArray[np.int64]:
        """The numbers of *keys*, `_NONE` for those not met."""
        small = (keys >= 0) & (keys < len(self._table))
        if small.all():
            return self._table[keys].astype(np.int64)
        found = np.full(len(keys), _NONE, dtype=np.int64)
        found[small] = self._table[keys[small]]
        large = np.flatnonzero((keys < 0) | (keys >= self._most))
        found[large] = self._others.get(keys[large])
        return found

    def _remember(self, keys: NDArray[np.int64], numbers: NDArray[np.int64]) -> None:
        small = (keys >= 0) & (keys < self._most)
        if small.any():
            top = int(keys[small].max())
            if top >= len(self._table):
                size = min(self._most, max(2 * len(self._table), top + 1))
                grown = np.full(size, _NONE, dtype=np.int32)
                grown[: len(self._table)] = self._table
                self._table = grown
            self._table[keys[small]] = numbers[small]
        if not small.all():
            self._others.put(keys[~small], numbers[~small])


class _Hashed:
    """A map of int64 keys to numbers, open addressing with linear probing."""

    def __init__(self) -> None:
        self._held = 0
        self._keys = np.zeros(1024, dtype=np.int64)
        self._numbers = np.full(1024, _NONE, dtype=np.int64)

    def get(self, keys: NDArray[np.int64]) -> NDArray[np.int64]:
        """The numbers of *keys*, `_NONE` for those not held."""
        found = np.full(len(keys), _NONE, dtype=np.int64)
        slot, left = self._slots(keys), np.arange(len(keys))
        while len(left):
            number = self._numbers[slot]
            hit = self._keys[slot] == keys[left]
            found[left] = np.where(hit, number, _NONE)
            on = np.flatnonzero(~hit & (number != _NONE))
            slot, left = (slot[on] + 1) % len(self._keys), left[on]
        return found

    def put(self, keys: NDArray[np.int64], numbers: NDArray[np.int64]) -> None:
        """Hold *keys*, of which none is held and none comes twice."""
        self._held += len(keys)
        if 4 * self._held > 3 * len(self._keys):
            there = np.flatnonzero(self._numbers != _NONE)
            keys = np.concatenate([self._keys[there], keys])
            numbers = np.concatenate([self._numbers[there], numbers])
            slots = 1 << int(2 * self._held).bit_length()
            self._keys = np.zeros(slots, dtype=np.int64)
            self._numbers = np.full(slots, _NONE, dtype=np.int64)
        slot = self._slots(keys)
        while len(keys):
            free = self._numbers[slot] == _NONE
            self._numbers[slot[free]] = numbers[free]
            mine = free & (self._numbers[slot] == numbers)  # of several at a slot, one stays
            self._keys[slot[mine]] = keys[mine]
            on = ~mine
            keys, numbers, slot = keys[on], numbers[on], (slot[on] + 1) % len(self._keys)

    def _slots(self, keys: NDArray[np.int64]) -> NDArray[np.int64]:
        return (mixed(keys.view(np.uint64)) & np.uint64(len(self._keys) - 1)).astype(np.int64)


def mixed(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """*values* scattered over all 64 bits, one to one (the finaliser of SplitMix64)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def first_of(values: NDArray[np.int64]) -> NDArray[np.int64]:
    """For each of *values* the position of the first that is equal, [n]."""
    count = len(values)
    if not count:
        return np.zeros(0, dtype=np.int64)
    low, high = int(values.min()), int(values.max())
    if high - low <= 8 * count:  # a table is faster than sorting
        places = np.empty(high - low + 1, dtype=np.int64)
        places[values[::-1] - low] = np.arange(count - 1, -1, -1)
        found: NDArray[np.int64] = places[values - low]
        return found
    _, index, inverse = np.unique(values, return_index=True, return_inverse=True)
    return np.asarray(index[inverse], dtype=np.int64)
