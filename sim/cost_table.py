"""Lengths of iterations in which all decode, unlike ones together: a column of numbers for each.

The one rule: an element goes through the operations of `DecodeCost.seconds` in the same order, so
that it is equal to the last bit. What one cost has less of than another (lines, drafting passes)
is filled up with what changes no bit.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from .curve import Curve

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from .curve import Read
    from .decode_cost import DecodeCost
    from .timing import Timing

    Floats = np.ndarray


class Layout(NamedTuple):
    """How many numbers of each kind a column has."""

    axes: tuple[int, ...]
    """What each term of a layer reads, as places in `Read`."""
    lines: int
    """Straight lines of which the pass that serves is the largest."""
    drafts: int = 0
    """Whether anything is drafted, 0 or 1."""
    passes: int = 0
    """Kinds of drafting passes."""
    draft_lines: int = 0
    """Straight lines of each."""
    overlap: bool = False
    """Whether drafting runs beside verification."""

    def over(self, other: Layout) -> Layout:
        """The least that has room for both, which read alike."""
        assert self.axes == other.axes
        lines, drafts, passes, draft_lines, overlap = map(max, self[1:], other[1:])
        return Layout(self.axes, lines, drafts, passes, draft_lines, bool(overlap))


def layout_of(cost: DecodeCost) -> Layout:
    """What *cost* needs."""
    layer, draft, lines = cost.layer, cost.draft, len(cost.timing.lines)
    axes = (0,) if isinstance(layer, Curve) else tuple(term[0] for term in layer.terms)
    if draft is None:
        return Layout(axes, lines)
    most = max((len(one.timing.lines) for one in draft.passes), default=0)
    return Layout(axes, lines, 1, len(draft.passes), most, draft.overlap)


def column(cost: DecodeCost, layout: Layout) -> list[float]:
    """The numbers of *cost*, in the order in which `seconds` takes them."""
    layer, draft = cost.layer, cost.draft
    if isinstance(layer, Curve):
        found = [layer.base, layer.scale, layer.offset, layer.spread]
    else:
        found = [layer.const, *(number for term in layer.terms for number in term[1:])]
    found += _lines(cost.timing, layout.lines)
    if not layout.drafts:
        return found
    found += [0.0, 0.0, 0.0] if draft is None else [draft.lookup, *cost.timing.busy_line]
    passes = () if draft is None else draft.passes
    for one in passes:
        curve = one.layer
        found += [curve.base, curve.scale, curve.offset, curve.spread, float(one.times)]
        found += [*_lines(one.timing, layout.draft_lines), *one.timing.busy_line]
    found += [0.0] * ((layout.passes - len(passes)) * (7 + 2 * layout.draft_lines))
    return found


def _lines(timing: Timing, count: int) -> list[float]:
    lines = (timing.lines + timing.lines[-1:] * count)[:count]
    return [number for line in lines for number in line]


def seconds(layout: Layout, numbers: Iterable[Floats], reads: Read) -> Floats:
    """Length of each iteration; each of *numbers* is an array or one for all, *reads* a `Read`."""
    follow = iter(numbers).__next__
    x = follow()
    for axis in layout.axes:
        x = _term(follow, reads[axis], x)
    total = _largest(follow, layout.lines, x)
    if not layout.drafts:
        return total
    drafting, const, slope = follow(), follow(), follow()
    busy = const + slope * x if layout.overlap else const
    more = 0.0 * busy
    for _ in range(layout.passes):
        x = _term(follow, reads[0], follow())
        times = follow()
        one = _largest(follow, layout.draft_lines, x)
        one *= times
        one += drafting
        drafting = one
        const, slope = follow(), follow()
        if layout.overlap:
            more = more + times * (const + slope * x)
    if layout.overlap:
        np.maximum(total, drafting, out=total)
        np.maximum(total, busy + more, out=total)
        return total
    total += drafting
    return total


def _term(follow: Callable[[], Floats], read: float | Floats, rest: Floats) -> Floats:
    """*rest* and what a layer takes for what it reads."""
    term: Floats = read * follow()
    term += follow()
    term *= term
    term += follow()
    np.sqrt(term, term)
    term += rest
    return term


def _largest(follow: Callable[[], Floats], lines: int, x: Floats) -> Floats:
    """The largest of so many lines at *x*."""
    const = follow()
    found: Floats = x * follow()
    found += const
    for _ in range(lines - 1):
        const = follow()
        line = x * follow()
        line += const
        np.maximum(found, line, out=found)
    return found


class CostTable:
    """Columns of many costs."""

    def __init__(self) -> None:
        self.costs: list[DecodeCost] = []
        self.layout: Layout | None = None
        self._columns = np.empty((0, 64))

    def add(self, cost: DecodeCost) -> int:
        """The number of *cost* from now on."""
        place, layout = len(self.costs), layout_of(cost)
        self.costs.append(cost)
        if self.layout is not None:
            layout = self.layout.over(layout)
        if layout != self.layout or place == self._columns.shape[1]:
            self.layout = layout
            columns = np.array([column(one, layout) for one in self.costs]).T
            self._columns = np.zeros((len(columns), max(64, 2 * len(self.costs))))
            self._columns[:, : len(self.costs)] = columns
        else:
            self._columns[:, place] = column(cost, layout)
        return place

    def seconds(self, places: Sequence[int], reads: Read) -> Floats:
        """Lengths of iterations with the costs of these numbers; *reads* as in `Read`."""
        assert self.layout is not None
        one = places[0]
        if places.count(one) == len(places):
            return seconds(*self.costs[one].own, reads)
        return seconds(self.layout, self._columns.take(places, axis=1), reads)
