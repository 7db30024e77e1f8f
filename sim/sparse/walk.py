"""A selection that changes from step to step, drawn: the explicit process behind the formulas.

The one rule: it does what `sparse/locality.py` says and knows none of its formulas.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .locality import Locality


def walk(
    pool: int, chosen: int, locality: Locality, rng: np.random.Generator
) -> Iterator[np.ndarray]:
    """Selections of *chosen* of *pool* units, one after the other, without end."""
    # Units by when they were last selected, the present selection first.
    stack = rng.permutation(pool)
    stay = max(locality.stay, chosen / pool)
    while True:
        selected, others = stack[:chosen], stack[chosen:]
        yield selected
        leave = rng.random(chosen) >= stay
        leave[np.flatnonzero(leave)[len(others) :]] = False
        count = int(leave.sum())
        recent = min(chosen, len(others))
        back = min(int(rng.binomial(count, locality.returning)), recent)
        joins = np.zeros(len(others), dtype=bool)
        joins[rng.permutation(recent)[:back]] = True
        joins[rng.permutation(np.flatnonzero(~joins))[: count - back]] = True
        stack = np.concatenate((selected[~leave], others[joins], selected[leave], others[~joins]))
