"""Formulas of locality against the process itself, drawn, with an explicit LRU beside it."""

from __future__ import annotations

from collections import OrderedDict
from functools import cache
from itertools import islice, pairwise

import numpy as np
import pytest

from sim.sparse.locality import Locality
from sim.sparse.numbers import power
from sim.sparse.walk import walk

CASES = [
    (200, 20, Locality(0.6)),
    (200, 20, Locality(0.9)),
    (60, 40, Locality(0.0)),  # a random selection has two thirds of the last one by chance
    (60, 40, Locality(0.8)),
    (300, 30, Locality(0.6, 0.5)),
    (300, 30, Locality(0.4, 0.9)),
]
IDS = [f"{pool}-{chosen}-{law.stay}-{law.returning}" for pool, chosen, law in CASES]
STEPS = 1600


@cache
def drawn(pool: int, chosen: int, law: Locality) -> list[set[int]]:
    """Selections of consecutive steps."""
    steps = walk(pool, chosen, law, np.random.default_rng(1))
    return [set(one.tolist()) for one in islice(steps, STEPS)]


def lru_misses(selections: list[set[int]], capacity: int) -> list[int]:
    """Units that each step fetches into a cache of *capacity*, least recently selected out."""
    held: OrderedDict[int, None] = OrderedDict()
    misses = []
    for selected in selections:
        misses.append(len(selected - held.keys()))
        for unit in selected:
            held[unit] = None
            held.move_to_end(unit)
        while len(held) > capacity:
            held.popitem(last=False)
    return misses


def near(measured: float, expected: float, share: float = 0.03) -> bool:
    return abs(measured - expected) <= share * expected + 0.02


@pytest.mark.parametrize(("pool", "chosen", "law"), CASES, ids=IDS)
def test_newcomers_of_a_step(pool: int, chosen: int, law: Locality) -> None:
    found = drawn(pool, chosen, law)
    fresh = [len(b - a) for a, b in pairwise(found)]
    assert all(len(one) == chosen for one in found)
    assert near(float(np.mean(fresh)), float(law.newcomers(pool, chosen)))


def test_newcomers_by_hand() -> None:
    assert Locality(0.6).newcomers(1000, 10) == pytest.approx(4.0)
    assert Locality(1.0).newcomers(1000, 10) == 0.0
    assert Locality(0.0).newcomers(1000, 10) == pytest.approx(10 * 0.99)  # never below chance
    assert Locality(0.6).newcomers(10, 10) == 0.0
    assert Locality(0.6).newcomers(0, 10) == 0.0


@pytest.mark.parametrize(("pool", "chosen", "law"), CASES[:4], ids=IDS[:4])
@pytest.mark.parametrize("advance", [2, 5])
def test_a_step_of_several_tokens_moves_on_as_so_many_steps(
    pool: int, chosen: int, law: Locality, advance: int
) -> None:
    found = drawn(pool, chosen, law)
    fresh = [len(b - a) for a, b in zip(found, found[advance:], strict=False)]
    assert near(float(np.mean(fresh)), float(law.newcomers(pool, chosen, advance)))


@pytest.mark.parametrize(("pool", "chosen", "law"), CASES, ids=IDS)
@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 1.0])
def test_what_lru_fetches(pool: int, chosen: int, law: Locality, share: float) -> None:
    resident = chosen + round(share * (pool - chosen))
    found = drawn(pool, chosen, law)
    misses = lru_misses(found, resident)[STEPS // 5 :]
    expected = float(law.fetched(pool, chosen, resident))
    assert near(float(np.mean(misses)), expected, 0.05)
    if resident == pool:
        assert expected == 0.0
    if resident == chosen:
        assert expected == law.newcomers(pool, chosen)


def test_what_lru_fetches_by_hand() -> None:
    # 100 of 1000 units, 60 % stay: 40 newcomers a step out of 900, of which 500 are not held.
    assert Locality(0.6).fetched(1000, 100, 500) == pytest.approx(40 * 500 / 900)
    # Half of them come from the 100 that left last, which a cache of 200 holds all.
    assert Locality(0.6, 0.5).fetched(1000, 100, 200) == pytest.approx(40 * 0.5 * 800 / 900)


@pytest.mark.parametrize(("pool", "chosen", "law"), CASES, ids=IDS)
@pytest.mark.parametrize("steps", [1, 2, 8, 40])
def test_working_set(pool: int, chosen: int, law: Locality, steps: int) -> None:
    found = drawn(pool, chosen, law)
    sizes = [len(set().union(*found[i : i + steps])) for i in range(0, STEPS - steps, 20)]
    assert near(float(np.mean(sizes)), law.touched(pool, chosen, steps), 0.05)


def test_working_set_at_its_ends() -> None:
    law = Locality(0.6, 0.5)
    assert law.touched(1000, 100, 1) == 100.0
    assert law.touched(1000, 100, 2) == pytest.approx(140.0)
    assert law.touched(1000, 100, 10**6) == pytest.approx(1000.0)
    assert law.touched(80, 100, 5) == 80.0
    assert law.touched(0, 100, 5) == 0.0
    assert Locality(1.0).touched(1000, 100, 50) == 100.0
    assert Locality(0.6, 1.0).touched(1000, 100, 10**6) == pytest.approx(200.0)


def test_more_locality_and_more_memory_fetch_less() -> None:
    pool = 2000
    by_stay = [float(Locality(stay).fetched(pool, 128, 256)) for stay in (0.3, 0.6, 0.9, 1.0)]
    by_memory = [float(Locality(0.6, 0.5).fetched(pool, 128, r)) for r in (128, 192, 256, 1000)]
    by_return = [float(Locality(0.6, r).fetched(pool, 128, 256)) for r in (0.0, 0.5, 1.0)]
    for row in (by_stay, by_memory, by_return):
        assert row == sorted(row, reverse=True)
        assert len(set(row)) == len(row)
    assert by_return[-1] == 0.0  # a second selection's worth of memory holds all that returns


def test_power() -> None:
    assert power(0.5, 5) == 0.5**5
    assert power(0.3, 0) == 1.0
    exponents = np.arange(70)
    found = power(np.full(70, 0.93), exponents)
    assert isinstance(found, np.ndarray)
    assert found.tolist() == [power(0.93, int(n)) for n in exponents]
    assert found == pytest.approx(0.93**exponents)
