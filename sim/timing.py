"""How long a pass takes under each loop mode, as a function of one decode attention's time *x*.

Only attention changes while the batch stands still, and a loop's iteration is the largest of a few
straight lines in *x*. A `Timing` holds these lines, the part of them that is GPU work, and how
long launches queued, so that one iteration or a thousand cost the same few operations.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING, TypeVar

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

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
        submit = self.submit
        count = len(self.before) + self.attends + len(self.after)
        layer = sum(self.before) + sum(self.after)
        attentions = self.layers * self.attends
        # Seconds from the first call to the end if launch i is the limit: `base` for i = 0, then
        # more by a submission and less by a kernel for each launch before i.
        base = submit + self.latency + sum(self.head) + self.layers * layer + sum(self.tail)
        head, base = _latest(base, submit, self.head)
        before, at_attention = _latest(base, submit, self.before)
        before = max(before, at_attention)
        after, _ = _latest(at_attention + self.attends * submit, submit, self.after)
        last = (self.layers - 1) * (count * submit - layer)
        tail, _ = _latest(base + last + count * submit - layer, submit, self.tail)
        lines = {float(attentions): max(head, before)}
        for slope, const in (
            (attentions - self.attends, after),
            (self.attends, before + last),
            (0, max(after + last, tail)),
        ):
            lines[float(slope)] = max(const, lines.get(float(slope), const))
        return tuple((const, slope) for slope, const in lines.items())

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


def _latest(base: float, submit: float, kernels: tuple[float, ...]) -> tuple[float, float]:
    """The largest of *base* as it stands before each of *kernels*, and *base* after them."""
    largest = -inf
    for seconds in kernels:
        largest = max(largest, base)
        base += submit - seconds
    return largest, base
