"""The tiers below HBM of several replicas: what is there, whoever wrote it, and who needs it there.

One rule: a unit is known here while it has a copy in one of these tiers, is on its way to one, or
is needed: used in a replica's HBM or on its way there. What is needed is never dropped.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .stock import Stock
from .units import HBM, Index, Unit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from .eviction import Order
    from .shared import SharedRooms
    from .stock import Tier


class Store(Stock):
    """Units like those of *index* in *tiers*; `Unit.refs` counts the replicas that need one."""

    def __init__(self, index: Index, tiers: Sequence[Tier], order: Callable[[int], Order]) -> None:
        super().__init__(Index(*index.blocks, index.tiers & ~HBM), tiers, order)
        self.replicas: dict[int, SharedRooms] = {}
        """Those that have these tiers in common, by number."""

    def like(self, index: Index) -> bool:
        """Whether the units are those of *index*."""
        return self.index.blocks == index.blocks

    def of(self, units: Iterable[Unit]) -> list[Unit]:
        """What is known here of *units*, which a replica knows; made where there is nothing yet."""
        known, found = self.index.units, []
        for unit in units:
            here = known.get(unit.id)
            if here is None:
                here = known[unit.id] = alike(unit)
            found.append(here)
        return found

    def known(self, units: Iterable[Unit]) -> list[Unit]:
        """The same, of those alone that are known here."""
        known = self.index.units
        return [known[unit.id] for unit in units if unit.id in known]

    def pin(self, units: Iterable[Unit]) -> None:
        """One more replica needs *units* where they are."""
        self._count(self.index.hold(self.of(units)), -1)

    def unpin(self, units: Sequence[Unit]) -> None:
        """A replica no longer needs *units*."""
        self._count(self.index.release(self.known(units)), 1)


def alike(unit: Unit) -> Unit:
    """*unit* as somebody else sees it who has got nothing of it."""
    return Unit(
        unit.id, unit.parent, unit.depth, unit.behind, uses=unit.uses, last_use=unit.last_use,
        score=unit.score, draft=unit.draft,
    )  # fmt: skip
