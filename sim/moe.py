"""Experts: how many of them an iteration reads, and what it waits for those that are not in HBM.

The one rule: all are expectations in closed form, so that an iteration of so many tokens costs the
same whichever requests they belong to.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from math import exp, prod
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, model_validator

from .dtypes import BITS
from .node import Node, Place, refuse
from .tiers import without_defaults

if TYPE_CHECKING:
    from .models import ModelShape
    from .profile import Profile
    from .timing import Timing

Share = Annotated[float, Field(strict=True, ge=0, le=1)]


class Routing(Node):
    """How popular the experts of a layer are."""

    kind: Literal["even", "zipf", "shares"] = "even"
    """All alike; the i-th in proportion to 1 / i^exponent; or as measured."""
    exponent: Annotated[float, Field(strict=True, ge=0, le=10)] = 1.0
    """Of `kind: zipf`."""
    shares: Annotated[tuple[Annotated[float, Field(gt=0)], ...], Field(min_length=1)] | None = None
    """Of `kind: shares`: weights by which experts are drawn, one an expert, in any unit."""

    @model_validator(mode="after")
    def _given(self) -> Routing:
        faults: list[tuple[Place, str]] = []
        if (self.kind == "shares") != (self.shares is not None):
            faults.append((("shares",), "give it with kind: shares, and only with it"))
        if "exponent" in self.model_fields_set and self.kind != "zipf":
            faults.append((("exponent",), "only with kind: zipf; remove it, or set kind: zipf"))
        refuse(faults)
        return self

    def weights(self, experts: int) -> tuple[float, ...]:
        """Weights of *experts* experts, the most popular first."""
        if self.shares is not None:
            return tuple(sorted(self.shares, reverse=True))
        if self.kind == "zipf":
            return tuple(rank**-self.exponent for rank in range(1, experts + 1))
        return (1.0,) * experts


class ExpertOffload(Node):
    """Experts that are kept in DRAM and fetched when a token is routed to them."""

    resident: Annotated[float, Field(strict=True, ge=0, lt=1)] = 0.5
    """Share of each layer's experts that HBM holds: a cache by score keeps the most popular."""
    prefetch: Share = 0.0
    """Share of the missing experts that is known, and asked for, a layer ahead."""


class Moe(Node):
    """How tokens are routed, and where experts are."""

    routing: Routing = Routing()
    offload: ExpertOffload | None = None

    def resolved(self, data: dict[str, Any]) -> dict[str, Any]:
        """*data*, which is this section as plain data, without what has no effect."""
        kept: dict[str, Any] = {
            "routing": without_defaults(self.routing, data["routing"], ("kind",))
        }
        if self.routing.kind == "zipf":
            kept["routing"]["exponent"] = self.routing.exponent
        return kept | ({} if self.offload is None else {"offload": data["offload"]})


@dataclass(frozen=True)
class Experts:
    """A layer's *experts*, of which each token takes *per_token*, drawn by *weights*.

    HBM holds the *held* most popular; a share *prefetch* of the others is asked for a layer ahead.
    """

    experts: int
    per_token: int
    weights: tuple[float, ...] = ()
    """The most popular first; none: all alike."""
    held: int | None = None
    prefetch: float = 0.0
    link: tuple[float, float] | None = None
    """Seconds of latency and bytes/s of the way from DRAM; not given: the profile's."""

    @cached_property
    def hit(self) -> tuple[float, ...]:
        """The probability of each expert to be among those of one token; their sum is per_token."""
        experts, k = self.experts, self.per_token
        if not self.weights or len(set(self.weights)) == 1 or k == experts:
            return (k / experts,) * experts
        # Model: a token draws its experts one after the other without putting back. Seen as a race
        # of exponential clocks, those that ring before a common time are drawn; Rosen (1972) showed
        # that a fixed time, at which as many are expected as are drawn, gives these probabilities
        # up to errors that vanish as experts become many.
        scale = sum(self.weights)
        weights = [weight / scale for weight in self.weights]
        low, high = 0.0, 1.0
        while sum(1.0 - exp(-weight * high) for weight in weights) < k:
            low, high = high, high * 2.0
        for _ in range(200):
            middle = (low + high) / 2.0
            if sum(1.0 - exp(-weight * middle) for weight in weights) < k:
                low = middle
            else:
                high = middle
        return tuple(1.0 - exp(-weight * high) for weight in weights)

    def distinct(self, tokens: int) -> float:
        """Experts of a layer that at least one of *tokens* tokens takes, expected."""
        # Model: tokens choose independently of each other, so that with even popularity a batch of
        # m tokens reads E (1 - (1 - k/E)^m) of E experts; skewed routing reads fewer.
        if not self.weights:
            return self.experts * (1.0 - (1.0 - self.per_token / self.experts) ** tokens)
        return sum(1.0 - (1.0 - hit) ** tokens for hit in self.hit)

    def missed(self, tokens: int) -> float:
        """Those of them that HBM does not hold, expected."""
        # Model: scores follow what is routed, so in the long run the cache holds the most popular.
        return sum(1.0 - (1.0 - hit) ** tokens for hit in self._outside)

    def any_missed(self, tokens: int) -> float:
        """The probability that a layer misses at least one, experts taken as independent."""
        return 1.0 - prod((1.0 - hit) ** tokens for hit in self._outside)

    @property
    def _outside(self) -> tuple[float, ...]:
        return () if self.held is None else self.hit[self.held :]

    @property
    def offloaded(self) -> int:
        """Experts of a layer that HBM does not hold."""
        return 0 if self.held is None else self.experts - self.held


def experts_of(moe: Moe | None, shape: ModelShape) -> Experts | None:
    """The experts of *shape* under a scenario's `moe` section; None for a dense model."""
    if not shape.experts:
        return None
    experts = Experts(shape.experts, shape.experts_per_token)
    if moe is None:
        return experts
    if moe.routing.kind != "even":
        experts = replace(experts, weights=moe.routing.weights(shape.experts))
    if moe.offload is not None:
        held = round(moe.offload.resident * shape.experts)
        experts = replace(experts, held=held, prefetch=moe.offload.prefetch)
    return experts


def moe_faults(moe: Moe | None, shape: ModelShape) -> list[tuple[Place, str]]:
    """What does not fit between a `moe` section and the model."""
    if moe is None:
        return []
    if not shape.experts:
        return [(("moe",), f"{shape.name} has no experts; remove it, or choose another model")]
    shares = moe.routing.shares
    if shares is not None and len(shares) != shape.experts:
        what = f"{len(shares)} weights for {shape.experts} experts; give one an expert"
        return [(("moe", "routing", "shares"), what)]
    return []


@dataclass(frozen=True, slots=True)
class Fetch:
    """What fetching experts from DRAM adds to a pass of *layers* layers."""

    layers: int
    late: float
    """Seconds a layer waits for experts that nobody has asked for before."""
    early: float
    """Seconds that the others of a layer occupy the link."""

    def wait(self, layer: float) -> float:
        """Seconds that a pass waits whose layers take *layer* seconds each."""
        return self.layers * (self.late + max(0.0, self.early - layer))

    def timing(self, timing: Timing, layer: float) -> Timing:
        """*timing* with the waits, *layer* being a layer's time without attention.

        # Model: what is asked for ahead arrives while the layer before computes, as far as that
        # takes as long; what remains is waited for, and what is not foreseen is waited for in full.
        # Fetches do not slow the kernels beside them (the profile saw 7 % at full rate).
        """
        if not self.layers:
            return timing
        late = self.layers * self.late
        lines = tuple((const + late, slope) for const, slope in timing.lines)
        const, slope = timing.lines[0]
        linked = max(0.0, const - self.layers * layer) + late + self.layers * self.early
        return replace(timing, lines=(*lines, (linked, max(0.0, slope - self.layers))))


def fetch_of(
    profile: Profile, shape: ModelShape, weights: str, experts: Experts | None, tokens: int
) -> Fetch:
    """What a pass of *tokens* tokens waits for experts; nothing if HBM holds them all."""
    if experts is None or not experts.offloaded:
        return Fetch(0, 0.0, 0.0)
    # Model: a layer's experts come in one batch of copies, whose latency is paid once.
    size = shape.expert_params * BITS[weights] / 8.0
    known = profile.constant("h2d_latency_s"), profile.constant("h2d_bytes_per_s")
    latency, bandwidth = experts.link or known
    seconds = experts.missed(tokens) * size / bandwidth
    seconds += experts.any_missed(tokens) * latency
    early = experts.prefetch * seconds
    return Fetch(shape.layers, seconds - early, early)


def offloaded_bytes(shape: ModelShape, weights: str, experts: Experts | None) -> float:
    """Bytes of experts that HBM does not hold."""
    if experts is None:
        return 0.0
    return shape.layers * experts.offloaded * shape.expert_params * BITS[weights] / 8.0
