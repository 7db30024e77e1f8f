"""What the control does to slots, pages and tokens, in NumPy: the specification of every mode."""

from __future__ import annotations

from collections import deque
from typing import Any

import numpy as np

Ints = np.ndarray[Any, Any]


class Reference:
    """Slots of one replica; the arrays mean what `state.State` says. Greedy verification."""

    def __init__(self, arrays: dict[str, Ints], new_tokens: int, page_tokens: int) -> None:
        slots = arrays["remaining"].size
        self.lengths = arrays["slab"][:slots].copy()
        head, tail = arrays["slab"][slots : slots + 2]
        ring = arrays["ring"]
        self.free = deque(int(ring[i % ring.size]) for i in range(head, tail))
        self.remaining = arrays["remaining"].copy()
        max_pages = arrays["table"].shape[1]
        self.rows = [
            [int(page) for page in row[:count]]
            for row, count in zip(arrays["table"], arrays["page_counts"], strict=True)
        ]
        self.request = arrays["request"][0].astype(np.int64)
        self.waiting: deque[tuple[int, int, int]] = deque()
        self.new_tokens, self.page_tokens, self.max_pages = new_tokens, page_tokens, max_pages

    def serve(self) -> None:
        """Admits who waits (request, length, remaining), in order, to the lowest idle slots."""
        for slot in np.flatnonzero(self.lengths == -1):
            if not self.waiting:
                return
            request, length, remaining = self.waiting[0]
            needed = self._pages(length)
            if needed > len(self.free):
                return
            self.waiting.popleft()
            self.rows[slot] = [self.free.popleft() for _ in range(needed)]
            self.lengths[slot], self.remaining[slot] = length, remaining
            self.request[slot] = request

    def cancel(self, request: int) -> None:
        """Ends *request*, running or waiting."""
        self.waiting = deque(entry for entry in self.waiting if entry[0] != request)
        for slot in np.flatnonzero(self.request == request):
            self.free.extend(self.rows[slot])
            self.rows[slot], self.lengths[slot] = [], -1
            self.request[slot] = 0xFFFFFFFF

    def step(self, best: Ints, draft: Ints) -> dict[int, list[int]]:
        """Verifies and commits one step; what each request emitted.

        *best* [B, T] is the arg-max of each row of logits, *draft* [B, T - 1] what was proposed.
        """
        emitted: dict[int, list[int]] = {}
        wanted = [0] * len(self.lengths)
        for b, length in enumerate(self.lengths):
            if length == -1:
                continue
            if length >= 0:
                matches = best[b, :-1] == draft[b]
                accepted = int(matches.cumprod().sum())
                count = min(accepted + 1, int(self.remaining[b]))
                emitted[int(self.request[b])] = [int(token) for token in best[b, :count]]
                self.remaining[b] -= count
                length += count
            else:
                length = -2 - length
            needed = self._pages(length) if self.remaining[b] > 0 else 0
            self.free.extend(self.rows[b][needed:])
            del self.rows[b][needed:]
            self.lengths[b] = length if self.remaining[b] > 0 else -1
            if needed > self.max_pages:
                self.lengths[b] = -2 - length
            else:
                wanted[b] = needed - len(self.rows[b])
            if self.lengths[b] == -1:
                self.request[b] = 0xFFFFFFFF
        available = len(self.free)
        for b, end in enumerate(np.cumsum(wanted)):
            if wanted[b] and end > available:
                self.lengths[b] = -2 - self.lengths[b]
            elif wanted[b]:
                self.rows[b] += [self.free.popleft() for _ in range(wanted[b])]
        return emitted

    def _pages(self, length: int) -> int:
        return -(-(length + self.new_tokens) // self.page_tokens)
