"""How long a pass takes under each loop mode, as a function of one decode attention's time *x*.

Only attention changes while the batch stands still, and a loop's iteration is the largest of a few
straight lines in *x*. A `Timing` holds these lines, the part of them that is GPU work, and how
long launches queued, so that one iteration or a thousand cost the same few operations.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import inf
from typing import TYPE_CHECKING, TypeVar

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

Number = TypeVar("Number", float, np.ndarray)

Line = tuple[float, float]
"""(seconds, factor of *x*)"""


def scalars(*values: float) -> tuple[np.ndarray, ...]:
    """*values* as arrays of no dimension, which NumPy applies twice as fast as floats."""
    return tuple(np.array(value) for value in values)


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
    barriers: int = 0
    """Times that all SMs of a resident loop wait for each other."""

    def seconds(self, x: float) -> float:
        """Length of the iteration; *x* in seconds."""
        return max(const + slope * x for const, slope in self.lines)

    def busy(self, x: Number) -> Number:
        """Seconds in which the GPU works."""
        const, slope = self.busy_line
        return const + slope * x

    def tklqt(self, x: Number, largest: Callable[[Number, Number], Number]) -> Number:
        """Sum over launches of GPU start - launch call; *largest* is `max` or `np.maximum`."""
        if self.queue is None:
            return 0.0 * x + self.queued
        return self.queue.total(x, largest)


def slowed(timing: Timing, factor: float) -> Timing:
    """*timing* with a GPU that takes *factor* times longer, because KV is moved meanwhile."""
    # Model: only the GPU's own work takes longer. A host that submits more slowly than the GPU
    # works stays the limit: of the lines of launches, the first is that of a GPU always at work.
    const, slope = timing.busy_line
    more, steeper = (factor - 1.0) * const, (factor - 1.0) * slope
    lines = tuple((line + more, rate + steeper) for line, rate in timing.lines)
    if timing.path == "host":
        lines = (lines[0], *timing.lines[1:])
    return replace(timing, lines=lines, busy_line=(const * factor, slope * factor))


class Segment:
    """Kernels of a stretch of launches; its sums are worked out once for a pace of the host."""

    __slots__ = ("_ahead", "_submit", "kernels", "seconds")

    def __init__(self, kernels: Sequence[float]) -> None:
        self.kernels = kernels
        self.seconds = sum(kernels)
        self._ahead: tuple[float, float] | None = None
        self._submit = -1.0

    def ahead(self, submit: float) -> tuple[float, float]:
        """How far submissions of *submit* seconds run ahead of the kernels, from 0 at the first.

        The most before any kernel, -inf if there is none, and where it stands after the last.
        """
        if self._ahead is None or self._submit != submit:
            peak, now = -inf, 0.0
            for seconds in self.kernels:
                peak = max(peak, now)
                now += submit - seconds
            self._ahead, self._submit = (peak, now), submit
        return self._ahead


@dataclass(slots=True)
class LaunchQueue:
    """Launches of one host thread in front of one GPU stream.

    Launch i is called at i * submit, returns after *submit*, and its kernel starts when it has
    arrived (*latency* later) and the kernel before has ended. A layer is *before*, decode
    attention if anything decodes, prefill attention of *prefill* seconds or None, and *after*.
    """

    submit: float
    latency: float
    head: Segment
    before: Segment
    attends: bool
    prefill: float | None
    after: Segment
    tail: Segment
    layers: int

    @property
    def launches(self) -> int:
        """Launches in a pass."""
        head, tail = len(self.head.kernels), len(self.tail.kernels)
        return head + self.layers * self._layer_launches + tail

    @property
    def _layer_launches(self) -> int:
        attentions = self.attends + (self.prefill is not None)
        return len(self.before.kernels) + attentions + len(self.after.kernels)

    @property
    def _prefill_seconds(self) -> float:
        return 0.0 if self.prefill is None else self.prefill

    def kernel_seconds(self) -> float:
        """All kernels of a pass but decode attention."""
        layer = self.before.seconds + self._prefill_seconds + self.after.seconds
        return self.head.seconds + self.layers * layer + self.tail.seconds

    def lines(self) -> tuple[Line, ...]:
        """First launch call to last kernel end, as lines in the attention time.

        The GPU is the limit from some launch i on: submission of i, then all kernels from i. As
        layers are alike, i lies in the head, the first layer, the last layer or the tail.
        """
        submit = self.submit
        head_peak, head_end = self.head.ahead(submit)
        before_peak, before_end = self.before.ahead(submit)
        after_peak, _ = self.after.ahead(submit)
        tail_peak, _ = self.tail.ahead(submit)
        layer = self.before.seconds + self._prefill_seconds + self.after.seconds
        step = self._layer_launches * submit - layer  # from a launch to its like, a layer on
        last = (self.layers - 1) * step
        # Seconds from the first call to the end if launch i is the limit, starting with i = 0.
        base = submit + self.latency + self.kernel_seconds()
        first = base + head_peak
        base += head_end
        at_attention = base + before_end
        early = max(first, base + before_peak, at_attention)
        late = at_attention + self.attends * submit
        prefill = -inf
        if self.prefill is not None:
            prefill = late
            late += submit - self.prefill
        late = max(prefill, late + after_peak)
        tail = base + last + step + tail_peak
        attentions = float(self.layers * self.attends)
        return (
            (early, attentions),
            (late, attentions - self.attends),
            (max(base + before_peak, at_attention) + last, float(self.attends)),
            (max(late + last, tail), 0.0),
        )

    def total(self, x: Number, largest: Callable[[Number, Number], Number]) -> Number:
        """Seconds queued, over all launches, at attention time *x*.

        A launch waits `largest(minimum, wait before + kernel before - submit)`. A layer maps the
        wait at its start to max(a, wait + drift), so that from the second layer on each layer adds
        its drift, or nothing: two layers and a closed form replace the walk over all.
        """
        wait: Number = 0.0 * x + (self.submit + self.latency)
        total, wait = self._walk(self.head.kernels, 0.0 * x, wait, largest)
        if self._drains(x, wait, largest):
            for _ in range(self.layers):
                total, wait = self._layer(x, total, wait, largest)
            total, _ = self._walk(self.tail.kernels, total, wait, largest)
            return total
        total, wait = self._layer(x, total, wait, largest)
        rest = self.layers - 1
        if rest:
            count = self._layer_launches
            growth = largest(self._drift(x), 0.0 * x)
            second, _ = self._layer(x, 0.0 * x, wait, largest)
            total = total + rest * second + growth * (count * (rest * (rest - 1) / 2.0))
            _, wait = self._layer(x, total, wait + growth * (rest - 1.0), largest)
        total, _ = self._walk(self.tail.kernels, total, wait, largest)
        return total

    def _drains(self, x: Number, wait: Number, largest: Callable[[Number, Number], Number]) -> bool:
        """Whether a queue built up in the head may take more than a layer to drain."""
        if not self.head.kernels:
            return False
        idle = 0.0 * x + (self.submit + self.latency)
        _, after_idle = self._layer(x, 0.0 * x, idle, largest)
        _, after_head = self._layer(x, 0.0 * x, wait, largest)
        settled = after_head <= after_idle
        return not bool(np.all(settled | (self._drift(x) >= 0.0)))

    def _drift(self, x: Number) -> Number:
        """What a layer adds to the wait of a busy GPU: its kernels less its submissions."""
        layer = self.before.seconds + self._prefill_seconds + self.after.seconds
        alone: Number = 0.0 * x + (layer - self._layer_launches * self.submit)
        return alone + x if self.attends else alone

    def _layer(
        self, x: Number, total: Number, wait: Number, largest: Callable[[Number, Number], Number]
    ) -> tuple[Number, Number]:
        """*total* with the seconds queued in one layer that starts with *wait*, and its end."""
        total, wait = self._walk(self.before.kernels, total, wait, largest)
        if self.attends:
            total, wait = self._walk((x,), total, wait, largest)
        if self.prefill is not None:
            total, wait = self._walk((self.prefill,), total, wait, largest)
        return self._walk(self.after.kernels, total, wait, largest)

    def _walk(
        self,
        kernels: Sequence[float | Number],
        total: Number,
        wait: Number,
        largest: Callable[[Number, Number], Number],
    ) -> tuple[Number, Number]:
        minimum = 0.0 * wait + (self.submit + self.latency)
        for seconds in kernels:
            total = total + wait
            wait = largest(minimum, wait + (seconds - self.submit))
        return total, wait
