"""Launches and their queue against a walk over every launch, and arrays against scalars."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from sim.timing import LaunchQueue, Segment, Timing

SECONDS = st.one_of(st.just(0.0), st.floats(1e-9, 1e-3))
KERNELS = st.lists(SECONDS, max_size=5)


@dataclass
class Launches:
    """The numbers of a pass as a test draws them."""

    submit: float
    latency: float
    head: list[float] = field(default_factory=list)
    before: list[float] = field(default_factory=list)
    attends: bool = True
    prefill: float | None = None
    after: list[float] = field(default_factory=list)
    tail: list[float] = field(default_factory=list)
    layers: int = 1

    def queue(self) -> LaunchQueue:
        head, before, after, tail = map(Segment, (self.head, self.before, self.after, self.tail))
        return LaunchQueue(
            self.submit, self.latency, head, before, self.attends, self.prefill, after, tail,
            self.layers,
        )  # fmt: skip

    def kernels(self, x: float) -> list[float]:
        """Every kernel of the pass, in order."""
        layer = [*self.before, *([x] if self.attends else [])]
        layer += [*([] if self.prefill is None else [self.prefill]), *self.after]
        return [*self.head, *(layer * self.layers), *self.tail]

    def walk(self, x: float) -> tuple[float, float]:
        """End of the last kernel and total time in the queue, launch by launch."""
        end = total = 0.0
        for i, seconds in enumerate(self.kernels(x)):
            called = i * self.submit
            start = max(called + self.submit + self.latency, end)
            total += start - called
            end = start + seconds
        return end, total


PASSES = st.builds(
    Launches,
    submit=SECONDS,
    latency=SECONDS,
    head=st.one_of(st.just([]), KERNELS),
    before=st.lists(SECONDS, min_size=1, max_size=5),
    attends=st.booleans(),
    prefill=st.one_of(st.none(), SECONDS),
    after=st.lists(SECONDS, min_size=1, max_size=5),
    tail=KERNELS,
    layers=st.integers(1, 9),
)


def longest(queue: LaunchQueue, x: float) -> float:
    return max(const + slope * x for const, slope in queue.lines())


@settings(max_examples=200, deadline=None, derandomize=True)
@given(PASSES, SECONDS)
def test_lines_are_the_walk(launches: Launches, x: float) -> None:
    end, _ = launches.walk(x)
    scale = sum(launches.kernels(x)) + len(launches.kernels(x)) * launches.submit
    assert longest(launches.queue(), x) == pytest.approx(end, rel=1e-12, abs=1e-13 * scale)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(PASSES, SECONDS)
def test_total_is_the_walk(launches: Launches, x: float) -> None:
    assume(all(seconds <= launches.submit for seconds in launches.head))  # else see below
    _, total = launches.walk(x)
    count = len(launches.kernels(x))
    scale = count * (sum(launches.kernels(x)) + count * launches.submit)
    expected = pytest.approx(total, rel=1e-12, abs=1e-13 * scale)
    assert launches.queue().total(x, max) == expected
    assert launches.queue().total(np.array([x]), np.maximum)[0] == launches.queue().total(x, max)


def test_queue_from_the_head_drains_over_layers() -> None:
    # Ten seconds of queue before the first layer, then each layer takes 2 s less than its launches.
    launches = Launches(2.0, 0.0, [12.0], [1.0], False, None, [1.0], [], 4)
    assert launches.walk(0.0)[1] == 2 + 12 + 11 + 10 + 9 + 8 + 7 + 6 + 5
    assert launches.queue().total(0.0, max) == launches.walk(0.0)[1]


@settings(max_examples=100, deadline=None, derandomize=True)
@given(PASSES)
def test_counts_and_seconds(launches: Launches) -> None:
    queue = launches.queue()
    assert queue.launches == len(launches.kernels(0.0))
    assert queue.kernel_seconds() == pytest.approx(sum(launches.kernels(0.0)), rel=1e-12)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(PASSES, st.lists(SECONDS, min_size=1, max_size=20))
def test_arrays_equal_scalars_to_the_last_bit(launches: Launches, xs: list[float]) -> None:
    queue = launches.queue()
    timing = Timing("host", queue.lines(), (1e-4, float(launches.layers)), 1, 1, queue)
    array = np.array(xs)
    assert timing.busy(array).tolist() == [timing.busy(x) for x in xs]
    assert timing.tklqt(array, np.maximum).tolist() == [timing.tklqt(x, max) for x in xs]


def test_host_that_keeps_ahead() -> None:
    # The GPU is busy throughout: one submission and latency, then all kernels.
    launches = Launches(1.0, 0.5, [4.0], [4.0], True, None, [4.0], [4.0], 2)
    assert longest(launches.queue(), 8.0) == 1.5 + 4 + 2 * (4 + 8 + 4) + 4
    # Each launch finds the queue longer by the kernel before it, less a submission.
    assert launches.walk(8.0)[1] == launches.queue().total(8.0, max)


def test_host_that_lags_behind() -> None:
    # Kernels of 1 s, submissions of 3 s: the last of 6 launches is in at 18 s, starts at 18.5 s.
    launches = Launches(3.0, 0.5, [1.0], [1.0], True, None, [1.0], [1.0], 1)
    queue = launches.queue()
    assert queue.launches == 5
    assert longest(queue, 1.0) == 5 * 3 + 0.5 + 1
    assert queue.total(1.0, max) == 5 * 3.5


def test_long_attention_hides_the_submissions_after_it() -> None:
    # In at 2 (before) and 4 (attention); from there 100 s of attention, then 3 s.
    launches = Launches(2.0, 0.0, [], [1.0], True, None, [1.0, 1.0], [1.0], 1)
    assert longest(launches.queue(), 100.0) == 4 + 100 + 3


def test_path_without_a_queue_waits_for_its_one_launch() -> None:
    timing = Timing("graph", ((3.0, 2.0),), (1.0, 2.0), 1, 1, None, 0.25)
    assert timing.seconds(2.0) == 7.0
    assert timing.busy(2.0) == 5.0
    assert timing.tklqt(2.0, max) == 0.25
    assert timing.tklqt(np.array([1.0, 2.0]), np.maximum).tolist() == [0.25, 0.25]
