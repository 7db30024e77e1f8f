"""A cache without time: how often a policy hits on a string of prompts, and how often any could.

One rule, that of `sim/trace/look/stack.py`: a prompt looks all its units up in the cache as it was
before it, then touches them from the last to the first; what comes in pushes a victim out.

A server with a cache of the same size comes near these rates and not to them. Requests that run
hold room, for their answers too, and what is being computed cannot be found yet, so it finds less;
the last block of a prompt, which is counted here, takes no room there unless it is full, so it
finds more; and prompts are used in the order in which they run.
"""

from __future__ import annotations

from dataclasses import dataclass
from heapq import heappop, heappush
from typing import TYPE_CHECKING

import numpy as np

from .units import Unit

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from sim.trace.ragged import Ragged

    from .eviction import Order


@dataclass(slots=True)
class Replayed:
    """What became of the references of all prompts to units.

    `hits` of them were in the cache, `leading` of these before the first miss of their prompt:
    what a server can use.
    """

    references: int = 0
    hits: int = 0
    leading: int = 0
    evicted: int = 0

    @property
    def hit_rate(self) -> float:
        """Share of all references that hit."""
        return self.hits / self.references if self.references else 0.0


def replay(rows: Iterable[Sequence[int]], capacity: float, order: Order) -> Replayed:
    """Prompts with the unit ids *rows* through a cache of *capacity* units with *order*, new.

    A use counts as 1 of attention (`Unit.score`), and the time is the number of prompts so far.
    """
    units: dict[int, Unit] = {}
    out = Replayed()
    for now, row in enumerate(rows):
        found = [name in units for name in row]
        hits = sum(found)
        out.references += len(row)
        out.hits += hits
        out.leading += hits if hits == len(row) else found.index(False)
        for depth in range(len(row) - 1, -1, -1):
            name = row[depth]
            unit = units.get(name)
            new = unit is None
            if unit is None:
                parent = row[depth - 1] if depth else None
                units[name] = unit = Unit(name, parent, depth)
            unit.behind = len(row) - 1 - depth
            unit.uses += 1
            unit.score += 1.0
            unit.last_use = now
            order.insert(unit)
            if new and len(units) > capacity:
                victim = order.victims(1)[0]
                order.evict(victim)
                del units[victim.id]
                out.evicted += 1
    return out


def belady(ids: Ragged, capacities: Iterable[float]) -> list[float]:
    """The hit rate that no policy can beat, for a cache of each of *capacities* units.

    *ids* are those of consecutive prompts, all of them known in advance: after each prompt the
    units stay that come again soonest (Belady 1966), of it and of those before, which is best as
    prompts come as a whole (each keeps a unit from one use to the next or not, and at most so many
    at a time: the farthest end goes). Where a prompt has a unit twice, its second reference counts
    as a hit if any earlier prompt has the unit, so the rate stays a bound.
    """
    flat, offsets = ids.values, ids.offsets
    prompt = np.repeat(np.arange(len(ids)), ids.lengths)
    order = np.argsort(flat, kind="stable")
    same = np.diff(flat[order], prepend=0) == 0
    same[:1] = False
    again = same & (np.diff(prompt[order], prepend=-1) == 0)  # twice in one prompt
    first = np.ones(len(flat), dtype=bool)
    first[order[again]] = False
    kept = order[~again]
    follows = same[~again]  # another use of the unit before it
    before = np.zeros(len(flat), dtype=bool)
    before[kept] = follows
    seen = np.maximum.accumulate(np.where(~again, np.arange(len(order)), 0))
    free = int(before[order[seen[again]]].sum())
    upcoming = np.full(len(flat), len(ids), dtype=np.int64)  # the prompt of the next use, or none
    upcoming[kept[:-1]] = np.where(follows[1:], prompt[kept[1:]], len(ids))
    total = len(flat)
    columns = flat.tolist(), upcoming.tolist(), before.tolist(), first.tolist(), offsets.tolist()
    return [(_kept(*columns, capacity) + free) / total if total else 0.0 for capacity in capacities]


def _kept(
    flat: list[int],
    upcoming: list[int],
    before: list[bool],
    first: list[bool],
    offsets: list[int],
    capacity: float,
) -> int:
    """Hits of a cache that keeps the *capacity* units whose next use is nearest."""
    never = len(offsets) - 1
    cache: dict[int, int] = {}  # unit to the prompt of its next use
    heap: list[tuple[int, int]] = []  # farthest first; entries of units used since are behind
    hits = 0
    for row in range(never):
        span = range(offsets[row], offsets[row + 1])
        for at in span:
            if before[at] and first[at] and cache.pop(flat[at], -1) >= 0:
                hits += 1
        for at in span:
            if first[at] and upcoming[at] < never:
                cache[flat[at]] = upcoming[at]
                heappush(heap, (-upcoming[at], flat[at]))
        while len(cache) > capacity:
            far, unit = heappop(heap)
            if cache.get(unit) == -far:
                del cache[unit]
    return hits
