"""Which replica a request goes to, decided when it arrives and never changed.

One rule: the router knows what is true at that instant, and equal choices go to the lowest number.

`round_robin` takes them in turn, `least_loaded` that with the fewest requests waiting and running,
`prefix` that with the longest part of the prompt in its HBM among those whose load is at most
*slack* above the least; of equal ones the least loaded.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from .memory.units import HBM

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .replica import Replica
    from .request import Request

Policy = Literal["round_robin", "least_loaded", "prefix"]


class Router:
    """Sends requests to *replicas* as *policy* says."""

    def __init__(self, replicas: Sequence[Replica], policy: Policy, slack: int) -> None:
        self.replicas = replicas
        self.policy = policy
        self.slack = slack
        self.sent = [0] * len(replicas)
        """Requests sent to each, rejected ones included."""
        self._expected: dict[Request, Replica] = {}

    def submit(self, request: Request) -> None:
        """Takes *request*, which arrives now, to its replica."""
        replica = self.choose(request)
        request.replica = replica.number
        self.sent[replica.number] += 1
        expecting = self._expected.pop(request, None)
        if expecting is not None and expecting is not replica:
            memory = expecting.batch.memory
            if memory is not None:
                memory.prefetching.forget(request)
        replica.submit(request)

    def listen(self, heard: Callable[[list[Request]], None]) -> None:
        """From now on tells *heard* who has got a last token, at the time of that token."""
        for replica in self.replicas:
            replica.listen(heard)

    def expect(self, request: Request) -> None:
        """*request* will be sent at a time that is known now: to the replica of its prefix, or
        nobody knows where."""
        if self.policy == "prefix":
            replica = self._expected[request] = self.choose(request)
            replica.expect(request)

    def choose(self, request: Request) -> Replica:
        """The replica for *request*, were it sent now."""
        if self.policy == "round_robin":
            return self.replicas[sum(self.sent) % len(self.replicas)]
        loads = [load(replica) for replica in self.replicas]
        least = min(loads)
        if self.policy == "prefix":
            near = [i for i, load in enumerate(loads) if load <= least + self.slack]
            best = min(near, key=lambda i: (-cached(self.replicas[i], request), loads[i], i))
            return self.replicas[best]
        return self.replicas[loads.index(least)]


def load(replica: Replica) -> int:
    """Requests that wait or run there."""
    batch = replica.batch
    return len(batch.admission.waiting) + len(replica.planner.unseen) + len(batch.running)


def cached(replica: Replica, request: Request) -> int:
    """Units of the prompt of *request* that lie in HBM there, from the first on."""
    memory = replica.batch.memory
    if memory is None or request.kv is None:
        return 0
    replica.catch_up()
    return memory.index.leading(request.kv.ids, HBM)
