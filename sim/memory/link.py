"""One link between two tiers: transfers that take time, share bandwidth and wait for one another.

One rule: a transfer's start and end are absolute times that follow from what else is on its link,
and from nothing else; equal times are settled in the order of submission.

A transfer passes three stations: it waits while `LinkSpec.at_most` others are in service, then its
latency runs once, then its bytes flow. Those that flow share the link's bandwidth equally
(processor sharing), each at most at `LinkSpec.alone_bytes_per_s`.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from heapq import heappop, heappush
from math import inf, nan
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

    from simpy.events import Event

    from sim.clock import Clock


@dataclass(frozen=True, slots=True)
class LinkSpec:
    """What a link can do. *latency_s* once a transfer, *bytes_per_s* of all transfers together.

    *at_most* transfers are in service at a time. *piece_s* is what each further piece of a
    transfer costs that lies apart from the one before. One transfer alone reaches
    *alone_bytes_per_s*.
    """

    name: str
    latency_s: float
    bytes_per_s: float
    at_most: int = 4
    piece_s: float = 0.0
    alone_bytes_per_s: float = inf

    def rate(self, flowing: int) -> float:
        """Bytes a second of each of *flowing* transfers."""
        return min(self.alone_bytes_per_s, self.bytes_per_s / flowing)

    def seconds(self, bytes: float, pieces: int = 1) -> float:
        """How long a transfer takes that has the link to itself."""
        return self.latency_s + self.work(bytes, pieces) / self.rate(1)

    def work(self, bytes: float, pieces: int) -> float:
        """*bytes* and, as bytes that the link could have moved meanwhile, the cost of *pieces*."""
        # Model: the link moves nothing while it turns to the next piece, so pieces take a share
        # of the bandwidth from all that flow, as bytes do.
        return bytes + (pieces - 1) * self.piece_s * self.rate(1) if pieces > 1 else bytes


class Row(NamedTuple):
    """An ended transfer. *queued_s* is when it was submitted; all times since the run's start."""

    start_s: float
    queued_s: float
    end_s: float
    link: str
    bytes: int
    blocks: int
    reason: str
    request_id: int
    replica: int = 0


@dataclass(slots=True, eq=False)
class Transfer:
    """*bytes* of *blocks* KV blocks on their way; `nan` until a time has come."""

    link: str
    bytes: int
    blocks: int
    pieces: int
    reason: str
    request_id: int
    done: Callable[[], None]
    work: float
    queued_s: float
    start_s: float = nan
    flows_s: float = nan
    end_s: float = nan
    replica: int = 0

    @property
    def row(self) -> Row:
        """Its record."""
        return Row(
            self.start_s, self.queued_s, self.end_s, self.link, self.bytes, self.blocks,
            self.reason, self.request_id, self.replica,
        )  # fmt: skip


class Link:
    """One direction between two tiers, as its *spec* says; wakes itself on *clock*.

    The virtual clock `_served` counts the bytes that a transfer would have got which has flowed
    since the link was last idle. A transfer of w bytes that begins to flow at v ends at v + w,
    whoever comes or goes meanwhile, so a change costs O(log n).
    """

    def __init__(
        self, clock: Clock, spec: LinkSpec, changed: Callable[[], None],
        sink: Callable[[Row], None] | None, until: float = inf,
    ) -> None:  # fmt: skip
        self.clock = clock
        self.until = until
        """When the run ends, in seconds; what ends later is unfinished."""
        self.spec = spec
        self.changed = changed
        self.sink = sink
        self.in_service = 0
        self.transfers, self.bytes, self.blocks = 0, 0, 0
        self.unfinished, self.unfinished_bytes = 0, 0
        self.last_end_s = 0.0
        self.waited_s, self.most_waiting = 0.0, 0
        self._waiting: deque[Transfer] = deque()
        self._latent: deque[Transfer] = deque()  # in order of `flows_s`
        self._flowing: list[tuple[float, int, Transfer]] = []  # heap by virtual end, then order
        self._served = 0.0
        self._since = 0.0  # when `_served` was last brought up to date
        self._order = 0
        self._owed = 0.0  # work of what waits or is latent
        self._ends = 0.0  # sum of the virtual ends of what flows
        self._busy_s, self._busy_since = 0.0, 0.0
        self._alarm: Event | None = None
        self._alarm_s = inf

    def submit(self, transfer: Transfer) -> None:
        """Takes *transfer*; its time starts now unless it has to wait."""
        self._owed += transfer.work
        if self.in_service < self.spec.at_most:
            self._start(transfer)
            self._arm()
            self.changed()
        else:
            self._waiting.append(transfer)
            self.most_waiting = max(self.most_waiting, len(self._waiting))

    @property
    def waiting(self) -> int:
        """How many transfers are not in service yet."""
        return len(self._waiting)

    def busy_s(self, now: float) -> float:
        """Seconds until *now*, or the end of the run, in which something was in service."""
        return self._busy_s + (now - self._busy_since if self.in_service else 0.0)

    def backlog(self, now: float) -> float:
        """Bytes (and pieces, as bytes) that are still to be moved."""
        flowing = len(self._flowing)
        if not flowing:
            return max(0.0, self._owed)
        served = self._served + max(0.0, now - self._since) * self.spec.rate(flowing)
        return max(0.0, self._owed) + max(0.0, self._ends - flowing * served)

    def outstanding(self) -> list[Transfer]:
        """What has not ended: flowing, latent, waiting, each in order."""
        flowing = [transfer for _, _, transfer in sorted(self._flowing, key=lambda f: f[1])]
        return [*flowing, *self._latent, *self._waiting]

    # ---------------------------------------------------------------- the three stations
    def _start(self, transfer: Transfer) -> None:
        now = self.clock.now
        if not self.in_service:
            self._busy_since = now
        self.in_service += 1
        transfer.start_s = now
        transfer.flows_s = now + self.spec.latency_s
        if self._flowing or self._latent:
            self._latent.append(transfer)
        else:  # nobody's bytes can flow before its own: no need to wake in between
            self._flow(transfer, transfer.flows_s)

    def _flow(self, transfer: Transfer, now: float) -> None:
        """The bytes of *transfer* flow from *now* on, which may lie ahead on an idle link."""
        if self._flowing:
            self._served += (now - self._since) * self.spec.rate(len(self._flowing))
        else:
            self._served = 0.0  # so that it keeps its precision
            self._ends = 0.0
        self._since = now
        end = self._served + transfer.work
        self._order += 1
        heappush(self._flowing, (end, self._order, transfer))
        self._ends += end
        self._owed -= transfer.work

    def _end(self, now: float) -> Transfer:
        end, _, transfer = heappop(self._flowing)
        self._served, self._since = end, now
        self._ends -= end
        self.in_service -= 1
        if not self.in_service:
            self._busy_s += max(0.0, min(now, self.until) - self._busy_since)
        transfer.end_s = now
        self._count(transfer)
        if self._waiting:
            self._start(self._waiting.popleft())
        elif not self._latent:
            self._owed = 0.0
        return transfer

    def _count(self, transfer: Transfer) -> None:
        """Counts *transfer*, which has ended, unless the run was over when it was submitted."""
        if transfer.end_s <= self.until:
            self.transfers += 1
            self.bytes += transfer.bytes
            self.blocks += transfer.blocks
            self.waited_s += transfer.start_s - transfer.queued_s
            self.last_end_s = transfer.end_s
        elif transfer.queued_s <= self.until:
            self.unfinished += 1
            self.unfinished_bytes += transfer.bytes

    # ---------------------------------------------------------------- time
    def _end_s(self) -> float:
        """When the next flowing transfer ends if nothing changes before."""
        if not self._flowing:
            return inf
        left = self._flowing[0][0] - self._served
        return self._since + left / self.spec.rate(len(self._flowing))

    def _arm(self) -> None:
        """Sees to it that the link wakes when it next has something to do."""
        time = min(self._latent[0].flows_s if self._latent else inf, self._end_s())
        if time < self._alarm_s:
            self._alarm_s = time
            self._alarm = event = self.clock.at(time)
            event.callbacks.append(self._wake)

    def _wake(self, event: Event) -> None:
        """Ends and begins what is due, then tells those who asked."""
        if event is not self._alarm:
            return  # an earlier time has taken its place
        self._alarm, self._alarm_s = None, inf
        now = self.clock.now
        ended = []
        while True:
            if self._end_s() <= now:
                ended.append(self._end(now))
            elif self._latent and self._latent[0].flows_s <= now:
                self._flow(self._latent.popleft(), now)
            else:
                break
        self._arm()
        for transfer in ended:
            if self.sink is not None and now <= self.until:
                self.sink(transfer.row)
        for transfer in ended:
            transfer.done()
        if ended:
            self.changed()
