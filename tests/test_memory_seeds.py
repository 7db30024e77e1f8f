"""The seed's tiers: its golden vectors, its defects, and the mended form that has none of them."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sim.memory.seeds import (
    Page,
    Rebalanced,
    Run,
    Staged,
    Tier,
    mended_movement,
    mended_rebalance,
    seed_eviction,
    seed_movement,
    seed_rebalance,
    seed_staging,
    seed_tier,
)

HBM, DRAM, SSD = Tier.HBM, Tier.DRAM, Tier.SSD


def tiers(text: str) -> list[Tier]:
    return [Tier(int(digit)) for digit in text.split()]


def peaks(start: list[Tier], out: Rebalanced) -> Counter[Tier]:
    """The most pages that each tier held at any instant of *out*'s moves."""
    now, most = list(start), Counter(start)
    for page, source, target in out.moves:
        assert now[page] is source
        assert abs(source - target) == 1
        now[page] = target
        for tier in Tier:
            most[tier] = max(most[tier], now.count(tier))
    assert now == out.tiers
    return most


# ---------------------------------------------------------------- golden vectors
def test_movement_plan_of_32_pages() -> None:
    plan = seed_movement(range(32), page_bytes=64)
    assert [plan.count(tier) for tier in Tier] == [14, 12, 6]
    assert plan.dma_ops == 18
    assert plan.bytes_moved == 18 * 64
    assert [seed_tier(page) for page in range(5)] == [HBM, HBM, DRAM, DRAM, SSD]


@pytest.mark.parametrize(
    ("start", "selected", "end", "counts"),
    [
        ("0 0 1 1 2 2", [0, 1, 2, 3], "0 0 0 0 2 2", (2, 0, 0, 0)),
        ("0 0 0 0 1 1", [4, 5], "1 1 2 2 0 0", (2, 0, 4, 2)),
        ("0 0 1 1 2 2", [3, 4], "0 1 2 0 1 2", (1, 1, 1, 1)),
    ],
)
def test_rebalance_within_two_and_two(
    start: str, selected: list[int], end: str, counts: tuple[int, ...]
) -> None:
    out = seed_rebalance(tiers(start), selected, hbm=2, dram=2)
    assert out.tiers == tiers(end)
    assert out.counts == counts


def test_eviction_of_six_pages() -> None:
    pages = [
        Page(pinned=True), Page(pinned=True), Page(draft=True), Page(draft=True),
        Page(selected=True), Page(),
    ]  # fmt: skip
    out = seed_eviction(pages, budget=3)
    assert out.pages == [2, 3, 5]
    assert (out.draft, out.committed) == (2, 1)
    assert (out.scanned, out.pinned_skipped, out.selected_skipped) == (12, 4, 2)


def test_eviction_stops_with_its_budget_and_passes_over_what_is_gone() -> None:
    pages = [Page(resident=False, draft=True), Page(draft=True), Page(draft=True), Page()]
    out = seed_eviction(pages, budget=1)
    assert (out.pages, out.scanned) == ([1], 2)
    assert seed_eviction(pages, 0).pages == []
    assert seed_eviction(pages, 9).pages == [1, 2, 3]


def test_staging_takes_the_nearest_tier_first_and_two_slots_in_turn() -> None:
    assert seed_staging([4, 2, 0, 9, 5]) == [
        Staged(0, HBM, 0), Staged(5, HBM, 1), Staged(2, DRAM, 0), Staged(4, SSD, 1),
        Staged(9, SSD, 0),
    ]  # fmt: skip


# ---------------------------------------------------------------- defects, and without
def test_the_seed_overfills_hbm_with_selected_pages_and_the_mended_form_makes_them_wait() -> None:
    start = tiers("0 0 1 1 2 2")
    assert seed_rebalance(start, [0, 1, 2, 3], 2, 2).tiers.count(HBM) == 4
    mended = mended_rebalance(start, [0, 1, 2, 3], 2, 2)
    assert mended.tiers == start
    assert mended.moves == []
    assert mended.waiting == (2, 3)


def test_the_seed_overfills_on_the_way_where_the_end_is_the_same() -> None:
    start = tiers("0 0 1 1 2 2")
    seed = seed_rebalance(start, [3, 4], 2, 2)
    mended = mended_rebalance(start, [3, 4], 2, 2)
    assert mended.tiers == seed.tiers
    assert mended.counts == seed.counts
    assert peaks(start, seed)[HBM] == 3
    assert peaks(start, mended) == {HBM: 2, DRAM: 2, SSD: 3}  # 2 falls before 4 leaves
    assert [move.page for move in mended.moves] == [2, 1, 3, 4]


def test_the_seed_drops_a_page_two_tiers_in_a_step() -> None:
    start = tiers("0 0 0 0 1 1")
    seed = seed_rebalance(start, [4, 5], 2, 2)
    assert [move.page for move in seed.moves].count(3) == 2
    mended = mended_rebalance(tiers("0 0 0 0 1 1"), [4, 5], 4, 2)
    assert mended.tiers == start  # DRAM is full of what is selected: nothing can go down
    assert mended.waiting == (4, 5)
    mended = mended_rebalance(tiers("0 0 0 0 1 1"), [4, 5], 4, 3)
    assert mended.tiers == tiers("0 0 1 1 0 0")
    assert Counter(move.page for move in mended.moves) == {2: 1, 3: 1, 4: 1, 5: 1}


def test_a_full_disk_stops_what_would_have_to_go_there() -> None:
    start = tiers("0 1 2")
    assert mended_rebalance(start, [1], 1, 1, ssd=1).waiting == (1,)
    assert mended_rebalance(start, [2], 1, 1, ssd=1).waiting == (2,)
    assert mended_rebalance(start, [2], 1, 1, ssd=2).tiers == tiers("0 2 1")


@given(st.lists(st.sampled_from(list(Tier)), max_size=14), st.data())
@settings(max_examples=300, deadline=None)
def test_the_mended_form_never_exceeds_a_budget(start: list[Tier], data: st.DataObject) -> None:
    selected = data.draw(st.sets(st.integers(0, max(0, len(start) - 1)))) if start else set()
    caps = {tier: start.count(tier) + data.draw(st.integers(0, 3)) for tier in Tier}
    out = mended_rebalance(start, selected, caps[HBM], caps[DRAM], caps[SSD])
    assert all(count <= caps[tier] for tier, count in peaks(start, out).items())
    assert max(Counter(move.page for move in out.moves).values(), default=0) <= 1
    for page in range(len(start)):
        risen = out.tiers[page] < start[page]
        if page in selected:
            assert out.tiers[page] <= start[page]
            assert risen or start[page] is HBM or page in out.waiting
        else:
            assert not risen
    assert set(out.waiting) <= selected


@given(st.lists(st.sampled_from(list(Tier)), max_size=10), st.sets(st.integers(0, 9)))
@settings(max_examples=100, deadline=None)
def test_with_room_for_all_both_forms_agree(start: list[Tier], selected: set[int]) -> None:
    selected = {page for page in selected if page < len(start)}
    seed = seed_rebalance(start, selected, 20, 20)
    mended = mended_rebalance(start, selected, 20, 20)
    assert seed.tiers == mended.tiers
    assert seed.counts == mended.counts


def test_mended_movement_orders_joins_and_keeps_to_the_room() -> None:
    place = {0: HBM, 1: SSD, 2: SSD, 3: DRAM, 4: DRAM, 6: DRAM, 7: SSD}.__getitem__
    pages = [7, 6, 4, 3, 2, 1, 0, 3]
    runs, waiting = mended_movement(pages, room=9, tier=place)
    assert runs == [Run(DRAM, 3, 2), Run(DRAM, 6, 1), Run(SSD, 1, 2), Run(SSD, 7, 1)]
    assert waiting == []
    runs, waiting = mended_movement(pages, room=4, tier=place)
    assert runs == [Run(DRAM, 3, 2), Run(DRAM, 6, 1), Run(SSD, 1, 1)]
    assert waiting == [2, 7]
    runs, waiting = mended_movement(range(32), room=100)
    assert sum(run.pages for run in runs) == seed_movement(range(32), 1).dma_ops
    assert mended_movement([4, 5], room=0) == ([], [4])
