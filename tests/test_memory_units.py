"""Units of a prefix: block sizes, matching, references, copies, and what is forgotten."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sim.errors import InputError
from sim.memory.units import DRAM, HBM, REMOTE, SSD, Index, Unit


def cached(index: Index, *ids: int, tier: int = HBM) -> list[Unit]:
    """A prompt of these units that has been prefilled and is finished."""
    every, _ = index.register(ids, tier=tier)
    return every


# ---------------------------------------------------------------- block sizes
@pytest.mark.parametrize(
    ("trace", "engine", "unit", "blocks"),
    [(512, 16, 512, 32), (16, 16, 16, 1), (16, 64, 64, 1), (64, 16, 64, 4), (1, 256, 256, 1)],
)
def test_the_larger_of_trace_and_engine_block_is_a_unit(
    trace: int, engine: int, unit: int, blocks: int
) -> None:
    index = Index(trace, engine)
    assert (index.unit_tokens, index.unit_blocks) == (unit, blocks)


def test_sizes_that_do_not_divide_are_an_error_that_names_both() -> None:
    with pytest.raises(InputError, match=r"trace blocks of 48 tokens and kv.block_tokens 32: one"):
        Index(48, 32)


def test_only_whole_units_of_a_prompt_have_an_id() -> None:
    index = Index(512, 16)
    ids = [5, 6, 7]  # the third is partial, as Mooncake has it
    assert index.ids(ids, 1024 + 300) == [5, 6]
    assert index.ids(ids, 1536) == [5, 6, 7]
    assert index.ids(ids, 511) == []
    assert index.ids([5], 1536) == [5]  # a row with fewer ids than tokens
    assert index.ids((), 1536) == []


def test_a_unit_of_several_trace_blocks_has_the_id_of_the_last() -> None:
    index = Index(16, 64)
    ids = list(range(10, 20))  # 160 tokens: two units of four blocks and half a unit
    assert index.ids(ids, 160) == [13, 17]
    assert index.ids(tuple(ids), 160) == [13, 17]
    assert index.ids(np.array(ids), 160) == [13, 17]
    assert index.ids(ids, 127) == [13]
    assert index.ids(ids[:7], 160) == [13]
    assert all(type(name) is int for name in index.ids(np.array(ids), 160))


def test_a_prompt_leaves_a_token_to_compute() -> None:
    index = Index(512, 16)
    assert [index.most_cached(tokens) for tokens in (1, 512, 513, 1024, 1025)] == [0, 0, 1, 1, 2]


def test_ids_that_come_again_in_a_prompt_end_its_units() -> None:
    index = Index(16, 16)
    assert index.ids([1, 2, 3, 2, 4], 80) == [1, 2, 3]
    assert index.ids([1, 1], 32) == [1]


# ---------------------------------------------------------------- match and register
def test_the_longest_prefix_in_any_tier_is_found() -> None:
    index = Index(16, 16, HBM | DRAM | SSD)
    one, two, three = cached(index, 1, 2, 3)
    assert index.match([1, 2, 3, 4]) == [one, two, three]
    assert index.match([1, 2, 9]) == [one, two]
    assert index.match([2, 3]) == [two, three]
    assert index.match([9, 1]) == []
    assert index.match([1, 2, 3], 2) == [one, two]
    index.place(two, SSD)
    index.drop(two, HBM)
    assert index.match([1, 2, 3]) == [one, two, three]
    assert index.highest(two) == SSD
    index.drop(two, SSD)
    assert index.match([1, 2, 3]) == [one]


def test_registering_knows_parents_and_what_was_there_before() -> None:
    index = Index(16, 16, HBM | DRAM)
    first, fresh = index.register([1, 2, 3])
    assert first == fresh
    assert [(u.id, u.parent, u.depth) for u in first] == [(1, None, 0), (2, 1, 1), (3, 2, 2)]
    # another request computed the same two units at the same time, and one more
    every, fresh = index.register([1, 2, 4], first=1)
    assert [u.id for u in every] == [2, 4]
    assert every[0] is first[1]
    assert [(u.id, u.parent, u.depth) for u in fresh] == [(4, 2, 2)]
    assert index.copies[HBM] == 4
    # a unit known from DRAM that was computed again has a new copy in HBM
    index.place(first[0], DRAM)
    index.drop(first[0], HBM)
    every, fresh = index.register([1])
    assert every == fresh == [first[0]]
    assert first[0].where == HBM | DRAM
    assert index.copies == Counter({HBM: 4, DRAM: 1})


def test_units_in_use_are_counted_and_released_from_the_end() -> None:
    index = Index(16, 16)
    units = cached(index, 1, 2, 3)
    assert index.hold(units) == units
    assert index.hold(units[:2]) == []
    assert [u.refs for u in units] == [2, 2, 1]
    assert [u.id for u in index.release(units)] == [3]
    assert [u.id for u in index.release(units[:2])] == [2, 1]
    with pytest.raises(AssertionError, match="released more often"):
        index.release(units[:1])


def test_a_use_says_when_and_how_far_from_the_end() -> None:
    index = Index(16, 16)
    units = cached(index, 1, 2, 3)
    index.used(units, 2.0)
    index.used(units[:2], 5.0)
    assert [(u.uses, u.last_use, u.behind) for u in units] == [
        (2, 5.0, 1), (2, 5.0, 0), (1, 2.0, 0),
    ]  # fmt: skip


# ---------------------------------------------------------------- copies
def test_clean_means_a_copy_below_or_no_tier_below() -> None:
    alone = Index(16, 16, HBM)
    (unit,) = cached(alone, 1)
    assert alone.clean(unit, HBM)
    index = Index(16, 16, HBM | DRAM | REMOTE)
    (unit,) = cached(index, 1)
    assert not index.clean(unit, HBM)
    index.place(unit, DRAM)
    assert index.clean(unit, HBM)
    assert not index.clean(unit, DRAM)
    index.place(unit, REMOTE)
    assert index.clean(unit, DRAM)
    assert index.clean(unit, REMOTE)
    index.drop(unit, DRAM)
    assert index.clean(unit, HBM)


def test_a_unit_is_forgotten_with_its_last_copy_use_and_flight() -> None:
    index = Index(16, 16, HBM | DRAM)
    a, b, c = cached(index, 1, 2, 3)
    index.hold([a])
    index.depart(b, DRAM)
    for unit in (a, b, c):
        index.drop(unit, HBM)
    assert set(index.units) == {1, 2}
    assert index.match([1]) == []  # known, but nowhere
    assert index.release([a]) == [a]
    assert set(index.units) == {2}
    index.place(b, DRAM)
    assert b.flight == 0
    index.drop(b, DRAM)
    assert len(index) == 0
    (d,) = cached(index, 4)
    index.depart(d, DRAM)
    index.drop(d, HBM)
    index.abort(d, DRAM)
    assert len(index) == 0
    assert not any(index.copies.values())


def test_a_unit_has_at_most_one_copy_a_tier() -> None:
    index = Index(16, 16, HBM | DRAM)
    (unit,) = cached(index, 1)
    with pytest.raises(AssertionError, match="is in hbm already"):
        index.place(unit, HBM)
    with pytest.raises(AssertionError, match="is not in dram"):
        index.drop(unit, DRAM)
    index.drop(unit, HBM)
    with pytest.raises(AssertionError, match="has been forgotten"):
        index.place(unit, DRAM)


TIERS = (HBM, DRAM, SSD)
steps = st.lists(
    st.tuples(st.sampled_from(["prompt", "finish", "place", "drop", "fly", "abort"]),
              st.integers(0, 30), st.sampled_from(TIERS)),
    max_size=60,
)  # fmt: skip


@given(steps)
@settings(max_examples=200, deadline=None)
def test_the_index_holds_what_has_a_copy_a_use_or_a_flight(
    steps: list[tuple[str, int, int]],
) -> None:
    index = Index(16, 16, HBM | DRAM | SSD)
    running: list[list[Unit]] = []
    for word, pick, tier in steps:
        known = sorted(index.units)
        unit = index.units[known[pick % len(known)]] if known else None
        if word == "prompt":
            ids = list(range(pick, pick + 1 + pick % 4))
            found = index.match(ids)
            every, _ = index.register(ids, len(found))
            index.hold([*found, *every])
            index.used([*found, *every], float(len(running)))
            running.append([*found, *every])
        elif word == "finish" and running:
            index.release(running.pop(pick % len(running)))
        elif unit is None:
            continue
        elif word == "place" and not unit.where & tier:
            index.place(unit, tier)
        elif word == "drop" and unit.where & tier:
            index.drop(unit, tier)
        elif word == "fly":
            index.depart(unit, tier)
        elif word == "abort":
            index.abort(unit, tier)
        uses = Counter(u.id for units in running for u in units)
        for name, held in index.units.items():
            assert held.id == name
            assert held.where or held.flight or held.refs
            assert held.refs == uses[name]
        for bit in TIERS:
            assert index.copies[bit] == sum(bool(u.where & bit) for u in index.units.values())
        assert set(uses) <= set(index.units)
