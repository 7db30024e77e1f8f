"""What a scenario says about KV beside HBM's budget: tiers, policies, formats, links.

One rule: values are SI and checked by the scenario; nothing here reads a file. The defaults are
those of a scenario that says nothing: a prefix cache in HBM and no tier below it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from .units import DRAM, HBM, REMOTE, SSD

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .movers import Given, Mover

Eviction = Literal["lru", "draft_first_lru", "lfu", "cost_aware", "h2o", "streaming"]
Promotion = Literal["always", "cost_aware"]
Prefetch = Literal["none", "next_block", "lookahead", "session"]
WriteBack = Literal["on_evict", "eager"]
Preemption = Literal["recompute", "swap", "cheaper"]
Layout = Literal["contiguous", "paged"]


@dataclass(frozen=True, slots=True)
class MemoryOptions:
    """Keys of `hardware` and `kv` that are about tiers; a tier of 0 bytes does not exist."""

    prefix_cache: bool = True
    """Whether prompts share the KV of a prefix that the trace says they have in common."""
    dram_bytes: float = 0.0
    ssd_bytes: float = 0.0
    remote_bytes: float = 0.0
    """A further tier; needs latency and bandwidth of `remote_read` and `remote_write`."""
    remote_direct: bool = False
    """Whether HBM is filled from it and emptied into it without DRAM's links."""
    eviction: Eviction = "lru"
    """Order of victims, in every tier."""
    promotion: Promotion = "cost_aware"
    """Load all of a prefix that lies below HBM, or as much as is faster than computing it."""
    prefetch: Prefetch = "none"
    lookahead: int = 8
    """How many a prefetch looks at: of the queue, of the turns that come next, of what followed."""
    write_back: WriteBack = "on_evict"
    reserve: float = 0.05
    """Share of a tier that `on_evict` keeps free or droppable."""
    preemption: Preemption = "recompute"
    bits: Mapping[str, int] = field(default_factory=dict)
    """Bits of a value by tier (dram, ssd, remote); not given: as in HBM."""
    layout: Layout = "contiguous"
    """Whether a block of all layers is one piece of memory, or keys and values of each layer lie
    apart."""
    mover: Mover = "copy_engine"
    links: Mapping[str, Given] = field(default_factory=dict)
    """What the user says about single links, by their names in `sim/memory/movers.py`."""
    queue_limit: int = 32
    """Transfers that may wait for a link before nothing more is promoted over it."""

    @property
    def sizes(self) -> dict[int, float]:
        """Bytes of the tiers below HBM that exist, from the highest, by their bits."""
        sizes = {DRAM: self.dram_bytes, SSD: self.ssd_bytes, REMOTE: self.remote_bytes}
        return {tier: size for tier, size in sizes.items() if size > 0}

    @property
    def tiers(self) -> int:
        """Bits of all tiers that exist."""
        return HBM + sum(self.sizes)

    @property
    def swaps(self) -> bool:
        """Whether a preempted request may move to DRAM."""
        return self.preemption != "recompute" and self.dram_bytes > 0
