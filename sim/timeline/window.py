"""Which part of a run a timeline shows, so that it has no more events than asked for.

The one rule: whole stretches of time are kept or left out, with everything in them; detail goes
before time where the user has chosen the time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from sim.errors import InputError
from sim.units import seconds_text

if TYPE_CHECKING:
    from collections.abc import Callable

    from .rows import Recorded

STAGES = 8
"""Slices in an iteration at most, but for what sections of a scenario add."""
MORE_STAGES = {"sparse": 3, "speculation": 1, "moe": 1}
BARE = 5
"""Events of an iteration without them: itself, its counters, the idle time before it."""
A_REQUEST = 15
A_TRANSFER = 4
ROUNDS = 50


@dataclass(frozen=True, slots=True)
class Window:
    """From *begin* to *end* seconds, with the stages of iterations or without."""

    begin: float
    end: float
    stages: bool
    notes: tuple[str, ...] = ()
    """What was left out, for the user."""

    def overlaps(self, begins: np.ndarray, ends: np.ndarray) -> np.ndarray:
        """Which of these spans have a part in it."""
        found: np.ndarray = (begins <= self.end) & (ends >= self.begin)
        return found

    def within(self, times: np.ndarray) -> np.ndarray:
        """Which of *times* are in it."""
        found: np.ndarray = (times >= self.begin) & (times <= self.end)
        return found


class Sizes:
    """How many events a stretch of time has, at most."""

    def __init__(self, run: Recorded) -> None:
        bare = BARE + ("loading" in run.iterations.names)
        stages = STAGES + sum(n for key, n in MORE_STAGES.items() if run.scenario.get(key))
        self._spans = [
            (np.sort(begin), np.sort(end), weights)
            for (begin, end), weights in (
                ((run.begins, run.ends), (stages + bare, bare)),
                (run.lives, (A_REQUEST, A_REQUEST)),
                (run.moves, (A_TRANSFER, A_TRANSFER)),
            )
        ]

    def of(self, begin: float, end: float, stages: bool) -> int:
        """Events from *begin* to *end* seconds."""
        total = 0
        for begins, ends, (whole, bare) in self._spans:
            count = begins.searchsorted(end, "right") - ends.searchsorted(begin, "left")
            total += int(count) * (whole if stages else bare)
        return total


def choose(run: Recorded, begin: float | None, end: float | None, most: int) -> Window:
    """The window from *begin* to *end* seconds, or what of it *most* events can show.

    With neither given, the part of the run around its longest queue.
    """
    if begin is not None and begin > run.end:
        what = f"is after the end of the run, {seconds_text(run.end)}; lower it"
        raise InputError(f"--from: {seconds_text(begin)} {what}")
    given = begin is not None or end is not None
    first, last = begin or 0.0, run.end if end is None else min(end, run.end)
    last = max(first, last)
    sizes = Sizes(run)
    if sizes.of(first, last, stages=True) <= most:
        return Window(first, last, stages=True)
    if not given:
        return _around(sizes, _busiest(run), last, most)
    if sizes.of(first, last, stages=False) <= most:
        what = "the stages of iterations are left out; ask for less time, or raise --most"
        return Window(first, last, False, (f"more than {most:,} events: {what}",))
    stop = _largest(first, last, lambda at: sizes.of(first, at, stages=False) <= most)
    what = f"shown until {seconds_text(stop)} of {seconds_text(last)}, without stages"
    return Window(first, stop, False, (f"more than {most:,} events: {what}; raise --most",))


def _around(sizes: Sizes, middle: float, last: float, most: int) -> Window:
    """The widest window with all detail around *middle*."""

    def both(half: float) -> tuple[float, float]:
        begin = min(max(0.0, middle - half), max(0.0, last - 2 * half))
        return begin, min(last, begin + 2 * half)

    half = _largest(0.0, last / 2, lambda at: sizes.of(*both(at), stages=True) <= most)
    begin, end = both(half)
    note = (
        f"more than {most:,} events: only {begin:.9g} s to {end:.9g} s of {last:.9g} s, around the"
        " most requests at once; choose with --from and --to, or raise --most"
    )
    return Window(begin, end, True, (note,))


def _busiest(run: Recorded) -> float:
    """When most requests are there at once, seconds."""
    arrivals, lasts = np.sort(run.lives[0]), np.sort(run.lives[1])
    if not len(arrivals):
        return 0.0
    there = np.arange(1, len(arrivals) + 1) - lasts.searchsorted(arrivals, "left")
    return float(arrivals[int(there.argmax())])


def _largest(low: float, high: float, fits: Callable[[float], bool]) -> float:
    """The largest value between *low* and *high* that *fits*, where smaller ones do as well."""
    for _ in range(ROUNDS):
        middle = (low + high) / 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low
