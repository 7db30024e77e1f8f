"""A range of values of an axis: `{from: 1, to: 8, step: 1}`, `{from, to, count}`, `scale: log`.

The one rule: values are such as a person would write. A step counts in exact decimals; whole ends
give whole numbers where the step is whole, and always on a log scale; other values of a log range
are rounded to four digits, and decimals that do not end to six.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from itertools import pairwise
from typing import Any

from .errors import shown
from .node import suggestion
from .units import Unit, quantity

KEYS = ("from", "to", "step", "count", "scale")
MAX_VALUES = 10_000
_DIGITS = 30
"""Of a number in a range, at most, and its greatest power of ten."""


class RangeError(Exception):
    """What is wrong with a range, and at which of its keys; None is the range itself."""

    def __init__(self, key: str | None, what: str) -> None:
        super().__init__(what)
        self.key, self.what = key, what


@dataclass(frozen=True, slots=True)
class _End:
    """A number of a range: as it was written, exactly, and in which unit."""

    written: Any
    number: Fraction
    unit: str = ""
    dimension: Unit | None = None

    @property
    def factor(self) -> Fraction:
        """SI units in one of `unit`."""
        return Fraction(str(self.dimension.factors[self.unit])) if self.dimension else Fraction(1)

    @property
    def si(self) -> Fraction:
        """The number in SI."""
        return self.number * self.factor


def is_range(value: object) -> bool:
    """Whether *value*, of an axis, is meant as a range."""
    return isinstance(value, dict) and any(key in KEYS for key in value)


def values_of(given: dict[str, Any]) -> list[Any]:
    """The values of a range, the first as written and the last, too, if it is `to`.

    Raises `RangeError`.
    """
    _check_keys(given)
    first, last = _end(given, "from"), _end(given, "to")
    if first.dimension is not last.dimension:
        names = [end.dimension.noun if end.dimension else "a number" for end in (first, last)]
        raise RangeError("to", f"from is {names[0]} and to is {names[1]}; write both alike")
    if last.si <= first.si:
        how = "equal to" if last.si == first.si else "below"
        what = f"{shown(last.written)} is {how} from, {shown(first.written)}; it has to be above"
        raise RangeError("to", what)
    if given.get("scale", "linear") == "log":
        found = _log(first, last, _count(given))
    elif "step" in given:
        found = _steps(first, last, _end(given, "step"))
    else:
        found = _linear(first, last, _count(given))
    return found


def _check_keys(given: dict[str, Any]) -> None:
    for key in given:
        if key not in KEYS:
            raise RangeError(key, f"no such key of a range; {suggestion(key, KEYS, 'keys')}")
    for key in ("from", "to"):
        if key not in given:
            raise RangeError(None, f"a range without {key}; add e.g. `{{from: 1, to: 8, step: 1}}`")
    scale = given.get("scale", "linear")
    if scale not in ("linear", "log"):
        raise RangeError("scale", f"expected one of linear, log, got {shown(scale)}")
    if "step" in given and scale == "log":
        raise RangeError("step", "a log range has no step; write count, the number of values")
    if "step" in given and "count" in given:
        raise RangeError("count", "not together with step; remove one of them")
    if "step" not in given and "count" not in given:
        lacks = "count; add e.g. `count: 6`" if scale == "log" else "step or count; add one of them"
        raise RangeError(None, f"a {scale} range without {lacks}")


def _end(given: dict[str, Any], key: str) -> _End:
    """The number that *key* is."""
    value = given[key]
    if type(value) is str and (found := quantity(value)):
        number, unit, dimension = found
        return _End(value, _exact(key, number, value), unit, dimension)
    if type(value) not in (int, float):
        what = f"expected a number, or one with a unit such as '64 GiB', got {shown(value)}"
        raise RangeError(key, what)
    return _End(value, _exact(key, str(value), value))


def _exact(key: str, text: str, written: object) -> Fraction:
    number = Decimal(text)
    if not number.is_finite():
        raise RangeError(key, f"expected a finite number, got {shown(written)}")
    if (number and not -_DIGITS <= number.adjusted() <= _DIGITS) or len(text) > _DIGITS + 10:
        raise RangeError(key, f"{shown(written)} is out of all proportion; write a smaller number")
    return Fraction(number)


def _count(given: dict[str, Any]) -> int:
    count = given["count"]
    if type(count) is not int:
        raise RangeError("count", f"expected a whole number, got {shown(count)}")
    if count < 2:
        raise RangeError("count", f"{count}: a range has both its ends; write 2 or more")
    _check_number("count", count)
    return count


def _check_number(key: str, count: int) -> None:
    if count > MAX_VALUES:
        many = f"{count:,}" if count < 10**15 else "more than 10^15"
        raise RangeError(key, f"gives {many} values; {MAX_VALUES} at most")


def _steps(first: _End, last: _End, step: _End) -> list[Any]:
    if step.dimension is not first.dimension:
        noun = first.dimension.noun if first.dimension else "a number"
        raise RangeError("step", f"{shown(step.written)} is not {noun} as from is; write it alike")
    if step.number <= 0:
        raise RangeError("step", f"must be > 0, got {shown(step.written)}")
    count = int((last.si - first.si) / step.si) + 1
    if count < 2:
        raise RangeError("step", f"{shown(step.written)} is more than the whole range; lower it")
    _check_number("step", count)
    return _named(first, last, [first.si + i * step.si for i in range(count)])


def _linear(first: _End, last: _End, count: int) -> list[Any]:
    gap = (last.si - first.si) / (count - 1)
    return _named(first, last, [first.si + i * gap for i in range(count)])


def _log(first: _End, last: _End, count: int) -> list[Any]:
    if first.si <= 0:
        raise RangeError("from", f"a log range starts above 0, got {shown(first.written)}")
    whole = type(first.written) is int and type(last.written) is int
    ratio = math.log(last.si / first.si) / (count - 1)
    exact = [float(first.number) * math.exp(i * ratio) for i in range(count)]
    rounded = [round(x) if whole else float(f"{x:.4g}") for x in exact]
    twice = next((x for x, y in pairwise(rounded) if x == y), None)
    if twice is not None:
        to, hint = "four digits", "lower it"
        if whole:
            to, hint = "whole numbers", f"lower it, or write from: {first.written}.0"
        raise RangeError("count", f"gives {twice} twice, rounded to {to}; {hint}")
    values = [Fraction(str(x)) * first.factor for x in rounded]
    return _named(first, last, [first.si, *values[1:-1], last.si])


def _named(first: _End, last: _End, values: list[Fraction]) -> list[Any]:
    """*values*, in SI, as they would be written in the unit of *first*, the ends as they were."""
    found = [_written(value, first) for value in values[1:-1]]
    end = last.written if values[-1] == last.si else _written(values[-1], first)
    return [first.written, *found, end]


def _written(si: Fraction, like: _End) -> Any:
    """*si* in the unit of *like*."""
    plain: int | float
    number = si / like.factor
    if number.denominator == 1:
        plain = int(number)
    else:
        plain = float(number)
        if len(repr(plain)) > 14:  # a third of something
            plain = float(f"{plain:.6g}")
    if like.dimension is not None:
        return f"{plain} {like.unit}"
    return float(plain) if type(like.written) is float else plain
