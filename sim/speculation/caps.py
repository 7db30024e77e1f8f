"""The greatest width that the whole batch may have: by load, or by what pays.

The one rule: a cap depends on the batch and its context, never on what was accepted, and is decided
only when the set of decoding requests changes.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .trees import Tree

Seconds = Callable[[int, int, int, int], float]
"""Seconds of one iteration of *batch* requests that all draft alike: `(batch, rows, depth,
context)`, with *rows* tokens and *context* KV entries over all of them, and *depth* levels drafted;
depth 0 with rows beyond the batch is verification without drafting."""

CONTEXT_STEP = 256
"""Tokens to which a batch's mean context is rounded up before a cap is sought."""


def rounded(mean_context: float) -> int:
    """*mean_context* on a coarse grid, so that a cap does not waver with every token."""
    return CONTEXT_STEP * max(1, -int(-mean_context // CONTEXT_STEP))


class ByThresholds:
    """The width of the first threshold that the batch does not exceed; 0 beyond the last."""

    def __init__(self, thresholds: Sequence[tuple[int, int]]) -> None:
        self.thresholds = tuple(thresholds)

    def __call__(self, batch: int, mean_context: float) -> int:
        return next((width for most, width in self.thresholds if batch <= most), 0)


class ByKnee:
    """The greatest width at which verification takes at most 1 + *slack* times plain decoding.

    While weights and KV are being read, further rows are nearly free; where the batch is bound by
    arithmetic, each costs its share (the roofline argument of Leviathan et al. 2023, section 3.3,
    and TurboSpec/SmartSpec, Liu et al. 2024).
    """

    def __init__(self, seconds: Seconds, tree: Tree, slack: float) -> None:
        self.seconds, self.tree, self.slack = seconds, tree, slack
        self._cached = lru_cache(maxsize=65_536)(self._cap)

    def __call__(self, batch: int, mean_context: float) -> int:
        return self._cached(batch, rounded(mean_context))

    def _cap(self, batch: int, context: int) -> int:
        limit = (1.0 + self.slack) * self.seconds(batch, batch, 0, batch * context)
        for width in range(1, self.tree.levels + 1):
            rows = batch * (1 + self.tree.nodes[width])
            if self.seconds(batch, rows, 0, batch * context) > limit:
                return width - 1
        return self.tree.levels


class ByGoodput:
    """The width with the most expected committed tokens per second; the least of equal ones.

    *committed* are the tokens that a step of width 0, 1, 2, ... commits on average. This is the
    objective of SmartSpec (Liu et al. 2024, "Optimizing Speculative Decoding for Serving Large
    Language Models Using Goodput").
    """

    # Model: the controller knows the mean acceptance of the scenario, where a real one estimates
    # it from the last steps; it does not know the rates of the requests that are in the batch.

    def __init__(self, seconds: Seconds, tree: Tree, committed: Sequence[float]) -> None:
        self.seconds, self.tree, self.committed = seconds, tree, tuple(committed)
        self._cached = lru_cache(maxsize=65_536)(self._cap)

    def __call__(self, batch: int, mean_context: float) -> int:
        return self._cached(batch, rounded(mean_context))

    def _cap(self, batch: int, context: int) -> int:
        best, width = 0.0, 0
        for levels, tokens in enumerate(self.committed):
            rows = batch * (1 + self.tree.nodes[levels])
            rate = batch * tokens / self.seconds(batch, rows, levels, batch * context)
            if rate > best:
                best, width = rate, levels
        return width
