"""How many blocks and tokens a policy selects of a context, and how many things it scores.

The one rule: integers in, integers out, and what an explicit selection over scores
(`sparse/choose.py`) has is what is counted here. *context* counts the KV entries of a request,
those that the step appends included; *rows* of them are the step's own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from .numbers import N, blocks, least, most

if TYPE_CHECKING:
    from sim.sparsity import Policy


@dataclass(frozen=True, slots=True)
class Sizes:
    """Sizes in blocks; a policy that has no use for one has 0 there."""

    select: Policy
    block_tokens: int
    sink: int = 0
    recent: int = 0
    units: int = 0
    """Things selected by score: blocks, or clusters."""
    unit: int = 1
    """Blocks of one of them."""

    @property
    def budget(self) -> int:
        """Blocks of a selection whose step has no more new tokens than fit into `recent`."""
        return self.sink + self.recent + self.units * self.unit

    def total(self, context: N) -> N:
        """Blocks that there are."""
        return blocks(context, self.block_tokens)

    def apart(self, context: N, rows: N | int = 1) -> N:
        """Blocks that are selected whatever they score: sink, recent, and those of new tokens."""
        # Model: the newest block is always read, however few tokens it has, and so is every block
        # that the step writes to; `kernels/topk_select` does the same.
        new = self.total(context) - (context - rows) // self.block_tokens
        sure: N = self.sink + most(new, self.recent)
        return sure

    def chosen(self, context: N, rows: N | int = 1) -> N:
        """Blocks that are read."""
        total = self.total(context)
        if self.select == "dense":
            return total
        budget: N = total * 0 + self.units
        if self.select != "recency":
            budget = self.apart(context, rows) + self.units * self.unit
        chosen: N = least(total, budget)
        return chosen

    def attended(self, context: N, rows: N | int = 1) -> N:
        """Tokens that are read: whole blocks, and what the newest has."""
        size = self.block_tokens
        gap = self.total(context) * size - context
        if self.select == "recency":
            gap = gap * (self._before_newest(context) < self.units)
        attended: N = self.chosen(context, rows) * size - gap
        return attended

    def _before_newest(self, context: N) -> N:
        """Full blocks that the seeds' rule puts before a newest block that is partly filled.

        A full block that ends d tokens before the head scores 10000 B - 100 d, one with k tokens
        at the head 10000 k, so it is behind only from d > 100 (B - k) on.
        """
        size = self.block_tokens
        full = context // size
        tokens = context - full * size
        before: N = least(full, (100 * (size - tokens) - tokens) // size + 1)
        return before

    def pool(self, context: N, rows: N | int = 1) -> N:
        """Units that the choice by score is made from."""
        rest = self.total(context) - self.apart(context, rows)
        pool: N = most(blocks(rest, self.unit), 0)
        return pool

    def scored(self, context: N, rows: N | int = 1) -> N:
        """Things whose keys' summary is read to score them; none where there is no choice."""
        total = self.total(context)
        if self.select not in ("topk", "cluster"):
            return total * 0
        # Model: nothing is scored when everything is selected, as vLLM and SGLang do. Blocks are
        # scored all, the sure ones too, since the kernel's grid is over blocks; centroids exist
        # only of what is between sink and recent.
        things = total if self.select == "topk" else self.pool(context, rows)
        choice = total > self.apart(context, rows) + self.units * self.unit
        return things * choice
