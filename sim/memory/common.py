"""What the replicas of a host have in common: links below DRAM and, where they share, tiers.

One rule: what one replica does to the others takes effect at their next boundaries, which it brings
near, as the end of a transfer does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .link import Link
from .movers import PCIE
from .shared import SharedRooms, View
from .store import Store

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from sim.clock import Clock

    from .link import LinkSpec, Row
    from .manager import Memory
    from .stock import Tier
    from .units import Index


class Common:
    """Of the replicas of one host; *shares* says whether the tiers below HBM are theirs together.

    Each has PCIe links of its own; the links below DRAM are the host's in either case.
    """

    def __init__(self, shares: bool) -> None:
        self.shares = shares
        self.memories: list[Memory] = []
        self.store: Store | None = None
        self._links: dict[str, Link] = {}

    def links(
        self,
        clock: Clock,
        specs: Sequence[LinkSpec],
        sink: Callable[[Row], None] | None,
        until: float,
    ) -> Mapping[str, Link]:
        """Those of *specs* that are the host's; made when they are first asked for."""
        for spec in specs:
            if spec.name not in PCIE and spec.name not in self._links:
                self._links[spec.name] = Link(clock, spec, self._changed, sink, until)
        return self._links

    def _changed(self) -> None:
        """Transfers on a common link have started or ended."""
        for memory in self.memories:
            if memory.patient:
                memory.relieved = True
            if memory.patient or memory.host.moving.slowdown.others:
                memory.host.wake()

    def rooms(self, memory: Memory, index: Index, tiers: Sequence[Tier]) -> SharedRooms:
        """HBM of *memory*, for units like those of *index*, above the common *tiers*."""
        if self.store is None or not self.store.like(index):
            self.store = Store(index, tiers, memory.host.orders(index))
        return SharedRooms(View(index, self.store), memory, self.store)
