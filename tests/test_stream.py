"""The lines of a resident step against a walk over its stages, and what each constant does."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sim.stream import Part, Stream

RATE = 4e12
PLAIN = Stream(
    around_s=5e-6, bytes_per_s=RATE, consume_bytes_per_s=3 * RATE, ring_bytes=1.6e7, meet_s=2e-6,
    row_s=1e-7, tile_s=1e-6, latency_s=2e-6,
)  # fmt: skip
BEFORE: list[Part] = [(12.6e6, 0.0)]
AFTER: list[Part] = [(8.4e6, 0.0), (67e6, 0.0), (33.5e6, 0.0)]
TAIL: list[Part] = [(525e6, 0.0)]


def walk(
    stream: Stream,
    rows: int,
    x: float,
    before: list[Part],
    after: list[Part],
    tail: list[Part],
    layers: int,
) -> float:
    """A step of attention time *x*, stage by stage."""  # fmt: skip
    end = stream.around_s
    arrived = end - stream.ring_bytes / stream.bytes_per_s
    for weights, seconds in [*[*before, (0.0, x), *after] * layers, *tail]:
        begin = end + stream.meet_s + rows * stream.row_s + (rows > 8) * stream.tile_s
        if weights:
            free = begin - stream.ring_bytes / stream.bytes_per_s
            arrived = max(arrived, free) + weights / stream.bytes_per_s
            end = max(begin + weights / stream.consume_bytes_per_s, arrived)
        else:
            end = begin + seconds
            arrived += max(0.0, seconds - stream.latency_s)
    return end


def longest(stream: Stream, x: float, rows: int = 1, layers: int = 16) -> float:
    lines = stream.lines(rows, BEFORE, AFTER, TAIL, layers)
    return max(const + slope * x for const, slope in lines)


SECONDS = st.floats(1e-8, 1e-4)
PARTS = st.lists(
    st.one_of(
        st.tuples(st.floats(1e5, 1e9), st.just(0.0)), st.tuples(st.just(0.0), SECONDS)
    ),
    max_size=4,
)  # fmt: skip
STREAMS = st.builds(
    Stream, around_s=SECONDS, bytes_per_s=st.floats(1e12, 5e12),
    consume_bytes_per_s=st.floats(1e12, 5e13), ring_bytes=st.floats(1e4, 1e9), meet_s=SECONDS,
    row_s=SECONDS, tile_s=SECONDS, latency_s=SECONDS,
)  # fmt: skip


@settings(max_examples=200, deadline=None, derandomize=True)
@given(STREAMS, st.integers(1, 16), PARTS, PARTS, PARTS, st.integers(1, 6), SECONDS)
def test_lines_are_the_walk(stream, rows, before, after, tail, layers, x) -> None:
    lines = stream.lines(rows, before, after, tail, layers)
    found = max(const + slope * x for const, slope in lines)
    assert found == pytest.approx(walk(stream, rows, x, before, after, tail, layers), rel=1e-12)
    slopes = [slope for _, slope in lines]
    assert slopes == sorted(set(slopes))
    assert slopes[-1] == layers  # a long attention decides alone


def test_a_stream_that_never_waits_is_its_bytes() -> None:
    free = replace(PLAIN, around_s=0.0, meet_s=0.0, row_s=0.0, ring_bytes=1e12)
    streamed = 16 * sum(w for w, _ in [*BEFORE, *AFTER]) + TAIL[0][0]
    least = (streamed - 1e12) / RATE  # what the ring held to begin with
    assert longest(free, 0.0) == pytest.approx(max(least, streamed / (3 * RATE)))


def test_without_a_ring_each_meeting_is_lost() -> None:
    bare = replace(PLAIN, ring_bytes=0.0)
    streamed = (16 * sum(w for w, _ in [*BEFORE, *AFTER]) + TAIL[0][0]) / RATE
    meetings = 81 * (bare.meet_s + bare.row_s)
    assert longest(bare, 0.0) == pytest.approx(bare.around_s + streamed + meetings)


@pytest.mark.parametrize(
    ("name", "factor"),
    [("around_s", 2), ("meet_s", 2), ("row_s", 5), ("bytes_per_s", 0.8), ("ring_bytes", 0.1)],
)
def test_each_constant_costs_time(name, factor) -> None:
    worse = replace(PLAIN, **{name: getattr(PLAIN, name) * factor})
    assert longest(worse, 5e-6) > longest(PLAIN, 5e-6)
