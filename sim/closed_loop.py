"""Closed loop: who waits for whose answer, and which requests are due.

Only an account, without a clock: `sim.arrival` says what it read and what was answered, and asks
who is due next. A request is due at max(its earliest time, the last of the answers it waits for +
its think time); ties are in the order of the trace.
"""

from __future__ import annotations

from array import array
from heapq import heappop, heappush
from itertools import chain
from math import inf, isnan, nan
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .request import Request


class ClosedLoop:
    """Requests that have been read and not been sent; of all others only when they were answered.

    The engine knows of a request *arrival_delay* seconds after its client sends it, and a client
    gets an answer *token_delay* seconds after the engine has made its last token; all times told
    and asked here are the engine's.

    Nobody knows which requests of a trace will still be waited for, so the time of an answer is
    kept to the end: 8 bytes a request.
    """

    def __init__(self, arrival_delay: float = 0.0, token_delay: float = 0.0) -> None:
        self.arrival_delay = arrival_delay
        self.token_delay = token_delay
        self.sessions: dict[str, str] = {}
        """The names of sessions among the requests read."""
        self.waiting = 0
        """Requests read that wait for at least one other."""
        self.answers_awaited = 0
        """Pairs of a request read and one that it waits for."""
        self._answered = array("d")  # by position; nan until answered
        self._left: dict[Request, int] = {}  # answers still missing
        self._behind: dict[int, list[Request]] = {}  # by position: those who wait for its answer
        self._due: list[tuple[float, int, Request]] = []

    @property
    def not_sent(self) -> int:
        """Requests read that still wait, for an answer or for their time."""
        return len(self._left) + len(self._due)

    @property
    def next_due(self) -> float:
        """When the next request is due, in seconds; inf if that is not known yet."""
        return self._due[0][0] if self._due else inf

    def sessions_cut(self) -> set[str]:
        """The sessions with a request that has not been sent."""
        unsent = chain(self._left, (request for _, _, request in self._due))
        return {request.session for request in unsent if request.session}

    def pop(self) -> Request:
        """Takes out the request that is due next, to be sent."""
        return heappop(self._due)[2]

    def read(self, request: Request, after: tuple[int, ...]) -> bool:
        """Takes the next *request* of the trace, its arrival the earliest; waits for *after*.

        Whether these have all been answered before.
        """
        assert request.id == len(self._answered)
        self._answered.append(nan)
        if request.session:
            request.session = self.sessions.setdefault(request.session, request.session)
        if not after:
            self._send(request, request.arrival)
            return False
        self.waiting += 1
        self.answers_awaited += len(after)
        times = [self._answered[position] for position in after]
        missing = {p for p, time in zip(after, times, strict=True) if isnan(time)}
        if not missing:
            self._release(request, max(times))
            return True
        self._left[request] = len(missing)
        for position in missing:
            self._behind.setdefault(position, []).append(request)
        return False

    def answered(self, request: Request, time: float) -> list[Request]:
        """Takes note that *request* was answered, or rejected, at *time*.

        Returns the requests whose times are known now.
        """
        time += self.token_delay
        self._answered[request.id] = time
        released = []
        for waiting in self._behind.pop(request.id, ()):
            self._left[waiting] -= 1
            if not self._left[waiting]:
                del self._left[waiting]
                self._release(waiting, time)
                released.append(waiting)
        return released

    def _release(self, request: Request, last_answer: float) -> None:
        self._send(request, max(request.arrival, last_answer + request.think))

    def _send(self, request: Request, time: float) -> None:
        """The client sends *request* at *time*."""
        request.arrival = time + self.arrival_delay
        if self.arrival_delay:
            request.sent = time
        heappush(self._due, (request.arrival, request.id, request))
