"""The streams on the CPU: every word read once a pass, every byte copied, bad shapes refused."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kernels.backend import Cpu
from kernels.checking import CheckError, poisoned
from kernels.streams import bench, check, launch, reference

CPU = Cpu()


@pytest.mark.parametrize("case", list(check.cases(small=True)), ids=str)
def test_small_cases(case: dict[str, object]) -> None:
    assert check.check(CPU, case, np.random.default_rng(1)) == 0.0


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    words=st.integers(1, 3000),
    blocks=st.integers(1, 5),
    threads=st.sampled_from([64, 96, 256]),
    passes=st.integers(1, 3),
)
def test_a_read_sums_every_word_once_a_pass(
    words: int, blocks: int, threads: int, passes: int
) -> None:
    source = np.random.default_rng(words).integers(0, 2**32, words * 4, np.uint32)
    want = reference.wrapped_sum(source, passes)
    for read in (launch.read, launch.read_bulk):
        sums = poisoned(CPU, blocks, np.uint32)
        read(CPU, source, sums, passes, threads)
        assert check.same_sum(CPU, sums, want) == 0.0


@settings(max_examples=15, deadline=None, derandomize=True)
@given(
    words=st.integers(1, 4000),
    slots=st.integers(1, 20),
    slot_words=st.integers(1, 300),
    threads=st.sampled_from([64, 288]),
)
def test_a_ring_of_any_shape_reads_the_same(
    words: int, slots: int, slot_words: int, threads: int
) -> None:
    source = np.random.default_rng(words).integers(0, 2**32, words * 4, np.uint32)
    sums = poisoned(CPU, 2, np.uint32)
    launch.read_bulk(CPU, source, sums, 2, threads, slots, slot_words * 16)
    assert check.same_sum(CPU, sums, reference.wrapped_sum(source, 2)) == 0.0


@settings(max_examples=15, deadline=None, derandomize=True)
@given(words=st.integers(1, 3000), blocks=st.integers(1, 5), threads=st.sampled_from([32, 128]))
def test_a_copy_is_exact_and_stays_in_bounds(words: int, blocks: int, threads: int) -> None:
    source = np.random.default_rng(words).integers(0, 256, words * 16, np.uint8)
    around = poisoned(CPU, words * 16 + 64, np.uint8)
    launch.copy(CPU, source, around[32 : 32 + source.size], blocks, threads)
    assert (around[32 : 32 + source.size] == source).all()
    assert (around[:32] == 0xFF).all()
    assert (around[-32:] == 0xFF).all()


def test_the_sum_of_known_words() -> None:
    words = np.array([1, 2, 2**32 - 1, 5], np.uint32)
    assert reference.wrapped_sum(words, 2) == 14
    with pytest.raises(CheckError, match="sum of all words 3, expected 4"):
        check.same_sum(CPU, np.array([1, 2], np.uint32), 4)


def test_bad_arguments_are_named() -> None:
    source, sums = np.zeros(64, np.uint8), np.zeros(2, np.uint32)
    with pytest.raises(ValueError, match="read: source has 60 bytes"):
        launch.read(CPU, source[:60], sums)
    with pytest.raises(ValueError, match="read: sums int32"):
        launch.read(CPU, source, sums.astype(np.int32))
    with pytest.raises(ValueError, match="read_bulk: threads 100"):
        launch.read_bulk(CPU, source, sums, threads=100)
    with pytest.raises(ValueError, match="slot_bytes 24"):
        launch.read_bulk(CPU, source, sums, slot_bytes=24)
    with pytest.raises(ValueError, match="copy: source 64 bytes, target 48"):
        launch.copy(CPU, source, source[:48], blocks=1)


def test_every_level_is_measured_and_no_point_twice() -> None:
    points = bench.points()
    assert {(p["op"], p["level"]) for p in points} == {
        ("read", "hbm"),
        ("read_bulk", "hbm"),
        ("copy", "hbm"),
        ("read", "l2"),
        ("read", "one_block"),
        ("read_bulk", "one_block"),
    }
    assert len({str(sorted(p.items())) for p in points}) == len(points)


def test_a_ring_fits_an_sm() -> None:
    for point in bench.points():
        if "slots" in point:
            shared = launch.bulk_shared_bytes(point["slots"], point["slot_bytes"])
            assert shared * max(1, point["blocks_per_sm"]) <= 227 * 1024
