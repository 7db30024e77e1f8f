"""The shape of sessions while a trace streams by: turns, gaps, forks, joins, growth of prompts.

One rule: memory grows with the sessions (their names and a few numbers each), and by a byte a
request, never with the block ids: of those only the latest prompts are kept.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .lengths import Lengths
from .prompts import MOST_IDS, Prompts
from .spread import Spread

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sim.trace.chunk import Chunk, Links

_SHARES = 200  # bins of the share of a prompt that extends the one before


class Sessions:
    """Takes chunks that have links."""

    def __init__(self) -> None:
        self.delay_s = Spread()
        self.gap_s = Spread()
        self.growth = Spread()
        self._numbers: dict[str, int] = {}
        self._turns = np.zeros(0, dtype=np.int64)  # by session
        self._first_s = np.zeros(0)
        self._last_s = np.zeros(0)
        self._last = np.zeros(0, dtype=np.int64)  # position of the latest turn
        self._awaited = np.zeros(0, dtype=np.uint8)  # by position: requests that wait for it
        self._prompts = Prompts()
        self._requests = self._alone = self._waiting = self._joins = 0
        self._later = self._shrinks = self._known = 0  # turns with one before; its prompt known
        self._blocks = self._common = self._whole = 0
        self._shares = np.zeros(_SHARES + 1, dtype=np.int64)

    def add(self, chunk: Chunk, first: int) -> None:
        """Take the next requests, the first of which is at position *first* of the trace."""
        ids = chunk.block_ids
        if ids is not None and len(ids.values) > MOST_IDS and len(chunk) > 1:
            middle = len(chunk) // 2  # never many more prompts at once than are kept
            self.add(chunk.part(0, middle), first)
            self.add(chunk.part(middle, len(chunk)), first + middle)
            return
        links = chunk.links
        assert links is not None
        self._requests += len(chunk)
        self._wait(links, first)
        numbers = self._number(links.session)
        when = np.where(np.isnan(links.recorded_s), chunk.arrival_s, links.recorded_s)
        before = self._before(numbers, when, first)
        self._grow(chunk, first, before)

    def _wait(self, links: Links, first: int) -> None:
        waits = links.after.lengths
        self._waiting += int((waits > 0).sum())
        self._joins += int((waits > 1).sum())
        delays = links.delay_s[waits > 0]
        self.delay_s.add(delays[np.isfinite(delays)])
        need = first + len(waits)
        self._awaited = _grown(self._awaited, need)
        if len(links.after.values):
            positions, counts = np.unique(links.after.values, return_counts=True)
            counts = np.minimum(counts + self._awaited[positions], 255)
            self._awaited[positions] = counts.astype(np.uint8)

    def _number(self, names: list[str]) -> NDArray[np.int64]:
        """The number of each request's session, -1 for none."""
        known = self._numbers
        found = [known.setdefault(name, len(known)) if name else -1 for name in names]
        count = len(known)
        new = count - len(self._turns)
        if new:
            self._turns = np.concatenate([self._turns, np.zeros(new, dtype=np.int64)])
            self._first_s = np.concatenate([self._first_s, np.full(new, np.inf)])
            self._last_s = np.concatenate([self._last_s, np.full(new, -np.inf)])
            self._last = np.concatenate([self._last, np.full(new, -1)])
        return np.array(found, dtype=np.int64)

    def _before(
        self, numbers: NDArray[np.int64], when: NDArray[np.float64], first: int
    ) -> NDArray[np.int64]:
        """The position of the turn before each in its session, or -1; counts the turns."""
        self._alone += int((numbers < 0).sum())
        order = np.argsort(numbers, kind="stable")
        order = order[numbers[order] >= 0]
        before = np.full(len(numbers), -1, dtype=np.int64)
        if not len(order):
            return before
        of = numbers[order]
        heads = np.flatnonzero(np.diff(of, prepend=-1))
        earlier = np.concatenate([[-1], order[:-1] + first])
        at_s = when[order]
        since = np.concatenate([[0.0], at_s[:-1]])
        earlier[heads], since[heads] = self._last[of[heads]], self._last_s[of[heads]]
        before[order] = earlier
        self.gap_s.add((at_s - since)[earlier >= 0])
        tails = np.append(heads[1:], len(order)) - 1
        self._last[of[tails]] = order[tails] + first
        self._turns += np.bincount(of, minlength=len(self._turns))
        # recorded times may go back where the order is that of earliest times
        np.minimum.at(self._first_s, of, at_s)
        np.maximum.at(self._last_s, of, at_s)
        return before

    def _grow(self, chunk: Chunk, first: int, before: NDArray[np.int64]) -> None:
        """Compare each prompt with that of the request it waits for, or of the turn before."""
        assert chunk.links is not None
        after = chunk.links.after
        alone = np.flatnonzero((after.lengths == 0) & (before >= 0))
        rows = np.concatenate([np.repeat(np.arange(len(chunk)), after.lengths), alone])
        positions = np.concatenate([after.values, before[alone]])
        self._later += len(np.unique(rows))
        found = self._prompts.add(chunk, first, rows, positions)
        self._known += len(found.tokens)
        grown = found.tokens - found.tokens_before
        self._shrinks += int((grown < 0).sum())
        self.growth.add(grown[grown >= 0].astype(np.float64))
        there = found.blocks > 0
        shares = found.common[there] / found.blocks[there]
        self._shares += np.bincount((shares * _SHARES).astype(np.int64), minlength=_SHARES + 1)
        self._blocks += int(found.blocks.sum())
        self._common += int(found.common.sum())
        # the last block of the prompt before may have been part of one
        whole = found.common >= np.maximum(1, found.blocks_before - 1)
        self._whole += int(whole[there].sum())

    @property
    def turns(self) -> Lengths:
        """Turns a session."""
        lengths = Lengths()
        lengths.add(self._turns)
        return lengths

    @property
    def concurrent(self) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Times in s at which the number of open sessions changes, and the number from then on.

        A session is open from its first to its last request, whose answer has no length here.
        """
        times = np.concatenate([self._first_s, self._last_s])
        steps = np.repeat([1, -1], len(self._first_s))
        order = np.lexsort((-steps, times))
        return times[order], np.cumsum(steps[order])

    def summary(self) -> dict[str, Any] | None:
        """All figures with their units in the keys; None where no request has a link."""
        if not self._numbers and not self._waiting:
            return None
        count = len(self._turns)
        spans = Spread()
        spans.add(self._last_s - self._first_s)
        whole_s = float(self._last_s.max() - self._first_s.min()) if count else 0.0
        open_now = self.concurrent[1]
        return {
            "sessions": count,
            "requests_in_sessions": self._requests - self._alone,
            "requests_outside_sessions": self._alone,
            "turns_per_session": self.turns.summary() if count else None,
            "one_turn_share": float((self._turns == 1).mean()) if count else None,
            "session_span_s": spans.summary(),
            "mean_concurrent_sessions": spans.mean * count / whole_s if whole_s else None,
            "peak_concurrent_sessions": int(open_now.max()) if count else 0,
            "gap_between_turns_s": self.gap_s.summary(),
            "waiting_share": self._waiting / self._requests,
            "join_share": self._joins / self._requests,
            "fork_share": int((self._awaited > 1).sum()) / self._requests,
            "delay_after_completion_s": self.delay_s.summary(),
            "prompt_growth_tokens": self.growth.summary(),
            "prompt_shrinks_share": self._shrinks / self._known if self._known else None,
            "prompts_compared_share": self._known / self._later if self._later else None,
            "extends": self._extends(),
        }

    def _extends(self) -> dict[str, float] | None:
        count = int(self._shares.sum())
        if not count:
            return None
        ends = np.cumsum(self._shares) / count
        p10, p50 = np.searchsorted(ends, [0.1, 0.5]) / _SHARES
        return {
            "blocks_share": self._common / self._blocks,
            "prompt_share_p10": float(p10),
            "prompt_share_p50": float(p50),
            "whole_prompt_before_share": self._whole / count,
        }


def _grown(array: NDArray[np.uint8], need: int) -> NDArray[np.uint8]:
    """*array* with room for at least *need* values."""
    if need <= len(array):
        return array
    grown = np.zeros(max(need, 2 * len(array)), dtype=np.uint8)
    grown[: len(array)] = array
    return grown
