"""When generated requests arrive: streams of times, each taken from where the last one ended.

One rule: time i depends on the seed and on i only. Times are drawn in batches of a fixed size, each
from a random stream of its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import numpy as np

from sim.errors import InputError
from sim.rng import stream
from sim.trace.bounds import BURSTINESS, PERIOD_S, RATE_PER_S
from sim.trace.gaps import gamma_gaps
from sim.trace.lengths import in_range

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from sim.trace.gaps import Gaps, Warp

ROWS = 16384
"""Drawn at once; part of what a seed means."""
_PERIODS = 1024
_MOST_PERIODS = 1000  # without a request, on average


class Arrivals(Protocol):
    """A stream of arrival times."""

    def take(self) -> NDArray[np.float64]:
        """The next `ROWS` times in seconds, non-decreasing; the first of all is 0."""


class Renewal:
    """Independent gaps, by a clock that *warp* may turn into seconds."""

    def __init__(self, seed: int, source: str, gaps: Gaps, warp: Warp | None = None) -> None:
        self._seed, self._name = seed, f"trace.{source}.gaps"
        self._gaps, self._warp = gaps, warp
        self._number = 0
        self._clock = 0.0

    def take(self) -> NDArray[np.float64]:
        gaps = self._gaps(stream(self._seed, self._name, self._number), ROWS)
        if self._number == 0:
            gaps[0] = 0.0
        clocks: NDArray[np.float64] = self._clock + np.cumsum(gaps)
        self._clock, self._number = float(clocks[-1]), self._number + 1
        return clocks if self._warp is None else self._warp(clocks)


class Shaped:
    """The times of another stream, moved by a warp: the shape of a day."""

    def __init__(self, of: Arrivals, warp: Warp) -> None:
        self._of, self._warp = of, warp

    def take(self) -> NDArray[np.float64]:
        return self._warp(self._of.take())


class Batches:
    """Gaps that come in batches of any size, as times."""

    def __init__(self, batch: Callable[[int], NDArray[np.float64]]) -> None:
        self._batch = batch
        self._number = 0
        self._held = np.zeros(1)  # gaps; the first request comes at once
        self._clock = 0.0

    def take(self) -> NDArray[np.float64]:
        parts, count = [self._held], len(self._held)
        while count < ROWS:
            parts.append(self._batch(self._number))
            self._number += 1
            count += len(parts[-1])
        gaps = np.concatenate(parts)
        self._held = gaps[ROWS:]
        times: NDArray[np.float64] = self._clock + np.cumsum(gaps[:ROWS])
        self._clock = float(times[-1])
        return times


class OnOff:
    """Periods with requests and without in turn; raises `InputError`.

    Both are exponentially long, *on_s* and *off_s* on average. The trace begins with a request and
    an on period, within which gaps are gamma of shape *burstiness*; a gap that an off period falls
    into is as much longer. *rate_per_s* is the mean over both.
    """

    def __init__(
        self,
        seed: int,
        source: str,
        rate_per_s: float,
        on_s: float,
        off_s: float,
        burstiness: float,
    ) -> None:
        in_range("rate_per_s", rate_per_s, *RATE_PER_S)
        in_range("on_s", on_s, *PERIOD_S)
        in_range("off_s", off_s, *PERIOD_S)
        in_range("burstiness", burstiness, *BURSTINESS)
        if rate_per_s * (on_s + off_s) * _MOST_PERIODS < 1:
            raise InputError(
                f"on_s: with on and off periods of {on_s:.4g} s and {off_s:.4g} s and "
                f"{rate_per_s:.4g} requests a second, over {_MOST_PERIODS:,} periods pass between "
                "requests; make them longer, or raise the rate"
            )
        self._on = Renewal(
            seed, source, gamma_gaps(burstiness, on_s / (rate_per_s * (on_s + off_s)))
        )
        self._periods = self._draw(seed, f"trace.{source}.periods", on_s, off_s)
        self._ends = np.zeros(0)  # of on periods, by the time spent in them
        self._off = np.zeros(1)  # spent in off periods before each of them, and after the last

    @staticmethod
    def _draw(
        seed: int, name: str, on_s: float, off_s: float
    ) -> Iterator[tuple[NDArray[np.float64], NDArray[np.float64]]]:
        number, ends, off = 0, 0.0, 0.0
        while True:
            drawn = stream(seed, name, number).standard_exponential((2, _PERIODS))
            on_ends, off_ends = ends + np.cumsum(on_s * drawn[0]), off + np.cumsum(off_s * drawn[1])
            yield on_ends, off_ends
            number, ends, off = number + 1, float(on_ends[-1]), float(off_ends[-1])

    def take(self) -> NDArray[np.float64]:
        times = self._on.take()
        keep = int(np.searchsorted(self._ends, times[0]))
        ends, off = [self._ends[keep:]], [self._off[keep:]]
        last = float(ends[0][-1]) if len(ends[0]) else -1.0
        while last < times[-1]:
            more = next(self._periods)
            ends.append(more[0])
            off.append(more[1])
            last = float(more[0][-1])
        self._ends, self._off = np.concatenate(ends), np.concatenate(off)
        return np.asarray(times + self._off[np.searchsorted(self._ends, times)], dtype=np.float64)
