"""What widens a scenario's iterations: pages selected, drafts, experts. From sections to setups.

The one rule: whatever else wants to know what a scenario runs and keeps on the GPU asks here, so
that time and memory are of the same drafter and the same experts.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from .decoder import Commit
from .drafting import Drafting, heads
from .dtypes import BITS
from .moe import experts_of, offloaded_bytes
from .selecting import selecting_of
from .setup import Setup
from .speculation.acceptance import RULES
from .speculation.build import drafter

if TYPE_CHECKING:
    from .modes import Modes
    from .profile import Profile
    from .scenario import Scenario
    from .speculation.drafters import Drafter


class Widening:
    """Setups of the models of *scenario*, and what blocks from DRAM take."""

    def __init__(self, scenario: Scenario, profile: Profile) -> None:
        model = scenario.model
        self.speculation = scenario.speculation
        self.blocks = scenario.block_decode
        self.drafter = drafter_of(scenario)
        experts = experts_of(scenario.moe, model.shape)
        if experts is not None and experts.offloaded:
            experts = replace(experts, link=h2d_of(scenario, profile))
        self.setup = Setup(
            profile, scenario.loop, model.shape, model.weights, scenario.kv.dtype,
            scenario.kv.block_tokens, selecting_of(scenario.sparse, model.shape.layers),
            self._commit(), experts=experts,
        )  # fmt: skip
        self.drafting_setup = replace(self.setup, extra=heads(self.drafter))
        """Of iterations that draft: heads that draft all levels at once run in the same pass."""
        self.fetch: tuple[float, float] | None = None
        if scenario.sparse is not None and scenario.sparse.offload is not None:
            bits = BITS[scenario.kv.tier_dtypes.dram or scenario.kv.dtype]
            block = model.shape.kv_bytes_per_token(bits) * scenario.kv.block_tokens
            latency, bandwidth = h2d_of(scenario, profile)
            self.fetch = latency, block / bandwidth

    @property
    def offloads(self) -> bool:
        """Whether passes may wait for experts."""
        experts = self.setup.experts
        return experts is not None and experts.offloaded > 0

    def estimated(self) -> list[str]:
        """What of all this nobody has measured."""
        found = []
        if self.drafter is not None and self.drafter.lookup_s:
            found.append("speculation.draft.lookup")
        if self.setup.commit is not None and self.speculation is not None:
            rule = self.speculation.acceptance.rule
            if rule not in ("greedy", "rejection"):
                found.append(f"verify_commit.{rule} (as rejection)")
            if not self.speculation.shape.is_chain:
                found.append("verify_attention of a tree (as a chain of as many tokens)")
        experts = self.setup.experts
        if experts is not None and (experts.weights or experts.offloaded):
            found.append("moe")
        if self.blocks is not None:
            found.append("attention within a block (as of a verification, with its mask)")
            if self.blocks.refresh is not None:
                found.append("prefill_attention without a mask (as twice the scores of one with)")
        return found

    def _commit(self) -> Commit | None:
        """How drafts are judged."""
        if self.speculation is None:
            return None
        rule = self.speculation.acceptance.rule
        drafted = rule == "rejection" and self.drafter is not None and self.drafter.kind != "ngram"
        return Commit(RULES[rule].verify, drafted)

    def drafting(self, modes: Modes) -> Drafting | None:
        """The cost of drafts; None where nobody drafts."""
        if self.drafter is None or self.speculation is None:
            return None
        tree, overlap = self.speculation.shape, self.speculation.overlap
        return Drafting(self.setup, self.drafter, tree, modes, overlap)


def h2d_of(scenario: Scenario, profile: Profile) -> tuple[float, float]:
    """Latency in seconds and bytes/s of a copy from DRAM; the scenario's where it says so."""
    given = scenario.hardware.links.h2d
    latency = None if given is None else given.latency
    bandwidth = None if given is None else given.bandwidth
    return (
        profile.constant("h2d_latency_s") if latency is None else latency,
        profile.constant("h2d_bytes_per_s") if bandwidth is None else bandwidth,
    )


def drafter_of(scenario: Scenario) -> Drafter | None:
    """What drafts in *scenario*."""
    given = scenario.speculation
    if given is None:
        return None
    model = scenario.model
    return drafter(given.draft, given.shape, model.shape, model.weight_bits, scenario.kv.bits)


def hbm_bytes(scenario: Scenario) -> tuple[float, float]:
    """Bytes of weights in HBM, and of one token's keys and values, those of a drafter included.

    Experts that lie in DRAM are left out.
    """
    model, drafts = scenario.model, drafter_of(scenario)
    weights = model.shape.weight_bytes(model.weight_bits)
    weights -= offloaded_bytes(model.shape, model.weights, experts_of(scenario.moe, model.shape))
    token = model.shape.kv_bytes_per_token(scenario.kv.bits)
    if drafts is None:
        return weights, token
    return weights + drafts.weight_bytes, token + drafts.kv_bytes_per_token
