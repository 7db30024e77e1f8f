"""Prefix block ids for generated requests: chat sessions whose prompts extend earlier prompts.

One rule: the lengths are given, and a request only finds a fitting parent; so the sessions never
change the distribution of lengths. Memory is bounded: old prompts are forgotten.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING

import numpy as np

from .ragged import Ragged

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

BLOCK_TOKENS = 512
# Model: measured on the Mooncake FAST'25 conversation trace (12,031 requests). All requests share
# the first block. The share that continues an earlier prompt by its blocks: (blocks below, share).
_CONTINUES = (
    *((3, 0.02), (4, 0.18), (6, 0.51), (9, 0.45), (13, 0.32), (18, 0.43), (24, 0.50)),
    *((70, 0.515), (110, 0.41), (10**9, 0.40)),
)
# Model: of those, this share adds one or two blocks (a turn of chat, 1 block in 0.35 of them); the
# others, a new document say, add any number up to the whole.
_SHORT_TURN = 0.60
_ONE_BLOCK = 0.35
# Model: time from the parent to the continuation, s, at the shares below (same trace).
_GAP_SHARE = (0.0, 0.01, 0.05, 0.10, 0.25, 0.50, 0.75, 0.90, 0.95, 0.99, 1.0)
_GAP_S = (6.0, 12.0, 30.0, 42.0, 66.0, 123.0, 264.0, 483.0, 615.0, 1477.0, 3030.0)
_REACH = 12  # how far from the wanted length a parent may be, in blocks
_KEPT = 64  # prompts remembered for each length in blocks


class Sessions:
    """Gives each request its block ids: dense from 0, in order of first appearance."""

    def __init__(self) -> None:
        self._next_id = 1  # 0 is the block that all prompts begin with
        self._times: dict[int, list[float]] = {}
        self._ids: dict[int, list[tuple[int, ...]]] = {}

    def assign(
        self,
        arrival_s: NDArray[np.float64],
        prompt_tokens: NDArray[np.int64],
        draws: NDArray[np.float64],
    ) -> Ragged:
        """The ids of requests in order of arrival; *draws* is uniform in [0, 1), shape [n, 3]."""
        blocks = -(-prompt_tokens // BLOCK_TOKENS)
        edges, shares = zip(*_CONTINUES, strict=True)
        continues = draws[:, 0] < np.take(shares, np.searchsorted(edges, blocks, side="right"))
        added = np.minimum(_added(blocks, draws[:, 1]), blocks - 1)
        wanted = np.where(continues & (blocks > 2), blocks - added + 1, 0)
        since = arrival_s - np.interp(draws[:, 2], _GAP_SHARE, _GAP_S)
        columns = (arrival_s.tolist(), blocks.tolist(), wanted.tolist(), since.tolist())
        return Ragged.of(self._request(*row) for row in zip(*columns, strict=True))

    def _request(self, now: float, blocks: int, wanted: int, since: float) -> tuple[int, ...]:
        prefix = self._parent(now, wanted, since) if wanted else ()
        # a parent's last block is partial, so it is never the same block in the longer prompt
        shared = prefix[: min(len(prefix) - 1, blocks - 1)] if len(prefix) > 1 else (0,)
        fresh = blocks - len(shared)
        ids = shared + tuple(range(self._next_id, self._next_id + fresh))
        self._next_id += fresh
        self._remember(now, ids)
        return ids

    def _parent(self, now: float, wanted: int, since: float) -> tuple[int, ...]:
        """Take the prompt of about *wanted* blocks that came closest to the time *since*."""
        for length in _around(wanted):
            times = self._times.get(length)
            if not times or times[0] > now - _GAP_S[0]:
                continue
            at = bisect_left(times, since)
            if at == len(times) or times[at] > now - _GAP_S[0]:
                at -= 1
            if at < 0:
                at = 0
            times.pop(at)
            return self._ids[length].pop(at)
        return ()

    def _remember(self, now: float, ids: tuple[int, ...]) -> None:
        times = self._times.setdefault(len(ids), [])
        known = self._ids.setdefault(len(ids), [])
        times.append(now)
        known.append(ids)
        if len(times) > _KEPT:
            del times[0], known[0]


def _added(blocks: NDArray[np.int64], draw: NDArray[np.float64]) -> NDArray[np.int64]:
    """New blocks of a continuation."""
    long_turn = (draw - _SHORT_TURN) / (1 - _SHORT_TURN)
    short = np.where(draw < _SHORT_TURN * _ONE_BLOCK, 1, 2)
    return np.where(draw < _SHORT_TURN, short, (long_turn * blocks).astype(np.int64) + 1)


def _around(length: int) -> Sequence[int]:
    """*length* and its neighbours, the nearest first."""
    return _AROUND.get(length) or _neighbours(length)


def _neighbours(length: int) -> Sequence[int]:
    steps = [length]
    for away in range(1, _REACH + 1):
        steps += [length + away, length - away]
    return tuple(step for step in steps if step > 1)


_AROUND = {length: _neighbours(length) for length in range(256)}
