"""Preemption: a request that makes room is computed again later, or moves to DRAM and back.

One rule: swapped blocks are in HBM until their copy is complete and have room in DRAM before it
begins. Only blocks that are a request's own are swapped; its units stay behind as cached ones, and
if they are gone when it comes back, it is computed again.

`cheaper` takes the way that costs the loop's requests less time, all of them together.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from .held import Held, Load
from .units import DRAM, HBM

if TYPE_CHECKING:
    from sim.decoding import Decoding
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
        self._out_by = 0.0
        """When they were expected to be out, at the last look."""

    def chosen(self, request: Request, tokens: int, others: Decoding) -> bool:
        """Whether *request* with KV of *tokens* tokens shall be swapped: there is room for it.

        *others* go on decoding.
        """
        options, rooms = self.memory.options, self.rooms
        if not options.swaps:
            return False
        kept = len(request.kv.units) if request.kv is not None else 0
        blocks = self.memory.pool.blocks(tokens) - kept * rooms.blocks
        if not blocks:
            return False
        if options.preemption == "cheaper":
            first = kept * self.memory.index.unit_tokens
            if self._swap_s(blocks, others) >= self._recompute_s(first, tokens + 1, others):
                self.memory.counts["swaps_dearer"] += 1
                return False
        size = blocks * rooms.tiers[DRAM].block_bytes
        if size > rooms.make_room(size, DRAM):
            self.memory.counts["swaps_no_room"] += 1
            return False
        return True

    # Model: both ways are weighed by the time they take from requests. The way out stops the loop
    # (less what it is stopped for already), so all lose it; the way in overlaps with the work of
    # the others, who lose only what decode is slower beside it. Computing again takes time from the
    # others as the loop's mode has it, and the request itself waits for all of it.
    def _swap_s(self, blocks: int, others: Decoding) -> float:
        """Seconds that swapping *blocks* costs the request and the *others* together."""
        host, convert_s = self.host, self.host.convert_blocks_s(DRAM, blocks)
        now = host.clock.now
        out_s = host.links.expected_s(host.block_legs(HBM, DRAM, blocks)) + convert_s
        out_s -= max(0.0, self._out_by - now) if self.blocks else 0.0
        in_s = sum(
            host.moving.spec(leg.link).seconds(leg.bytes, leg.pieces)
            for leg in host.block_legs(DRAM, HBM, blocks)
        )
        slower = (1.0 - 1.0 / host.moving.slowdown.h2d) * in_s
        return len(others) * (out_s + slower) + out_s + in_s + convert_s

    def _recompute_s(self, first: int, last: int, others: Decoding) -> float:
        """Seconds that computing tokens again costs the request and the *others* together."""
        prefill, count = self.host.prefill, len(others)
        taken_s = prefill.taken_s(first, last, count, others.load)
        return count * taken_s + prefill.seconds(first, last)

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
        self._out_by = self.host.clock.now + self.host.links.expected_s(legs) + wait
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

    def next_blocks(self, request: Request) -> int:
        """The most new blocks that the next decode step of *request* takes."""
        blocks, context, host = self.memory.pool.blocks, request.context_tokens, self.host
        rows = min(host.most_rows, request.output_tokens - request.generated + host.overhang)
        return blocks(context + rows) - blocks(context)

    def _is_back(self, load: Load, held: Held) -> None:
        self._free(held)
        self.memory.arrived(load)

    def _free(self, held: Held) -> None:
        tier = self.rooms.tiers[DRAM]
        tier.give_back(held.swapped * tier.block_bytes)
        held.swapped = 0
