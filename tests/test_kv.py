"""The account of KV blocks, and who is let in to take them."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sim.admission import Admission
from sim.kv import BlockPool
from sim.request import Request


def test_blocks_are_rounded_up() -> None:
    pool = BlockPool(10, 16)
    assert [pool.blocks(tokens) for tokens in (0, 1, 16, 17, 32, 33)] == [0, 1, 1, 2, 2, 3]


def test_take_and_give_back() -> None:
    pool = BlockPool(10, 16)
    pool.take(7)
    pool.give_back(4)
    pool.take(5)
    assert (pool.used, pool.free) == (8, 2)
    assert (pool.allocated, pool.freed, pool.peak) == (12, 4, 8)


def test_capacity_is_never_exceeded() -> None:
    pool = BlockPool(10, 16)
    pool.take(10)
    with pytest.raises(AssertionError, match="overfilled"):
        pool.take(1)


def test_no_more_is_freed_than_was_taken() -> None:
    pool = BlockPool(10, 16)
    pool.take(3)
    with pytest.raises(AssertionError, match="more blocks freed"):
        pool.give_back(4)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.lists(st.tuples(st.booleans(), st.integers(0, 9)), max_size=40))
def test_account_balances(steps: list[tuple[bool, int]]) -> None:
    pool = BlockPool(30, 16)
    held = [0]
    for taking, blocks in steps:
        if taking and blocks <= pool.free:
            pool.take(blocks)
            held.append(held[-1] + blocks)
        elif not taking and blocks <= pool.used:
            pool.give_back(blocks)
            held.append(held[-1] - blocks)
        assert pool.used == held[-1] == pool.allocated - pool.freed
        assert pool.used + pool.free == pool.capacity
    assert pool.peak == max(held)


@pytest.fixture
def admission() -> Admission:
    """Two slots, 4 blocks of 16 tokens, 100 tokens a request."""
    return Admission(BlockPool(4, 16), 2, 100)


@pytest.mark.parametrize(
    ("prompt", "output", "reason"),
    [
        (99, 1, "exceeds_kv_capacity"),
        (99, 2, "exceeds_model_context"),
        (64, 1, None),  # the last token needs no KV of its own
        (64, 2, "exceeds_kv_capacity"),
        (1, 64, None),
        (1, 65, "exceeds_kv_capacity"),
    ],
)
def test_what_can_never_run(admission, prompt, output, reason) -> None:
    found = admission.impossible(Request(0, 0.0, prompt, output))
    assert (found and found.value) == reason


def test_slots_are_the_limit(admission) -> None:
    admission.waiting.append(Request(0, 0.0, 8, 8))
    assert admission.try_admit(2, 0) is None
    assert admission.try_admit(1, 0).id == 0
    assert admission.try_admit(0, 0) is None
    assert admission.pool.used == 1


def test_memory_is_the_limit_and_the_reserve_is_left_alone(admission) -> None:
    admission.waiting.extend([Request(0, 0.0, 48, 8), Request(1, 0.0, 1, 1)])
    assert admission.try_admit(0, 2) is None
    assert admission.pool.used == 0
    assert admission.try_admit(0, 1).id == 0
    assert admission.try_admit(1, 1) is None
    assert admission.try_admit(1, 0).id == 1
    assert admission.pool.free == 0


def test_preempted_request_comes_back_before_the_others_and_with_its_answer(admission) -> None:
    first, second = Request(0, 0.0, 16, 30, generated=17), Request(1, 0.0, 8, 8)
    admission.waiting.append(second)
    admission.return_to_head(first)
    assert admission.try_admit(0, 0) is first
    assert admission.pool.used == 3
    assert admission.try_admit(0, 0) is second
