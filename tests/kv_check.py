"""What must hold at every boundary of a run with KV over several tiers; counted from scratch."""

from __future__ import annotations

from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

from sim.memory.shared import SharedRooms
from sim.memory.units import DRAM, HBM
from sim.replica import Replica

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sim.memory.manager import Memory
    from sim.memory.stock import Stock
    from sim.memory.units import Unit


def check(replica: Replica, memory: Memory) -> None:
    """Room, use and order of every unit and request, against the accounts."""
    batch, rooms, index, pool = replica.batch, memory.rooms, memory.index, memory.pool
    units = list(index.units.values())
    # Every block of HBM belongs to a unit, to a unit on its way, or to one request.
    own = 0
    for request in batch.running:
        held = request.kv
        if request in batch.decoding or request in batch.prefilled:
            tokens = request.context_tokens  # the engine `step` keeps them up to date
        else:
            # what swapping brings back is KV of all but the newest token
            tokens = request.prefill_tokens - (held is not None and held.resumes)
        own += pool.blocks(tokens) - (len(held.units) * rooms.blocks if held else 0)
        if held is not None:
            for unit in held.units:
                assert unit.refs > 0
                there = unit.where & HBM
                assert there or (unit.flight & HBM and held.loads), "read before it is there"
            if request in batch.decoding or request in batch.prefilling.requests:
                assert not held.loads, "runs before its KV is there"
    leaving = memory.swapping.blocks
    shared = sum(1 for unit in units if unit.where & HBM)
    # a unit that was computed while a copy of it was loaded has room twice
    coming = sum(1 for unit in units if unit.flight & HBM)
    assert pool.used == own + leaving + (shared + coming) * rooms.blocks
    assert pool.used <= pool.capacity
    check_idle(rooms, units, HBM)
    assert index.copies[HBM] == shared
    holders: dict[int, int] = {}
    for request in batch.running:
        for unit in request.kv.units if request.kv else ():
            holders[unit.id] = holders.get(unit.id, 0) + 1
    assert all(unit.refs == holders.get(unit.id, 0) for unit in units)
    flying = {unit for load in memory.promotion.flying.values() for unit in load.units}
    assert all(bool(unit.flight & HBM) == (unit in flying) for unit in units)


def check_idle(stock: Stock, units: Sequence[Unit], tier: int) -> None:
    """Who may go from *tier* is counted right, and is in its order."""
    order, may = stock.orders[tier], stock.may_drop[tier]
    idle = [u for u in units if not u.refs and u.where & tier]
    assert stock.droppable(tier) == sum(1 for unit in idle if may[unit.state])
    assert all(unit in order for unit in idle)
    assert len(order) == len(idle) if tier == HBM else len(order) >= len(idle)


def check_below(stock: Stock, replicas: Sequence[Replica]) -> None:
    """Every byte below HBM is accounted for, by units and by what *replicas* have swapped out."""
    units = list(stock.index.units.values())
    swapped = sum(
        request.kv.swapped
        for replica in replicas
        for request in [*replica.batch.admission.waiting, *replica.batch.running]
        if request.kv is not None
    )
    for bit, tier in stock.tiers.items():
        held_here = sum(bool(unit.where & bit) + bool(unit.flight & bit) for unit in units)
        blocks = swapped * tier.block_bytes if bit == DRAM else 0
        assert tier.used == held_here * tier.unit_bytes + blocks
        assert tier.used <= tier.capacity
        assert stock.index.copies[bit] == sum(1 for unit in units if unit.where & bit)
        check_idle(stock, units, bit)


def check_shared(rooms: SharedRooms) -> None:
    """What replicas see of the store is true at their boundaries, and what they need is pinned."""
    store, needed = rooms.store, Counter[int]()
    for other in store.replicas.values():
        for unit in other.index.units.values():
            needed[unit.id] += (unit.refs > 0) + bool(unit.flight & HBM)
            assert unit.refs or (unit.where | unit.flight) & HBM, "known for nothing"
    for unit in store.index.units.values():
        assert unit.refs == needed[unit.id]
        assert unit.refs or unit.where or unit.flight, "known for nothing"
    assert all(name in store.index.units for name in +needed)
    for unit in rooms.index.units.values():
        there = store.index.units.get(unit.id)
        where, flight = (there.where, there.flight) if there else (0, 0)
        assert (unit.where & ~HBM, unit.flight & ~HBM) == (where, flight)


@contextmanager
def checked() -> Iterator[list[int]]:
    """Checks at every boundary of the runs inside; yields how often it has, as [count]."""
    count = [0]
    settle, tend = Replica.settle, Replica.tend
    of_store: dict[Stock, dict[Replica, None]] = {}

    def check_all(replica: Replica, memory: Memory) -> None:
        check(replica, memory)
        rooms, replicas = memory.rooms, {replica: None}
        if isinstance(rooms, SharedRooms):
            check_shared(rooms)
            replicas = of_store.setdefault(rooms.store, {})
            replicas[replica] = None
        check_below(rooms.store if isinstance(rooms, SharedRooms) else rooms, list(replicas))

    def settle_and_check(self: Replica, memory: Memory) -> None:
        settle(self, memory)
        count[0] += 1
        if self.clock.now < self.stop_at:
            check_all(self, memory)

    def tend_and_check(self: Replica, memory: Memory, *rest: Any) -> None:
        tend(self, memory, *rest)
        check_all(self, memory)

    with (
        patch.object(Replica, "settle", settle_and_check),
        patch.object(Replica, "tend", tend_and_check),
    ):
        yield count
