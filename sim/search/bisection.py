"""Where limits stop being kept, on one axis of numbers: doubling, then halving the bracket.

The one rule: which value is probed next follows from the answers so far and from nothing else, so
a search that was cut off takes the same path again.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Generator

Status = Literal["found", "below", "above", "failed"]


@dataclass(frozen=True, slots=True)
class Bracket:
    """What a bisection found: *low* keeps the limits, *high* does not.

    `below`: not even the lower end keeps them (*high* is that end); `above`: the upper end does
    (*low* is that end); `failed`: the probe at *failed* gave no answer.
    """

    status: Status
    low: float | None
    high: float | None
    failed: float | None = None
    again: float | None = None
    """A value above *high* that keeps the limits again, if the check above found one."""


def bisection(
    low: float, high: float, tolerance: float, *, whole: bool
) -> Generator[float, bool | None, Bracket]:
    """Yields values to probe in [*low*, *high*], is sent whether each keeps the limits.

    None is sent for a probe that failed, and ends the search. It returns the bracket once that is
    narrower than *tolerance* times its lower end (or 1, if only *whole* numbers are probed). One
    probe half way from the bracket to *high* then checks that limits stay broken above it.
    """
    good, bad, value = None, None, low
    while bad is None:
        keeps = yield value
        if keeps is None:
            return Bracket("failed", good, None, failed=value)
        if keeps and value >= high:
            return Bracket("above", value, None)
        if keeps:
            good, value = value, min(2 * value, high)
        else:
            bad = value
    while good is not None and not _narrow(good, bad, tolerance, whole):
        value = _middle(good, bad, tolerance, whole)
        if not good < value < bad:
            break
        keeps = yield value
        if keeps is None:
            return Bracket("failed", good, bad, failed=value)
        good, bad = (value, bad) if keeps else (good, value)
    check = _middle(bad, high, tolerance, whole)
    again = None
    if bad < check <= high and (yield check):
        again = check
    return Bracket("found" if good is not None else "below", good, bad, again=again)


def _narrow(good: float, bad: float, tolerance: float, whole: bool) -> bool:
    return bad - good <= max(tolerance * good, 1 if whole else 0)


def _middle(low: float, high: float, tolerance: float, whole: bool) -> float:
    """The geometric mean, in as few digits as the tolerance needs."""
    middle = math.sqrt(low * high)
    if whole:
        return max(math.floor(middle), math.floor(low) + 1)
    digits = max(3, 2 - math.floor(math.log10(tolerance)))
    return float(f"{middle:.{digits}g}")
