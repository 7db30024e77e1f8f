"""Preemption: a request that makes room is computed again later, or moves to DRAM and back.

One rule: swapped blocks are in HBM until their copy is complete and have room in DRAM before it
begins. Only blocks that are a request's own are swapped; its units stay behind as cached ones, and
if they are gone when it comes back, it is computed again.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from .held import Held, Load
from .units import DRAM, HBM

if TYPE_CHECKING:
    from sim.request import Request

    from .manager import Memory


class Swapping:
    """Swaps requests out of HBM and in again for *memory*."""

    def __init__(self, memory: Memory) -> None:
        self.memory = memory
        self.host = memory.host
        self.rooms = memory.rooms
        self.blocks = 0
        """Blocks of HBM that are being copied out."""

    def chosen(self, request: Request, tokens: int) -> bool:
        """Whether *request* with KV of *tokens* tokens shall be swapped: there is room for it."""
        options, rooms = self.memory.options, self.rooms
        if not options.swaps:
            return False
        kept = len(request.kv.units) if request.kv is not None else 0
        blocks = self.memory.pool.blocks(tokens) - kept * rooms.blocks
        if not blocks:
            return False
        if options.preemption == "cheaper":
            first = kept * self.memory.index.unit_tokens
            if self._swap_s(blocks) >= self.host.prefill.seconds(first, tokens + 1):
                self.memory.counts["swaps_dearer"] += 1
                return False
        size = blocks * rooms.tiers[DRAM].block_bytes
        if size > rooms.make_room(size, DRAM):
            self.memory.counts["swaps_no_room"] += 1
            return False
        return True

    def _swap_s(self, blocks: int) -> float:
        """Seconds of both ways; those out stop the loop."""
        host = self.host
        ways = (host.block_legs(HBM, DRAM, blocks), host.block_legs(DRAM, HBM, blocks))
        return sum(host.links.expected_s(legs) for legs in ways)

    def out(self, request: Request, tokens: int) -> None:
        """The own blocks of *request* begin to move to DRAM; its units are released."""
        if request.kv is None:
            request.kv = Held([])
        held, pool, rooms = request.kv, self.memory.pool, self.rooms
        held.swap_units = len(held.units)
        held.swapped = pool.blocks(tokens) - held.swap_units * rooms.blocks
        rooms.release(held.units)
        held.units = []
        held.leaving = True
        self.blocks += held.swapped
        rooms.tiers[DRAM].take(held.swapped * rooms.tiers[DRAM].block_bytes)
        legs = self.host.block_legs(HBM, DRAM, held.swapped)
        wait = self.host.convert_blocks_s(DRAM, held.swapped)
        self.host.send(legs, "swap_out", request.id, partial(self._is_out, held), wait)
        self.memory.counts["swaps"] += 1
        self.memory.counts["swapped_blocks"] += held.swapped

    def _is_out(self, held: Held) -> None:
        held.leaving = False
        self.blocks -= held.swapped
        self.memory.pool.give_back(held.swapped)

    def found(self, held: Held) -> bool:
        """Whether what a swapped request left behind is all there; if not, its copy is given up."""
        if len(self.memory.index.match(held.ids, held.swap_units)) == held.swap_units:
            return True
        self._free(held)
        self.memory.counts["swaps_lost"] += 1
        return False

    def bring_back(self, request: Request, held: Held) -> None:
        """The own blocks of *request* begin to move into blocks of HBM that have been taken."""
        held.resumes = True
        load = Load([], [request])
        held.loads.append(load)
        legs = self.host.block_legs(DRAM, HBM, held.swapped)
        wait = self.host.convert_blocks_s(DRAM, held.swapped)
        self.host.send(legs, "swap_in", request.id, partial(self._is_back, load, held), wait)

    def _is_back(self, load: Load, held: Held) -> None:
        self._free(held)
        self.memory.arrived(load)

    def _free(self, held: Held) -> None:
        tier = self.rooms.tiers[DRAM]
        tier.give_back(held.swapped * tier.block_bytes)
        held.swapped = 0
