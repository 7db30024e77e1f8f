"""Prefetch: KV comes up before it is asked for, into room and over links that nobody needs now.

One rule: nothing that cannot be had without loss is dropped for it, a reserve is left, what nobody
has asked for yet takes no more than a quarter of a tier, and it sets out when its link is idle and
keeps it for a short time only.

`next_block` brings up what followed a prefix the last time, a step a hit; `lookahead` the prefixes
of the first requests of the queue; `session` that of a turn whose time is known because the answer
before it is there, as late as will do. Each goes up a tier at a time: from SSD to DRAM, from DRAM
to HBM.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from functools import partial
from itertools import islice
from math import inf
from typing import TYPE_CHECKING

from .units import HBM, NAMES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sim.request import Request

    from .held import Held
    from .manager import Memory
    from .units import Unit


# Model: that a user will go on, and when, is known up to ten minutes before he can at the earliest.
AHEAD_S = 600.0
# Model: what comes up for a turn takes room from what is asked for sooner, so it sets out not
# before twice the time that it and those before it take on idle links, and half a second.
LEAD, LEAD_S = 2.0, 0.5
# Model: links serve in order, so what somebody waits for would queue behind a prefetch. A transfer
# ahead of time therefore takes no longer than this alone on its link, and one follows the other.
PIECE_S = 0.1


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
        self.unused: dict[int, int] = {}
        """Units, by id, that were brought up and nobody has asked for since, and to which tier."""
        self.short = dict.fromkeys(self.rooms.below, 0)
        """Units for which a tier had no room, so that some may be written out for them."""
        self._ahead = dict.fromkeys(self.rooms.below, 0)  # of `unused`, by tier
        self._most_ahead = {HBM: memory.pool.capacity // (4 * self.rooms.blocks)}
        for bit, tier in self.rooms.tiers.items():
            self._most_ahead[bit] = tier.capacity // (4 * tier.unit_bytes * tier.sharers)
        self._expected: list[tuple[float, int, Request]] = []  # in order of time
        self._next: dict[int, int] = {}  # by id: the unit that followed it the last time
        self._wanted: dict[int, None] = {}  # by id: what may be asked for next, the latest last
        self.due = False
        """Whether there is something to look at: somebody new, or an end that left room."""
        self._left_out = 0  # units of HBM that others need
        self._pieces = {
            source: max(1, int(PIECE_S / self._link_s(source, target, 1)))
            for source, target in self.host.above.items()
        }
        """Units that take `PIECE_S` on their way up from a tier."""
        self._sends: dict[int, int] = {}  # by source: units that may be sent now, once looked up
        self._spares: dict[int, int] = {}  # by tier: units that have room there, likewise
        self._alarm_s = inf  # when the next turn's prefix has to set out

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
            self.forget(request)
        if self.policy == "lookahead":
            self.due = self.memory.stirred = True
            return True
        return False

    def forget(self, request: Request) -> None:
        """*request*, which was expected, has come, or comes to somebody else."""
        expected = self._expected
        place = bisect_left(expected, (request.arrival, request.id))
        if place < len(expected) and expected[place][2] is request:
            del expected[place]

    def used(self, unit: Unit, here: bool = True) -> None:
        """Somebody has asked for *unit*, of this replica if *here*."""
        tier = self.unused.get(unit.id, 0)
        if tier and (here or tier != HBM):
            del self.unused[unit.id]
            self._ahead[tier] -= 1
            late = unit.flight & tier and not unit.where & tier
            self.memory.counts["prefetch_late" if late else "prefetch_used"] += 1

    def lost(self, units: Sequence[Unit], tier: int) -> None:
        """*units* have been dropped from *tier*."""
        self.memory.counts[f"evicted_{NAMES[tier]}"] += len(units)
        self.gone(units, tier)

    def gone(self, units: Sequence[Unit], tier: int) -> None:
        """*units* have been dropped from *tier*, by whomever."""
        if self.unused:
            for unit in units:
                if self.unused.get(unit.id) == tier:
                    del self.unused[unit.id]
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
        if last is not None and self.memory.index.find(last) is not None:
            self._wanted.pop(last, None)
            self._wanted[last] = None
            self.due = self.memory.stirred = True

    # ---------------------------------------------------------------- at a boundary
    def tend(self, waiting: Sequence[Request], reserved: int) -> None:
        """Begins to bring up what is wanted, as far as there is room.

        *reserved* blocks of HBM are left to those that decode.
        """
        if not self.due or self.policy == "none":
            return
        self.due = False
        self._forget_room()
        self._left_out = -(-reserved // self.rooms.blocks)
        self.short = dict.fromkeys(self.short, 0)
        if not self._open():
            return
        if self.policy == "lookahead":
            self._bring_queued(waiting)
            return
        if self.policy == "session":
            # Model: while somebody waits, links and room are his.
            if not waiting:
                self._bring_turns()
            return
        for request in islice(waiting, self.most):
            self._left_out += self._needed(request, self._cached(request))[0]
        latest = map(self.memory.index.find, list(self._wanted)[-self.most :])
        wanted = [u for u in latest if u and u.where and not (u.where | u.flight) & HBM]
        self._wanted = dict.fromkeys(unit.id for unit in wanted)
        self._bring(wanted, -1)

    def _bring_queued(self, waiting: Sequence[Request]) -> None:
        """Prefixes of those who wait; HBM that those before them need is left to them."""
        for request in islice(waiting, self.most):
            if not self._open():
                return
            found = self._cached(request)
            needed, below = self._needed(request, found)
            self._left_out += needed - below
            self._left_out += below - self._bring(found, request.id)

    def _needed(self, request: Request, found: list[Unit]) -> tuple[int, int]:
        """Units of HBM that *request*, which waits, has still to get, and how many of *found*, its
        cached prefix, are below HBM. It has those that are in use or on their way."""
        there = below = 0
        for unit in found:
            if unit.flight & HBM or (unit.refs and unit.where & HBM):
                there += 1
            elif not unit.where & HBM:
                below += 1
        blocks = self.memory.pool.blocks(request.prefill_tokens)
        return -(-blocks // self.rooms.blocks) - there, below

    def _bring_turns(self) -> None:
        """Prefixes of the next turns that have to set out by now; for the first other, a time."""
        now, ahead_s, near_s = self.host.clock.now, LEAD_S, LEAD_S
        for _, _, request in self._expected[: self.most]:
            if not self._open():
                return
            found = self._cached(request)
            for source, target, part in self._steps(found):
                seconds = LEAD * self._link_s(source, target, len(part))
                ahead_s += seconds
                near_s += seconds if target == HBM else 0.0
            first_s, last_s = request.arrival - ahead_s, request.arrival - near_s
            if first_s > now:
                self._look_again(first_s)
                return
            if last_s > now:
                self._look_again(last_s)
            self._bring(found, request.id, last_s <= now)

    def _look_again(self, time: float) -> None:
        """Sees to it that turns are looked at again at *time*."""
        if time < self._alarm_s:
            self._alarm_s = time
            event = self.host.clock.at(time)
            event.callbacks.append(lambda _: self._alarmed(time))

    def _alarmed(self, time: float) -> None:
        if time == self._alarm_s:
            self._alarm_s = inf
            self.due = self.memory.stirred = True
            self.host.wake()

    def _cached(self, request: Request) -> list[Unit]:
        """The prefix of *request* that is cached somewhere."""
        held, index = request.kv, self.memory.index
        if held is None:
            return []
        return index.match(held.ids, index.most_cached(request.prefill_tokens))

    def _steps(self, units: list[Unit]) -> list[tuple[int, int, list[Unit]]]:
        """Those of *units* that are below HBM, by where they are and where they would go next."""
        parts: dict[int, list[Unit]] = {}
        for unit in units:
            if not unit.flight and not unit.where & HBM:
                parts.setdefault(unit.where & -unit.where, []).append(unit)
        return [(source, self.host.above[source], parts[source]) for source in sorted(parts)]

    def _bring(self, units: list[Unit], request_id: int, into_hbm: bool = True) -> int:
        """Sends each of *units* that is below HBM up a tier, the first ones first.

        Returns how many set out for HBM.
        """
        sent = 0
        for source, target, part in self._steps(units):
            most = self._piece(source, target) if into_hbm or target != HBM else 0
            part = part[: max(0, self._most_ahead[target] - self._ahead[target])]
            if not (most and part):
                continue
            spare = self._spare(target)
            self.short[target] += max(0, len(part) - spare)
            if spare:
                # The others of a prefix are not to go for it.
                self.rooms.keep(units)
                self.rooms.touch(units)
                part = part[: min(spare, most)]
                self._start(part, source, target, request_id)
                sent += len(part) if target == HBM else 0
        return sent

    def _open(self) -> bool:
        """Whether anything could set out now; if not, not before something has ended."""
        may_write = not self.memory.write_back.eagerly  # so that there will be room
        return any(
            self._ahead[target] < self._most_ahead[target]
            and self._piece(source, target) > 0
            and (may_write or self._spare(target) > 0)
            for source, target in self.host.above.items()
        )

    def _piece(self, source: int, target: int) -> int:
        """Units that may be sent from *source* to *target* now: none while a link is busy."""
        found = self._sends.get(source)
        if found is None:
            busy = any(map(self.host.links.busy, self.host.path(source, target)))
            found = self._sends[source] = 0 if busy else self._pieces[source]
        return found

    def _link_s(self, source: int, target: int, units: int) -> float:
        """Seconds in which idle links bring so many units from *source* to *target*."""
        legs = self.host.legs(source, target, units, 1)
        return sum(self.host.moving.spec(leg.link).seconds(leg.bytes, leg.pieces) for leg in legs)

    def _spare(self, tier: int) -> int:
        """Units for which *tier* has room, besides its reserve."""
        # Model: what is brought up takes the place of copies that lower tiers have as well, the
        # policy's next victims.
        spare = self._spares.get(tier)
        if spare is None:
            keeper = self.memory.write_back
            spare = self._spares[tier] = keeper.at_hand(tier) - keeper.reserve[tier]
        return max(0, spare - self._left_out if tier == HBM else spare)

    def _forget_room(self) -> None:
        """What was found about links and room holds no longer."""
        self._sends.clear()
        self._spares.clear()

    def _start(self, units: list[Unit], source: int, target: int, request_id: int) -> None:
        rooms, memory = self.rooms, self.memory
        self._forget_room()
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
            if unit.id in self.unused:  # from SSD to DRAM before, and now on to HBM
                self.used(unit)
            self.unused[unit.id] = target
        self._ahead[target] += len(units)
