"""HBM of one of several replicas above tiers that they share: each sees the store from its side.

One rule: a replica acts on the store at once, and what it has done takes effect on the others'
views at their next boundaries (`refresh`). Between two boundaries a replica only takes blocks for
tokens that it decodes, and drops for them what it believed to be below when it began.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .rooms import Rooms
from .store import alike
from .units import HBM, Index, Unit

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .manager import Memory
    from .store import Store


class View(Index):
    """Units like those of *index* that a replica has or uses in HBM, or that come there.

    Of a unit in *store* that is none of these, it makes an object for whoever asks.
    """

    def __init__(self, index: Index, store: Store) -> None:
        super().__init__(*index.blocks, index.tiers)
        self.own = HBM
        self.store = store
        self.find = self._seen

    def see(self, unit: Unit) -> bool:
        """Brings *unit* up to date with the store; whether that changed anything."""
        there = self.store.index.units.get(unit.id)
        where, flight = (there.where, there.flight) if there is not None else (0, 0)
        where, flight = where | unit.where & HBM, flight | unit.flight & HBM
        changed = where != unit.where or flight != unit.flight
        unit.where, unit.flight = where, flight
        return changed

    def _seen(self, name: int) -> Unit | None:
        unit = self.units.get(name)
        if unit is None:
            there = self.store.index.units.get(name)
            if there is not None and there.where:
                unit = alike(there)
                unit.where, unit.flight = there.where, there.flight
        return unit

    def lasting(self, unit: Unit) -> Unit | int:
        return unit.id  # its object changes when it leaves HBM and comes back

    def register(
        self, ids: Sequence[int], first: int = 0, tier: int = HBM
    ) -> tuple[list[Unit], list[Unit]]:
        every, fresh = super().register(ids, first, tier)
        for unit in fresh:
            self.see(unit)
        return every, fresh

    def keep(self, units: Sequence[Unit]) -> None:
        """*units*, found just now, are known from now on."""
        for unit in units:
            known = self.units.setdefault(unit.id, unit)
            assert known is unit, f"unit {unit.id} is known already"


class SharedRooms(Rooms):
    """The units of *view* in HBM of *memory*'s replica, and those of *store* below.

    Its units are those of the view where HBM is concerned; what is below takes either.
    """

    index: View

    def __init__(self, view: View, memory: Memory, store: Store) -> None:
        host = memory.host
        super().__init__(view, memory.pool, list(store.tiers.values()), host.orders(view))
        self.memory = memory
        self.store = store
        self.orders = {HBM: self.orders[HBM]} | store.orders
        self._kinds = [kind & (HBM << 4 | HBM) for kind in self._kinds]
        self.may_drop = {HBM: self.may_drop[HBM]} | store.may_drop
        self.dirty = {HBM: self.dirty[HBM]} | store.dirty
        for kinds in (self._droppable, self._dirty):
            kinds[HBM] = sorted({kind & (HBM << 4 | HBM) for kind in kinds[HBM]})
        self._posted: dict[int, None] = {}
        store.replicas[host.links.replica] = self
        for tier in self.tiers.values():
            tier.sharers = len(store.replicas)

    # ---------------------------------------------------------------- what others do
    def hear(self, units: Sequence[Unit]) -> None:
        """*units* of the store have changed; waits for the next boundary, which it brings near."""
        known = self.index.units
        names = [unit.id for unit in units if unit.id in known]
        if names:
            self._posted.update(dict.fromkeys(names))
            self.memory.news = True
            self.memory.host.wake()

    def refresh(self) -> bool:
        known, changed = self.index.units, False
        for name in self._posted:
            unit = known.get(name)
            if unit is not None:
                changed |= self._see(unit)
        self._posted.clear()
        return changed

    def _see(self, unit: Unit) -> bool:
        if unit.refs:
            return self.index.see(unit)
        self._count((unit,), -1)
        changed = self.index.see(unit)
        self._count((unit,), 1)
        return changed

    def _tell(self, units: Sequence[Unit]) -> None:
        """Sees at once what it has done with *units* of the store, and tells the others."""
        known = self.index.units
        for unit in units:
            here = known.get(unit.id)
            if here is not None:
                self._see(here)
        for rooms in self.store.replicas.values():
            if rooms is not self:
                rooms.hear(units)

    # ---------------------------------------------------------------- questions
    def droppable(self, tier: int) -> int:
        return super().droppable(HBM) if tier == HBM else self.store.droppable(tier)

    def keepers(self, units: int, tier: int) -> list[Unit]:
        return super().keepers(units, HBM) if tier == HBM else self.store.keepers(units, tier)

    def leaving(self, tier: int) -> int:
        return super().leaving(HBM) if tier == HBM else self.store.leaving(tier)

    def leave(self, units: int, tier: int) -> None:
        if tier == HBM:
            super().leave(units, HBM)
        else:
            self.store.leave(units, tier)

    def stored(self, units: Sequence[Unit]) -> Sequence[Unit]:
        return self.store.known(units)

    # ---------------------------------------------------------------- use
    def hold(self, units: Sequence[Unit]) -> list[Unit]:
        self.index.keep(units)
        idle = super().hold(units)
        self.store.pin(idle)
        return idle

    def begin(self, units: Sequence[Unit]) -> None:
        self.store.pin([unit for unit in units if not unit.refs])
        super().begin(units)

    def release(self, units: Sequence[Unit]) -> list[Unit]:
        idle = super().release(units)
        self.store.unpin(idle)
        return idle

    def used(self, units: Sequence[Unit], first: int, total: int, now: float) -> None:
        super().used(units, first, total, now)
        self.store.used(self.store.of(units), first, total, now)

    def touch(self, units: Sequence[Unit]) -> None:
        self.store.touch(self.store.known(units))

    # ---------------------------------------------------------------- copies
    def depart(self, units: Sequence[Unit], tier: int) -> None:
        if tier == HBM:
            self.index.keep(units)
            super().depart(units, tier)
            self.store.pin(units)
        else:
            units = self.store.of(units)
            self.store.depart(units, tier)
            self._tell(units)

    def arrive(self, units: Sequence[Unit], tier: int) -> None:
        if tier == HBM:
            super().arrive(units, tier)
            self.store.unpin(units)
        else:
            units = self.store.of(units)
            self.store.arrive(units, tier)
            self._tell(units)

    def abort(self, unit: Unit, tier: int) -> None:
        super().abort(unit, tier)
        self.store.unpin([unit])

    def drop(self, units: Sequence[Unit], tier: int) -> None:
        if tier == HBM:
            super().drop(units, tier)
            return
        units = self.store.of(units)
        self.store.drop(units, tier)
        self._tell(units)
        self.lost(units, tier)
        for memory in self.memory.sharers:
            if memory is not self.memory:
                memory.prefetching.gone(units, tier)
