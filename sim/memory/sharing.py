"""What prompts have in common: found and counted at admission, shared once it has been computed.

One rule: a lookup and a use are counted once a request, at its first admission and at its first
prefill, however often it is preempted.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from .tails import Tails
from .units import NAMES

if TYPE_CHECKING:
    from sim.request import Request

    from .held import Held
    from .manager import Memory
    from .units import Unit


class Sharing:
    """Keeps account of hits, and makes units of what was computed, for *memory*."""

    def __init__(self, memory: Memory) -> None:
        self.memory = memory
        self.index = memory.index
        self.rooms = memory.rooms
        self.tails = Tails(memory.index)

    def found(self, request: Request, held: Held, units: list[Unit], now: float) -> None:
        """*request* has been admitted for the first time, with *units* of a cache."""
        tokens, counts = self.index.unit_tokens, self.memory.counts
        tiers = Counter(map(self.index.highest, units))
        request.cached_hbm, request.cached_dram = tiers[1] * tokens, tiers[2] * tokens
        request.cached_ssd, request.cached_remote = tiers[4] * tokens, tiers[8] * tokens
        counts["lookups"] += 1
        counts["lookup_units"] += len(held.ids)
        counts["lookup_tokens"] += request.prompt_tokens
        counts["hits"] += bool(units)
        if self.tails.counts:
            counts["lookup_blocks"] += held.blocks
            counts["found_blocks"] += self.tails.found(held, units)
        for tier, number in tiers.items():
            counts[f"hit_{NAMES[tier]}"] += number
        self.rooms.used(units, 0, len(held.ids), now)

    def computed(self, held: Held) -> None:
        """All of a prompt has been computed: its whole units can be shared from now on."""
        first, index, rooms = len(held.units), self.index, self.rooms
        known, now = index.units, self.memory.host.clock.now
        rooms.hold([known[name] for name in held.ids[first:] if name in known])
        every, fresh = index.register(held.ids, first)
        rooms.begin(every)
        if not held.computed:
            held.computed = True
            rooms.used(every, first, len(held.ids), now)
        held.units = held.units + every
        twice = len(every) - len(fresh)
        if twice:
            # Model: two prompts that are computed at the same time do not see one another; what
            # both have computed is kept once.
            self.memory.counts["duplicates"] += twice
            self.memory.pool.give_back(twice * index.unit_blocks)
        if self.memory.options.write_back == "eager":
            self.memory.write_back.eager(every)
