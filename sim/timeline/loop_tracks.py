"""A replica's loop: iterations with their stages, idle time, and the counters at each boundary."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from .events import counters, named, slices
from .lanes import lanes, titled
from .rows import nanoseconds
from .stages import LOOP, NAMES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .rows import Columns

PARTITION = "partition"
PARTITION_TID = 1000
LOOP_TID = 1
"""Iterations, and behind it those that overlap them, which a simulated loop never does."""
ARGS = {
    "decode_requests": "batch", "padded_requests": "padded", "context_tokens": "context",
    "prefill_requests": "prompts", "prefill_tokens": "prefill_tokens",
    "output_tokens": "output_tokens", "decode_rows": "rows", "draft_tokens": "drafted",
    "accepted_tokens": "accepted", "attended_tokens": "attended",
    "kv_blocks_fetched": "blocks_fetched", "launches": "launches",
}  # fmt: skip
"""Columns that iterations carry, and what they are called there."""
COUNTERS = {
    "requests": {"running": "running", "waiting": "waiting", "loading": "waiting_for_KV"},
    "KV blocks in HBM": {"kv_blocks": "in_use", "hbm_cached_blocks": "kept_for_reuse"},
    "KV below HBM (bytes)": {
        "dram_bytes": "DRAM", "ssd_bytes": "SSD", "remote_bytes": "remote",
    },
}  # fmt: skip
_OTHERS = ("start_s", "duration_s", "kind", "path", "gpu_busy_s", "kv_stalled_s", "replica")
COLUMNS = (*_OTHERS, *ARGS, *(column for series in COUNTERS.values() for column in series))
SHORTEST_IDLE = 1000
"""ns; less than a microsecond between two iterations is no idle time."""
ROUNDING = 2
"""ns that two iterations which follow each other may seem to overlap."""


@dataclass(frozen=True)
class Iterations:
    """Iterations of one replica in order of their starts; times in ns."""

    pid: int
    rows: Columns
    parts: np.ndarray
    """Seconds of stages [iterations, names], NaN where unknown; no columns if not asked for."""
    begin: np.ndarray
    end: np.ndarray
    tid: np.ndarray

    @classmethod
    def of(cls, pid: int, rows: Columns, parts: np.ndarray) -> Iterations:
        """*rows* and their stages *parts*, in any order."""
        begin = nanoseconds(rows["start_s"])
        order = np.argsort(begin, kind="stable")
        rows, parts, begin = {k: v[order] for k, v in rows.items()}, parts[order], begin[order]
        end = nanoseconds(rows["start_s"] + rows["duration_s"])
        path = rows.get("path", np.full(len(begin), ""))
        tid = np.zeros(len(begin), np.int64)
        for tracks, chosen in ((PARTITION_TID, path == PARTITION), (LOOP_TID, path != PARTITION)):
            at = np.flatnonzero(chosen)
            over = end[at[:-1]] - begin[at[1:]]
            end[at[:-1]] -= np.where((over > 0) & (over <= ROUNDING), over, 0)
            tid[at] = tracks + lanes(begin[at], end[at])
        return cls(pid, rows, parts, begin, end, tid)

    def names(self) -> Iterator[str]:
        """Metadata of the tracks."""
        loop = self.tid < PARTITION_TID
        for said, chosen in (("iterations", loop), ("prefill partition", ~loop)):
            used = np.unique(self.tid[chosen]).tolist()
            for tid, name in zip(used, titled(said, len(used)), strict=True):
                yield from named(self.pid, name, tid, tid)

    def whole(self) -> Iterator[str]:
        """A slice an iteration."""
        rows = self.rows
        kind = rows.get("kind", np.full(len(self.begin), "iteration"))
        path = rows.get("path", np.full(len(self.begin), ""))
        name = [f"{k} ({p})" if p else k for k, p in zip(kind, path, strict=True)]
        args = {said: rows[column] for column, said in ARGS.items() if column in rows}
        if "gpu_busy_s" in rows:
            busy = rows["gpu_busy_s"] * 1e6
            args |= {"gpu_busy_us": busy, "gap_us": rows["duration_s"] * 1e6 - busy}
        length = self.end - self.begin
        yield from slices(name, "iteration", self.begin, length, self.pid, self.tid, args)

    def inside(self) -> Iterator[str]:
        """What happens in each of them: its stages, or the GPU's busy time and the gap."""
        known = np.isfinite(self.parts[:, 0]) if self.parts.shape[1] else np.zeros(0, bool)
        if not len(known):
            return
        yield from self._cut(known, self.parts[known], NAMES, _GROUPS, "computed")
        if "gpu_busy_s" in self.rows:
            rest = ~known
            length = self.rows["duration_s"][rest]
            busy = np.clip(self.rows["gpu_busy_s"][rest], 0.0, length)
            two = np.stack([busy, length - busy], axis=1)
            groups = ("gpu", "orchestration")
            yield from self._cut(rest, two, ("GPU busy", "gap"), groups, "recorded")

    def _cut(
        self, chosen: np.ndarray, seconds: np.ndarray, names: tuple[str, ...],
        groups: tuple[str, ...], basis: str,
    ) -> Iterator[str]:  # fmt: skip
        """Iterations *chosen* divided into *seconds* [iterations, names], one after the other."""
        length = self.end[chosen] - self.begin[chosen]
        edges = np.zeros((len(length), len(names) + 1), np.int64)
        edges[:, 1:] = nanoseconds(np.cumsum(seconds, axis=1))
        # What rounding leaves over goes to the last part that there is.
        edges = np.where(edges == edges[:, -1:], length[:, None], edges)
        edges[:, 0] = 0
        edges = self.begin[chosen][:, None] + np.minimum(edges, length[:, None])
        row, part = np.nonzero(np.diff(edges, axis=1))
        categories = [f"{group},{basis}" for group in groups]
        codes = part.tolist()
        yield from slices(
            [names[code] for code in codes], [categories[code] for code in codes],
            edges[row, part], edges[row, part + 1] - edges[row, part], self.pid,
            self.tid[chosen][row],
        )  # fmt: skip

    def idle(self) -> Iterator[str]:
        """Between two iterations of the loop; those that wait for KV say how long."""
        at = np.flatnonzero(self.tid == LOOP_TID)
        begin, length = self.end[at[:-1]], self.begin[at[1:]] - self.end[at[:-1]]
        gaps = length >= SHORTEST_IDLE
        args = {}
        name: list[str] | str = "idle"
        if "kv_stalled_s" in self.rows:
            stalled = np.diff(self.rows["kv_stalled_s"][at])[gaps]
            name = ["waits for KV" if seconds > 0 else "idle" for seconds in stalled]
            args = {"kv_stall_ms": stalled * 1e3}
        yield from slices(name, "idle", begin[gaps], length[gaps], self.pid, LOOP_TID, args)

    def counters(self) -> Iterator[str]:
        """Queue, KV in HBM, and what lies below, as they are when iterations start."""
        loop = self.tid < PARTITION_TID
        for name, series in COUNTERS.items():
            values = {said: self.rows[c][loop] for c, said in series.items() if c in self.rows}
            yield from counters(name, self.begin[loop], self.pid, values)

    def at_end(self, seconds: np.ndarray, prefill: bool) -> np.ndarray:
        """The iteration that ends at each of these times (NaN: none), -1 if there is none;
        *prefill*: rather one that computes prompts."""
        ends = self.rows["start_s"] + self.rows["duration_s"]
        works = self.rows.get("prefill_tokens", np.ones(len(ends))) > 0
        rows = np.flatnonzero(works) if prefill else np.arange(len(ends))
        found = np.full(len(seconds), -1)
        if not len(rows):
            return found
        order = rows[np.argsort(ends[rows], kind="stable")]
        at = ends[order].searchsorted(seconds - _SAME, "left").clip(0, len(order) - 1)
        fits = abs(ends[order[at]] - seconds) <= _SAME
        found[fits] = order[at[fits]]
        return found


_SAME = 2e-9
_WORK = ("gemm", "attention", "score", "select", "verify", "small", "draft")
_GROUPS = tuple("gpu" if n in _WORK else "loop" if n in LOOP else "orchestration" for n in NAMES)
