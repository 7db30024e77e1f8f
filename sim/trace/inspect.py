"""What `trace inspect` says about a trace: one pass over its chunks, then a summary."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .measure import Gaps, Lengths, Timeline, Windows
from .reuse import Reuse

if TYPE_CHECKING:
    from .chunk import Chunk, Tally

WINDOWS_S = (1.0, 10.0, 60.0)  # in the summary
_CURVE_S = (1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0)


class Inspection:
    """Takes a trace chunk by chunk; `summary` and the picture are made from what it keeps."""

    def __init__(self, block_tokens: int = 512) -> None:
        self.requests = 0
        self.duration_s = 0.0
        self.prompt = Lengths()
        self.output = Lengths()
        self.gaps = Gaps()
        self.windows = [Windows(size) for size in _CURVE_S]
        self.timeline = Timeline(3)  # requests, blocks, hits
        self.reuse = Reuse(block_tokens)

    def add(self, chunk: Chunk) -> None:
        """Take the next requests."""
        if not len(chunk):
            return
        self.requests += len(chunk)
        self.duration_s = float(chunk.arrival_s[-1])
        self.prompt.add(chunk.prompt_tokens)
        self.output.add(chunk.output_tokens)
        self.gaps.add(chunk.arrival_s)
        for windows in self.windows:
            windows.add(chunk.arrival_s)
        ones = np.ones(len(chunk), dtype=np.int64)
        blocks = hits = np.zeros(len(chunk), dtype=np.int64)
        if chunk.block_ids is not None:
            blocks, hits = self.reuse.add(chunk.block_ids, chunk.prompt_tokens)
        self.timeline.add(chunk.arrival_s, ones, blocks, hits)

    def dispersion(self, least: int = 2) -> dict[float, float]:
        """Window size in s to index of dispersion, where there are *least* windows."""
        found = {w.size_s: w.dispersion(self.duration_s, least) for w in self.windows}
        return {size: value for size, value in found.items() if value is not None}

    def summary(self, tally: Tally) -> dict[str, Any]:
        """All figures with their units in the keys; None where a trace is too short for one."""
        peaks = {windows.size_s: windows.peak for windows in self.windows}
        dispersion = self.dispersion()
        rate = (self.requests - 1) / self.duration_s if self.duration_s else None
        return {
            "requests": self.requests,
            "duration_s": self.duration_s,
            "mean_rate_per_s": rate,
            "peak_requests_in_1s": peaks[1.0],
            "peak_requests_in_60s": peaks[60.0],
            "inter_arrival_cv": self.gaps.cv,
            "inter_arrival_s": self._gap_quantiles(),
            "inter_arrival_method": "exact" if self.gaps.exact else "histogram, bins of 1.2 %",
            "index_of_dispersion": {f"{size:g}s": dispersion.get(size) for size in WINDOWS_S},
            "prompt_tokens": self.prompt.summary(),
            "output_tokens": self.output.summary(),
            "total_prompt_tokens": self.prompt.total,
            "total_output_tokens": self.output.total,
            "duplicate_times_share": self.gaps.zero / self.requests,
            "prefix": self._prefix(),
            "bad_rows": {"skipped": tally.skipped, "reasons": dict(tally.reasons)},
            "notes": self._notes(tally),
        }

    def _gap_quantiles(self) -> dict[str, float] | None:
        gaps, shares = self.gaps.sorted()
        if not len(gaps):
            return None
        at = np.minimum(np.searchsorted(shares, [0.5, 0.9, 0.99]), len(gaps) - 1)
        p50, p90, p99 = (float(value) for value in gaps[at])
        return {"p50": p50, "p90": p90, "p99": p99, "max": float(gaps[-1])}

    def _prefix(self) -> dict[str, float] | None:
        if not self.reuse.blocks:
            return None
        return {
            "block_tokens": self.reuse.block_tokens,
            "blocks": self.reuse.blocks,
            "distinct_blocks": self.reuse.distinct,
            "infinite_cache_hit_rate": self.reuse.hit_rate,
            "saved_prompt_tokens": self.reuse.saved_tokens,
            "saved_prompt_share": self.reuse.saved_tokens / self.prompt.total,
        }

    def _notes(self, tally: Tally) -> list[str]:
        notes = []
        grid_s = self.gaps.grid_s()
        if grid_s is not None:
            notes.append(
                f"time stamps lie on a grid of {grid_s:.3g} s, so burstiness below that is an "
                "artefact; spread the requests within the step before replaying them"
            )
        if self.reuse.odd_rows and self.reuse.blocks:
            notes.append(
                f"{self.reuse.odd_rows} requests do not have one block id for each "
                f"{self.reuse.block_tokens} prompt tokens; is the block size another?"
            )
        if tally.skipped:
            notes.append(f"{tally.skipped} bad rows were left out of all figures")
        return notes
