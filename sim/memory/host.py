"""The machine under the policies: tiers and their formats, ways between them, what each takes.

One rule: everything between HBM and a tier below DRAM goes through DRAM's links one after the
other, unless it is reached directly; a transfer's bytes are those of the lower tier's format.
"""

from __future__ import annotations

from functools import cache, cached_property
from math import ceil, inf
from typing import TYPE_CHECKING

from .eviction import POLICIES, CostAware, Order
from .links import Leg, Links
from .movers import DISK, PCIE, moving
from .movers import REMOTE as REMOTE_LINKS
from .predict import Prefill
from .stock import Tier
from .units import DRAM, HBM, NAMES, REMOTE, SSD

if TYPE_CHECKING:
    from collections.abc import Callable

    from sim.clock import Clock
    from sim.cost import Cost
    from sim.kv import BlockPool

    from .common import Common
    from .link import Row
    from .options import MemoryOptions
    from .units import Index

_UP = {HBM: ("d2h",), DRAM: (), SSD: ("ssd_read",), REMOTE: ("remote_read",)}
_DOWN = {HBM: ("h2d",), DRAM: (), SSD: ("ssd_write",), REMOTE: ("remote_write",)}


class Host:
    """What *options* say, on *clock*, beside *pool* of HBM and with the profile of *cost*.

    *kv_bits* of a value in HBM. *wake* is called when transfers start or end; *sink* gets their
    rows, up to *until* seconds. *common* is what the host has for all of its replicas, of which
    this is number *replica*.
    """

    def __init__(
        self, options: MemoryOptions, pool: BlockPool, clock: Clock, cost: Cost, kv_bits: int,
        wake: Callable[[], None], sink: Callable[[Row], None] | None = None, until: float = inf,
        common: Common | None = None, replica: int = 0,
    ) -> None:  # fmt: skip
        self.options = options
        self.pool = pool
        self.clock = clock
        self.cost = cost
        self.wake = wake
        self.common = common
        self.landed: Callable[[Callable[[], None]], None] = lambda apply: None
        self.kv_bits = kv_bits
        self.most_rows, self.overhang = 1, 0
        """Most tokens of a decode step, and most beyond the complete output."""
        shape = cost.shape
        self._bits = {tier: options.bits.get(NAMES[tier], kv_bits) for tier in options.sizes}
        self._bits[HBM] = kv_bits
        self._token_bytes = {t: shape.kv_bytes_per_token(b) for t, b in self._bits.items()}
        # Model: paged memory has keys and values of each layer apart, block by block.
        parts = 2 * shape.layers if options.layout == "paged" else 1
        self._pieces = parts if parts > 1 else 0
        page = self._token_bytes[HBM] * pool.block_tokens / parts
        names = ((PCIE, DRAM), (DISK, SSD), (REMOTE_LINKS, REMOTE))
        links = [link for those, tier in names if tier in options.sizes for link in those]
        self.moving = moving(
            cost.profile, links, mover=options.mover, page_bytes=int(page), given=options.links
        )
        specs, slowdown = self.moving.specs, self.moving.slowdown
        others = common.links(clock, specs, sink, until) if common is not None else {}
        self.links = Links(clock, specs, wake, slowdown, sink, until, others, replica)
        self._paths = {(a, b): _UP[a] + _DOWN[b] for a in self._bits for b in self._bits if a != b}
        self.above = {tier: DRAM if tier > DRAM else HBM for tier in options.sizes}
        if options.remote_direct:
            # Model: a peer GPU's memory is on the other end of one link from HBM; DRAM and SSD
            # write to it over that link, too.
            self._paths |= {(REMOTE, HBM): _UP[REMOTE], (HBM, REMOTE): _DOWN[REMOTE]}
            self.above[REMOTE] = HBM
        """The tier into which KV comes up from each, on its way to HBM."""
        self._unit_tokens = self._unit_blocks = 0

    @cached_property
    def prefill(self) -> Prefill:
        """How long computing takes."""
        return Prefill(self.cost, self.cost.loop.token_budget)

    # ---------------------------------------------------------------- what is there
    def tiers(self, unit_blocks: int) -> list[Tier]:
        """The tiers below HBM, empty, for units of so many blocks."""
        self._unit_blocks = unit_blocks
        self._unit_tokens = unit_blocks * self.pool.block_tokens
        return [
            Tier(tier, int(size), self._bytes(tier, unit_blocks), self._bytes(tier, 1))
            for tier, size in self.options.sizes.items()
        ]

    def _bytes(self, tier: int, blocks: int) -> int:
        return ceil(self._token_bytes[tier] * blocks * self.pool.block_tokens)

    def orders(self, index: Index) -> Callable[[int], Order]:
        """Makes the order of victims of a tier."""
        policy = POLICIES[self.options.eviction]
        if policy is not CostAware:
            return lambda tier: policy()

        @cache
        def recompute_s(depth: int) -> float:
            first = depth * index.unit_tokens
            return self.prefill.seconds(first, first + index.unit_tokens)

        def order(tier: int) -> Order:
            reload_s = [self._reload_s(tier, where) for where in range(16)]
            return CostAware(
                lambda unit: recompute_s(unit.depth), lambda unit: reload_s[unit.where]
            )

        return order

    def _reload_s(self, tier: int, where: int) -> float:
        """Seconds to bring a unit that is in tiers *where* from below *tier* into HBM over idle
        links; inf if none of them is below."""
        below = where & sum(self.options.sizes) & ~(2 * tier - 1)
        if not below:
            return inf
        legs = self.legs(below & -below, HBM, 1, 1)
        return sum(self.moving.spec(leg.link).seconds(leg.bytes, leg.pieces) for leg in legs)

    # ---------------------------------------------------------------- ways
    def path(self, source: int, target: int) -> tuple[str, ...]:
        """The links from one tier to another, in order."""
        return self._paths[source, target]

    def legs(self, source: int, target: int, units: int, runs: int) -> list[Leg]:
        """The way of so many *units*, which are *runs* stretches of neighbours."""
        return self._legs(source, target, units * self._unit_blocks, runs)

    def block_legs(self, source: int, target: int, blocks: int) -> list[Leg]:
        """The way of *blocks* that belong to a request alone, one stretch."""
        return self._legs(source, target, blocks, 1)

    def _legs(self, source: int, target: int, blocks: int, runs: int) -> list[Leg]:
        size = self._bytes(max(source, target), blocks)
        return [
            Leg(link, size, blocks, self._parts(blocks, runs) if link in PCIE else 1)
            for link in self.path(source, target)
        ]

    def _parts(self, blocks: int, runs: int) -> int:
        return blocks * self._pieces if self._pieces else runs

    def convert_s(self, source: int, units: int, target: int = HBM) -> float:
        """Seconds of the GPU to turn *units* from one tier's format into another's."""
        if HBM not in (source, target):
            # Model: between formats of lower tiers the host converts, hidden behind the disk.
            return 0.0
        return self.convert_blocks_s(max(source, target), units * self._unit_blocks)

    def convert_blocks_s(self, tier: int, blocks: int) -> float:
        """Seconds of the GPU to turn *blocks* from HBM's format into that of *tier*, or back."""
        if self._bits[tier] == self.kv_bits:
            return 0.0
        # Model: a kernel that streams, reading one format and writing the other, as fast as a
        # copy in HBM; its time is added to the transfer's, and decode is not slowed by it.
        size = self._bytes(HBM, blocks) + self._bytes(tier, blocks)
        return size / self.cost.profile.constant("hbm_copy_bytes_per_s")

    def send(
        self, legs: list[Leg], reason: str, request_id: int, apply: Callable[[], None],
        wait: float = 0.0,
    ) -> None:  # fmt: skip
        """Starts a transfer over *legs*; *apply* is due at the first boundary after its end.

        The end comes *wait* seconds after the last leg's.
        """

        def over() -> None:
            if wait:
                event = self.clock.at(self.clock.now + wait)
                event.callbacks.append(lambda _: self._landed(apply))
            else:
                self.landed(apply)
                if self.common is not None:
                    self.wake()  # the last leg's link may be of many, whom its ends do not wake

        self.links.chain(legs, reason, request_id, over)

    def _landed(self, apply: Callable[[], None]) -> None:
        self.landed(apply)
        self.wake()
