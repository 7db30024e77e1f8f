"""KV memory twice: the account that decides who may run, and the pages that hold the keys.

The account counts blocks as the scheduler's rules say, a decoding request's next block when the
step that fills it begins. The pages are the device's: its commit takes the next page at the end of
the step before, so that there are a few more of them than blocks (`slack`).
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


class Account:
    """*capacity* blocks of *block_tokens* tokens."""

    __slots__ = ("block_tokens", "capacity", "peak", "used")

    def __init__(self, capacity: int, block_tokens: int) -> None:
        self.capacity, self.block_tokens = capacity, block_tokens
        self.used = self.peak = 0

    @property
    def free(self) -> int:
        """Blocks that can be taken."""
        return self.capacity - self.used

    def blocks(self, tokens: int) -> int:
        """Blocks of *tokens* tokens of one request."""
        return -(-tokens // self.block_tokens)

    def take(self, blocks: int) -> None:
        """Takes *blocks*, which are free; a negative number gives some back."""
        self.used += blocks
        if not 0 <= self.used <= self.capacity:
            raise AssertionError(f"{self.used} of {self.capacity} blocks in use")
        self.peak = max(self.peak, self.used)


class Pages:
    """The device's ring of free pages, as the host knows it: what it pops and pushes, in order.

    `head` and `tail` count pops and pushes since the ring was filled, as the device's words do.
    """

    __slots__ = ("count", "free", "head", "tail")

    def __init__(self, order: Iterable[int]) -> None:
        self.free = deque(order)
        self.count = len(self.free)
        self.head, self.tail = 0, self.count

    def take(self, count: int) -> list[int]:
        """The next *count* pages; raises `AssertionError` if there are too few."""
        if count > len(self.free):
            raise AssertionError(f"{count} pages wanted, {len(self.free)} free")
        self.head += count
        pop = self.free.popleft
        return [pop() for _ in range(count)]

    def give(self, pages: list[int]) -> None:
        """*pages* are free again."""
        self.tail += len(pages)
        self.free.extend(pages)


def slack(slots: int, new_tokens: int, page_tokens: int) -> int:
    """Pages beyond the account's blocks that *slots* requests may hold ahead of it."""
    return slots * (1 + -(-new_tokens // page_tokens))
