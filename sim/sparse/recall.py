"""The share of attention mass that a selection keeps: an assumption, and reported as one.

The one rule: it changes no time and no choice. Nothing here was measured by us.
"""

from __future__ import annotations

import math
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from .numbers import Real, Whole

EXPONENT = math.log(0.7) / math.log(0.2)


class Recall:
    """Recall of *given*: a share, or `power`; contexts have *most_blocks* blocks at most."""

    def __init__(self, given: float | str, most_blocks: int) -> None:
        self.given = given
        self.most_blocks = most_blocks

    @cached_property
    def _mass(self) -> np.ndarray:
        # Model: the best share f of the blocks has the mass f ** EXPONENT. The exponent goes
        # through the one published point that we know: the best 20 % of keys cover 70 % of the
        # attention scores (MagicPIG, arXiv 2410.16179, as cited in section 2.2 of NSA, arXiv
        # 2502.11089). One point, keys and not blocks, and a selector that never errs: estimated.
        return np.arange(self.most_blocks + 1, dtype=np.float64) ** EXPONENT

    def of(self, chosen: Whole, total: Whole) -> Real:
        """Share of mass of *chosen* of *total* blocks; 1 where all are chosen."""
        if isinstance(self.given, str):
            kept = self._mass[chosen] / self._mass[total]
        else:
            kept = np.where(chosen < total, self.given, 1.0)
        return kept if isinstance(chosen, np.ndarray) else float(kept)

    def __str__(self) -> str:
        if isinstance(self.given, str):
            return f"the best share f of the blocks has f ** {EXPONENT:.3f} of the mass (estimated)"
        return f"{self.given:g}, given by the scenario"
