"""Eviction: each policy's order on cases made by hand, prefixes, LRU curves, Belady's bound."""

from __future__ import annotations

import itertools
from functools import cache
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sim.memory.eviction import (
    POLICIES,
    CostAware,
    DraftFirstLru,
    H2o,
    Lfu,
    Lru,
    Order,
    Streaming,
)
from sim.memory.offline import belady, replay
from sim.memory.units import DRAM, Index, Unit
from sim.trace.chunk import Tally
from sim.trace.look.stack import stack_distances
from sim.trace.ragged import Ragged
from sim.trace.read import read

if TYPE_CHECKING:
    from collections.abc import Callable

TRACES = Path(__file__).parents[1].parent / "shared" / "traces"
MOONCAKE = TRACES / "mooncake-fast25" / "conversation_trace.jsonl"

Rows = list[list[int]]
MAKE: dict[str, Callable[[], Order]] = {
    **{name: make for name, make in POLICIES.items() if name != "cost_aware"},
    "cost_aware": lambda: CostAware(lambda unit: 1.0 + unit.depth, half_life_s=20.0),
}


def order_of(order: Order, count: int = 99) -> list[int]:
    """Ids of the victims, in order."""
    return [unit.id for unit in order.victims(count)]


def units(*ids: int) -> list[Unit]:
    return [Unit(name) for name in ids]


# ---------------------------------------------------------------- what all have in common
@pytest.mark.parametrize("name", sorted(MAKE))
def test_orders_hold_what_was_inserted_and_give_up_only_what_nobody_uses(name: str) -> None:
    order = MAKE[name]()
    a, b, c = units(1, 2, 3)
    for unit in (a, b, c):
        order.insert(unit)
    assert len(order) == 3
    assert a in order
    assert order.victims(0) == []
    assert len(order.victims(2)) == 2
    assert order.victims(9) == order.victims(3)  # looking takes nothing out
    b.refs = 1
    assert b not in order.victims(9)
    c.where = DRAM
    assert order.victims(9, bytes(state == DRAM for state in range(256))) == [c]
    order.insert(a)  # once more: as a touch
    assert len(order) == 3
    order.remove(a)
    order.remove(a)
    order.touch(a)
    assert a not in order
    order.evict(c)
    order.evict(c)
    assert order.victims(9) == []
    assert len(order) == 1


@given(
    st.sampled_from(sorted(MAKE)),
    st.lists(st.tuples(st.sampled_from("itrep"), st.integers(0, 9)), max_size=120),
)
@settings(max_examples=200, deadline=None)
def test_victims_are_those_of_sorting_all_units(name: str, steps: list[tuple[str, int]]) -> None:
    order = MAKE[name]()
    pool = [Unit(n, depth=n % 4, behind=n % 6) for n in range(10)]
    inside: dict[Unit, tuple[float, int]] = {}  # key and when it was last used
    age = 0.0

    def key(unit: Unit) -> float:
        if isinstance(order, Lfu):
            return age + unit.uses
        if isinstance(order, H2o):
            return unit.score if unit.behind >= 4 else inf
        if isinstance(order, CostAware):
            return float(np.log2(order.loss_s(unit)) if unit.uses else -inf) + unit.last_use / 20.0
        if isinstance(order, Streaming):
            return 2.0 if unit.depth < 1 else 1.0 if unit.behind < 4 else 0.0
        return float(not unit.draft) if isinstance(order, DraftFirstLru) else 0.0

    for now, (word, pick) in enumerate(steps):
        unit = pool[pick]
        if word == "p":
            unit.draft = not unit.draft if unit not in inside else unit.draft
        elif word in "it":
            if word == "i" or unit in inside:
                unit.uses += 1
                unit.score += 0.5
                unit.last_use = float(now)
                inside[unit] = key(unit), now
            (order.insert if word == "i" else order.touch)(unit)
        elif word == "r":
            order.remove(unit)
            inside.pop(unit, None)
        else:
            order.evict(unit)
            age = max(age, inside.pop(unit, (0.0, 0))[0])
        wanted = sorted(inside, key=lambda u: inside[u])
        assert order.victims(99) == wanted
        assert order.victims(2) == wanted[:2]


# ---------------------------------------------------------------- each by hand
def test_lru_gives_up_the_least_recently_used() -> None:
    order = Lru()
    a, b, c = units(1, 2, 3)
    for unit in (a, b, c):
        order.insert(unit)
    order.touch(a)
    assert order_of(order) == [2, 3, 1]
    order.remove(b)
    order.insert(b)
    assert order_of(order) == [3, 1, 2]


def test_draft_first_lru_gives_up_drafts_then_the_rest_never_what_is_pinned() -> None:
    """The seed's rule: oldest draft pages, then the oldest others; pinned ones never."""
    order = DraftFirstLru()
    a, b, c, d, e = units(1, 2, 3, 4, 5)
    b.draft = d.draft = e.draft = True
    e.refs = 1
    for unit in (a, b, c, d, e):
        order.insert(unit)
    order.touch(a)
    assert order_of(order) == [2, 4, 3, 1]
    b.draft = False  # committed
    order.touch(b)
    assert order_of(order) == [4, 3, 1, 2]


def test_lfu_gives_up_the_least_often_used_and_the_older_of_equals() -> None:
    order = Lfu()
    a, b, c = units(1, 2, 3)
    for unit, uses in ((a, 3), (b, 1), (c, 1)):
        unit.uses = uses
        order.insert(unit)
    assert order_of(order) == [2, 3, 1]
    order.touch(b)
    assert order_of(order) == [3, 2, 1]


def test_lfu_ages_so_that_what_was_popular_once_goes_in_the_end() -> None:
    order = Lfu()
    (old,) = units(1)
    old.uses = 5
    order.insert(old)
    went = []
    for name in range(2, 20):
        unit = Unit(name, uses=1)
        order.insert(unit)
        victim = order.victims(1)[0]
        order.evict(victim)
        went.append(victim.id)
    assert went[:3] == [2, 3, 4]
    assert 1 in went[:6]
    without = Lfu()
    without.insert(old)
    for name in range(2, 20):
        unit = Unit(name, uses=1)
        without.insert(unit)
        without.remove(without.victims(1)[0])  # not an eviction: nothing ages
        assert old in without


def test_cost_aware_weighs_the_way_back_with_the_chance_of_reuse() -> None:
    seconds = {1: 8.0, 2: 2.0, 3: 8.0, 4: 8.0}
    copies = {3: 0.5}
    order = CostAware(lambda u: seconds[u.id], lambda u: copies.get(u.id, inf), half_life_s=10.0)
    a, b, c, d = units(1, 2, 3, 4)
    for unit in (a, b, c, d):
        unit.uses = 1
        order.insert(unit)
    # 3 is reloaded in 0.5 s, 2 computed in 2 s, 1 and 4 in 8 s, of which 1 was inserted first
    assert order_of(order) == [3, 2, 1, 4]
    b.uses = 8
    order.touch(b)
    assert order_of(order) == [3, 1, 4, 2]  # 2: 8 uses of 2 s
    c.last_use = 45.0
    order.touch(c)  # the others are older by 4.5 half-lives: 8 s are 0.35 s, 16 s are 0.71 s
    assert order_of(order) == [1, 4, 3, 2]
    del copies[3]
    order.touch(c)
    assert order_of(order) == [1, 4, 2, 3]


def test_cost_aware_takes_a_worthless_unit_first_and_keeps_a_priceless_one() -> None:
    order = CostAware(lambda u: {1: inf, 2: 0.0, 3: 1.0}[u.id], reuse=lambda u: 1.0)
    for unit in units(1, 2, 3):
        order.insert(unit)
    assert order_of(order) == [2, 3, 1]


def test_cost_aware_keeps_a_prefix_for_the_sake_of_what_follows() -> None:
    cost = {1: 1.0, 2: 1.0, 3: 100.0, 9: 10.0}
    order = CostAware(lambda u: cost[u.id], reuse=lambda u: 1.0)
    a, b, c = Unit(1, None, 0), Unit(2, 1, 1), Unit(3, 2, 2)
    for unit in (c, b, a, Unit(9)):
        order.insert(unit)
    assert order_of(order) == [9, 3, 2, 1]
    order.evict(c)
    order.evict(b)
    order.evict(a)
    order.insert(a)  # alone it is worth what it costs
    assert order_of(order) == [1, 9]


def test_h2o_keeps_heavy_hitters_and_the_end_of_the_prompt() -> None:
    order = H2o(recent=2)
    ids = units(1, 2, 3, 4, 5)
    for unit, score in zip(ids, (9.0, 0.5, 3.0, 0.1, 0.2), strict=True):
        unit.score = score
        unit.behind = 5 - unit.id
        order.insert(unit)
    assert order_of(order) == [2, 3, 1, 4, 5]
    ids[1].score += 4.0
    order.touch(ids[1])
    assert order_of(order) == [3, 2, 1, 4, 5]


def test_streaming_gives_up_the_middle_and_the_sinks_last() -> None:
    order = Streaming(sinks=1, recent=2)
    prompt = [Unit(n, depth=n, behind=5 - n) for n in range(6)]
    for unit in reversed(prompt):
        order.insert(unit)
    assert order_of(order) == [3, 2, 1, 5, 4, 0]
    for unit in prompt[:4]:  # a shorter prompt uses the first four: its end is recent now
        unit.behind = 3 - unit.depth
        order.touch(unit)
    assert order_of(order) == [1, 5, 4, 2, 3, 0]


# ---------------------------------------------------------------- prefixes
def prompts(rng: np.random.Generator, count: int) -> Rows:
    """Prompts with cumulative ids, many of which go on from earlier ones."""
    rows: Rows = []
    fresh = itertools.count(1)
    for _ in range(count):
        old = rows[int(rng.integers(len(rows)))] if rows and rng.random() < 0.7 else [0]
        rows.append([*old[: int(rng.integers(1, len(old) + 1))],
                     *itertools.islice(fresh, int(rng.integers(0, 5)))])  # fmt: skip
    return rows


@pytest.mark.parametrize("name", ["lru", "draft_first_lru", "lfu", "cost_aware"])
@pytest.mark.parametrize("seed", range(10))
def test_a_unit_never_goes_before_those_that_follow_it(name: str, seed: int) -> None:
    """Requests that overlap, by the protocol: held while they run, released from the end."""
    rng = np.random.default_rng(seed)
    index, order, capacity = Index(16, 16), MAKE[name](), 25
    running: list[list[Unit]] = []
    for now, ids in enumerate(prompts(rng, 300)):
        found = index.match(ids)
        every = found + index.register(ids, len(found))[0]
        order.remove_all(index.hold(every))
        index.used(every, float(now))
        running.append(every)
        while len(running) > 3 or (running and rng.random() < 0.4):
            order.insert_all(index.release(running.pop(int(rng.integers(len(running))))))
        victims = order.victims(len(index) - capacity)
        order.evict_all(victims)
        index.drop_all(victims, 1)
        held = {unit.parent for unit in index.units.values()}
        for place, victim in enumerate(victims):
            assert victim.id not in held
            assert all(later.parent != victim.id for later in victims[place:])
    assert len(index) <= capacity + sum(map(len, running))


@pytest.mark.parametrize("name", sorted(MAKE))
def test_an_order_is_no_larger_than_what_it_holds(name: str) -> None:
    order = MAKE[name]()
    for number in range(5000):
        unit = Unit(number, number - 1, number % 7, uses=1, last_use=float(number))
        order.insert(unit)
        order.touch(unit)
        order.evict_all(order.victims(len(order) - 20))
    assert len(order) == 20
    assert all(len(part) < 200 for part in vars(order).values() if isinstance(part, list | dict))


# ---------------------------------------------------------------- replay and Belady
def lru_hit_rate(rows: Rows, capacity: float) -> float:
    ids = Ragged.of(rows)
    distances, _ = stack_distances(ids.values, ids.lengths)
    hits = np.count_nonzero((distances > 0) & (distances <= capacity))
    return hits / len(ids.values) if len(ids.values) else 0.0


any_rows = st.lists(st.lists(st.integers(0, 12), max_size=6), max_size=40)


@given(any_rows, st.integers(1, 12))
@settings(max_examples=200, deadline=None)
def test_a_replay_of_lru_is_the_curve_of_inspect(rows: Rows, capacity: int) -> None:
    out = replay(rows, capacity, Lru())
    assert out.references == sum(map(len, rows))
    assert out.hit_rate == lru_hit_rate(rows, capacity)
    assert out.leading <= out.hits


@cache
def _best(rows: tuple[tuple[int, ...], ...], capacity: int, held: frozenset[int]) -> int:
    """Most hits of all ways to keep units, tried one by one."""
    if not rows:
        return 0
    hits = sum(name in held for name in rows[0])
    there = held | set(rows[0])
    keep = min(capacity, len(there))
    return hits + max(
        _best(rows[1:], capacity, frozenset(kept))
        for kept in itertools.combinations(sorted(there), keep)
    )


@given(st.lists(st.lists(st.integers(0, 6), max_size=4, unique=True), max_size=7),
       st.integers(1, 4))  # fmt: skip
@settings(max_examples=100, deadline=None)
def test_belady_is_the_best_of_all_choices(rows: Rows, capacity: int) -> None:
    total = sum(map(len, rows))
    best = _best(tuple(map(tuple, rows)), capacity, frozenset())
    rates = belady(Ragged.of(rows), [capacity])
    assert rates == [pytest.approx(best / total if total else 0.0)]


@given(any_rows, st.integers(1, 12), st.sampled_from(sorted(MAKE)))
@settings(max_examples=300, deadline=None)
def test_no_policy_beats_belady(rows: Rows, capacity: int, name: str) -> None:
    bound, infinite = belady(Ragged.of(rows), [capacity, inf])
    out = replay(rows, capacity, MAKE[name]())
    assert out.hit_rate <= bound + 1e-12
    assert replay(rows, inf, MAKE[name]()).hit_rate == pytest.approx(infinite)
    assert bound <= infinite


@pytest.mark.parametrize("name", sorted(MAKE))
def test_a_replay_keeps_to_its_capacity(name: str) -> None:
    rows = prompts(np.random.default_rng(3), 300)
    order = MAKE[name]()
    out = replay(rows, 20, order)
    assert len(order) == 20
    assert out.references == sum(map(len, rows))
    assert out.evicted + 20 >= out.references - out.hits > 20  # every miss came in
    assert 0.0 < out.hit_rate < 1.0


@pytest.fixture(scope="module")
def mooncake() -> Ragged:
    if not MOONCAKE.exists():
        pytest.skip("the Mooncake conversation trace is not there")
    chunks = read(MOONCAKE, "mooncake", tally=Tally())
    return Ragged.joined([chunk.block_ids for chunk in chunks if chunk.block_ids is not None])


SHARES = {1_000: 4.45, 10_000: 21.16, 100_000: 36.37, inf: 36.64}


def test_mooncake_under_lru_has_the_published_hit_rates(mooncake: Ragged) -> None:
    rows = list(mooncake)
    distances, _ = stack_distances(mooncake.values, mooncake.lengths)
    for capacity, percent in SHARES.items():
        out = replay(rows, capacity, Lru())
        assert round(100 * out.hit_rate, 2) == percent
        assert out.hits == np.count_nonzero((distances > 0) & (distances <= capacity))
        assert out.leading == out.hits  # a prefix's beginning is there as long as its end is


def test_mooncake_bound_is_above_every_policy(mooncake: Ragged) -> None:
    bound = belady(mooncake, SHARES)
    assert bound == sorted(bound)
    assert round(100 * bound[-1], 2) == SHARES[inf]
    rows = list(mooncake)
    assert replay(rows, 1_000, Lfu()).hit_rate < bound[0]


def test_belady_counts_a_unit_that_a_prompt_has_twice_as_a_bound() -> None:
    rows = [[1, 2], [3, 3], [1, 3, 3], [2]]
    # kept with room for one: 1 (or 3) until the third prompt, whose second 3 is free, or then 2
    assert belady(Ragged.of(rows), [1]) == [pytest.approx(2 / 8)]
    assert belady(Ragged.of(rows), [inf]) == [pytest.approx(4 / 8)]
    assert belady(Ragged.empty(3), [1, inf]) == [0.0, 0.0]
