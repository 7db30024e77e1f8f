"""Eviction: in which order the units of a tier have to go, by policies of a name each.

One rule: an order holds the units of one tier that nobody uses and never gives up one that is used
(`Unit.refs`); in which states a candidate may go now is up to the caller (`may`, by `Unit.state`).

The protocol, for every policy. `insert` a unit when the last request that used it is done or when
its copy has arrived, `touch` it when it was asked for meanwhile, `remove` it while a request uses
it, `evict` it when its copy leaves the tier. Units of a prompt are inserted and touched from the
last to the first, all of them at each use, as vLLM frees blocks: so a prompt's beginning, which
more prompts share, is more recent than its end, and a unit never goes before those that follow it
in the same tier. The policies for sparse attention (`h2o`, `streaming`) read single units of a
prompt and break this on purpose.
"""

from __future__ import annotations

from collections import OrderedDict
from itertools import chain
from typing import TYPE_CHECKING, Protocol

from .ranked import ANY, CostAware, H2o, Lfu

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from .units import Unit

__all__ = [
    "POLICIES", "CostAware", "DraftFirstLru", "H2o", "Lfu", "Lru", "Order", "Streaming",
]  # fmt: skip


class Order(Protocol):
    """The order of victims of one tier."""

    def __len__(self) -> int: ...

    def __contains__(self, unit: Unit) -> bool: ...

    def insert(self, unit: Unit) -> None:
        """Takes in *unit*, used just now; as `touch` if it is there."""

    def touch(self, unit: Unit) -> None:
        """*unit* was used just now; ignored if it is not here."""

    def remove(self, unit: Unit) -> None:
        """*unit* is in use, or on its way; ignored if it is not here."""

    def evict(self, unit: Unit) -> None:
        """*unit* leaves the tier; ignored if it is not here."""

    def insert_all(self, units: Iterable[Unit]) -> None:
        """`insert` each, in this order."""

    def touch_all(self, units: Iterable[Unit]) -> None:
        """`touch` each, in this order."""

    def remove_all(self, units: Iterable[Unit]) -> None:
        """`remove` each."""

    def evict_all(self, units: Iterable[Unit]) -> None:
        """`evict` each."""

    def victims(self, count: int, may: bytes = ANY) -> list[Unit]:
        """Up to *count* units that would go next, the first to go first; takes nothing out.

        Only such whose `Unit.state` is a place in *may* that is not 0.
        """


class _Listed:
    """Orders that are queues, one after the other; the oldest of the first goes first."""

    def __init__(self, queues: int) -> None:
        self.queues: tuple[OrderedDict[Unit, None], ...] = tuple(
            OrderedDict() for _ in range(queues)
        )

    def _queue(self, unit: Unit) -> int:
        """Which queue *unit* belongs to now."""
        return 0

    def __len__(self) -> int:
        return sum(map(len, self.queues))

    def __contains__(self, unit: Unit) -> bool:
        return any(unit in queue for queue in self.queues)

    def insert(self, unit: Unit) -> None:
        self.remove(unit)
        self.queues[self._queue(unit)][unit] = None

    def touch(self, unit: Unit) -> None:
        if unit in self:
            self.insert(unit)

    def remove(self, unit: Unit) -> None:
        for queue in self.queues:
            queue.pop(unit, None)

    evict = remove

    def insert_all(self, units: Iterable[Unit]) -> None:
        for unit in units:
            self.insert(unit)

    def touch_all(self, units: Iterable[Unit]) -> None:
        for unit in units:
            self.touch(unit)

    def remove_all(self, units: Iterable[Unit]) -> None:
        for unit in units:
            self.remove(unit)

    evict_all = remove_all

    def victims(self, count: int, may: bytes = ANY) -> list[Unit]:
        found: list[Unit] = []
        if count > 0:
            for unit in chain.from_iterable(self.queues):
                if may[unit.flight << 4 | unit.where] and not unit.refs:
                    found.append(unit)
                    if len(found) == count:
                        break
        return found


class Lru(_Listed):
    """Least recently used first."""

    def __init__(self) -> None:
        super().__init__(1)
        self._only = self.queues[0]

    def __contains__(self, unit: Unit) -> bool:
        return unit in self._only

    def insert(self, unit: Unit) -> None:
        self._only[unit] = None
        self._only.move_to_end(unit)

    def touch(self, unit: Unit) -> None:
        if unit in self._only:
            self._only.move_to_end(unit)

    def remove(self, unit: Unit) -> None:
        self._only.pop(unit, None)

    evict = remove

    def insert_all(self, units: Iterable[Unit]) -> None:
        only, move_to_end = self._only, self._only.move_to_end
        for unit in units:
            only[unit] = None
            move_to_end(unit)

    def touch_all(self, units: Iterable[Unit]) -> None:
        only, move_to_end = self._only, self._only.move_to_end
        for unit in units:
            if unit in only:
                move_to_end(unit)

    def remove_all(self, units: Iterable[Unit]) -> None:
        pop = self._only.pop
        for unit in units:
            pop(unit, None)

    evict_all = remove_all


class DraftFirstLru(_Listed):
    """Units with draft tokens first, then the others; least recently used first in each.

    A unit that is committed while it is here has to be touched.
    """

    def __init__(self) -> None:
        super().__init__(2)

    def _queue(self, unit: Unit) -> int:
        return 0 if unit.draft else 1


class Streaming(_Listed):
    """The middle of a prompt first; then its last *recent* units; its first *sinks* units last.

    Least recently used first in each (StreamingLLM: Xiao et al. 2023, which keeps sinks and recent
    tokens for good; here they go only when the tier has nothing else left). Where the end of the
    prompt is, the latest use of a unit says.
    """

    def __init__(self, sinks: int = 1, recent: int = 4) -> None:
        super().__init__(3)
        self.sinks = sinks
        self.recent = recent

    def _queue(self, unit: Unit) -> int:
        if unit.depth < self.sinks:
            return 2
        return 1 if unit.behind < self.recent else 0


#: By name; `cost_aware` needs to be told what a unit costs.
POLICIES: dict[str, Callable[..., Order]] = {
    "lru": Lru,
    "draft_first_lru": DraftFirstLru,
    "lfu": Lfu,
    "cost_aware": CostAware,
    "h2o": H2o,
    "streaming": Streaming,
}
