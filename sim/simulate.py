"""One run, from a scenario to its results: trace, profile, clock, replicas, records."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from math import inf
from typing import TYPE_CHECKING

from .arrival import Arrivals
from .clock import Clock
from .fleet import Fleet
from .memory.transfer_log import TransferLog
from .metrics import RequestStats
from .profile import load_profile
from .request_log import RequestLog
from .session_stats import SessionStats
from .step_cost import cost_of
from .tiers import memory_options
from .trace.chunk import Tally
from .wide import Wide
from .workload import chunks

if TYPE_CHECKING:
    from pathlib import Path

    from .iteration_log import Columns
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
        self.cost = cost_of(scenario, self.profile)
        self.clock = Clock()
        self.tally = Tally()
        self.request_stats = RequestStats(scenario.slo)
        self.session_stats = SessionStats()
        add = _both(self.request_stats.add, self.session_stats.add)
        several = scenario.replicas.count > 1
        self.requests = RequestLog(_both(add, on_requests), several)
        self.transfers = TransferLog(on_transfers or (lambda columns: None))
        wide = Wide(scenario, self.cost, engine == "leap")
        self.requests.drafts = wide.drafts
        delays = scenario.schedule.arrival_delay, scenario.schedule.token_delay
        self.requests.delays = delays
        self.fleet = Fleet(
            scenario, self.profile, self.cost, self.clock,
            wide, self.requests, self.transfers, on_iterations,
        )  # fmt: skip
        self.arrivals = Arrivals(
            self.clock, chunks(scenario, self.tally), self.fleet.server, scenario.stop.at or inf,
            lambda: self.fleet.ids_found(self.tally.block_tokens),
            delays,
        )  # fmt: skip

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
        self.requests.close(self.fleet.unfinished())
        self.fleet.close()
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
        last = self.fleet.last_change
        return self.scenario.stop.at or (last + self.scenario.schedule.token_delay if last else 0.0)

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
        summary |= self.fleet.summary(self.duration)
        summary |= {
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
        if self.fleet.several:
            summary["replicas"] = self.fleet.each(self.duration)
        return summary


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
    several = scenario.replicas.count > 1
    records = Records(folder, scenario.record.iterations, tiers, several)
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
