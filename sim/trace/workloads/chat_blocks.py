"""Prefix block ids for generated chats: prompts that extend earlier prompts.

One rule: the lengths are given, and a request only finds a fitting parent; so the sessions never
change the distribution of lengths. Memory is bounded: old prompts are forgotten.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from . import runs

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from sim.trace.ragged import Ragged

BLOCK_TOKENS = 512
_REACH = 12  # how far from the wanted length a parent may be, in blocks
_KEPT = 64  # prompts remembered for each length in blocks


@dataclass(frozen=True, slots=True)
class Chats:
    """How prompts continue earlier ones.

    `common_block` whether all begin with the same block. `continues` the share that continues an
    earlier prompt, by its blocks: (blocks below, share). Of those `short_turn` add one or two
    blocks, one in `one_block` of them; the others any number up to the whole, a new document say.
    `gap_s` the time from the parent to the continuation at the shares `gap_share`.
    """

    common_block: bool
    continues: tuple[tuple[int, float], ...]
    short_turn: float
    one_block: float
    gap_share: tuple[float, ...]
    gap_s: tuple[float, ...]


# Model: measured on the Mooncake FAST'25 conversation trace (12,031 requests).
MOONCAKE = Chats(
    common_block=True,
    continues=(
        *((3, 0.02), (4, 0.18), (6, 0.51), (9, 0.45), (13, 0.32), (18, 0.43), (24, 0.50)),
        *((70, 0.515), (110, 0.41), (10**9, 0.40)),
    ),
    short_turn=0.60,
    one_block=0.35,
    gap_share=(0.0, 0.01, 0.05, 0.10, 0.25, 0.50, 0.75, 0.90, 0.95, 0.99, 1.0),
    gap_s=(6.0, 12.0, 30.0, 42.0, 66.0, 123.0, 264.0, 483.0, 615.0, 1477.0, 3030.0),
)


class ChatBlocks:
    """Gives each request its block ids: dense from 0, in order of first appearance."""

    def __init__(self, chats: Chats = MOONCAKE) -> None:
        self._chats = chats
        self._start: tuple[runs.Run, ...] = ((0, 1),) if chats.common_block else ()
        self._next_id = len(self._start)
        self._times: dict[int, list[float]] = {}
        self._runs: dict[int, list[tuple[runs.Run, ...]]] = {}

    def assign(
        self,
        arrival_s: NDArray[np.float64],
        prompt_tokens: NDArray[np.int64],
        draws: NDArray[np.float64],
    ) -> Ragged:
        """The ids of requests in order of arrival; *draws* is uniform in [0, 1), shape [n, 3]."""
        blocks = -(-prompt_tokens // BLOCK_TOKENS)
        chats = self._chats
        edges, shares = zip(*chats.continues, strict=True)
        continues = draws[:, 0] < np.take(shares, np.searchsorted(edges, blocks, side="right"))
        added = np.minimum(_added(chats, blocks, draws[:, 1]), blocks - 1)
        wanted = np.where(continues & (blocks > 2), blocks - added + 1, 0)
        since = arrival_s - np.interp(draws[:, 2], chats.gap_share, chats.gap_s)
        columns = (arrival_s.tolist(), blocks.tolist(), wanted.tolist(), since.tolist())
        return runs.ragged([self._request(*row) for row in zip(*columns, strict=True)])

    def _request(self, now: float, blocks: int, wanted: int, since: float) -> tuple[runs.Run, ...]:
        shared, ids = len(self._start), self._start
        found = self._parent(now, wanted, since) if wanted else None
        if found is not None:
            # a parent's last block is partial, so it is never the same block in the longer prompt
            shared = min(found[0], blocks) - 1
            ids = runs.cut(found[1], shared)
        if blocks > shared:
            ids = (*ids, (self._next_id, blocks - shared))
            self._next_id += blocks - shared
        self._remember(now, blocks, ids)
        return ids

    def _parent(
        self, now: float, wanted: int, since: float
    ) -> tuple[int, tuple[runs.Run, ...]] | None:
        """Take the prompt of about *wanted* blocks that came closest to the time *since*."""
        latest = now - self._chats.gap_s[0]
        for length in _around(wanted):
            times = self._times.get(length)
            if not times or times[0] > latest:
                continue
            at = bisect_left(times, since)
            if at == len(times) or times[at] > latest:
                at -= 1
            at = max(at, 0)
            times.pop(at)
            return length, self._runs[length].pop(at)
        return None

    def _remember(self, now: float, blocks: int, ids: tuple[runs.Run, ...]) -> None:
        times = self._times.setdefault(blocks, [])
        known = self._runs.setdefault(blocks, [])
        times.append(now)
        known.append(ids)
        if len(times) > _KEPT:
            del times[0], known[0]


def _added(chats: Chats, blocks: NDArray[np.int64], draw: NDArray[np.float64]) -> NDArray[np.int64]:
    """New blocks of a continuation."""
    short = np.where(draw < chats.short_turn * chats.one_block, 1, 2)
    if chats.short_turn >= 1:
        return short
    long_turn = (draw - chats.short_turn) / (1 - chats.short_turn)
    return np.where(draw < chats.short_turn, short, (long_turn * blocks).astype(np.int64) + 1)


def _around(length: int) -> Sequence[int]:
    """*length* and its neighbours, the nearest first."""
    return _AROUND.get(length) or _neighbours(length)


def _neighbours(length: int) -> Sequence[int]:
    steps = [length]
    for away in range(1, _REACH + 1):
        steps += [length + away, length - away]
    return tuple(step for step in steps if step > 1)


_AROUND = {length: _neighbours(length) for length in range(256)}
