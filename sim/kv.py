"""KV memory in HBM: a budget of blocks that is never exceeded, not for an instant.

A block is `block_tokens` tokens of all layers of one sequence. Which block is whose follows from
lengths, so the pool is an account and not a list.
"""

from __future__ import annotations

from itertools import accumulate
from operator import sub
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


class BlockPool:
    """Blocks of one tier. *capacity* in blocks, *block_tokens* tokens a block."""

    __slots__ = ("allocated", "block_tokens", "capacity", "freed", "peak")

    def __init__(self, capacity: int, block_tokens: int) -> None:
        self.capacity = capacity
        self.block_tokens = block_tokens
        self.allocated = 0
        self.freed = 0
        self.peak = 0

    @property
    def used(self) -> int:
        """Blocks that hold KV now."""
        return self.allocated - self.freed

    @property
    def free(self) -> int:
        """Blocks that can be taken now."""
        return self.capacity - self.allocated + self.freed

    def blocks(self, tokens: int) -> int:
        """Blocks that *tokens* tokens of one sequence occupy."""
        return -(-tokens // self.block_tokens)

    def take(self, blocks: int) -> None:
        """Allocates *blocks*; the caller has checked that they are free."""
        self.allocated += blocks
        used = self.allocated - self.freed
        assert used <= self.capacity, f"HBM overfilled: {used} of {self.capacity} blocks"
        if used > self.peak:
            self.peak = used

    def pass_through(self, taken: Sequence[int], returned: Sequence[int]) -> list[int]:
        """Consecutive iterations take blocks before they run and give some back after it.

        Returns by how many blocks each, while it runs, differs from the one before.
        """
        changes = list(map(sub, taken, (0, *returned)))
        most = max(accumulate(changes)) if len(changes) > 1 else changes[0]
        self.take(most)  # the fullest of them; the others are below it
        self.allocated += sum(taken) - most
        self.give_back(sum(returned))
        return changes

    def give_back(self, blocks: int) -> None:
        """Frees *blocks*."""
        self.freed += blocks
        assert self.freed <= self.allocated, "more blocks freed than allocated"
