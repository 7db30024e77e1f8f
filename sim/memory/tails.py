"""Last blocks of prompts that are not full: found and counted, never used.

One rule: a server shares whole blocks only, but a trace names the rest of a prompt as well and
`trace inspect` counts it, so what both find can be compared only if these are counted here too.

A tail hangs on the last whole unit before it, or on the root if there is none, and is gone with
that unit. Those unused for longest go beyond as many as there are units, or `MOST` if that is more.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from .held import Held
    from .units import Index, Unit

MOST = 65_536


class Tails:
    """The partial last blocks of prompts with units in *index*."""

    def __init__(self, index: Index) -> None:
        self.index = index
        self.counts = index.stride == 1
        """Whether blocks are counted at all: units of several blocks hide what is inside."""
        self._parents: OrderedDict[int, Unit | int | None] = OrderedDict()

    def __len__(self) -> int:
        return len(self._parents)

    def of(
        self, blocks: Sequence[int] | NDArray[np.int64], ids: Sequence[int]
    ) -> tuple[int, int | None]:
        """How many *blocks* a prompt has in the trace, and the one after its whole units *ids*."""
        if self.counts and len(blocks) > len(ids):
            return len(blocks), int(blocks[len(ids)])
        return len(blocks), None

    def add(self, held: Held) -> None:
        """The prompt of *held* has been computed, all of its units are there."""
        if held.tail is None:
            return
        parents = self._parents
        parents[held.tail] = self.index.lasting(held.units[-1]) if held.units else None
        parents.move_to_end(held.tail)
        while len(parents) > max(MOST, len(self.index)):
            parents.popitem(last=False)

    def found(self, held: Held, units: Sequence[Unit]) -> int:
        """Blocks of a prompt that are known from its first on, of which *units* are.

        As `trace inspect` counts them: the last one too, full or not.
        """
        find, parents = self.index.find, self._parents
        last, count = units[-1] if units else None, len(units)
        rest = held.ids[count:] if held.tail is None else [*held.ids[count:], held.tail]
        for name in rest:
            unit = find(name)
            if unit is not None and unit.where and unit.parent == (last.id if last else None):
                count, last = count + 1, unit
                continue
            parent = self.index.lasting(last) if last else None
            return count + (name in parents and parents[name] == parent)
        return count
