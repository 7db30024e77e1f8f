"""The values of ranges, worked out by hand, and what is no range."""

from __future__ import annotations

from typing import Any

import pytest

from sim.study_range import RangeError, is_range, values_of


def of(first: object, last: object, **rest: object) -> dict[str, Any]:
    """A range as YAML gives it."""
    return {"from": first, "to": last, **rest}


VALUES = [
    (of(1, 8, step=1), [1, 2, 3, 4, 5, 6, 7, 8]),
    (of(1, 8, step=2), [1, 3, 5, 7]),
    (of(1, 8, step=7), [1, 8]),
    (of(1, 2, step=0.5), [1, 1.5, 2]),
    (of(0.1, 0.5, step=0.1), [0.1, 0.2, 0.3, 0.4, 0.5]),
    (of(-1, 1, count=3), [-1, 0, 1]),
    (of(0, 10, count=3), [0, 5, 10]),
    (of(1, 8, count=3), [1, 4.5, 8]),
    (of(1, 2, count=4), [1, 1.33333, 1.66667, 2]),
    (of(8, 256, count=6, scale="log"), [8, 16, 32, 64, 128, 256]),
    (of(8, 256, count=4, scale="log"), [8, 25, 81, 256]),
    (of(1.0, 8, count=4, scale="log"), [1.0, 2.0, 4.0, 8]),
    (of(1, 10.0, count=3, scale="log"), [1, 3.162, 10.0]),
    (of("128 GiB", "1 TiB", count=4, scale="log"), ["128 GiB", "256 GiB", "512 GiB", "1 TiB"]),
    (of("64 GiB", "1 TiB", count=3, scale="log"), ["64 GiB", "256 GiB", "1 TiB"]),
    (of("1 GiB", "2 GiB", step="512 MiB"), ["1 GiB", "1.5 GiB", "2 GiB"]),
    (of("0 s", "1 min", step="20 s"), ["0 s", "20 s", "40 s", "1 min"]),
    (of("1 ms", "1 s", count=4, scale="log"), ["1 ms", "10 ms", "100 ms", "1 s"]),
    (of("1 /s", "3 /s", count=2, scale="linear"), ["1 /s", "3 /s"]),
]  # fmt: skip


@pytest.mark.parametrize(("given", "values"), VALUES, ids=str)
def test_values(given: dict[str, Any], values: list[object]) -> None:
    found = values_of(given)
    assert found == values
    assert [type(value) for value in found] == [type(value) for value in values]


FAULTS = [
    (of(1, 8), None, "a linear range without step or count"),
    ({"from": 1, "step": 1}, None, "a range without to"),
    (of(1, 8, scale="log"), None, "a log range without count"),
    (of(1, 8, stp=1), "stp", "no such key of a range; did you mean 'step'?"),
    (of(1, 8, step=1, count=3), "count", "not together with step"),
    (of(1, 8, step=1, scale="log"), "step", "a log range has no step"),
    (of(1, 8, count=3, scale="lin"), "scale", "expected one of linear, log, got 'lin'"),
    (of(8, 8, count=3), "to", "8 is equal to from, 8"),
    (of(8, 1, step=-1), "to", "1 is below from, 8"),
    (of("1 GB", "1 MB", count=2), "to", "'1 MB' is below from, '1 GB'"),
    (of("1 GB", "1 s", count=2), "to", "from is an amount of memory and to is a time"),
    (of(1, "1 s", count=2), "to", "from is a number and to is a time"),
    (of("1 s", "9 s", step=1), "step", "1 is not a time as from is"),
    (of(True, 8, step=1), "from", "or one with a unit such as '64 GiB', got True"),
    (of("1", 8, step=1), "from", "expected a number, or one with a unit"),
    (of([1], 8, step=1), "from", "expected a number, or one with a unit"),
    (of(None, 8, step=1), "from", "expected a number, or one with a unit"),
    (of(float("nan"), 8, step=1), "from", "expected a finite number, got nan"),
    (of(1, float("inf"), step=1), "to", "expected a finite number, got inf"),
    (of(1, 10**300, step=1), "to", "is out of all proportion"),
    (of(1, 8, step=0), "step", "must be > 0, got 0"),
    (of(1, 8, step=-1), "step", "must be > 0, got -1"),
    (of(1, 8, step=8), "step", "8 is more than the whole range"),
    (of(0, 1e9, step=1), "step", "gives 1,000,000,001 values; 10000 at most"),
    (of(0, 1, step=1e-25), "step", "gives more than 10^15 values"),
    (of(0, 1, count=10**9), "count", "gives 1,000,000,000 values; 10000 at most"),
    (of(0, 1, count=1), "count", "1: a range has both its ends"),
    (of(0, 1, count=2.0), "count", "expected a whole number, got 2.0"),
    (of(0, 8, count=3, scale="log"), "from", "a log range starts above 0, got 0"),
    (of(-1, 8, count=3, scale="log"), "from", "a log range starts above 0, got -1"),
    (of(1, 8, count=8, scale="log"), "count", "gives 1 twice, rounded to whole numbers; lower it"),
]  # fmt: skip


@pytest.mark.parametrize(("given", "key", "what"), FAULTS, ids=str)
def test_faults(given: dict[str, Any], key: str | None, what: str) -> None:
    with pytest.raises(RangeError) as caught:
        values_of(given)
    assert caught.value.key == key
    assert what in caught.value.what


def test_what_is_meant_as_a_range() -> None:
    assert is_range({"from": 1})
    assert is_range({"count": 3, "x": 1})
    assert not is_range({"mode": "host"})
    assert not is_range({})
    assert not is_range([1, 2])
