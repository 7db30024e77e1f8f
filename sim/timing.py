"""How long a pass takes under each loop mode, as a function of one decode attention's time *x*.

Only attention changes while the batch stands still, and a loop's iteration is the largest of a few
straight lines in *x*. A `Timing` holds these lines, the part of them that is GPU work, and how
long launches queued, so that one iteration or a thousand cost the same few operations.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from .profile import Profile
from .stages import Pass

Number = TypeVar("Number", float, np.ndarray)

Line = tuple[float, float]
"""(seconds, factor of *x*)"""


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds, GPU-busy seconds and launch queueing of an iteration at attention time *x*."""

    path: str
    lines: tuple[Line, ...]
    busy_line: Line
    launches: int
    syncs: int
    queue: LaunchQueue | None
    """For the host path: how launches queue behind the GPU."""
    queued: float = 0.0
    """For the others: seconds from their one launch call to the GPU's start."""

    def seconds(self, x: float) -> float:
        """Length of the iteration; *x* in seconds."""
        return max(const + slope * x for const, slope in self.lines)

    def seconds_array(self, x: np.ndarray) -> np.ndarray:
        """`seconds` for each element of *x*, equal to the last bit."""
        (const, slope), *others = self.lines
        longest: np.ndarray = x * slope
        longest += const
        for const, slope in others:
            np.maximum(longest, const + slope * x, out=longest)
        return longest

    def busy(self, x: Number) -> Number:
        """Seconds in which the GPU works."""
        const, slope = self.busy_line
        return const + slope * x

    def tklqt(self, x: Number, largest: Callable[[Number, Number], Number]) -> Number:
        """Sum over launches of GPU start - launch call; *largest* is `max` or `np.maximum`."""
        if self.queue is None:
            return 0.0 * x + self.queued
        return self.queue.total(x, largest)


@dataclass(frozen=True, slots=True)
class LaunchQueue:
    """Launches of one host thread in front of one GPU stream.

    Launch i is called at i * submit, returns after *submit*, and its kernel starts when it has
    arrived (*latency* later) and the kernel before has ended.
    """

    submit: float
    latency: float
    head: tuple[float, ...]
    before: tuple[float, ...]
    """Kernel times of a layer up to decode attention."""
    attends: bool
    after: tuple[float, ...]
    tail: tuple[float, ...]
    layers: int

    def lines(self) -> tuple[Line, ...]:
        """First launch call to last kernel end, as lines in the attention time.

        The GPU is the limit from some launch i on: submission of i, then all kernels from i. As
        layers are alike, i lies in the head, the first layer, the last layer or the tail.
        """
        layer_launches = len(self.before) + self.attends + len(self.after)
        layer_seconds = sum(self.before) + sum(self.after)
        attentions = self.layers * self.attends
        work = sum(self.head) + self.layers * layer_seconds + sum(self.tail)
        lines: dict[float, float] = {}

        def limit(launch: int, done: float, attended: int) -> None:
            slope = float(attentions - attended)
            const = (launch + 1) * self.submit + self.latency + work - done
            lines[slope] = max(const, lines.get(slope, const))

        done = 0.0
        for launch, seconds in enumerate(self.head):
            limit(launch, done, 0)
            done += seconds
        for layer in {0, self.layers - 1}:
            self._layer_limits(
                limit, layer, len(self.head) + layer * layer_launches, done + layer * layer_seconds
            )
        done += self.layers * layer_seconds
        first = len(self.head) + self.layers * layer_launches
        for launch, seconds in enumerate(self.tail, first):
            limit(launch, done, attentions)
            done += seconds
        return tuple((const, slope) for slope, const in sorted(lines.items(), reverse=True))

    def _layer_limits(
        self, limit: Callable[[int, float, int], None], layer: int, launch: int, done: float
    ) -> None:
        attended = layer * self.attends
        for seconds in self.before:
            limit(launch, done, attended)
            launch, done = launch + 1, done + seconds
        if self.attends:
            limit(launch, done, attended)
            launch, attended = launch + 1, attended + 1
        for seconds in self.after:
            limit(launch, done, attended)
            launch, done = launch + 1, done + seconds

    def total(self, x: Number, largest: Callable[[Number, Number], Number]) -> Number:
        """Seconds queued, over all launches, at attention time *x*.

        A launch waits `largest(minimum, wait before + kernel before - submit)`. A layer maps the
        wait at its start to max(a, wait + drift), so that from the second layer on each layer adds
        its drift, or nothing: two layers and a closed form replace the walk over all.
        """
        minimum = self.submit + self.latency
        wait: Number = 0.0 * x + minimum
        total: Number = 0.0 * x
        for seconds in self.head:
            total = total + wait
            wait = largest(0.0 * x + minimum, wait + (seconds - self.submit))
        first, wait = self._layer(x, wait, largest)
        total = total + first
        if self.layers > 1:
            count = len(self.before) + self.attends + len(self.after)
            drift = sum(self.before) + sum(self.after) - count * self.submit
            drifts: Number = 0.0 * x + drift
            if self.attends:
                drifts = drifts + x
            growth = largest(drifts, 0.0 * x)
            rest = self.layers - 1
            second, _ = self._layer(x, wait, largest)
            total = total + rest * second + growth * (count * (rest * (rest - 1) / 2.0))
            last = wait + growth * (rest - 1.0)
            _, wait = self._layer(x, last, largest)
        for seconds in self.tail:
            total = total + wait
            wait = largest(0.0 * x + minimum, wait + (seconds - self.submit))
        return total

    def _layer(
        self, x: Number, wait: Number, largest: Callable[[Number, Number], Number]
    ) -> tuple[Number, Number]:
        """Seconds queued in one layer that starts with *wait*, and the wait after it."""
        minimum = 0.0 * x + (self.submit + self.latency)
        total: Number = 0.0 * x
        for seconds in self.before:
            total = total + wait
            wait = largest(minimum, wait + (seconds - self.submit))
        if self.attends:
            total = total + wait
            wait = largest(minimum, wait + (x - self.submit))
        for seconds in self.after:
            total = total + wait
            wait = largest(minimum, wait + (seconds - self.submit))
        return total, wait
