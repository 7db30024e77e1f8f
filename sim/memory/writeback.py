"""Write-back: copies go down a tier before theirs is needed for something else.

One rule: nobody waits in a circle. A copy for which there is no room below stays where it is, and
when its room is needed it is dropped unsaved and counted.

`eager` copies what has just been computed, `on_evict` the victims that the policy names once less
than a reserve is free or droppable; from DRAM to SSD, and further down, in the same way.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from .units import HBM, NAMES, stretches

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .manager import Memory
    from .units import Unit


class WriteBack:
    """Writes and drops for *memory*."""

    def __init__(self, memory: Memory) -> None:
        self.memory = memory
        self.host = memory.host
        self.rooms = memory.rooms
        self.eagerly = memory.options.write_back == "eager"
        reserve, rooms = memory.options.reserve, memory.rooms
        self.reserve = {HBM: int(memory.pool.capacity * reserve) // rooms.blocks}
        for bit, tier in rooms.tiers.items():
            self.reserve[bit] = int(tier.capacity * reserve) // tier.unit_bytes

    def eager(self, units: Sequence[Unit], tier: int = HBM) -> None:
        """Copies those of *units*, the last ones of a prefix, that only *tier* has."""
        below = self.rooms.below[tier]
        if below:
            dirty = self.rooms.dirty[tier]
            self._send([unit for unit in reversed(units) if dirty[unit.state]], tier, eager=True)

    def tend(self) -> None:
        """Begins to write out victims of tiers in which too little is free or droppable."""
        for tier, below in self.rooms.below.items():
            if below:
                wanted = self.reserve[tier] + self.memory.prefetching.short[tier]
                short = wanted - self.at_hand(tier) - self.rooms.leaving(tier)
                if short > 0:
                    self._write(short, tier)

    def at_hand(self, tier: int) -> int:
        """Units that fit in *tier* without loss."""
        rooms = self.rooms
        if tier == HBM:
            return rooms.pool.free // rooms.blocks + rooms.droppable(HBM)
        return rooms.tiers[tier].free // rooms.tiers[tier].unit_bytes + rooms.droppable(tier)

    def _write(self, units: int, tier: int) -> int:
        """Writes out up to *units* victims of *tier*; returns how many could be."""
        return self._send(self.rooms.keepers(units, tier), tier, eager=False)

    def make_way(self, blocks: int) -> None:
        """Sees to it that *blocks* of HBM will be free or droppable soon, if that is possible.

        Victims that find no room below are dropped.
        """
        rooms = self.rooms
        short = -(-(blocks - rooms.room) // rooms.blocks) - rooms.leaving(HBM)
        if short > 0:
            if rooms.below[HBM]:
                short -= self._write(short, HBM)
            self._drop(short)

    def drop(self, blocks: int) -> bool:
        """Drops victims of HBM unsaved until *blocks* can be had; whether there were any."""
        return self._drop(-(-(blocks - self.rooms.room) // self.rooms.blocks)) > 0

    def _drop(self, units: int) -> int:
        if units <= 0:
            return 0
        victims = self.rooms.keepers(units, HBM)
        if victims:
            self.memory.counts["dropped_hbm"] += len(victims)
            self.rooms.drop(victims, HBM)
        return len(victims)

    def _send(self, units: Sequence[Unit], tier: int, eager: bool) -> int:
        """Copies *units* to the tier below as far as there is room; returns how many."""
        rooms = self.rooms
        below = rooms.tiers[rooms.below[tier]]
        if not units:
            return 0
        fit = rooms.make_room(len(units) * below.unit_bytes, below.bit) // below.unit_bytes
        if fit < len(units):
            self.memory.counts[f"no_room_{below.name}"] += len(units) - fit
            # The beginning of a prompt is worth more than its end, which is of no use without it;
            # of victims the first have to go first.
            units = units[len(units) - fit :] if eager else units[:fit]
        if not units:
            return 0
        below.take(len(units) * below.unit_bytes)
        rooms.depart(units, below.bit)
        if not eager:
            rooms.leave(len(units), tier)
        legs = self.host.legs(tier, below.bit, len(units), stretches(units))
        wait = self.host.convert_s(tier, len(units), below.bit)
        done = partial(self._written, units, tier, below.bit, eager)
        self.host.send(legs, "write_back" if eager else "evict", -1, done, wait)
        return len(units)

    def _written(self, units: Sequence[Unit], tier: int, below: int, eager: bool) -> None:
        self.rooms.arrive(units, below)
        if not eager:
            # They go at once: if they stayed, a small tier below could make them the only copies
            # again and again, and nothing would ever be won.
            self.rooms.leave(-len(units), tier)
            may = self.rooms.may_drop[tier]
            self.rooms.drop([unit for unit in units if not unit.refs and may[unit.state]], tier)
        self.memory.counts[f"demoted_{NAMES[below]}"] += len(units)
        if self.eagerly and self.rooms.below[below]:
            self.eager(list(reversed(self.rooms.stored(units))), below)
