"""The one that the batch talks to about KV: who gets room, what is loaded, kept, written, dropped.

One rule: what units and rooms are like changes only at boundaries between iterations, and
decisions fall only at those that something has led up to (`stirred`): an arrival at the head of the
queue, an admission, a prefill, an end, a preemption, an ended transfer. So an engine that leaps
over all other boundaries comes to the same.
"""

from __future__ import annotations

from collections import Counter
from math import isnan
from typing import TYPE_CHECKING

from .held import Held, Load
from .preemption import Swapping
from .prefetch import Prefetching
from .promotion import Promotion
from .rooms import Rooms
from .sharing import Sharing
from .units import HBM, Index
from .writeback import WriteBack

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from sim.decoding import Decoding
    from sim.request import Request

    from .host import Host
    from .units import Unit


class Memory:
    """KV in HBM and below, of requests that may share prefixes, on the machine *host*."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.options = host.options
        self.pool = host.pool
        self.counts: Counter[str] = Counter()
        self.ended: list[Callable[[], None]] = []
        """What ended transfers lead to, at the next boundary."""
        self.ready: list[Request] = []
        """Requests whose KV is all there, to go on at this boundary."""
        self.loading: dict[Request, float] = {}
        """Requests that hold their place and wait for KV, and since when."""
        self.patient: list[Held] = []
        """Of requests that wait for a link to be less busy."""
        self.stirred = True
        self.news = False
        """Whether other replicas have moved units that are known here."""
        self.relieved = False
        """Whether a link that others use, too, has become less busy for those who wait for it."""
        self.stall_s, self.stalls = {"swap": 0.0, "load": 0.0}, Counter[str]()
        host.landed = self._landed
        common, self.sharers = host.common, [self]
        """All that have the tiers below HBM in common."""
        if common is not None:
            common.memories.append(self)
            self.sharers = common.memories if common.shares else [self]
        self._open(Index(self.pool.block_tokens, self.pool.block_tokens, host.options.tiers))

    def open(self, trace_block_tokens: int) -> None:
        """The trace has ids, one for so many tokens; `InputError` if the engine's blocks differ."""
        index = Index(trace_block_tokens, self.pool.block_tokens, self.options.tiers)
        self._open(index)

    def _open(self, index: Index) -> None:
        self.index = index
        tiers, common = self.host.tiers(index.unit_blocks), self.host.common
        if common is None or not common.shares:
            self.rooms = Rooms(index, self.pool, tiers, self.host.orders(index))
        else:
            self.rooms = common.rooms(self, index, tiers)
            self.index = self.rooms.index
        self.sharing = Sharing(self)
        self.write_back = WriteBack(self)
        self.swapping = Swapping(self)
        self.promotion = Promotion(self)
        self.prefetching = Prefetching(self)
        self.rooms.lost = self.prefetching.lost

    # ---------------------------------------------------------------- a request's way
    def ids(self, blocks: NDArray[np.int64], prompt_tokens: int) -> Held:
        """What a request with the trace's *blocks* has to do with units."""
        ids = self.index.ids(blocks, prompt_tokens)
        return Held(ids, *self.sharing.tails.of(blocks, ids))

    def expect(self, request: Request) -> bool:
        """*request* will be sent at a time that is known now; whether that is of interest."""
        return self.prefetching.expect(request)

    def queued(self, request: Request) -> bool:
        """*request* has joined the queue; whether that is of interest wherever it stands."""
        return self.prefetching.queued(request)

    def try_take(self, request: Request, reserved: int) -> bool:
        """Takes blocks for *request* and starts to load what is worth it; False: no room yet.

        *reserved* blocks are left to those that decode.
        """
        if not self.stirred:
            return False  # nothing has changed for the better since the last time
        held = request.kv
        if held is None:
            return self._take(self.pool.blocks(request.prefill_tokens), reserved)
        if held.leaving or held.waits:
            return False
        held.resumes = False
        swapped = held.swapped > 0 and self.swapping.found(held)
        index, rooms = self.index, self.rooms
        if swapped:
            found, tokens = index.match(held.ids, held.swap_units), request.context_tokens
            reserved += self.swapping.next_blocks(request)
        else:
            tokens = request.prefill_tokens
            found = index.match(held.ids, index.most_cached(tokens))
            found = self.promotion.chosen(request, held, found)
            if held.waits:
                return False
        rooms.hold(found)
        present = sum(1 for unit in found if (unit.where | unit.flight) & HBM)
        blocks = self.pool.blocks(tokens) - present * index.unit_blocks
        if not self._take(blocks, reserved):
            rooms.release(found)
            return False
        now = self.host.clock.now
        self._admit(request, held, found, now)
        if swapped:
            self.swapping.bring_back(request, held)
        else:
            request.prefilled = len(found) * index.unit_tokens
            self.counts["saved_tokens"] += request.prefilled
        if held.loads:
            self.loading[request] = now
        return True

    def _take(self, blocks: int, reserved: int) -> bool:
        """Takes *blocks* of HBM and leaves *reserved*, after dropping what may go."""
        rooms, pool = self.rooms, self.pool
        if blocks + reserved > rooms.room:
            self.write_back.make_way(blocks + reserved)
            if blocks + reserved > rooms.room:
                return False
        if blocks > pool.free:
            rooms.reclaim(-(-(blocks - pool.free) // rooms.blocks), HBM)
        pool.take(blocks)
        return True

    def _admit(self, request: Request, held: Held, found: list[Unit], now: float) -> None:
        """*request* uses *found* from *now* on; what is not in HBM is sent for."""
        if not held.counted:
            self.sharing.found(request, held, found, now)
        if found:
            self.rooms.touch(found)
            self.promotion.load(request, held, found)
        held.units = found
        if not held.counted:
            held.counted = True
            self.prefetching.follow(held, found)

    def loaded(self) -> list[Request]:
        """Requests that have got all they waited for."""
        ready, self.ready = self.ready, []
        return ready

    @staticmethod
    def is_swapped(request: Request) -> bool:
        """Whether *request* is swapped out."""
        return request.kv is not None and request.kv.swapped > 0

    def resumes(self, request: Request) -> bool:
        """Whether *request* goes straight on to decode: it comes back from being swapped out."""
        return request.kv is not None and request.kv.resumes

    def prefilled(self, request: Request) -> None:
        """The prompt of *request* has been computed: its whole units can be shared from now on."""
        held = request.kv
        if held is None:
            return
        if len(held.ids) > len(held.units):
            self.sharing.computed(held)
            self.stirred = True
        self.sharing.tails.add(held)

    def finish(self, request: Request) -> None:
        """*request* has its last token and needs nothing any more."""
        self._leave(request, self.pool.blocks(request.final_context_tokens))
        request.kv = None
        self.stirred = self.prefetching.due = True

    def _leave(self, request: Request, blocks: int) -> None:
        """Gives up the *blocks* of *request*: its own at once, units when others need room."""
        held = request.kv
        if held is not None and held.units:
            blocks -= len(held.units) * self.index.unit_blocks
            self.rooms.release(held.units)
            held.units = []
        self.pool.give_back(blocks)

    def asked(self, units: Sequence[Unit]) -> None:
        """A request has asked for *units*."""
        for memory in self.sharers:
            if memory.prefetching.unused:
                for unit in units:
                    memory.prefetching.used(unit, memory is self)

    # ---------------------------------------------------------------- preemption
    def drop_dirty(self, needed: int) -> bool:
        """Drops the only copies of units that nobody uses until *needed* blocks can be had.

        Whether anything could be dropped.
        """
        return self.write_back.drop(needed)

    def may_preempt(self, request: Request) -> bool:
        """Whether *request* can give its place up now: not while its own blocks are being read."""
        held = request.kv
        return held is None or not any(not load.units for load in held.loads)

    def preempt(self, request: Request, tokens: int, others: Decoding | None) -> None:
        """*request* gives up its place, and with it KV of *tokens* tokens.

        If it was decoding, beside the *others*, all of that is computed.
        """
        self.stirred = True
        self._forget_loads(request)
        if others is not None and self.swapping.chosen(request, tokens, others):
            self.swapping.out(request, tokens)
            return
        self._leave(request, self.pool.blocks(tokens))

    def _forget_loads(self, request: Request) -> None:
        held = request.kv
        if held is not None and held.loads:
            for load in held.loads:
                load.waiters.remove(request)
            held.loads = []
        self._stop_waiting(request)

    def _stop_waiting(self, request: Request) -> None:
        since = self.loading.pop(request, None)
        if since is not None and isnan(request.first_token):
            request.load_s += self.host.clock.now - since

    # ---------------------------------------------------------------- boundaries
    def settle(self, now: float) -> None:
        """Applies what transfers that have ended by *now* lead to."""
        changed = bool(self.ended) or self.relieved
        if self.news:
            self.news = False
            changed |= self.rooms.refresh()
        if not changed:
            return
        self.relieved = False
        ended, self.ended = self.ended, []
        for apply in ended:
            apply()
        for held in self.patient:
            held.waits = False
        self.patient.clear()
        self.stirred = self.prefetching.due = True

    def tend(self, waiting: Sequence[Request], reserved: int) -> None:
        """At a boundary, after admission: what may be done in the background is begun.

        *reserved* blocks of HBM are left to those that decode.
        """
        self.stirred = False
        self.prefetching.tend(waiting, reserved)
        self.write_back.tend()

    def _landed(self, apply: Callable[[], None]) -> None:
        """A transfer has ended."""
        self.ended.append(apply)

    def arrived(self, load: Load) -> None:
        """The units of *load* are in HBM; applied at a boundary."""
        rooms, late = self.rooms, [unit for unit in load.units if unit.where & HBM]
        rooms.arrive([unit for unit in load.units if not unit.where & HBM], HBM)
        for unit in late:  # somebody has computed it meanwhile
            rooms.abort(unit, HBM)
            self.counts["duplicates"] += 1
        for request in load.waiters:
            held = request.kv
            assert held is not None
            held.loads.remove(load)
            if not held.loads:
                self._stop_waiting(request)
                self.ready.append(request)

    @property
    def slowdown(self) -> float:
        """How many times longer the GPU takes beside the transfers of now."""
        return self.host.links.slowdown()

    def waited(self, reason: str, seconds: float) -> None:
        """The loop stood still for *seconds*: `swap` or `load`."""
        self.stall_s[reason] += seconds
        self.stalls[reason] += 1

    @property
    def stalled(self) -> bool:
        """Whether swapped requests' blocks are on their way out."""
        return self.swapping.blocks > 0

    def occupancy(self) -> tuple[float, ...]:
        """Requests that wait for KV and cached blocks in HBM; where there are tiers below, the
        bytes used in each, and sums so far: seconds of stall, prefetched units and their ends."""
        idle = len(self.rooms.orders[HBM]) * self.index.unit_blocks
        below = [tier.used for tier in self.rooms.tiers.values()]
        if not below:
            return len(self.loading), idle
        fates = [self.counts[f"prefetch_{how}"] for how in ("issued", "used", "late", "wasted")]
        return len(self.loading), idle, *below, sum(self.stall_s.values()), *fates
