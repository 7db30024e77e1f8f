"""Decode steps other than a token that reads all its KV: what the replicas of a run need for them.

The one rule: each replica counts its own steps; where a scenario says nothing of such steps, nobody
counts any, and decoding is plain.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .block_stats import BlockStats
from .courses import CourseDecoding
from .decoding import Decoding, PlainDecoding
from .errors import InputError
from .leap import LeapDecoding
from .measures import RECALL_UNIT, Measures
from .moe_stats import MoeStats
from .refining import Refiner
from .refreshing import Rule, rule_of
from .sparse.selection import Selection as Selecting
from .sparse.summary import Sums
from .sparse.summary import summary as sparse_summary
from .speculation import build
from .speculation.acceptance import RULES
from .stepped import SteppedDecoding
from .steps import OneToken
from .tiers import memory_options
from .wide_metrics import residency_summary, speculation_summary

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .admission import Admission
    from .cost import Cost
    from .iteration_log import Columns, IterationLog
    from .metrics import LoopStats
    from .quantiles import Summary
    from .replica import Replica
    from .scenario import Scenario
    from .speculation.caps import Seconds
    from .steps import Selection, Speculator

_WHOLE = "shares or moves all KV of a request, and sparse.offload or sparse.drop keep but a part"


class Wide:
    """How the replicas of *scenario* decode, many iterations at once if the engine *leaps*."""

    def __init__(self, scenario: Scenario, cost: Cost, leaps: bool) -> None:
        self.scenario = scenario
        self.leaps = leaps
        self.plans = cost
        """Where plans, which may be cut short, ask what iterations take."""
        self.measures = [self._measures() for _ in range(scenario.replicas.count)]
        """What each replica counts of decode steps; None where they are plain."""
        if self.measures[0] is not None:
            self.plans = cost.apart()
        self._moe = MoeStats(cost.wide.setup)
        self._blocks = BlockStats(scenario.block_decode)

    def _measures(self) -> Measures | None:
        scenario = self.scenario
        selection = selection_of(scenario)

        def seconds(batch: int, rows: int, depth: int, context: int) -> float:
            read: tuple[int, ...] = ()
            if selection is not None:
                each, own = context // batch, rows // batch
                read = selection.attended(each, own), selection.pages(each, own)
            cost = self.plans.decode(batch, rows, depth)
            return cost.seconds(context, *(batch * one for one in read))

        speculator = speculator_of(scenario, seconds)
        if speculator is None and selection is None:
            return None
        tokens = scenario.kv.block_tokens
        measures = Measures(tokens, speculator or OneToken(), selection, refresh_of(scenario))
        options = memory_options(scenario.hardware, scenario.kv)
        if selection is not None and selection.offload:
            block = scenario.model.shape.kv_bytes_per_token(options.bits["dram"]) * tokens
            measures.lower_capacity = int(options.dram_bytes / scenario.replicas.parts // block)
        if measures.partial and options.swaps:
            raise InputError(f"kv.preemption: {_WHOLE}; choose kv.preemption: recompute")
        return measures

    def check_ids(self) -> None:
        """The trace has prefix ids, and KV is to be shared; `InputError` if that is impossible."""
        measures = self.measures[0]
        if measures is not None and measures.partial:
            raise InputError(f"kv.prefix_cache: {_WHOLE}; give kv.prefix_cache: false")

    def decoding(self, number: int, admission: Admission, iterations: IterationLog) -> Decoding:
        """The set of decoding requests of that replica, of which the others are told."""
        measures, pool = self.measures[number], admission.pool
        if measures is None:
            return (LeapDecoding if self.leaps else PlainDecoding)(self.scenario.kv.block_tokens)
        admission.overhang = measures.speculator.overhang
        admission.lower = measures.lower_fits
        kind = CourseDecoding if self.leaps else SteppedDecoding
        decoding = kind(measures, lambda: pool.used / pool.capacity, iterations.single_gaps)
        iterations.measures = measures
        iterations.keeps_times = decoding.keeps_times
        return decoding

    @property
    def drafts(self) -> bool:
        """Whether anything is drafted."""
        measures = self.measures[0]
        return measures is not None and measures.speculator.max_depth > 0

    # ---------------------------------------------------------------- what became of it
    def add(self, columns: Columns) -> None:
        """Takes a slice of iterations of any replica."""
        self._moe.add(columns)
        self._blocks.add(columns)

    def summary(self, stats: LoopStats, parts: Sequence[tuple[LoopStats, Replica]]) -> Summary:
        """Keys about all this; *stats* of the whole run, *parts* of each replica."""
        found = residency_summary(stats, parts) | self._moe.summary() | self._blocks.summary()
        return found | self._steps(stats, parts)

    def _steps(self, stats: LoopStats, parts: Sequence[tuple[LoopStats, Replica]]) -> Summary:
        """About drafts and selection, where there is anything of them."""
        measures, sums = self.measures[0], stats.sums
        if measures is None:
            return {}
        found: Summary = {}
        if measures.lower_capacity:
            peaks = [part.most.get("kv_blocks_lower", 0) for part, _ in parts]
            found["kv_lower_blocks_capacity"] = measures.lower_capacity * len(parts)
            found["kv_lower_blocks_peak"] = sum(peaks)
        if measures.levels:
            found |= speculation_summary(stats)
        if self.scenario.speculation is not None:
            rule = self.scenario.speculation.acceptance.rule
            found |= {"spec_acceptance_rule": rule, "spec_lossless": RULES[rule].lossless}
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
