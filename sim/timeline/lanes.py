"""Tracks for slices that overlap: each track shows slices that follow or hold one another."""

from __future__ import annotations

from heapq import heappop, heappush
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence


def lanes(begin: np.ndarray, end: np.ndarray) -> np.ndarray:
    """The lowest free lane of each slice, counted from 0; slices in order of *begin*."""
    if not (begin[1:] < end[:-1]).any():
        return np.zeros(len(begin), np.int64)
    found = np.empty(len(begin), np.int64)
    busy: list[tuple[int, int]] = []
    free: list[int] = []
    count = 0
    for row, (since, until) in enumerate(zip(begin.tolist(), end.tolist(), strict=True)):
        while busy and busy[0][0] <= since:
            heappush(free, heappop(busy)[1])
        if free:
            lane = heappop(free)
        else:
            lane, count = count, count + 1
        found[row] = lane
        heappush(busy, (until, lane))
    return found


def titled(name: str, count: int) -> Sequence[str]:
    """Names of the *count* lanes of one thing."""
    return [name if number == 1 else f"{name} ({number})" for number in range(1, count + 1)]
