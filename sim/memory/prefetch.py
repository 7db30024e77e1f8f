"""Prefetch: KV comes up before it is asked for, into room that nobody needs now.

One rule: nothing that cannot be had without loss is dropped for it, a reserve is left, and what
nobody has asked for yet takes no more than a quarter of a tier.

`next_block` brings up what followed a prefix the last time, a step a hit; `lookahead` the prefixes
of the first requests of the queue; `session` that of a turn whose time is known because the answer
before it is there. Each goes up a tier at a time: from SSD to DRAM, from DRAM to HBM.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from functools import partial
from typing import TYPE_CHECKING

from .units import DRAM, HBM, NAMES, SSD

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sim.request import Request

    from .held import Held
    from .manager import Memory
    from .units import Unit


# Model: that a user will go on, and when, is known up to ten minutes before he can at the earliest.
AHEAD_S = 600.0


class Prefetching:
    """Brings up units for *memory* and keeps account of what for."""

    def __init__(self, memory: Memory) -> None:
        self.memory = memory
        self.host = memory.host
        self.rooms = memory.rooms
        self.policy = memory.options.prefetch if memory.options.sizes else "none"
        self.ahead_s = AHEAD_S if self.policy == "session" else 0.0
        """How long before the earliest time of a turn it is of interest that it will come."""
        self.most = memory.options.lookahead
        self.limit = memory.options.queue_limit
        self.unused: dict[Unit, int] = {}
        """Units that were brought up and nobody has asked for since, and to which tier."""
        self.short = dict.fromkeys(self.rooms.below, 0)
        """Units for which a tier had no room, so that some may be written out for them."""
        self._ahead = dict.fromkeys(self.rooms.below, 0)  # of `unused`, by tier
        self._most_ahead = {HBM: memory.pool.capacity // (4 * self.rooms.blocks)}
        for bit, tier in self.rooms.tiers.items():
            self._most_ahead[bit] = tier.capacity // (4 * tier.unit_bytes)
        self._expected: list[tuple[float, int, Request]] = []  # in order of time
        self._next: dict[int, int] = {}  # by id: the unit that followed it the last time
        self._wanted: list[list[Unit]] = []
        self.due = False
        """Whether there is something to look at: somebody new, or an end that left room."""
        self._left_out = 0  # units of HBM that decoding requests need at once

    # ---------------------------------------------------------------- what others tell
    def expect(self, request: Request) -> bool:
        """*request* will be sent at a time that is known now; whether that is of interest."""
        if self.policy != "session":
            return False
        insort(self._expected, (request.arrival, request.id, request))
        self.due = self.memory.stirred = True
        return True

    def queued(self, request: Request) -> bool:
        """*request* has joined the queue; whether that is of interest wherever it stands."""
        if self._expected:
            self._forget(request)
        if self.policy == "lookahead":
            self.due = self.memory.stirred = True
            return True
        return False

    def _forget(self, request: Request) -> None:
        expected = self._expected
        place = bisect_left(expected, (request.arrival, request.id))
        if place < len(expected) and expected[place][2] is request:
            del expected[place]

    def used(self, unit: Unit) -> None:
        """Somebody has asked for *unit*."""
        tier = self.unused.pop(unit, 0)
        if tier:
            self._ahead[tier] -= 1
            late = unit.flight & tier and not unit.where & tier
            self.memory.counts["prefetch_late" if late else "prefetch_used"] += 1

    def lost(self, units: Sequence[Unit], tier: int) -> None:
        """*units* have been dropped from *tier*."""
        self.memory.counts[f"evicted_{NAMES[tier]}"] += len(units)
        if self.unused:
            for unit in units:
                if self.unused.get(unit) == tier:
                    del self.unused[unit]
                    self._ahead[tier] -= 1
                    self.memory.counts["prefetch_wasted"] += 1

    def follow(self, held: Held, found: list[Unit]) -> None:
        """A prompt was looked up: the unit after the last one *found* may be asked for next."""
        if self.policy != "next_block":
            return
        following = self._next
        last = following.get(found[-1].id) if found else None
        following.update(zip(held.ids, held.ids[1:], strict=False))
        if len(following) > 2 * len(self.memory.index) + 1024:
            known = self.memory.index.units
            self._next = {a: b for a, b in following.items() if a in known and b in known}
        unit = self.memory.index.units.get(last) if last is not None else None
        if unit is not None:
            self._wanted.append([unit])
            self.due = self.memory.stirred = True

    # ---------------------------------------------------------------- at a boundary
    def tend(self, waiting: Sequence[Request], reserved: int) -> None:
        """Begins to bring up what is wanted, as far as there is room.

        *reserved* blocks of HBM are left to those that decode.
        """
        if not self.due:
            return
        self.due = False
        self._left_out = -(-reserved // self.rooms.blocks)
        self.short = dict.fromkeys(self.short, 0)
        if all(self._ahead[tier] >= self._most_ahead[tier] for tier in self.short if tier < SSD):
            return
        match self.policy:
            case "none":
                return
            case "next_block":
                wanted, self._wanted = self._wanted, []
                for units in wanted:
                    self._bring(units, -1)
            case "session":
                for _, _, request in self._expected[: self.most]:
                    self._bring_prompt(request)
            case "lookahead":
                for request in list(waiting)[: self.most]:
                    self._bring_prompt(request)

    def _bring_prompt(self, request: Request) -> None:
        held = request.kv
        if held is not None:
            index = self.memory.index
            most = index.most_cached(request.prefill_tokens)
            found = index.match(held.ids, most)
            self.rooms.keep(found)
            if not all((unit.where | unit.flight) & HBM for unit in found):
                self._bring(found, request.id)

    def _bring(self, units: list[Unit], request_id: int) -> None:
        """Sends each of *units* that is below HBM up a tier, the first ones first."""
        still = [unit for unit in units if not unit.flight and not unit.where & HBM]
        if not still:
            return
        parts: dict[tuple[int, int], list[Unit]] = {}
        for unit in still:
            source = unit.where & -unit.where
            parts.setdefault((source, HBM if source == DRAM else DRAM), []).append(unit)
        for (source, target), part in sorted(parts.items()):
            links = [self.host.links.by_name[link] for link in self.host.path(source, target)]
            if any(link.waiting >= self.limit for link in links):
                continue
            part = part[: max(0, self._most_ahead[target] - self._ahead[target])]
            spare = self._spare(target)
            self.short[target] += max(0, len(part) - spare)
            if part[:spare]:
                self._start(part[:spare], source, target, request_id)

    def _spare(self, tier: int) -> int:
        """Units for which *tier* has room, besides its reserve."""
        # Model: what is brought up takes the place of copies that lower tiers have as well, the
        # policy's next victims.
        keeper = self.memory.write_back
        spare = keeper.at_hand(tier) - keeper.reserve[tier]
        return max(0, spare - self._left_out if tier == HBM else spare)

    def _start(self, units: list[Unit], source: int, target: int, request_id: int) -> None:
        rooms, memory = self.rooms, self.memory
        if target == HBM:
            needed = len(units) * rooms.blocks - memory.pool.free
            rooms.reclaim(-(-needed // rooms.blocks), HBM)
            memory.pool.take(len(units) * rooms.blocks)
            memory.promotion.send(source, units, "prefetch", request_id)
        else:
            tier = rooms.tiers[target]
            rooms.depart(units, target)
            rooms.make_room(len(units) * tier.unit_bytes, target)
            tier.take(len(units) * tier.unit_bytes)
            legs = self.host.legs(source, target, len(units), 1)
            self.host.send(legs, "prefetch", request_id, partial(rooms.arrive, units, target))
        memory.counts["prefetch_issued"] += len(units)
        for unit in units:
            if unit in self.unused:  # from SSD to DRAM before, and now on to HBM
                self.used(unit)
            self.unused[unit] = target
        self._ahead[target] += len(units)
