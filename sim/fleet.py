"""The replicas of a run, each a GPU with its pool, batch, loop and PCIe links, on one host.

One rule: a run of one replica knows nothing of others; what several have in common is made here.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import inf
from typing import TYPE_CHECKING

import numpy as np

from .admission import Admission
from .batch import Batch
from .clock import Turns
from .errors import InputError
from .iteration_log import IterationLog
from .kv import BlockPool
from .memory.common import Common
from .memory.host import Host
from .memory.manager import Memory
from .memory.summary import summary as memory_summary
from .metrics import LoopStats
from .replica import Replica
from .router import Router
from .step_course import course_of
from .tiers import memory_options
from .units import bytes_text
from .widening import hbm_bytes

if TYPE_CHECKING:
    from collections.abc import Callable

    from .arrival import Server
    from .clock import Clock
    from .cost import Cost
    from .iteration_log import Columns
    from .memory.transfer_log import TransferLog
    from .profile import Profile
    from .quantiles import Summary
    from .request import Request
    from .request_log import RequestLog
    from .scenario import Scenario
    from .wide import Wide


@dataclass(slots=True)
class Member:
    """One replica and what is its own."""

    replica: Replica
    pool: BlockPool
    batch: Batch
    iterations: IterationLog
    stats: LoopStats


class Fleet:
    """The replicas of *scenario*, whose requests go to *requests* when they end.

    *wide* says how they decode. *on_iterations* gets slices of iterations, of several replicas with
    their numbers.
    """

    def __init__(
        self, scenario: Scenario, profile: Profile, cost: Cost, clock: Clock,
        wide: Wide, requests: RequestLog, transfers: TransferLog,
        on_iterations: Callable[[Columns], None] | None,
    ) -> None:  # fmt: skip
        self.scenario = scenario
        self.cost = cost
        self.wide = wide
        self.clock = clock
        self.requests = requests
        self.transfers = transfers
        self.several = scenario.replicas.count > 1
        self._blocks = hbm_blocks(scenario, profile)
        self._turns = Turns() if self.several else None
        self.members = [
            self._member(number, on_iterations) for number in range(scenario.replicas.count)
        ]
        replicas = [member.replica for member in self.members]
        keys = scenario.replicas
        self.router = Router(replicas, keys.router, keys.slack) if self.several else None
        self.server: Server = self.router or replicas[0]
        self.options = memory_options(scenario.hardware, scenario.kv)
        self.memories: list[Memory] = []
        if self.options.swaps:
            self._remember()

    def _member(self, number: int, on_iterations: Callable[[Columns], None] | None) -> Member:
        scenario, stats = self.scenario, LoopStats()

        def add(columns: Columns) -> None:
            stats.add(columns)
            self.wide.add(columns)
            if on_iterations is not None:
                if self.several:
                    numbers = np.full(len(columns["start_s"]), number, np.int64)
                    columns = {"replica": numbers} | columns
                on_iterations(columns)

        loop, pool = scenario.loop, BlockPool(self._blocks, scenario.kv.block_tokens)
        admission = Admission(pool, loop.max_batch, scenario.model.shape.max_context)
        iterations = IterationLog(self.cost, add)
        decoding = self.wide.decoding(number, admission, iterations)
        batch = Batch(admission, decoding, self.requests, iterations)
        replica = Replica(
            self.clock, loop, scenario.schedule, self.cost, batch, scenario.stop.at or inf, number,
            self._turns,
        )  # fmt: skip
        replica.course = course_of(self.cost, scenario.seed, number)
        replica.plans, measures = self.wide.plans, self.wide.measures[number]
        if measures is not None and measures.refresh is not None:
            replica.refreshed = measures.refreshed
        return Member(replica, pool, batch, iterations, stats)

    # ---------------------------------------------------------------- KV that is shared or moves
    def _remember(self) -> None:
        """From now on KV is shared or moves."""
        options, keys = self.options, self.scenario.replicas
        shares = keys.tiers == "shared" and bool(options.sizes)
        common = Common(shares) if self.several else None
        if common is not None and not common.shares:
            # Model: tiers of their own are equal parts of the host's.
            parts = {f"{name}_bytes" for name in ("dram", "ssd", "remote")}
            sizes = {part: getattr(options, part) / keys.parts for part in parts}
            options = replace(options, **sizes)
        for number, member in enumerate(self.members):
            host = Host(
                options, member.pool, self.clock, self.cost, self.scenario.kv.bits,
                member.replica.wake, self.transfers.add, member.replica.stop_at, common, number,
            )  # fmt: skip
            measures = self.wide.measures[number]
            if measures is not None:
                speculator = measures.speculator
                host.most_rows, host.overhang = speculator.most_rows, speculator.overhang
            memory = member.batch.admission.memory = Memory(host)
            self.memories.append(memory)
            member.iterations.tiers = tuple(tier.name for tier in memory.rooms.tiers.values())
        self.requests.memory = True

    def ids_found(self, block_tokens: int | None) -> Memory | None:
        """The trace has prefix ids of blocks of *block_tokens*; who makes use of them, if anybody
        does: of several replicas, the first, which stands for all."""
        if not self.options.prefix_cache:
            return None
        if block_tokens is None:
            raise InputError(
                "trace: has prefix block ids and does not say of how many tokens; give "
                "trace.block_tokens, or kv.prefix_cache: false"
            )
        self.wide.check_ids()
        if not self.memories:
            self._remember()
        for memory in self.memories:
            memory.open(block_tokens)
        return self.memories[0]

    # ---------------------------------------------------------------- what became of it
    def unfinished(self) -> list[Request]:
        """What still runs or waits."""
        return [
            request
            for member in self.members
            for request in (*member.batch.unfinished(), *member.replica.planner.unseen)
        ]

    def close(self) -> None:
        """Hands on the iterations that are left, replica by replica."""
        for member in self.members:
            member.iterations.close()

    @property
    def last_change(self) -> float:
        """When a request last came or went."""
        return max(member.batch.last_change for member in self.members)

    def summary(self, duration: float) -> Summary:
        """Keys about loops and KV, over all replicas, of a run of *duration* seconds."""
        members = self.members
        idle = sum(member.replica.idle_seconds(duration) for member in members)
        singles = [member.iterations.single_gaps for member in members]
        stats = members[0].stats if not self.several else LoopStats.of([m.stats for m in members])
        return stats.summary(duration, self._blocks, singles, idle) | {
            "kv_blocks_peak": sum(member.pool.peak for member in members),
            "kv_blocks_allocated": sum(member.pool.allocated for member in members),
            "kv_blocks_freed": sum(member.pool.freed for member in members),
            "kv_preemptions": sum(member.batch.preemptions for member in members),
            **(memory_summary(self.memories, duration) if self.memories else {}),
            **self.wide.summary(stats, [(member.stats, member.replica) for member in members]),
        }

    def each(self, duration: float) -> list[Summary]:
        """The main figures of each of several replicas."""
        return [
            self._figures(number, member, duration) for number, member in enumerate(self.members)
        ]

    def _figures(self, number: int, member: Member, duration: float) -> Summary:
        assert self.router is not None
        idle = member.replica.idle_seconds(duration)
        loop = member.stats.summary(duration, self._blocks, [member.iterations.single_gaps], idle)
        names = (
            "loop_iterations", "loop_time_s", "loop_gpu_busy_s", "loop_idle_s",
            "loop_gpu_busy_fraction", "loop_mean_decode_requests", "loop_max_waiting_requests",
            "loop_prefill_tokens", "kv_mean_utilization",
        )  # fmt: skip
        figures: Summary = {"replica": number, "requests_in": self.router.sent[number]}
        figures |= {name: loop[name] for name in names}
        figures["kv_blocks_peak"] = member.pool.peak
        figures["kv_preemptions"] = member.batch.preemptions
        if self.memories:
            kv = memory_summary([self.memories[number]], duration)
            kept = ("kv_prefix_hit_rate", "kv_prefill_tokens_saved", "kv_stall_s", "kv_swaps")
            figures |= {k: v for k, v in kv.items() if k in kept or k.startswith("kv_hit_tokens")}
        return figures


def hbm_blocks(scenario: Scenario, profile: Profile) -> int:
    """KV blocks that the scenario gives, else those that fit beside the weights.

    `InputError` if none does, or if the profile does not say how much memory there is.
    """
    if scenario.kv.hbm_blocks is not None:
        return scenario.kv.hbm_blocks
    hbm = scenario.hardware.hbm
    if hbm.capacity is None and "hbm_bytes" not in profile.device:
        raise InputError(f"kv.hbm_blocks: missing; {profile.name} says nothing of memory")
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
