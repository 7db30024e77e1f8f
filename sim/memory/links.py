"""The links of a host: H2D, D2H, SSD read, SSD write, and those of a further tier.

One rule: what is sent arrives, and `done` is called then; how long it takes is the link's business
(`sim/memory/link.py`), who asks for it and why is the caller's.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import inf
from typing import TYPE_CHECKING, NamedTuple

from .link import Link, LinkSpec, Row, Transfer

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from sim.clock import Clock

__all__ = ["Leg", "LinkSpec", "Links", "Row", "Slowdown", "Transfer", "Use"]


class Leg(NamedTuple):
    """A step of a chain: *bytes* over *link*, in *pieces* that lie apart."""

    link: str
    bytes: int
    blocks: int
    pieces: int = 1


@dataclass(frozen=True, slots=True)
class Slowdown:
    """How many times longer decode takes beside transfers on these links; 1 does not disturb.

    *both* while h2d and d2h are busy; *others* by link, each a factor on top.
    """

    h2d: float = 1.0
    d2h: float = 1.0
    both: float = 1.0
    others: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Use:
    """What a link did: ended *transfers*, their *bytes* and *blocks*, seconds in service.

    *waited_s* is the sum over transfers of the time between submission and start, *last_end_s*
    when the last of them ended. *unfinished* are those, with their whole *unfinished_bytes*, that
    the end of the run cut off, queued or under way.
    """

    link: str
    transfers: int
    bytes: int
    blocks: int
    busy_s: float
    waited_s: float
    most_waiting: int
    last_end_s: float = 0.0
    unfinished: int = 0
    unfinished_bytes: int = 0


class Links:
    """The links of a host by name, on *clock*.

    *on_change* is called after transfers have started or ended, at that time; *sink* gets a `Row`
    for each transfer that has ended, in order of `end_s` on each link. What ends after *until*
    still arrives, and is counted as unfinished. *others* are links that these, of *replica*, have
    in common with those of other replicas.
    """

    def __init__(
        self,
        clock: Clock,
        specs: Sequence[LinkSpec],
        on_change: Callable[[], None] = lambda: None,
        slowdown: Slowdown | None = None,
        sink: Callable[[Row], None] | None = None,
        until: float = inf,
        others: Mapping[str, Link] | None = None,
        replica: int = 0,
    ) -> None:
        self.clock = clock
        others = others or {}
        self.by_name = {
            spec.name: others.get(spec.name) or Link(clock, spec, on_change, sink, until)
            for spec in specs
        }
        self.replica = replica
        self._factors = slowdown or Slowdown()

    def submit(
        self, link: str, bytes: int, blocks: int, reason: str, request_id: int,
        done: Callable[[], None], pieces: int = 1,
    ) -> Transfer:  # fmt: skip
        """Sends *bytes* of *blocks* blocks, in *pieces* that lie apart, over *link* from now on.

        *done* is called at the end. `KeyError` if there is no such link.
        """
        assert bytes >= 0, f"{bytes} bytes to move"
        line = self.by_name[link]
        work = line.spec.work(bytes, pieces)
        transfer = Transfer(
            link, bytes, blocks, pieces, reason, request_id, done, work, self.clock.now,
            replica=self.replica,
        )  # fmt: skip
        line.submit(transfer)
        return transfer

    def chain(
        self, legs: Sequence[Leg], reason: str, request_id: int, done: Callable[[], None]
    ) -> Transfer:
        """Sends the same blocks over several links, one leg after the other; the first transfer.

        *done* is called when the last leg has ended.
        """
        # Model: a leg begins when the one before has ended (store and forward). Its upper bound on
        # time is near: the disk is some 15 times slower than the PCIe link, so that overlapping
        # the two would save at most 6 %.
        leg, rest = legs[0], legs[1:]

        def next_leg() -> None:
            self.chain(rest, reason, request_id, done)

        return self.submit(
            leg.link, leg.bytes, leg.blocks, reason, request_id,
            next_leg if rest else done, leg.pieces,
        )  # fmt: skip

    def busy(self, link: str) -> bool:
        """Whether *link* exists and has something in service."""
        line = self.by_name.get(link)
        return line is not None and line.in_service > 0

    def slowdown(self) -> float:
        """How many times longer decode takes beside what is in service now."""
        factors = self._factors
        into, out = self.busy("h2d"), self.busy("d2h")
        factor = 1.0
        if into:
            factor = factors.both if out else factors.h2d
        elif out:
            factor = factors.d2h
        for link, other in factors.others.items():
            if self.busy(link):
                factor *= other
        return factor

    def expected_s(self, legs: Sequence[Leg]) -> float:
        """Seconds in which *legs*, submitted now, would have ended behind all that is under way.

        An estimate from above, if nothing comes after them: as if they came last on each link.
        On a link that serves one at a time, right but for the latency that is running.
        """
        now, total = self.clock.now, 0.0
        for leg in legs:
            line = self.by_name[leg.link]
            total += line.waiting * line.spec.latency_s + line.backlog(now) / line.spec.bytes_per_s
            total += line.spec.seconds(leg.bytes, leg.pieces)
        return total

    def outstanding(self) -> list[Transfer]:
        """All transfers that have not ended, link by link."""
        return [t for line in self.by_name.values() for t in line.outstanding()]

    def use(self, now: float) -> list[Use]:
        """What each link did until *now* (seconds in service: of those that run on, too)."""
        return [use_of(line, now) for line in self.by_name.values()]


def use_of(line: Link, now: float) -> Use:
    """What *line* did until *now*."""
    return Use(
        line.spec.name, line.transfers, line.bytes, line.blocks, line.busy_s(now), line.waited_s,
        line.most_waiting, line.last_end_s, line.unfinished, line.unfinished_bytes,
    )  # fmt: skip
