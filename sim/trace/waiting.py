"""Who waits for whom in a file of sessions, by number: names resolved, circles found, groups.

A group is what hangs together by sessions and dependencies: it is replayed open or closed, and
starts, as one.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import isfinite
from typing import TYPE_CHECKING

from .held import named
from .rows import BadRowError

if TYPE_CHECKING:
    from collections.abc import Collection, Hashable, Iterator

    from .held import Held
    from .rows import Findings

# the turn waited for, seconds, and whether they count from its sending, not its completion
Link = tuple[int, float, bool]


@dataclass(slots=True)
class Graph:
    """The dependencies of a file's turns.

    `waits` by number what a turn waits for. `sequence` the waiting turns, each after all it waits
    for. `left_out` flags [turns]. `delayed` the groups in which some turn has a delay.
    """

    waits: dict[int, list[Link]]
    sequence: list[int]
    left_out: list[bool]
    delayed: set[int] = field(default_factory=set)
    _nodes: list[int] = field(default_factory=list)
    _joined: dict[int, int] = field(default_factory=dict)

    @classmethod
    def of(cls, held: Held, findings: Findings) -> Graph:
        """The graph of *held*; bad references go to *findings*, which is to be checked."""
        graph = cls({}, [], [False] * len(held))
        graph._nodes = [number or -1 - i for i, number in enumerate(held.session)]
        for turn, waits in held.waits.items():
            for wait in waits:
                other = held.at.get(wait.key)
                if other is None or other == turn:
                    graph.left_out[turn] = True
                    findings.add(held.line[turn], _bad_reference(wait.key, unknown=other is None))
                    break
            else:
                links = [(held.at[wait.key], wait.delay_s, wait.sent) for wait in waits]
                graph.waits[turn] = links
        graph._order(held, findings)
        graph._group()
        return graph

    def roots(self) -> Iterator[int]:
        """The turns that wait for nobody."""
        return (
            turn for turn, gone in enumerate(self.left_out) if not gone and turn not in self.waits
        )

    def group(self, turn: int) -> int:
        """The number of the group that *turn* is in."""
        return self._found(self._nodes[turn])

    def members(self, groups: Collection[int]) -> Iterator[int]:
        """The turns of *groups* that are not left out."""
        return (
            turn
            for turn, gone in enumerate(self.left_out)
            if not gone and self.group(turn) in groups
        )

    def _found(self, node: int) -> int:
        while (above := self._joined.get(node, node)) != node:
            # halve the way for the next one
            self._joined[node] = self._joined.get(above, above)
            node = above
        return node

    def _group(self) -> None:
        for turn, links in self.waits.items():
            for other, _, _ in links:
                mine, its = self._found(self._nodes[turn]), self._found(self._nodes[other])
                if mine != its:
                    self._joined[mine] = its
        for turn, links in self.waits.items():
            if any(sent or isfinite(delay_s) for _, delay_s, sent in links):
                self.delayed.add(self.group(turn))

    def _order(self, held: Held, findings: Findings) -> None:
        """Fill `sequence`; what is in a circle, or waits for one, is left out."""
        if all(other < turn for turn, links in self.waits.items() for other, _, _ in links):
            self.sequence = list(self.waits)  # in order of the file
            return
        open_links = {turn: len(links) for turn, links in self.waits.items()}
        followers: dict[int, list[int]] = {}
        for turn, links in self.waits.items():
            for other, _, _ in links:
                followers.setdefault(other, []).append(turn)
        ready = [other for other in followers if other not in self.waits]
        while ready:
            for turn in followers.get(ready.pop(), ()):
                open_links[turn] -= 1
                if not open_links[turn]:
                    self.sequence.append(turn)
                    ready.append(turn)
        if len(self.sequence) < len(self.waits):
            self._break_circles(held, findings, {t for t, left in open_links.items() if left})

    def _break_circles(self, held: Held, findings: Findings, stuck: set[int]) -> None:
        way = [min(stuck)]
        while way[-1] not in way[:-1]:
            way.append(next(other for other, _, _ in self.waits[way[-1]] if other in stuck))
        circle = way[way.index(way[-1]) :]
        names = [held.named(turn) for turn in circle[:5]]
        more = " -> ..." if len(circle) > 5 else ""
        text = f"waits for itself in a circle: {' -> '.join(names)}{more}; remove one reference"
        for turn in (circle[0], *sorted(stuck - {circle[0]})):
            self.left_out[turn] = True
            findings.add(held.line[turn], BadRowError("circle of dependencies", text))
            findings.check()  # one circle is told of once
            text = "waits for a circle of requests; delete the row"


def _bad_reference(key: Hashable, *, unknown: bool) -> BadRowError:
    if unknown:
        text = f"waits for {named(key)}, which no request of the file is called; correct the name"
        return BadRowError("unknown predecessor", text)
    return BadRowError("waits for itself", f"{named(key)} waits for itself; remove the reference")
