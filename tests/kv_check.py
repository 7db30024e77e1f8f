"""What must hold at every boundary of a run with KV over several tiers; counted from scratch."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

from sim.memory.units import HBM
from sim.replica import Replica

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sim.memory.manager import Memory


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
    # So does every byte below.
    swapped = sum(
        request.kv.swapped
        for request in [*batch.admission.waiting, *batch.running]
        if request.kv is not None
    )
    for bit, tier in rooms.tiers.items():
        held_here = sum(bool(unit.where & bit) + bool(unit.flight & bit) for unit in units)
        blocks = swapped * tier.block_bytes if bit == 2 else 0
        assert tier.used == held_here * tier.unit_bytes + blocks
        assert tier.used <= tier.capacity
        assert index.copies[bit] == sum(1 for unit in units if unit.where & bit)
    # Who may go is counted right, and is in its tier's order.
    for bit, order in rooms.orders.items():
        may = rooms.may_drop[bit]
        idle = [u for u in units if not u.refs and u.where & bit]
        assert rooms.droppable(bit) == sum(1 for unit in idle if may[unit.state])
        assert all(unit in order for unit in idle)
        assert len(order) == len(idle) if bit == HBM else len(order) >= len(idle)
    holders: dict[int, int] = {}
    for request in batch.running:
        for unit in request.kv.units if request.kv else ():
            holders[unit.id] = holders.get(unit.id, 0) + 1
    assert all(unit.refs == holders.get(unit.id, 0) for unit in units)
    flying = {unit for load in memory.promotion.flying.values() for unit in load.units}
    assert all(bool(unit.flight & HBM) == (unit in flying) for unit in units)


@contextmanager
def checked() -> Iterator[list[int]]:
    """Checks at every boundary of the runs inside; yields how often it has, as [count]."""
    count = [0]
    settle, tend = Replica.settle, Replica.tend

    def settle_and_check(self: Replica, memory: Memory) -> None:
        settle(self, memory)
        count[0] += 1
        check(self, memory)

    def tend_and_check(self: Replica, memory: Memory, *rest: Any) -> None:
        tend(self, memory, *rest)
        check(self, memory)

    with (
        patch.object(Replica, "settle", settle_and_check),
        patch.object(Replica, "tend", tend_and_check),
    ):
        yield count
