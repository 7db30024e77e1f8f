"""What `trace inspect` keeps of a trace: one pass over its chunks, in bounded memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .curve import Curve, References
from .lengths import Lengths, Pairs
from .reuse import Reuse
from .sessions import Sessions
from .times import Gaps, Hours, Timeline, Windows

if TYPE_CHECKING:
    from sim.trace.chunk import Chunk

CAPACITIES_BLOCKS = tuple(m * 10**k for k in range(2, 8) for m in (1, 2, 5))
_WINDOWS_S = (1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0)


class Inspection:
    """Takes a trace chunk by chunk; tables, pictures and comparisons are made from what it keeps.

    Time stamps on a grid are to be spread first (`transforms.dither`), or gaps and windows shorter
    than its step measure the grid.
    """

    def __init__(self, block_tokens: int = 512) -> None:
        self.requests = 0
        self.duration_s = 0.0
        self.prompt = Lengths()
        self.output = Lengths()
        self.pairs = Pairs()
        self.gaps = Gaps()
        self.windows = [Windows(size) for size in _WINDOWS_S]
        self.hours = Hours()
        self.timeline = Timeline(5)  # requests, blocks, hits, prompt tokens, output tokens
        self.reuse = Reuse(block_tokens)
        self.references = References()
        self.sessions = Sessions()
        self._curve: Curve | None = None
        self._bound: dict[int, float] | None = None

    def add(self, chunk: Chunk) -> None:
        """Take the next requests."""
        if not len(chunk):
            return
        self._curve = self._bound = None
        self.duration_s = float(chunk.arrival_s[-1])
        self.prompt.add(chunk.prompt_tokens)
        self.output.add(chunk.output_tokens)
        self.pairs.add(chunk.prompt_tokens, chunk.output_tokens)
        arrival_s = chunk.arrival_s
        self.gaps.add(arrival_s)
        for windows in self.windows:
            windows.add(arrival_s)
        self.hours.add(arrival_s)
        blocks = hits = np.zeros(len(chunk), dtype=np.int64)
        if chunk.block_ids is not None and len(chunk.block_ids.values):
            blocks, hits = self.reuse.add(chunk.block_ids, chunk.prompt_tokens)
            self.references.add(chunk.block_ids, arrival_s)
        ones = np.ones(len(chunk), dtype=np.int64)
        self.timeline.add(arrival_s, ones, blocks, hits, chunk.prompt_tokens, chunk.output_tokens)
        if chunk.links is not None:
            self.sessions.add(chunk, self.requests)
        self.requests += len(chunk)

    @property
    def mean_rate_per_s(self) -> float | None:
        """Requests a second; None where all come at once."""
        return (self.requests - 1) / self.duration_s if self.duration_s else None

    def dispersion(self, least: int = 2) -> dict[float, float]:
        """Window size in s to index of dispersion, where there are *least* windows."""
        found = {w.size_s: w.dispersion(self.duration_s, least) for w in self.windows}
        return {size: value for size, value in found.items() if value is not None}

    def empty_windows(self) -> dict[float, float]:
        """Window size in s to the share of whole windows without a request."""
        found = {w.size_s: w.empty_share(self.duration_s) for w in self.windows}
        return {size: value for size, value in found.items() if value is not None}

    @property
    def on_off(self) -> bool:
        """Whether the traffic stops at times: far more empty 10 s windows than Poisson's.

        Model: on/off where over a tenth of them is empty and over twice as many as with Poisson
        arrivals of this rate (Azure's code trace: 56 % and none; its conversations: 0 %).
        """
        empty = self.empty_windows().get(10.0, 0.0)
        poisson = float(np.exp(-10.0 * (self.mean_rate_per_s or 0.0)))
        return empty > max(0.1, 2 * poisson)

    def curve(self) -> Curve | None:
        """Hit rates by cache size; None without block ids."""
        if not self.references.count:
            return None
        if self._curve is None:
            self._curve = self.references.curve(self.reuse.misses if self.reuse.exact else None)
        return self._curve

    def shown_capacities(self) -> list[int]:
        """Cache sizes from 100 blocks on, to the first that is as good as an infinite one."""
        curve = self.curve()
        largest = float(curve.distances[-1]) if curve and len(curve.distances) else 0.0
        needed = int(np.searchsorted(CAPACITIES_BLOCKS, largest)) + 1
        # the three that traces are compared at are always there
        return list(CAPACITIES_BLOCKS[: max(needed, CAPACITIES_BLOCKS.index(100_000) + 1)])

    def bound(self) -> dict[int, float] | None:
        """Belady's bound by `shown_capacities`; None where it would take too long."""
        if self._bound is None and self.references.count:
            sizes = self.shown_capacities()
            rates = self.references.bound(sizes)
            self._bound = None if rates is None else dict(zip(sizes, rates, strict=True))
        return self._bound
