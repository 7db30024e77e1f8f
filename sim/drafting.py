"""What drafting takes: passes of a small model or of heads, in the loop mode of the scenario.

The one rule: a drafter's passes go through the same stages and modes as those of the model that it
drafts for; what they run is said by `speculation.drafters`, and no time is in there.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from .curve import Curve
from .dtypes import BITS
from .model_cost import ModelCost
from .setup import Product, Setup
from .timing import slowed

if TYPE_CHECKING:
    from collections.abc import Callable

    from .modes import Modes
    from .speculation.drafters import Drafter
    from .speculation.trees import Tree
    from .timing import Number, Timing

FORMATS = {16: "bf16", 8: "fp8", 4: "int4"}
"""Format of weights and KV of so many bits, where the drafted-for model has another."""


@dataclass(frozen=True, slots=True)
class DraftPass:
    """One kind of pass that drafting runs *times* times."""

    times: int
    timing: Timing
    layer: Curve

    def x(self, context: Number) -> Number:
        """Seconds of what a layer does with the KV of *context* tokens."""
        if isinstance(context, np.ndarray):
            return self.layer.into(context.copy())
        return self.layer.seconds(context)


@dataclass(frozen=True, slots=True)
class Draft:
    """All that drafting adds to an iteration."""

    passes: tuple[DraftPass, ...]
    lookup: float
    """Seconds on the host before the iteration."""
    overlap: bool
    """Whether it runs on a stream of its own, beside verification."""

    def seconds(self, context: float) -> float:
        """First to last kernel of drafting, at *context* tokens of all requests together."""
        return self.both(context)[0]

    def busy(self, context: Number) -> Number:
        """Seconds of it in which the GPU works."""
        total: Number = 0.0 * context
        for one in self.passes:
            total = total + float(one.times) * one.timing.busy(one.x(context))
        return total

    def tklqt(self, context: Number, largest: Callable[[Number, Number], Number]) -> Number:
        """Seconds that its launches queue."""
        total: Number = 0.0 * context
        for one in self.passes:
            total = total + float(one.times) * one.timing.tklqt(one.x(context), largest)
        return total

    def both(self, context: float) -> tuple[float, float]:
        """`seconds` and `busy` of one iteration."""
        total, busy = self.lookup, 0.0
        for one in self.passes:
            x, times = one.x(context), float(one.times)
            total += times * one.timing.seconds(x)
            busy += times * one.timing.busy(x)
        return total, busy

    @property
    def launches(self) -> int:
        """Launches of all its passes."""
        return sum(one.times * one.timing.launches for one in self.passes)

    @property
    def barriers(self) -> int:
        """Barriers of all its passes."""
        return sum(one.times * one.timing.barriers for one in self.passes)

    def beside(self, verify: float, busy: float, context: float) -> float:
        """The whole iteration, of which *verify* seconds are verification, the GPU *busy*."""
        drafting, own = self.both(context)
        if not self.overlap:
            return verify + drafting
        # Model: with two streams the next draft is made while this one is verified, as if it were
        # known what will be accepted (an upper bound of what overlap gains; PEARL, Liu et al.
        # 2024, drafts in vain where it guesses wrong). Both streams read weights, so work on the
        # GPU adds up: only launches, waits and scheduling are hidden behind the other stream.
        return max(verify, drafting, busy + own)

    def changed(self, change: Callable[[Timing], Timing]) -> Draft:
        """The same with each pass's timing changed."""
        passes = tuple(replace(one, timing=change(one.timing)) for one in self.passes)
        return replace(self, passes=passes)

    def slowed(self, factor: float) -> Draft:
        """The same on a GPU that takes *factor* times longer."""
        return self.changed(lambda timing: slowed(timing, factor))


class Drafting:
    """Drafts of *drafter* along *tree* for the model of *setup*."""

    def __init__(
        self, setup: Setup, drafter: Drafter, tree: Tree, modes: Modes, overlap: bool
    ) -> None:
        self.drafter, self.tree = drafter, tree
        self.overlap = overlap
        self.model: ModelCost | None = None
        self.drafts: dict[tuple[str, int, int, int], Draft | None] = {}
        shape = drafter.shape
        if shape is not None:
            alike = shape.experts == setup.shape.experts > 0
            own = replace(
                setup,
                shape=shape,
                weights=_format(setup.weights, drafter.weight_bits),
                kv_dtype=_format(setup.kv_dtype, drafter.kv_bits),
                selecting=None,
                commit=None,
                extra=tuple(
                    Product("draft_in", product.k, product.n)
                    for product in drafter.products
                    for _ in range(product.count)
                ),
                between=True,
                experts=replace(setup.experts, held=None) if alike and setup.experts else None,
            )
            # Model: a drafter attends to all of its KV, which is a layer or a small model's, and
            # keeps its experts in HBM.
            self.model = ModelCost(own, modes)

    def of(self, mode: str, padded: int, batch: int, depth: int) -> Draft | None:
        """Drafting of *depth* levels for *batch* requests run as *padded*; None if there is none.

        # Model: requests that draft fewer levels ride along in all passes.
        """
        key = mode, padded, batch, depth
        if key not in self.drafts:
            self.drafts[key] = self._of(*key) if depth else None
        return self.drafts[key]

    def _of(self, mode: str, padded: int, batch: int, depth: int) -> Draft | None:
        drafter = self.drafter
        # Model: the look-up takes as long for one request as for all, on threads of their own.
        passes: list[DraftPass] = []
        if self.model is not None:
            widths = drafter.passes(self.tree, depth)
            for width in sorted(set(widths)):
                timing, layer = self.model.step(mode, padded, padded * width, batch)
                assert isinstance(layer, Curve)
                passes.append(DraftPass(widths.count(width), timing, layer))
        if not passes and not drafter.lookup_s:
            return None
        return Draft(tuple(passes), drafter.lookup_s, self.overlap)


def heads(drafter: Drafter | None) -> tuple[Product, ...]:
    """What of *drafter* runs in the pass that verifies: heads that draft all levels at once."""
    if drafter is None or drafter.shape is not None:
        return ()
    return tuple(
        Product("draft_heads", product.k, product.n)
        for product in drafter.products
        for _ in range(product.count)
    )


def _format(own: str, bits: int) -> str:
    """*own* if it has so many *bits*, else the usual format of that many."""
    return own if BITS[own] == bits else FORMATS[bits]
