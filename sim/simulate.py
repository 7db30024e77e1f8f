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
from .block_stats import BlockStats
from .clock import Clock
from .cost import Cost
from .courses import CourseDecoding
from .decoding import Decoding, PlainDecoding
from .errors import InputError
from .iteration_log import Columns, IterationLog
from .kv import BlockPool
from .leap import LeapDecoding
from .memory.host import Host
from .memory.manager import Memory
from .memory.transfer_log import TransferLog
from .metrics import LoopStats, RequestStats
from .moe_stats import MoeStats
from .profile import Profile, load_profile
from .refining import Refiner
from .refreshing import Rule, rule_of
from .replica import Replica
from .request_log import RequestLog
from .session_stats import SessionStats
from .sparse.selection import Selection as Selecting
from .sparse.summary import Sums
from .sparse.summary import summary as sparse_summary
from .speculation import build
from .stepped import SteppedDecoding
from .steps import RECALL_UNIT, Measures, OneToken
from .tiers import memory_options
from .trace.chunk import Tally
from .units import bytes_text
from .wide_metrics import residency_summary, speculation_summary
from .widening import hbm_bytes
from .workload import chunks

if TYPE_CHECKING:
    from pathlib import Path

    from .quantiles import Summary
    from .scenario import Scenario
    from .speculation.caps import Seconds
    from .steps import Selection, Speculator

Progress = Callable[[float, int, int], None]
"""Called now and then with the simulated time in seconds, requests arrived and requests ended."""


_WHOLE = "shares or moves all KV of a request, and sparse.offload or sparse.drop keep but a part"


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
        self.moe_stats = MoeStats(self.cost.wide.setup)
        self.block_stats = BlockStats(scenario.block_decode)
        count = _both(self.loop_stats.add, self.moe_stats.add)
        count = _both(count, self.block_stats.add)
        self.iterations = IterationLog(self.cost, _both(count, on_iterations))
        stop_at = scenario.stop.at or inf
        admission = Admission(self.pool, scenario.loop.max_batch, scenario.model.shape.max_context)
        self.plans, self.measures = self.cost, self._measures()
        decoding = self._decoding(engine == "leap")
        if self.measures is not None:
            admission.overhang = self.measures.speculator.overhang
            admission.lower = self.measures.lower_fits
        self.batch = Batch(admission, decoding, self.requests, self.iterations)
        self.replica = Replica(self.clock, scenario.loop, self.cost, self.batch, stop_at)
        self.replica.plans = self.plans
        if self.measures is not None and self.measures.refresh is not None:
            self.replica.refreshed = self.measures.refreshed
        self.options = memory_options(scenario.hardware, scenario.kv)
        self.transfers = TransferLog(on_transfers or (lambda columns: None))
        self.memory: Memory | None = None
        if self.options.swaps:
            self._remember()
        self.arrivals = Arrivals(
            self.clock, chunks(scenario, self.tally), self.replica, stop_at, self._ids_found
        )

    def _measures(self) -> Measures | None:
        """What is counted of decode steps; None where each is a token that reads all its KV."""
        selection = selection_of(self.scenario)

        def seconds(batch: int, rows: int, depth: int, context: int) -> float:
            read: tuple[int, ...] = ()
            if selection is not None:
                each, own = context // batch, rows // batch
                read = selection.attended(each, own), selection.pages(each, own)
            cost = self.plans.decode(batch, rows, depth)
            return cost.seconds(context, *(batch * one for one in read))

        speculator = speculator_of(self.scenario, seconds)
        if speculator is None and selection is None:
            return None
        self.plans = self.cost.twin()
        measures = Measures(
            self.scenario.kv.block_tokens, speculator or OneToken(), selection,
            refresh_of(self.scenario),
        )  # fmt: skip
        options = memory_options(self.scenario.hardware, self.scenario.kv)
        if selection is not None and selection.offload:
            bits = options.bits["dram"]
            block = self.scenario.model.shape.kv_bytes_per_token(bits) * measures.block_tokens
            measures.lower_capacity = int(options.dram_bytes // block)
        if measures.partial and options.swaps:
            raise InputError(f"kv.preemption: {_WHOLE}; choose kv.preemption: recompute")
        return measures

    def _decoding(self, leaps: bool) -> Decoding:
        """The set of decoding requests for one of the engines."""
        if self.measures is None:
            return (LeapDecoding if leaps else PlainDecoding)(self.scenario.kv.block_tokens)
        self.requests.drafts = self.measures.speculator.max_depth > 0
        self.iterations.measures = self.measures
        gaps = self.iterations.single_gaps
        kind = CourseDecoding if leaps else SteppedDecoding
        decoding = kind(self.measures, lambda: self.pool.used / self.pool.capacity, gaps)
        self.iterations.keeps_times = decoding.keeps_times
        return decoding

    def _remember(self) -> Memory:
        """From now on KV is shared or moves."""
        host = Host(
            self.options, self.pool, self.clock, self.cost, self.scenario.kv.bits,
            self.replica.wake, self.transfers.add,
        )  # fmt: skip
        self.memory = self.batch.admission.memory = Memory(host)
        if self.measures is not None:
            speculator = self.measures.speculator
            self.memory.most_rows, self.memory.overhang = speculator.most_rows, speculator.overhang
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
        if self.measures is not None and self.measures.partial:
            raise InputError(f"kv.prefix_cache: {_WHOLE}; give kv.prefix_cache: false")
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
            **self.moe_stats.summary(),
            **self.block_stats.summary(),
            **self._wide_summary(),
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

    def _wide_summary(self) -> Summary:
        """About drafts, selection and the loop, where there is anything of the first two."""
        measures, sums = self.measures, self.loop_stats.sums
        if measures is None:
            return {}
        found = residency_summary(self.loop_stats, self.replica)
        if measures.lower_capacity:
            found["kv_lower_blocks_capacity"] = measures.lower_capacity
            found["kv_lower_blocks_peak"] = self.loop_stats.most.get("kv_blocks_lower", 0)
        if measures.levels:
            found |= speculation_summary(self.loop_stats)
        if self.scenario.sparse is not None:
            names = ("decode_steps", "kv_blocks_total", "kv_blocks_selected", "decode_context",
                     "attended_tokens", "pages_scored", "kv_blocks_fetched")  # fmt: skip
            counts = [int(sums.get(name, 0)) for name in names]
            read = Sums._make((*counts, sums.get("recall", 0.0) * RECALL_UNIT))
            assert isinstance(measures.selection, Selecting)
            found |= sparse_summary(read, measures.selection)
        return found


def speculator_of(scenario: Scenario, seconds: Seconds) -> Speculator | None:
    """Who says how many tokens a step takes; *seconds* of an iteration are what some ask for."""
    if scenario.block_decode is not None:
        return Refiner(scenario.block_decode, scenario.seed)
    if scenario.speculation is None:
        return None
    return build.speculator(scenario.speculation, scenario.seed, seconds)


def refresh_of(scenario: Scenario) -> Rule | None:
    """Who computes cached KV again, and when."""
    if scenario.block_decode is None or scenario.block_decode.refresh is None:
        return None
    return rule_of(scenario.block_decode.refresh, scenario.loop.token_budget)


def selection_of(scenario: Scenario) -> Selection | None:
    """Who says how much of its KV a step reads."""
    if scenario.sparse is None:
        return None
    return Selecting(scenario.sparse, scenario.kv, scenario.model.shape)


def hbm_blocks(scenario: Scenario, profile: Profile) -> int:
    """KV blocks that fit beside the weights; `InputError` if none does."""
    hbm = scenario.hardware.hbm
    capacity = hbm.capacity or float(profile.device["hbm_bytes"])
    weights, token = hbm_bytes(scenario)
    block = token * scenario.kv.block_tokens
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
