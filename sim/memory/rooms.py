"""Rooms: HBM, with the blocks that requests and units take there, above the tiers below it.

One rule: a unit that a request uses is in no order of victims of HBM; when nobody uses it any
more, it is, until it goes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .stock import Stock, Tier
from .units import HBM, Index, Unit

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sim.kv import BlockPool

    from .eviction import Order


class Rooms(Stock):
    """The units of *index* in *pool* and in *tiers* below it, an order of victims for each."""

    def __init__(
        self, index: Index, pool: BlockPool, tiers: Sequence[Tier], order: Callable[[int], Order]
    ) -> None:
        super().__init__(index, tiers, order, (HBM,))
        self.pool = pool
        self.blocks = index.unit_blocks

    @property
    def room(self) -> int:
        """Blocks of HBM that can be had at once without loss."""
        return self.pool.free + self.droppable(HBM) * self.blocks

    # ---------------------------------------------------------------- use
    def hold(self, units: Sequence[Unit]) -> list[Unit]:
        """A request uses *units* from now on; returns those that nobody used before."""
        idle = self.index.hold(units)
        if idle:
            self._count(idle, -1)
            self.orders[HBM].remove_all(idle)
        return idle

    def begin(self, units: Sequence[Unit]) -> None:
        """A request uses those of *units*, all in HBM, that nobody uses since they are new."""
        for unit in units:
            if not unit.refs:
                unit.refs = 1

    def release(self, units: Sequence[Unit]) -> list[Unit]:
        """A request no longer uses *units*, a prefix of its prompt.

        Returns those that nobody uses any more.
        """
        idle = self.index.release(units)
        self._count(idle, 1)
        self.orders[HBM].insert_all([unit for unit in idle if unit.where & HBM])
        return idle

    def refresh(self) -> bool:
        """Takes note of what others have done below HBM; whether that is of interest."""
        return False

    def keep(self, units: Sequence[Unit]) -> None:
        """*units*, a prefix of a prompt, will be asked for soon: later victims in HBM."""
        self.orders[HBM].touch_all(reversed(units))

    # ---------------------------------------------------------------- copies
    def abort(self, unit: Unit, tier: int) -> None:
        """The copy on its way to *tier* is of no use any more; what it took there is free again."""
        idle = () if unit.refs else (unit,)
        self._count(idle, -1)
        self.index.abort(unit, tier)
        self._count(idle, 1)
        self._free(1, tier)

    def _free(self, units: int, tier: int) -> None:
        if tier == HBM:
            self.pool.give_back(units * self.blocks)
        else:
            super()._free(units, tier)

    # ---------------------------------------------------------------- room
    def take(self, blocks: Sequence[int], returned: Sequence[int] | None = None) -> Sequence[int]:
        """Takes the new blocks of each of consecutive iterations, dropping what may go meanwhile.

        After each, those *returned* are free again. Returns by how many blocks each changes what
        HBM holds while it runs.
        """
        pool, total = self.pool, sum(blocks)
        if returned is None:
            if total <= pool.free:
                pool.take(total)
                return blocks
            returned = [0] * len(blocks)
        size, changes, back = self.blocks, [], 0
        for needed, unneeded in zip(blocks, returned, strict=True):
            gone = 0
            if needed > pool.free:
                gone = self.reclaim(-(-(needed - pool.free) // size), HBM) * size
            pool.take(needed)
            changes.append(needed - gone - back)
            pool.give_back(unneeded)
            back = unneeded
        return changes
