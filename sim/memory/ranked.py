"""Eviction by rank: policies whose victim is the unit with the lowest key.

One rule: O(log n) a step; see `sim/memory/eviction.py` for the protocol.
"""

from __future__ import annotations

from heapq import heapify, heappop, heappush
from math import inf, log2
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from .units import Unit

    Entry = tuple[float, int, "Unit"]

#: Of `victims`: units in whatever state.
ANY = bytes([1]) * 256


class _Ranked:
    """Orders by a key, the lowest first; equal keys by least recent use. O(log n) a step.

    A key is taken at insertion and touch. Entries that are no longer valid are skipped, and cleared
    away when they are the greater part.
    """

    def __init__(self) -> None:
        self._entries: dict[Unit, Entry] = {}
        self._heap: list[Entry] = []
        self._front: list[Entry] = []  # sorted: taken off the heap by `victims`, to be seen again
        self._order = 0

    def _key(self, unit: Unit) -> float:
        raise NotImplementedError

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, unit: Unit) -> bool:
        return unit in self._entries

    def insert(self, unit: Unit) -> None:
        self._order += 1
        entry = self._key(unit), self._order, unit
        self._entries[unit] = entry
        heappush(self._heap, entry)
        if len(self._heap) + len(self._front) > 2 * len(self._entries) + 64:
            self._heap = list(self._entries.values())
            self._front.clear()
            heapify(self._heap)

    def insert_all(self, units: Iterable[Unit]) -> None:
        for unit in units:
            self.insert(unit)

    def touch(self, unit: Unit) -> None:
        if unit in self._entries:
            self.insert(unit)

    def touch_all(self, units: Iterable[Unit]) -> None:
        for unit in units:
            self.touch(unit)

    def remove(self, unit: Unit) -> None:
        self._entries.pop(unit, None)

    def remove_all(self, units: Iterable[Unit]) -> None:
        entries = self._entries
        for unit in units:
            entries.pop(unit, None)

    def evict(self, unit: Unit) -> None:
        self.remove(unit)

    def evict_all(self, units: Iterable[Unit]) -> None:
        for unit in units:
            self.evict(unit)

    def victims(self, count: int, may: bytes = ANY) -> list[Unit]:
        heap, entries, front = self._heap, self._entries, self._front
        found: list[Unit] = []
        seen: list[Entry] = []
        place = 0  # of the next one in `front`
        while len(found) < count:
            if place < len(front) and not (heap and heap[0] < front[place]):
                entry = front[place]
                place += 1
            elif heap:
                entry = heappop(heap)
            else:
                break
            unit = entry[2]
            if entries.get(unit) is entry:
                seen.append(entry)
                if may[unit.flight << 4 | unit.where] and not unit.refs:
                    found.append(unit)
        front[:place] = seen
        return found


class Lfu(_Ranked):
    """Least often used first, by `Unit.uses`, with ageing; equal ones by least recent use.

    Ageing is that of LFU-DA (Arlitt et al. 2000): a unit's key is its uses plus the key of the
    last one evicted before, so what was popular once does not stay for ever.
    """

    def __init__(self) -> None:
        super().__init__()
        self.age = 0.0

    def _key(self, unit: Unit) -> float:
        return self.age + unit.uses

    def evict(self, unit: Unit) -> None:
        entry = self._entries.pop(unit, None)
        if entry is not None:
            self.age = max(self.age, entry[0])


class CostAware(_Ranked):
    """What is cheapest to lose first: seconds to get it back times the chance that it is asked for.

    *recompute_s* and *reload_s* say how long prefill of a unit and loading it from a lower tier
    take (inf where there is no copy); the lesser counts. *reuse* weighs how likely another use
    was when it was last used, and halves with each *half_life_s* since. A unit counts at least as
    much as those that follow it, which are of no use without it; equal ones by least recent use.
    """

    def __init__(
        self,
        recompute_s: Callable[[Unit], float],
        reload_s: Callable[[Unit], float] = lambda unit: inf,
        reuse: Callable[[Unit], float] = lambda unit: float(unit.uses),
        half_life_s: float = 600.0,
    ) -> None:
        super().__init__()
        self.recompute_s = recompute_s
        self.reload_s = reload_s
        self.reuse = reuse
        self.half_life_s = half_life_s
        self._floor: dict[int, float] = {}  # by id: the key of the dearest that follows

    def loss_s(self, unit: Unit) -> float:
        """Expected seconds that losing *unit* would have cost at its last use."""
        return self.reuse(unit) * min(self.recompute_s(unit), self.reload_s(unit))

    def _key(self, unit: Unit) -> float:
        # The loss halves with age for all alike, so its logarithm plus the time of the last use
        # in half-lives orders units in the same way at any time.
        loss = self.loss_s(unit)
        key = log2(loss) + unit.last_use / self.half_life_s if loss > 0.0 else -inf
        key = max(key, self._floor.get(unit.id, -inf))
        self._raise_floor(unit, key)
        if len(self._floor) > 2 * len(self._entries) + 64:
            self._floor.clear()  # of parents that are long gone
            for held, entry in self._entries.items():
                self._raise_floor(held, entry[0])
            self._raise_floor(unit, key)
        return key

    def _raise_floor(self, unit: Unit, key: float) -> None:
        if unit.parent is not None and key > self._floor.get(unit.parent, -inf):
            self._floor[unit.parent] = key

    def evict(self, unit: Unit) -> None:
        super().evict(unit)
        self._floor.pop(unit.id, None)


class H2o(_Ranked):
    """Heavy hitters stay: the lowest accumulated attention (`Unit.score`) first.

    The last *recent* units of a prompt go only when nothing else is left (Zhang et al. 2023).
    """

    def __init__(self, recent: int = 4) -> None:
        super().__init__()
        self.recent = recent

    def _key(self, unit: Unit) -> float:
        return unit.score if unit.behind >= self.recent else inf
