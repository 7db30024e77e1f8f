"""Which regions of load a step log covers: the coarse cells that its steps lie in.

A box would call a batch of 256 over 100,000 tokens each covered because either was seen alone. A
cell is a range of decoding requests, of context tokens a request, and of prefill tokens, each
about a factor of two wide.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .step_form import Load

AXES = ("decode_requests", "context_tokens_each", "prefill_tokens")
WORDS = ("decoding requests", "context tokens each", "prefill tokens")
_NAMEABLE = 0.01
"""Share of a run's time from which on it is said that it lies outside."""


@dataclass(frozen=True)
class Domain:
    """The occupied *cells* (three whole numbers each) and what each axis reaches."""

    cells: frozenset[tuple[int, int, int]]
    ranges: Mapping[str, tuple[float, float]]

    def covers(self, cells: np.ndarray) -> np.ndarray:
        """Whether each of *cells* (rows x 3) is occupied, or lies between two that are."""
        known = {self._key(cell) for cell in self.cells}
        found = np.fromiter((self._key(c) in known for c in cells.tolist()), bool, len(cells))
        inside: np.ndarray = found | self._between(cells)
        return inside

    @staticmethod
    def _key(cell: Any) -> int:
        return int(cell[0]) << 20 | int(cell[1]) << 10 | int(cell[2])

    def _between(self, cells: np.ndarray) -> np.ndarray:
        """Whether there are occupied cells on both sides along an axis, the others equal."""
        own = np.array(sorted(self.cells)).reshape(-1, 3)
        found = np.zeros(len(cells), bool)
        for at, cell in enumerate(cells):
            equal = own == cell
            for axis in range(3):
                others = equal[:, [i for i in range(3) if i != axis]].all(axis=1)
                side = own[others, axis]
                if len(side) and side.min() < cell[axis] < side.max():
                    found[at] = True
                    break
        return found


def edge(cell: int) -> int:
    """The least count in a cell: 0, 1, 2, 3-4, 5-8, ..."""
    return cell if cell < 3 else 2 ** (cell - 2) + 1


def cell_of(counts: np.ndarray) -> np.ndarray:
    """The cell of each of *counts*."""
    found = np.ceil(np.log2(np.maximum(counts, 1.0))) + 1
    cells: np.ndarray = np.where(counts <= 0, 0, found).astype(np.int64)
    return cells


def cells_of(load: Load) -> np.ndarray:
    """rows x 3: the cell of each step of *load*."""
    each = np.where(
        load.decode_requests > 0, load.context / np.maximum(load.decode_requests, 1.0), 0.0
    )
    return np.stack(
        [cell_of(load.decode_requests), cell_of(each), cell_of(load.prefill_tokens)], axis=1
    )


def domain_of(load: Load) -> Domain:
    """The cells that the steps of *load* lie in."""
    cells = np.unique(cells_of(load), axis=0)
    each = load.context / np.maximum(load.decode_requests, 1.0)
    axes = (load.decode_requests, each, load.prefill_tokens)
    ranges = {
        name: (float(values.min()), float(values.max()))
        for name, values in zip(AXES, axes, strict=True)
    }
    own = load.decode_requests > 0
    if (load.decode_tokens > load.decode_requests).any():
        most = float((load.decode_tokens[own] / load.decode_requests[own]).max())
        ranges["tokens_each"] = (1.0, most)
    return Domain(frozenset(map(tuple, cells.tolist())), ranges)


@dataclass
class Visits:
    """Time that a run spent in each cell."""

    domain: Domain
    seconds: dict[tuple[int, int, int], float] = field(default_factory=dict)

    def add(self, load: Load, seconds: np.ndarray) -> None:
        """Steps of *load* that took *seconds*."""
        cells, place = np.unique(cells_of(load), axis=0, return_inverse=True)
        sums = np.bincount(place.ravel(), weights=seconds)
        for cell, total in zip(map(tuple, cells.tolist()), sums.tolist(), strict=True):
            self.seconds[cell] = self.seconds.get(cell, 0.0) + total

    def outside(self) -> list[str]:
        """One phrase for each region outside the log in which the run spent notable time."""
        if not self.seconds:
            return []
        cells = np.array(sorted(self.seconds))
        spent = np.array([self.seconds[tuple(cell)] for cell in cells.tolist()])
        total, out = float(spent.sum()), ~self.domain.covers(cells)
        if not total or spent[out].sum() < _NAMEABLE * total:
            return []
        found = [f"step log: {spent[out].sum() / total:.1%} of the loop's time lies outside"]
        regions: dict[str, float] = {}
        for cell, seconds in zip(cells[out].tolist(), spent[out].tolist(), strict=True):
            where = self._where(cell)
            regions[where] = regions.get(where, 0.0) + seconds
        for where, seconds in sorted(regions.items(), key=lambda pair: -pair[1])[:4]:
            if seconds >= _NAMEABLE * total:
                found.append(f"step log: {where} ({seconds / total:.1%} of the time)")
        return found

    def _where(self, cell: list[int]) -> str:
        """What of *cell* the log has not seen: an axis beyond its range, or the combination."""
        beyond = []
        for axis, number in enumerate(cell):
            low, high = self.domain.ranges[AXES[axis]]
            if edge(number) > high:
                beyond.append(f"{WORDS[axis]} from {edge(number):,}, "
                              f"the log has up to {high:,.0f}")  # fmt: skip
            elif edge(number + 1) <= low:
                beyond.append(f"{WORDS[axis]} below {edge(number + 1):,}, "
                              f"the log has {low:,.0f} and more")  # fmt: skip
        if beyond:
            return "; ".join(beyond)
        spans = (
            f"{edge(number):,} to {edge(number + 1) - 1:,} {WORDS[axis]}"
            for axis, number in enumerate(cell)
        )
        return f"no step with {', '.join(spans)}"
