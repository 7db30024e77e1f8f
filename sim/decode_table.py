"""Lengths of iterations in which all decode, unlike ones together: a column of numbers for each.

The one rule: an element goes through the operations of `DecodeCost.seconds` in the same order, so
that it is equal to the last bit. What one cost has less of than another (lines, drafting passes)
is filled up with what changes no bit.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from .curve import Curve, Read

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .decode_cost import DecodeCost
    from .timing import Timing

    Floats = np.ndarray
    Coefficients = list[float]


class Layout(NamedTuple):
    """How many numbers of each kind a column has."""

    axes: tuple[int, ...]
    """What each term of a layer reads, as places in `Read`."""
    lines: int
    """Straight lines of which the pass that serves is the largest."""
    drafts: bool = False
    """Whether anything is drafted."""
    passes: int = 0
    """Kinds of drafting passes."""
    draft_lines: int = 0
    """Straight lines of each."""
    overlap: bool = False
    """Whether drafting runs beside verification."""

    def over(self, other: Layout) -> Layout:
        """The least that has room for both, which read alike."""
        assert self.axes == other.axes
        return Layout(self.axes, *(max(pair) for pair in zip(self[1:], other[1:], strict=True)))


def layout_of(cost: DecodeCost) -> Layout:
    """What *cost* needs."""
    layer, draft, lines = cost.layer, cost.draft, len(cost.timing.lines)
    axes = (0,) if isinstance(layer, Curve) else tuple(term[0] for term in layer.terms)
    if draft is None:
        return Layout(axes, lines)
    most = max((len(one.timing.lines) for one in draft.passes), default=0)
    return Layout(axes, lines, True, len(draft.passes), most, draft.overlap)


def column(cost: DecodeCost, layout: Layout) -> Coefficients:
    """The numbers of *cost*, in the order in which `seconds` takes them."""
    layer, draft = cost.layer, cost.draft
    passes = [] if draft is None else [(float(one.times), one) for one in draft.passes]
    if isinstance(layer, Curve):
        terms, base = [(layer.scale, layer.offset, layer.spread)], layer.base
    else:
        terms, base = [(a, b, c) for _, a, b, c in layer.terms], layer.const
    terms += [(one.layer.scale, one.layer.offset, one.layer.spread) for _, one in passes]
    empty = layout.passes - len(passes)
    terms += [(0.0, 0.0, 0.0)] * empty
    found = [number for kind in zip(*terms, strict=True) for number in kind]
    found += [base, *_lines(cost.timing, layout.lines)]
    if not layout.drafts:
        return found
    found += [0.0 if draft is None else draft.lookup]
    for times, one in passes:
        found += [times, one.layer.base, *_lines(one.timing, layout.draft_lines)]
    found += [0.0] * (empty * (2 + 2 * layout.draft_lines))
    if layout.overlap:
        found += (0.0, 0.0) if draft is None else cost.timing.busy_line
        for times, one in passes:
            found += [times, *one.timing.busy_line]
        found += [0.0] * (3 * empty)
    return found


def _lines(timing: Timing, count: int) -> Coefficients:
    lines = (timing.lines + timing.lines[-1:] * count)[:count]
    return [number for kind in zip(*lines, strict=True) for number in kind]


def seconds(layout: Layout, numbers: Floats, reads: Sequence[Floats]) -> Floats:
    """Length of each iteration; *numbers* has its column, or one for all, *reads* a `Read`."""
    axes, lines = layout.axes, layout.lines
    own, count = len(axes), len(axes) + layout.passes
    if own == 1 and not axes[0]:
        terms = numbers[:count] * reads[0]
    else:
        read = np.empty((count, len(reads[0])))
        for place, axis in enumerate(axes):
            read[place] = reads[axis]
        read[own:] = reads[0]
        terms = np.multiply(numbers[:count], read, out=read)
    terms += numbers[count : 2 * count]
    terms *= terms
    terms += numbers[2 * count : 3 * count]
    np.sqrt(terms, terms)
    at = 3 * count
    x: Floats = terms[0]
    x += numbers[at]
    for term in terms[1:own]:
        x += term
    at += 1
    total = _largest(numbers, at, lines, x)
    if not layout.drafts:
        return total
    at += 2 * lines
    drafting = numbers[at]
    at += 1
    for term in terms[own:]:
        term += numbers[at + 1]
        one = _largest(numbers, at + 2, layout.draft_lines, term)
        one *= numbers[at]
        one += drafting
        drafting = one
        at += 2 + 2 * layout.draft_lines
    if not layout.overlap:
        total += drafting
        return total
    busy = numbers[at] + numbers[at + 1] * x
    more: float | Floats = 0.0
    at += 2
    for term in terms[own:]:
        more = more + numbers[at] * (numbers[at + 1] + numbers[at + 2] * term)
        at += 3
    return np.maximum(np.maximum(total, drafting), busy + more)


def _largest(numbers: Floats, at: int, lines: int, x: Floats) -> Floats:
    """The largest of so many lines at *x*."""
    found: Floats = numbers[at + lines] * x
    found += numbers[at]
    for place in range(at + 1, at + lines):
        other = numbers[place + lines] * x
        other += numbers[place]
        np.maximum(found, other, out=found)
    return found


class DecodeTable:
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

    def seconds(self, numbers: Sequence[int], reads: Sequence[Floats]) -> Floats:
        """Lengths of iterations with the costs of these *numbers*; *reads* as in `Read`."""
        assert self.layout is not None
        one = numbers[0]
        if numbers.count(one) == len(numbers):
            return seconds(self.layout, self._columns[:, one : one + 1], reads)
        return seconds(self.layout, self._columns.take(numbers, axis=1), reads)


__all__ = ["DecodeTable", "Layout", "Read", "column", "layout_of", "seconds"]
