"""Dependencies as sessions hold them: threads of requests, each after the one before it.

A thread cannot fork or join. What follows a request that has a follower already begins a thread
of its own at its earliest time; of several predecessors the last one of its own session stays.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sim.trace.chunk import Links

    from .spool import Linked

_ROUNDING_S = 1e-6  # two times that are closer are the same


@dataclass(frozen=True, slots=True)
class Threads:
    """The requests of a trace as threads, [n].

    `name` of the thread, "" for none. `follows` the request it waits for, -1 for none. The others
    are counts: dependencies that are not kept, of forks (threads that begin in the middle) and of
    joins, and requests whose earliest time is later than what the thread says.
    """

    name: list[str]
    follows: NDArray[np.int64]
    forks: int
    joins: int
    held_back: int


def threads(trace: Linked) -> Threads:
    """The threads of a whole trace."""
    links = trace.links
    follows, forks, joins = _follows(links)
    waits = np.flatnonzero(follows >= 0)
    earliest = trace.arrival_s[follows[waits]] + links.delay_s[waits]
    held_back = int((trace.arrival_s[waits] > earliest + _ROUNDING_S).sum())
    return Threads(_names(links, follows), follows, forks, joins, held_back)


def _follows(links: Links) -> tuple[NDArray[np.int64], int, int]:
    """The one request each follows, -1 for none, and how many forks and joins are lost."""
    session = links.session
    follows = np.full(len(session), -1, dtype=np.int64)
    taken = set()
    forks = joins = 0
    for row in np.flatnonzero(links.after.lengths).tolist():
        after = links.after[row]
        free = [other for other in after if other not in taken]
        joins += len(after) - 1
        if not free:
            forks += 1
            continue
        own = [other for other in free if session[other] == session[row]]
        chosen = max(own or free)
        taken.add(chosen)
        follows[row] = chosen
    return follows, forks, joins


def _names(links: Links, follows: NDArray[np.int64]) -> list[str]:
    """The name of each request's thread; no two threads of which one has followers share one."""
    used = set(links.session)
    leads = set(follows[follows >= 0].tolist())
    waiting = np.flatnonzero((follows >= 0) | (links.after.lengths > 0)).tolist()
    closed = {links.session[row] for row in (*waiting, *leads)} - {""}
    given: set[str] = set()
    number = 1
    names: list[str] = []
    for row, other in enumerate(follows.tolist()):
        name = links.session[row]
        if other >= 0:
            name = names[other]
        elif name in closed or row in leads:
            # a thread begins here, in a session that has several or no name
            while not name or name in given:
                number += 1
                name = f"{links.session[row] or 'thread'}/{number}"
                name = "" if name in used else name
            given.add(name)
        names.append(name)
    return names
