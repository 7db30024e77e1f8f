"""Simulated time: SimPy's environment with events at absolute times.

An iteration's end is a sum of durations. Scheduling it as a delay from now would round it once
more, so that two engines could differ in the last bit; `Clock.at` schedules the sum itself.
"""

from __future__ import annotations

from heapq import heappush
from math import inf

import simpy
from simpy.events import NORMAL, Event

#: Of what happens at the same instant, requests that are due come after what a prefill partition
#: ends, and loops wake after all arrivals, one after the other by their numbers; so a boundary sees
#: everything up to it.
ARRIVALS = 2
AFTER_ARRIVALS = 3


class Clock(simpy.Environment):
    """A SimPy environment that starts at 0 s."""

    def at(self, time: float, priority: int = NORMAL) -> Event:
        """An event that fires at the absolute *time* in seconds, which must not be in the past."""
        assert time >= self._now, f"time runs backwards: {time} < {self._now}"
        event = Event(self)
        event._ok = True
        event._value = None
        heappush(self._queue, (time, priority, next(self._eid), event))  # type: ignore[misc]
        return event

    def events(self) -> int:
        """How many events have been scheduled so far."""
        return int(repr(self._eid)[6:-1])


class Turns:
    """Which of several loops have had their turn at this instant; they have it in their order."""

    __slots__ = ("latest", "time")

    def __init__(self) -> None:
        self.time = -1.0
        self.latest = -1

    def take(self, time: float, number: int) -> None:
        """Loop *number* has its turn at *time*."""
        if time > self.time:
            self.time, self.latest = time, number
        elif number > self.latest:
            self.latest = number

    def passed(self, time: float, number: int) -> bool:
        """Whether what happens now, at *time*, comes after a boundary of loop *number* then."""
        return time == self.time and number <= self.latest


class Alarm:
    """The one event a loop sleeps on; it can be brought forward while the loop sleeps.

    The superseded event stays in SimPy's heap without callbacks and fires unheard, so no process
    per wait and no `AnyOf` is needed.
    """

    __slots__ = ("clock", "event", "priority", "time")

    def __init__(self, clock: Clock, priority: int = AFTER_ARRIVALS) -> None:
        self.clock = clock
        self.priority = priority
        self.event = Event(clock)
        self.time = 0.0

    def set(self, time: float) -> Event:
        """The event to yield, at the absolute *time* in seconds."""
        self.time = time
        self.event = self.clock.at(time, self.priority)
        return self.event

    def never(self) -> Event:
        """The event to yield when only `bring_forward` shall wake the sleeper."""
        self.time = inf
        self.event = Event(self.clock)
        return self.event

    def bring_forward(self, time: float) -> None:
        """Wakes the sleeper at *time* instead; a later *time* than the one set is ignored."""
        if time >= self.time:
            return
        self.time = time
        early = self.clock.at(time, self.priority)
        early.callbacks, self.event.callbacks = self.event.callbacks, []
        self.event = early
