"""Promotion: how much of a prefix that lies below HBM is loaded when its request is admitted.

One rule: a prefix is used up to some unit and computed from there on; `always` uses all that is
found, `cost_aware` what is predicted to be there soonest.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from .held import Load
from .units import HBM, stretches

if TYPE_CHECKING:
    from sim.request import Request

    from .held import Held
    from .manager import Memory
    from .units import Unit


class Promotion:
    """Decides and starts loads for *memory*."""

    def __init__(self, memory: Memory) -> None:
        self.memory = memory
        self.host = memory.host
        self.rooms = memory.rooms
        self.cautious = memory.options.promotion == "cost_aware"
        self.limit = memory.options.queue_limit
        self.flying: dict[Unit, Load] = {}
        """Units on their way into HBM."""

    def chosen(self, request: Request, held: Held, found: list[Unit]) -> list[Unit]:
        """The part of *found*, the units of a prefix, that *request* shall use.

        Sets `held.waits` if it shall rather wait for a link.
        """
        if all(unit.where & HBM for unit in found):
            return found
        crowded = self._crowded(found)
        if not (self.cautious or crowded):
            return found
        cuts = self._cuts(found)
        needed, total = self.memory.index.unit_tokens, request.prefill_tokens
        best, soonest = 0, float("inf")
        for cut in cuts:
            seconds = self._load_s(found[:cut]) + self.host.prefill.seconds(cut * needed, total)
            if seconds < soonest:
                best, soonest = cut, seconds
        if crowded and best > cuts[0]:
            # Model: with a link's queue full, nothing more is put into it. Who would still be
            # sooner with what lies behind it waits before it is admitted.
            held.waits = True
            self.memory.counts["backpressure"] += 1
            self.memory.patient.append(held)
        return found[:best]

    def _crowded(self, found: list[Unit]) -> bool:
        """Whether a link is full that *found* would need."""
        sources = {self._source(unit) for unit in found if not (unit.where | unit.flight) & HBM}
        links = {link for source in sources for link in self.host.path(source, HBM)}
        return any(self.host.links.by_name[link].waiting >= self.limit for link in links)

    @staticmethod
    def _source(unit: Unit) -> int:
        return unit.where & -unit.where

    def _cuts(self, found: list[Unit]) -> list[int]:
        """Where it may be best to stop: at the ends of stretches that lie in one tier."""
        places = [HBM if unit.flight & HBM else self._source(unit) for unit in found]
        cuts = [0] if places[0] != HBM else []
        cuts += [i for i in range(1, len(places)) if places[i] != places[i - 1]]
        return [*cuts, len(found)]

    def _load_s(self, units: list[Unit]) -> float:
        """Seconds until *units* would all be in HBM if they were sent for now."""
        host, longest = self.host, 0.0
        for source, part in self._by_source(units).items():
            legs = host.legs(source, HBM, len(part), stretches(part))
            longest = max(longest, host.links.expected_s(legs) + host.convert_s(source, len(part)))
        return longest

    def _by_source(self, units: list[Unit]) -> dict[int, list[Unit]]:
        """Those of *units* that have to be loaded, by where they are."""
        parts: dict[int, list[Unit]] = {}
        for unit in units:
            if not (unit.where | unit.flight) & HBM:
                parts.setdefault(self._source(unit), []).append(unit)
        return dict(sorted(parts.items()))

    def load(self, request: Request, held: Held, found: list[Unit]) -> None:
        """Sends for what of *found* is not in HBM; *request* waits for it."""
        for unit in found:
            if unit.flight & HBM and not unit.where & HBM:
                load = self.flying[unit]
                if request not in load.waiters:
                    load.waiters.append(request)
                    held.loads.append(load)
        self.memory.asked(found)
        for source, part in self._by_source(found).items():
            load = self.send(source, part, "load", request.id)
            load.waiters.append(request)
            held.loads.append(load)
            self.memory.counts["promoted"] += len(part)

    def send(self, source: int, units: list[Unit], reason: str, request_id: int) -> Load:
        """Starts a transfer of *units* from *source* into blocks of HBM that have been taken."""
        host, load = self.host, Load(units)
        self.rooms.depart(units, HBM)
        for unit in units:
            self.flying[unit] = load
        legs = host.legs(source, HBM, len(units), stretches(units))
        wait = host.convert_s(source, len(units))
        host.send(legs, reason, request_id, partial(self._ended, load), wait)
        return load

    def _ended(self, load: Load) -> None:
        for unit in load.units:
            del self.flying[unit]
        self.memory.arrived(load)
