"""The device's slots as the host knows them: who sits where, with which pages.

The host decides and the device computes, but the commit of a step runs on the device: it emits,
gives pages back and takes new ones. What it does depends on nothing that the host does not know,
so the host does the same on its side, and tells the device only what changes between two steps.
"""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import numpy as np

    from .blocks import Pages
    from .request import Request

HEADER, RECORD = 8, 8
"""Words of a packet's head, and of the fixed part of a slot's record."""
IDLE = -1


class Slots:
    """*count* slots over *pages*; a step puts *new_tokens* tokens of each through the model.

    Requests move to lower slots where a step over fewer of them (`sizes`) would do.
    """

    def __init__(
        self,
        pages: Pages,
        count: int,
        page_tokens: int,
        new_tokens: int = 1,
        sizes: Sequence[int] | None = None,
    ) -> None:
        self.pages, self.count = pages, count
        self.page_tokens, self.new_tokens = page_tokens, new_tokens
        self.sizes = tuple(sizes or range(1, count + 1))
        self.holders: list[Request | None] = [None] * count
        self.active = 0
        self.changed: set[int] = set()
        self._told = (0, pages.count)  # head and tail that the device has

    # ---------------------------------------------------------------------------- membership
    def reserve(self, request: Request, tokens: int) -> list[int]:
        """Pages for *tokens* tokens of *request*, beside those it has."""
        more = -(-tokens // self.page_tokens) - len(request.pages)
        if more > 0:
            request.pages += self.pages.take(more)
        return request.pages

    def place(self, request: Request) -> None:
        """*request* decodes from the next step on."""
        self.reserve(request, request.context_tokens + self.new_tokens)
        slot = self.holders.index(None)
        self.holders[slot], request.slot = request, slot
        self.active += 1
        self.changed.add(slot)

    def release(self, request: Request) -> None:
        """*request* leaves, and its pages are free."""
        if request.slot >= 0:
            self._vacate(request)
        self.pages.give(request.pages)
        request.pages = []

    def _vacate(self, request: Request) -> None:
        self.holders[request.slot] = None
        self.changed.add(request.slot)
        request.slot = -1
        self.active -= 1

    def size(self) -> int:
        """Slots of the next step: the least of `sizes` that holds everybody, moved if need be."""
        size = next(size for size in self.sizes if size >= self.active)
        holders = self.holders
        for slot in range(size, self.count):
            request = holders[slot]
            if request is not None:
                hole = holders.index(None)
                holders[hole], holders[slot], request.slot = request, None, hole
                self.changed |= {hole, slot}
        return size

    # ---------------------------------------------------------------------------- the device's
    def commit(self, emitted: Sequence[int]) -> list[Request]:
        """What the device's commit does with *emitted* tokens of each slot's request.

        Called before the requests count them; returns those who sat there, in order of slot.
        """
        size, new, pages = self.page_tokens, self.new_tokens, self.pages
        here, wants = [], []
        for slot, count in enumerate(emitted):
            request = self.holders[slot]
            if request is None:
                continue
            here.append(request)
            held = request.pages
            if count == request.output_tokens - request.generated:
                pages.give(held)
                request.pages = []
                self.holders[slot] = None
                request.slot = -1
                self.active -= 1
                continue
            length = request.prompt_tokens + request.generated - 1 + count
            needed = (length + new - 1) // size + 1
            if needed < len(held):
                pages.give(held[needed:])
                del held[needed:]
            elif needed > len(held):
                wants.append((request, needed - len(held)))
        for request, count in wants:
            request.pages += pages.take(count)
        self._told = (pages.head, pages.tail)
        return here

    @property
    def dirty(self) -> bool:
        """Whether the device has to be told of something before its next step."""
        return bool(self.changed) or self._told != (self.pages.head, self.pages.tail)

    def packet(self, out: np.ndarray[Any, Any]) -> int:
        """Writes what changed to *out* (int32); words written.

        Words: slots n, the ring's head and tail, pushed pages p and where they begin, words in all;
        then p pages; n offsets; and at each offset slot, length, remaining, pages, input token,
        request, unused, unused, then the pages.
        """
        pages = self.pages
        # What was given and taken again since is no longer among the free ones.
        count = min(pages.tail - self._told[1], len(pages.free))
        pushed = [*islice(reversed(pages.free), count)][::-1]
        first = pages.tail - count
        changed = sorted(self.changed)
        at = HEADER + len(pushed)
        out[HEADER:at] = pushed
        offsets, at = at, at + len(changed)
        for i, slot in enumerate(changed):
            out[offsets + i] = at
            at = self._record(out, at, slot)
        out[:6] = (
            len(changed),
            _word(pages.head),
            _word(pages.tail),
            len(pushed),
            _word(first),
            at,
        )
        self.changed.clear()
        self._told = (pages.head, pages.tail)
        return at

    def _record(self, out: np.ndarray[Any, Any], at: int, slot: int) -> int:
        request = self.holders[slot]
        if request is None:
            out[at : at + RECORD] = (slot, IDLE, 0, 0, 0, IDLE, 0, 0)
            return at + RECORD
        held = request.pages
        out[at : at + RECORD] = (
            slot, request.context_tokens, request.wanted, len(held), request.tokens[-1],
            request.id, 0, 0,
        )  # fmt: skip
        out[at + RECORD : at + RECORD + len(held)] = held
        return at + RECORD + len(held)

    def lost(self, others: Iterable[Request] = ()) -> int:
        """Pages that neither the ring nor a request holds, or that are held twice."""
        held = [request.pages for request in self.holders if request is not None]
        held += [request.pages for request in others if request.slot < 0]
        all_of_them = [*self.pages.free, *(page for pages in held for page in pages)]
        return abs(len(all_of_them) - self.pages.count) + self.pages.count - len(set(all_of_them))


def _word(count: int) -> int:
    """A counter of the device as an int32."""
    count &= 0xFFFFFFFF
    return count - (1 << 32) if count >= 1 << 31 else count
