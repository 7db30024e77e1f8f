"""Stock: how full the tiers below HBM are, who may be dropped from them, and how that changes.

One rule: a tier never holds more than its budget, units on their way to it included; and a copy
that a transfer reads or a request uses is never dropped.

A copy may be dropped from a tier without loss if nobody uses the unit, no transfer reads that
copy, and a lower tier has it too, or there is no lower tier. Which those are follows from where a
unit is and whither it is on its way, so units are counted by that.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .units import HBM, NAMES, Index, Unit

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .eviction import Order


class Tier:
    """A tier below HBM: *capacity* in bytes, a unit of *unit_bytes* and a block of *block_bytes*.

    `used` counts copies, those on their way here, and what swapped requests keep here.
    """

    __slots__ = ("bit", "block_bytes", "capacity", "name", "peak", "sharers", "unit_bytes", "used")

    def __init__(self, bit: int, capacity: int, unit_bytes: int, block_bytes: int) -> None:
        self.bit = bit
        self.name = NAMES[bit]
        self.capacity = capacity
        self.unit_bytes = unit_bytes
        self.block_bytes = block_bytes
        self.used = 0
        self.peak = 0
        self.sharers = 1
        """Replicas that it is a tier of."""

    @property
    def free(self) -> int:
        """Bytes that can be taken now."""
        return self.capacity - self.used

    def take(self, size: int) -> None:
        """Allocates *size* bytes; the caller has checked that they are free."""
        self.used += size
        assert self.used <= self.capacity, f"{self.name} overfilled: {self.used} bytes"
        if self.used > self.peak:
            self.peak = self.used

    def give_back(self, size: int) -> None:
        """Frees *size* bytes."""
        self.used -= size
        assert self.used >= 0, f"{self.name}: more bytes freed than taken"


class Stock:
    """The units of *index* in *tiers*, with those of *top* above them; an order of victims each."""

    def __init__(
        self, index: Index, tiers: Sequence[Tier], order: Callable[[int], Order],
        top: Sequence[int] = (),
    ) -> None:  # fmt: skip
        self.index = index
        self.tiers = {tier.bit: tier for tier in tiers}
        bits = [*top, *self.tiers]
        self.orders = {bit: order(bit) for bit in bits}
        self.below = dict(zip(bits, [*bits[1:], 0], strict=True))
        """The next lower tier of each, 0 of the lowest."""
        self.lost: Callable[[Sequence[Unit], int], None] = lambda units, tier: None
        """Told of units that are dropped from a tier."""
        self._leaving = dict.fromkeys(bits, 0)
        self._lower = [self.orders[tier.bit] for tier in tiers]
        # Units that nobody uses are counted by kind: bits of the tiers that may drop a unit, and
        # of the one, shifted by four, that has the only copy of it.
        self._kinds = kinds = [self._kind(state & 15, state >> 4) for state in range(256)]
        self._counts = [0] * 256
        every = sorted(set(kinds))
        self._droppable = {bit: [kind for kind in every if kind & bit] for bit in bits}
        self._dirty = {bit: [kind for kind in every if kind >> 4 & bit] for bit in bits}
        self.may_drop = {bit: bytes(bool(kind & bit) for kind in kinds) for bit in bits}
        """By `Unit.state`: whether a tier may drop a unit that nobody uses without loss."""
        self.dirty = {bit: bytes(bool(kind >> 4 & bit) for kind in kinds) for bit in bits}
        """By `Unit.state`: whether a tier has the only copy of a unit, which is not moving."""

    def _kind(self, where: int, flight: int) -> int:
        """What may become of an idle unit in *where* with a copy on its way to *flight*."""
        bits = list(self.below)
        found = [b for b in bits if where & b and (b == bits[-1] or where & ~(2 * b - 1))]
        if flight:
            # What goes on down from a lower tier is not read in HBM; else nothing goes.
            lower = flight & -flight > self.below.get(HBM, 0) > 0
            return HBM if lower and HBM in found else 0
        return sum(found) | sum(b for b in bits if where & b and b not in found) << 4

    # ---------------------------------------------------------------- questions
    def droppable(self, tier: int) -> int:
        """Units that *tier* may drop without loss."""
        counts = self._counts
        return sum([counts[kind] for kind in self._droppable[tier]])

    def leaving(self, tier: int) -> int:
        """Units of *tier* that are being copied down to make room."""
        return self._leaving[tier]

    def leave(self, units: int, tier: int) -> None:
        """So many more *units* of *tier* are being copied down to make room, or fewer."""
        self._leaving[tier] += units

    # ---------------------------------------------------------------- use
    def used(self, units: Sequence[Unit], first: int, total: int, now: float) -> None:
        """A use of *units*, from place *first* on in a prompt of *total* units."""
        # Model: every prompt attends to all of its units alike, so a use counts 1 of attention.
        behind = total - first
        for unit in units:
            behind -= 1
            unit.behind = behind
            unit.uses += 1
            unit.score += 1.0
            unit.last_use = now

    def touch(self, units: Sequence[Unit]) -> None:
        """*units*, a prefix of a prompt, were asked for: later victims in the tiers below."""
        for order in self._lower:
            order.touch_all(reversed(units))

    # ---------------------------------------------------------------- copies
    def depart(self, units: Sequence[Unit], tier: int) -> None:
        """Copies of *units* are on their way to *tier*; room for them has been taken there."""
        idle = [unit for unit in units if not unit.refs]
        self._count(idle, -1)
        for unit in units:
            unit.flight |= tier
        self._count(idle, 1)

    def arrive(self, units: Sequence[Unit], tier: int) -> None:
        """Copies of *units* are in *tier*, complete."""
        idle = [unit for unit in units if not unit.refs]
        self._count(idle, -1)
        self.index.place_all(units, tier)
        self._count(idle, 1)
        self.orders[tier].insert_all(idle if tier == HBM else units)

    def drop(self, units: Sequence[Unit], tier: int) -> None:
        """The copies of *units*, which nobody uses or moves, are gone from *tier*."""
        assert not any(unit.refs for unit in units), "units dropped while in use"
        self._count(units, -1)
        self.orders[tier].evict_all(units)
        self.index.drop_all(units, tier)
        self._count(units, 1)
        self._free(len(units), tier)
        self.lost(units, tier)

    def _count(self, idle: Sequence[Unit], by: int) -> None:
        """*idle* units, which nobody uses, are counted by what they are now; -1 before a change."""
        counts, kinds = self._counts, self._kinds
        for unit in idle:
            counts[kinds[unit.flight << 4 | unit.where]] += by

    def _free(self, units: int, tier: int) -> None:
        self.tiers[tier].give_back(units * self.tiers[tier].unit_bytes)

    def stored(self, units: Sequence[Unit]) -> Sequence[Unit]:
        """*units* as the tiers below HBM know them."""
        return units

    # ---------------------------------------------------------------- room
    def reclaim(self, units: int, tier: int) -> int:
        """Drops up to *units* copies from *tier* that may go without loss; how many went."""
        units = min(units, self.droppable(tier))  # so that none is looked for in vain
        if units <= 0:
            return 0
        victims = self.orders[tier].victims(units, self.may_drop[tier])
        self.drop(victims, tier)
        return len(victims)

    def keepers(self, units: int, tier: int) -> list[Unit]:
        """Up to *units* victims of *tier* that would be lost with its copies."""
        counts = self._counts
        units = min(units, sum([counts[kind] for kind in self._dirty[tier]]))
        return self.orders[tier].victims(units, self.dirty[tier]) if units > 0 else []

    def make_room(self, bytes: int, tier: int) -> int:
        """Bytes free in *tier* below HBM after dropping what may go, if *bytes* are not free."""
        below = self.tiers[tier]
        if bytes > below.free:
            self.reclaim(-(-(bytes - below.free) // below.unit_bytes), tier)
        return below.free
