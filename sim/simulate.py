"""One run, from a scenario to its results: trace, profile, clock, replica, records."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from math import inf
from typing import TYPE_CHECKING

from .admission import Admission
from .arrival import Arrivals
from .batch import Batch
from .clock import Clock
from .cost import Cost
from .decoding import Decoding, PlainDecoding
from .errors import InputError
from .iteration_log import Columns, IterationLog
from .kv import BlockPool
from .leap import LeapDecoding
from .memory.host import Host
from .memory.manager import Memory
from .memory.transfer_log import TransferLog
from .metrics import LoopStats, RequestStats
from .profile import Profile, load_profile
from .replica import Replica
from .request_log import RequestLog
from .session_stats import SessionStats
from .tiers import memory_options
from .trace.chunk import Tally
from .units import bytes_text
from .workload import chunks

if TYPE_CHECKING:
    from pathlib import Path

    from .quantiles import Summary
    from .scenario import Scenario

Progress = Callable[[float, int, int], None]
"""Called now and then with the simulated time in seconds, requests arrived and requests ended."""


class Simulation:
    """Everything one run needs, put together; *engine* is `leap` or `step`."""

    def __init__(
        self,
        scenario: Scenario,
        engine: str = "leap",
        on_requests: Callable[[Columns], None] | None = None,
        on_iterations: Callable[[Columns], None] | None = None,
        on_transfers: Callable[[Columns], None] | None = None,
    ) -> None:
        self.scenario = scenario
        self.profile = load_profile(scenario.hardware.profile)
        self.cost = Cost(scenario, self.profile)
        self.clock = Clock()
        self.tally = Tally()
        self.pool = BlockPool(hbm_blocks(scenario, self.profile), scenario.kv.block_tokens)
        self.request_stats = RequestStats(scenario.slo)
        self.session_stats = SessionStats()
        self.loop_stats = LoopStats()
        add = _both(self.request_stats.add, self.session_stats.add)
        self.requests = RequestLog(_both(add, on_requests))
        self.iterations = IterationLog(self.cost, _both(self.loop_stats.add, on_iterations))
        stop_at = scenario.stop.at or inf
        admission = Admission(self.pool, scenario.loop.max_batch, scenario.model.shape.max_context)
        decoding: Decoding = (LeapDecoding if engine == "leap" else PlainDecoding)(
            scenario.kv.block_tokens
        )
        self.batch = Batch(admission, decoding, self.requests, self.iterations)
        self.replica = Replica(self.clock, scenario.loop, self.cost, self.batch, stop_at)
        self.options = memory_options(scenario.hardware, scenario.kv)
        self.transfers = TransferLog(on_transfers or (lambda columns: None))
        self.memory: Memory | None = None
        if self.options.swaps:
            self._remember()
        self.arrivals = Arrivals(
            self.clock, chunks(scenario, self.tally), self.replica, stop_at, self._ids_found
        )

    def _remember(self) -> Memory:
        """From now on KV is shared or moves."""
        host = Host(
            self.options, self.pool, self.clock, self.cost, self.scenario.kv.bits,
            self.replica.wake, self.transfers.add, self.replica.stop_at,
        )  # fmt: skip
        self.memory = self.batch.admission.memory = Memory(host)
        self.requests.memory = True
        self.iterations.tiers = tuple(tier.name for tier in self.memory.rooms.tiers.values())
        return self.memory

    def _ids_found(self) -> Memory | None:
        """The trace has prefix block ids; who makes use of them, if anybody does."""
        if not self.options.prefix_cache:
            return None
        tokens = self.tally.block_tokens
        if tokens is None:
            raise InputError(
                "trace: has prefix block ids and does not say of how many tokens; give "
                "trace.block_tokens, or kv.prefix_cache: false"
            )
        memory = self.memory or self._remember()
        memory.open(tokens)
        return memory

    def run(self, progress: Progress | None = None) -> Summary:
        """Runs to the end and returns the summary; *progress* is called about ten times a second.

        Raises `InputError` for a trace that turns out bad on the way.
        """
        collecting = gc.isenabled()
        gc.disable()  # requests hold no cycles, and scanning them costs a tenth of the run
        try:
            if progress is None:
                self.clock.run()
            else:
                self._run_watched(progress)
        finally:
            if collecting:
                gc.enable()
        self.requests.close(self.batch.unfinished())
        self.iterations.close()
        self.transfers.close()
        return self.summary()

    def _run_watched(self, progress: Progress) -> None:
        last = 0.0
        step, peek = self.clock.step, self.clock.peek
        while peek() < inf:
            for _ in range(2000):
                if peek() == inf:
                    break
                step()
            now = time.monotonic()
            if now - last > 0.1:
                last = now
                progress(self.clock.now, self.arrivals.count, self.requests.ended)

    @property
    def duration(self) -> float:
        """Seconds from the start of the trace to the last event, or to the end of the run."""
        return self.scenario.stop.at or self.batch.last_change

    def summary(self) -> Summary:
        """vLLM's keys, then ours."""
        scenario, profile, links = self.scenario, self.profile, self.arrivals.links
        summary: Summary = {
            "scenario": scenario.name,
            "scenario_hash": scenario.hash,
            "kind": "simulated",
            "model_id": scenario.model.shape.name,
            "loop_mode": scenario.loop.mode,
            "trace_rate_scale": scenario.trace.rate_scale,
            "seed": scenario.seed,
        }
        summary |= self.request_stats.summary(self.duration)
        summary |= self.loop_stats.summary(
            self.duration, self.pool.capacity, self.iterations.single_gaps,
            self.replica.idle_seconds(self.duration),
        )  # fmt: skip
        summary |= {
            "kv_blocks_peak": self.pool.peak,
            "kv_blocks_allocated": self.pool.allocated,
            "kv_blocks_freed": self.pool.freed,
            "kv_preemptions": self.batch.preemptions,
            **(self.memory.summary(self.duration) if self.memory else {}),
            "trace_closed_loop": links is not None and links.waiting > 0,
            **self.session_stats.summary(links.sessions_cut() if links else ()),
            "trace_requests_not_sent": links.not_sent if links else 0,
            "trace_prefix_ids_unused": self.arrivals.prefix_ids and not self.arrivals.shares,
            "trace_rows_skipped": self.tally.skipped,
            "trace_rows_skipped_by_reason": dict(sorted(self.tally.reasons.items())),
            "cost_profile": profile.name,
            "cost_profile_hash": profile.hash,
            "cost_profile_status": profile.status,
            "cost_estimated": self.cost.estimated(),
            "cost_extrapolated": self.cost.extrapolated(),
        }
        return summary


def hbm_blocks(scenario: Scenario, profile: Profile) -> int:
    """KV blocks that fit beside the weights; `InputError` if none does."""
    hbm, shape = scenario.hardware.hbm, scenario.model.shape
    capacity = hbm.capacity or float(profile.device["hbm_bytes"])
    weights = shape.weight_bytes(scenario.model.weight_bits)
    block = shape.kv_bytes_per_token(scenario.kv.bits) * scenario.kv.block_tokens
    # Model: activations and workspaces live in the part that `utilization` leaves out.
    blocks = int((capacity * hbm.utilization - weights) // block)
    if blocks < 1:
        raise InputError(
            f"hardware.hbm: {bytes_text(capacity)} x utilization {hbm.utilization:g} hold no KV "
            f"block beside {bytes_text(weights)} of weights; take model.weights: int8 or int4, a "
            f"smaller model, or more memory"
        )
    return blocks


def _both(
    first: Callable[[Columns], None], second: Callable[[Columns], None] | None
) -> Callable[[Columns], None]:
    if second is None:
        return first

    def both(columns: Columns) -> None:
        first(columns)
        second(columns)

    return both


def run(
    scenario: Scenario,
    folder: Path,
    engine: str = "leap",
    progress: Progress | None = None,
) -> Summary:
    """Runs *scenario* and writes its records into *folder*, which exists and is empty."""
    from .records import Records
    from .result import environment, write_json
    from .trace_record import trace_record

    begin = time.perf_counter()
    tiers = bool(memory_options(scenario.hardware, scenario.kv).sizes)
    records = Records(folder, scenario.record.iterations, tiers)
    try:
        simulation = Simulation(
            scenario, engine, records.requests, records.iterations, records.transfers
        )
        summary = simulation.run(progress)
    finally:
        records.close()
    profile = simulation.profile
    resolved = scenario.resolved() | {
        "hash": scenario.hash,
        "profile": {"name": profile.name, "hash": profile.hash, "status": profile.status},
    }
    write_json(folder / "scenario.json", resolved)
    write_json(folder / "summary.json", summary)
    record = trace_record(scenario, simulation.tally, simulation.arrivals)
    write_json(folder / "trace.json", record)
    wall = time.perf_counter() - begin
    facts = {"trace_file": scenario.trace.file, "engine": engine}
    facts |= environment(wall, simulation.clock.events())
    write_json(folder / "environment.json", facts)
    return summary
