"""Iterations as columns: what the loop did, row by row, without an object an iteration.

The loop reports a stretch of like iterations at a time. They are expanded in bulk, accounted for
by the cost model, and handed on in slices of fixed length, so that memory stays bounded and sums
do not depend on how the stretches were cut.
"""

from __future__ import annotations

from array import array
from itertools import chain
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from .iteration_costs import charged
from .measures import COMMITS, CONTEXT

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .accounting import Charge
    from .cost import Cost
    from .measures import Measures
    from .steps import Counts


Columns = dict[str, np.ndarray]

SLICE = 32_768
KINDS = ("decode", "mixed", "prefill")
OF_TIERS = (
    "kv_stalled_s", "prefetched_units", "prefetch_used_units", "prefetch_late_units",
    "prefetch_wasted_units",
)  # fmt: skip
"""Columns of runs with tiers below HBM, each a sum since the start of the run."""


class Iteration(NamedTuple):
    """A stretch of iterations that differ only in lengths; the values of the first of them."""

    start: float
    batch: int
    context: int
    """KV entries that decoding requests hold, those appended included; of no use beside `sums`."""
    prefill_requests: int
    prefill_tokens: int
    running: int
    departures: int
    """Requests that had left the queue by then, less those that came back."""
    blocks: int
    """KV blocks in use before it."""
    beside: bool
    """Whether a prefill partition was at work."""
    joined: tuple[float, ...]
    """Times of the last tokens of requests that decode here for the first time."""
    last_commit: float
    """When the other decoding requests got their last token."""
    complete: int
    """Prompts that it completes, each of which commits a token."""
    charge: Charge | None
    """Cost if it is a single iteration with prefill; decode iterations are worked out in bulk."""
    sums: Counts | None = None
    """What decoding requests do in each iteration of the stretch, where that is not always a token
    each."""
    slow: float = 1.0
    """How many times longer the GPU takes beside transfers of KV."""


class IterationLog:
    """Collects iterations and hands slices of columns to *sink*, in order of their commits.

    Each slice also has `itl_s`, time since the last tokens of the `itl_requests` requests that
    decoded in the iteration before; gaps of single requests are in `single_gaps`. Where `tiers` is
    set before the first iteration, to the names of the tiers below HBM, slices have columns about
    cached KV, too; where `measures` is, columns about steps of several tokens.
    """

    def __init__(self, cost: Cost, sink: Callable[[Columns], None]) -> None:
        self.cost = cost
        self.sink = sink
        self.single_gaps = array("d")
        self.tiers: tuple[str, ...] | None = None
        self.measures: Measures | None = None
        self.keeps_times = False  # whether gaps between tokens are told one by one
        self._held: list[tuple[float, ...]] = [(0.0,) * 12]
        self._queued = array("d")
        self._stretches: list[Iteration] = []
        self._counts: list[int] = []
        self._ends = array("d")
        self._seconds = array("d")
        self._blocks: list[int] = []
        self._rest: Columns | None = None

    def queued(self, time: float) -> None:
        """A request joined the queue at *time* seconds."""
        self._queued.append(time)

    def occupancy(self, time: float, *values: float) -> None:
        """From *time* seconds on, so many requests wait for KV and so much is kept for reuse.

        *values* are these requests, blocks in HBM that nobody uses, bytes in each of `tiers`, and
        if there are some, sums as `OF_TIERS` names them. They hold for iterations that start then
        or later, until the next call. Times must not fall.
        """
        self._held.append((time, *values))

    def gap(self, seconds: float) -> None:
        """One request's time between two tokens that no stretch covers."""
        self.single_gaps.append(seconds)

    def add(
        self, first: Iteration, ends: np.ndarray, seconds: np.ndarray, blocks: Sequence[int]
    ) -> None:
        """Iterations that ended at *ends* after *seconds*, taking *blocks* new blocks each."""
        self._stretches.append(first)
        self._counts.append(len(ends))
        self._ends.frombytes(ends.tobytes())
        self._seconds.frombytes(seconds.tobytes())
        self._recorded(blocks)

    def add_one(self, only: Iteration, end: float, seconds: float, blocks: Sequence[int]) -> None:
        """A single iteration that ended at *end* after *seconds*."""
        self._stretches.append(only)
        self._counts.append(1)
        self._ends.append(end)
        self._seconds.append(seconds)
        self._recorded(blocks)

    def _recorded(self, blocks: Sequence[int]) -> None:
        self._blocks += blocks
        if len(self._blocks) >= SLICE:
            self._expand()

    def close(self) -> None:
        """Hands on what is left."""
        self._expand()
        if self._rest is not None and len(self._rest["start_s"]):
            self.sink(self._rest)
            self._rest = None

    def _expand(self) -> None:
        if not self._stretches:
            return
        columns = self._columns()
        self._stretches, self._counts, self._blocks = [], [], []
        self._ends, self._seconds = array("d"), array("d")
        if self._rest is not None:
            rest = self._rest
            none = np.zeros(len(rest["start_s"]), np.int64)  # `tiers` was not set yet
            columns = {k: np.concatenate((rest.get(k, none), v)) for k, v in columns.items()}
        length = len(columns["start_s"])
        full = length - length % SLICE
        for at in range(0, full, SLICE):
            self.sink({name: values[at : at + SLICE] for name, values in columns.items()})
        self._rest = {name: values[full:] for name, values in columns.items()}

    def _columns(self) -> Columns:
        (
            start, batch, context, prefill_requests, prefill_tokens, running, departures,
            blocks, beside, joined, last_commit, complete, charges, sums, slow,
        ) = zip(*self._stretches, strict=True)  # fmt: skip
        counts = np.array(self._counts)
        firsts = np.cumsum(counts) - counts
        ends = np.frombuffer(self._ends)
        seconds = np.frombuffer(self._seconds)

        def each(values: tuple[int, ...], kind: type = np.int64) -> np.ndarray:
            return np.repeat(np.array(values, dtype=kind), counts)

        steps = np.arange(len(ends)) - np.repeat(firsts, counts)
        starts = np.empty_like(ends)
        starts[1:] = ends[:-1]
        starts[firsts] = start
        batches = each(batch)
        prefills = each(prefill_tokens)
        columns: Columns = {
            "start_s": starts,
            "duration_s": seconds,
            "kind": np.where(prefills > 0, np.where(batches > 0, 1, 2), 0).astype(np.int8),
            "decode_requests": batches.astype(np.int32),
            "prefill_requests": each(prefill_requests, np.int32),
            "prefill_tokens": prefills.astype(np.int32),
            "context_tokens": each(context) + steps * batches,
            "output_tokens": each(complete, np.int32) + batches.astype(np.int32),
            "running": each(running, np.int32),
            "waiting": self._waiting(starts, each(departures)),
            "kv_blocks": each(blocks) + self._taken(counts, firsts),
        }
        if self.tiers is not None:
            columns |= self._occupied(starts)
        load = None
        if self.measures is not None:
            taken = self._summed(self.measures, sums, counts)
            load = self.measures.load(taken)
            columns["context_tokens"] = taken[CONTEXT]
            columns["output_tokens"] = each(complete, np.int32) + taken[COMMITS].astype(np.int32)
            columns |= self.measures.columns(taken)
        slows = each(slow, np.float64)
        columns |= charged(
            self.cost, columns, load, each(beside, np.bool_), charges, firsts, slows
        )  # fmt: skip
        columns |= self._gaps(starts, ends, batches, firsts, joined, last_commit)
        return columns

    @staticmethod
    def _summed(measures: Measures, sums: tuple[Counts | None, ...], counts: np.ndarray) -> Counts:
        """What decoding requests do in every row."""
        none = np.zeros((measures.height, 1), np.int64)
        found = [
            none if part is None else part[:, :count]
            for part, count in zip(sums, counts.tolist(), strict=True)
        ]
        return np.concatenate(found, axis=1)

    def _waiting(self, starts: np.ndarray, departures: np.ndarray) -> np.ndarray:
        queued = np.frombuffer(self._queued) if self._queued else np.empty(0)
        arrived: np.ndarray = np.searchsorted(queued, starts, side="right")
        waiting: np.ndarray = (arrived - departures).astype(np.int32)
        return waiting

    def _occupied(self, starts: np.ndarray) -> Columns:
        """What was told of the tiers by the start of each row."""
        assert self.tiers is not None
        names = ("loading", "hbm_cached_blocks", *(f"{tier}_bytes" for tier in self.tiers))
        names += OF_TIERS if self.tiers else ()
        width = len(names) + 1
        held = [row[:width] for row in self._held]
        times = np.array([row[0] for row in held])
        rows = np.maximum(0, np.searchsorted(times, starts, side="right") - 1)
        # What was told before the earliest of these rows is of no use to those that follow.
        self._held = self._held[int(rows.min()) :]
        values = np.array([row[1:] for row in held], np.float64)  # bytes are exact up to 2^53
        columns: Columns = {
            name: values[rows, i].astype(np.float64 if name.endswith("_s") else np.int64)
            for i, name in enumerate(names)
        }
        return columns

    def _taken(self, counts: np.ndarray, firsts: np.ndarray) -> np.ndarray:
        """Blocks taken since the start of each row's stretch, its own included."""
        taken = np.array(self._blocks, np.int64)
        total = np.cumsum(taken)
        before = total[firsts] - taken[firsts]
        since: np.ndarray = total - np.repeat(before, counts)
        return since

    def _gaps(
        self,
        starts: np.ndarray,
        ends: np.ndarray,
        batches: np.ndarray,
        firsts: np.ndarray,
        joined: tuple[tuple[float, ...], ...],
        last_commit: tuple[float, ...],
    ) -> Columns:
        """Time between tokens: rows follow each other but where a stretch begins."""
        since = starts.copy()
        since[firsts] = last_commit
        requests = batches.copy()
        newcomers = np.array([len(times) for times in joined])
        requests[firsts] -= newcomers
        if self.keeps_times:
            requests[:] = 0  # all gaps are among the single ones
        times = np.fromiter(chain.from_iterable(joined), np.float64, int(newcomers.sum()))
        gaps = np.repeat(ends[firsts], newcomers) - times
        self.single_gaps.frombytes(gaps.tobytes())
        return {"itl_s": ends - since, "itl_requests": requests.astype(np.int32)}
