"""Prefix reuse by cache size: against a plain LRU cache, against published figures, sampled."""

from __future__ import annotations

import json
from collections import OrderedDict
from math import inf
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sim.trace.chunk import Chunk, Tally
from sim.trace.look.curve import Curve, References
from sim.trace.look.inspection import Inspection
from sim.trace.look.reuse import first_of
from sim.trace.look.stack import stack_distances
from sim.trace.look.summary import summary
from sim.trace.ragged import Ragged
from sim.trace.read import read

TRACES = Path(__file__).parents[1].parent / "shared" / "traces"
MOONCAKE = TRACES / "mooncake-fast25" / "conversation_trace.jsonl"

Rows = list[list[int]]


def lru_hits(rows: Rows, capacity: float) -> int:
    """The specification: look the whole prompt up, then touch it from its last block on."""
    cache: OrderedDict[int, None] = OrderedDict()
    hits = 0
    for row in rows:
        hits += sum(block in cache for block in row)
        for block in reversed(row):
            cache.pop(block, None)
            cache[block] = None
            if len(cache) > capacity:
                cache.popitem(last=False)
    return hits


def chained(requests: int, seed: int = 0) -> Rows:
    """Prompts that go on from earlier ones, as prefix ids do; the first id is in all."""
    rng = np.random.default_rng(seed)
    rows: Rows = []
    fresh = 1
    for _ in range(requests):
        old = rows[int(len(rows) * rng.beta(4, 1))] if rows and rng.random() < 0.5 else [0]
        row = old[: int(rng.integers(1, len(old) + 1))]
        new = int(rng.integers(0, 20))
        rows.append([*row, *range(fresh, fresh + new)])
        fresh += new
    return rows


def curve_of(rows: Rows, most: int = 2**22, parts: int = 1) -> Curve:
    inspection = Inspection()
    inspection.references = References(most)
    times = np.arange(len(rows), dtype=np.float64)
    for part in np.array_split(np.arange(len(rows)), parts):
        if len(part):
            ids = Ragged.of([rows[i] for i in part])
            ones = np.ones(len(part), dtype=np.int64)
            inspection.add(Chunk(times[part], ones, ones, ids))
    curve = inspection.curve()
    assert curve is not None
    return curve


# exact --------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=100)
@given(
    rows=st.lists(st.lists(st.integers(0, 9), max_size=7), max_size=25).filter(any),
    capacity=st.integers(1, 12),
)
def test_hits_are_those_of_a_plain_lru_cache(rows: Rows, capacity: int) -> None:
    curve = curve_of(rows)
    hits = curve.hit_rate(capacity) * curve.references
    assert hits == pytest.approx(lru_hits(rows, capacity))
    assert curve.error(capacity) == 0.0


def test_prefix_chains_at_all_sizes_and_any_chunks() -> None:
    rows = chained(400)
    curve = curve_of(rows, parts=7)
    for capacity in (1, 2, 10, 50, 100, 500, 1000, 10_000):
        hits = lru_hits(rows, capacity)
        assert curve.hit_rate(capacity) * curve.references == pytest.approx(hits)
    assert curve.hit_rate(inf) == curve.hit_rate(10_000)


def test_distances_and_sources_by_hand() -> None:
    #       request 0     1        2
    ids = np.array([1, 2, 3, 1, 2, 2], dtype=np.int64)
    distances, sources = stack_distances(ids, np.array([2, 1, 3]))
    # after request 0 block 1 is the most recent, then 3 comes on top
    assert distances.tolist() == [0, 0, 0, 2, 3, 3]
    assert sources.tolist() == [-1, -1, -1, 0, 1, 1]


def test_no_references_have_no_distances() -> None:
    distances, sources = stack_distances(np.zeros(0, dtype=np.int64), np.zeros(3, dtype=np.int64))
    assert len(distances) == len(sources) == 0


@given(values=st.lists(st.integers(-5, 5) | st.integers(-(2**62), 2**62)))
def test_the_first_of_equal_values(values: list[int]) -> None:
    found = first_of(np.array(values, dtype=np.int64))
    assert found.tolist() == [values.index(value) for value in values]


def test_published_figures_of_the_mooncake_conversations() -> None:
    if not MOONCAKE.exists():
        pytest.skip(f"{MOONCAKE.name} is not in {MOONCAKE.parent}")
    published = json.loads((TRACES / "STATISTICS.json").read_text())
    prefix = published["measured"]["mooncake_fast25_conversation"]["prefix"]
    inspection = Inspection()
    for chunk in read(MOONCAKE):
        inspection.add(chunk)
    curve = inspection.curve()
    assert curve is not None
    for capacity, expected in prefix["lru"].items():
        rate = curve.hit_rate(int(capacity))
        assert rate == pytest.approx(expected["prefix_block_hit_ratio"], abs=5e-7)
    assert curve.distances[-1] == prefix["lru_stack_distance_blocks"]["max"]
    seconds = prefix["reuse_interval_s"]
    assert np.quantile(curve.reuse_s, 0.9) == pytest.approx(seconds["p90"])
    assert curve.reuse_s.mean() == pytest.approx(seconds["mean"], abs=5e-4)


# sampled ------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
def test_a_sample_is_close_and_says_how_close(seed: int) -> None:
    rows = chained(6000, seed)
    exact, sampled = curve_of(rows), curve_of(rows, most=20_000, parts=5)
    assert exact.exact
    assert not sampled.exact
    assert sampled.rate in (1 / 2, 1 / 4, 1 / 8)
    assert sampled.hit_rate(inf) == exact.hit_rate(inf)  # misses of any size are all counted
    for capacity in (300, 1000, 3000, 10_000):
        difference = abs(sampled.hit_rate(capacity) - exact.hit_rate(capacity))
        assert difference < max(4 * sampled.error(capacity), 0.002)
        assert difference < 0.02
    assert sampled.error(300) > 0


def test_without_the_count_of_new_blocks_the_sample_stands_for_it() -> None:
    rows = chained(6000)
    references = References(20_000)
    times = np.arange(len(rows), dtype=np.float64)
    references.add(Ragged.of(rows), times)
    assert references.curve(None).hit_rate(inf) == pytest.approx(
        curve_of(rows).hit_rate(inf), abs=0.02
    )


def test_a_sample_does_not_depend_on_chunks() -> None:
    rows = chained(3000)
    one, many = curve_of(rows, most=5000), curve_of(rows, most=5000, parts=40)
    assert one.rate == many.rate
    assert np.array_equal(one.distances, many.distances)
    assert np.array_equal(one.popularity, many.popularity)


def test_memory_is_bounded() -> None:
    references = References(1000)
    for start in range(0, 100_000, 500):
        ids = Ragged(np.arange(start, start + 500), np.arange(0, 501, 5))
        references.add(ids, np.arange(100.0) + start)
        assert sum(map(len, references._ids)) <= 1000
        assert sum(map(len, references._times)) <= 1000
    assert references.rate == 1 / 128
    assert references.count == 100_000


def test_ids_of_one_hash_part_are_the_same_at_every_rate() -> None:
    """A block that a lower rate keeps, a higher one keeps too: no reference gets lost between."""
    ids = np.random.default_rng(0).integers(0, 2**62, 4000)
    kept = []
    for most in (2500, 1250, 625):
        references = References(most)
        references.add(Ragged(ids, np.arange(4001)), np.zeros(4000))
        kept.append(set(np.concatenate(references._ids).tolist()))
    assert kept[2] < kept[1] < kept[0]


def test_the_sample_is_said_in_the_figures() -> None:
    inspection = Inspection()
    inspection.references = References(500)
    rows = Ragged.of(chained(300))
    ones = np.ones(300, dtype=np.int64)
    inspection.add(Chunk(np.arange(300.0), ones, ones, rows))
    found = summary(inspection, Tally())
    lru = found["prefix"]["lru"]
    assert lru["method"] == "sampled blocks (SHARDS)"
    assert lru["sampled_blocks_share"] == inspection.references.rate < 1
    assert lru["standard_error_at_most"] > 0
    part = round(1 / inspection.references.rate)
    assert any(f"1/{part} of the blocks" in note for note in found["notes"])


# other figures ------------------------------------------------------------------------------


def test_times_to_reuse_and_popularity_by_hand() -> None:
    inspection = Inspection(1)
    ones = np.ones(3, dtype=np.int64)
    inspection.add(Chunk(np.array([0.0, 5.0, 7.0]), ones, ones, Ragged.of([(1, 2), (1,), (1, 2)])))
    curve = inspection.curve()
    assert curve is not None
    assert sorted(curve.reuse_s.tolist()) == [2.0, 5.0, 7.0]
    assert curve.popularity.tolist() == [2, 3]
    prefix = summary(inspection, Tally())["prefix"]
    assert prefix["references_per_block"]["mean"] == 2.5
    assert prefix["used_once_blocks_share"] == 0.0
    assert prefix["lru"]["blocks_for_share_of_infinite"] == {"p50": 1.0, "p90": 2.0, "p99": 2.0}


def test_a_trace_without_any_reuse() -> None:
    curve = curve_of([[1, 2], [3], [4]])
    assert curve.hit_rate(inf) == curve.hit_rate(1) == 0.0
    assert len(curve.distances) == 0
