"""Iterations in which all decode: their length and their account, for one or for many at once.

The one rule: a scalar method and its array twin perform the same operations in the same order, so
that both engines of the simulator see the same bits.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from . import cost_table
from .curve import Curve, Read
from .timing import scalars

if TYPE_CHECKING:
    from .drafting import Draft
    from .measured import Layer
    from .timing import Number, Timing


@dataclass(frozen=True, slots=True)
class DecodeCost:
    """An iteration in which all decode, run as *padded* requests with *rows* tokens in all."""

    padded: int
    rows: int
    timing: Timing
    layer: Layer
    draft: Draft | None = None
    fetch: tuple[float, float] | None = None
    """Seconds of latency and a block where blocks come from DRAM in an iteration."""
    _own: list[tuple[cost_table.Layout, tuple[np.ndarray, ...]]] = field(
        default_factory=list, init=False, repr=False, compare=False
    )

    @property
    def own(self) -> tuple[cost_table.Layout, tuple[np.ndarray, ...]]:
        """What the length is worked out from, as `cost_table` has it."""
        if not self._own:
            layout = cost_table.layout_of(self)
            self._own.append((layout, scalars(*cost_table.column(self, layout))))
        return self._own[0]

    def seconds(
        self,
        context: int,
        attended: float | None = None,
        pages: float | None = None,
        fetched: float | None = None,
    ) -> float:
        """Length of the iteration over *context* KV entries, those appended included.

        Of these, *attended* are read where pages are selected, of *pages* that are scored;
        *fetched* blocks come from DRAM.
        """
        x = self.reading(context, attended, pages)
        total = self.timing.seconds(x)
        if self.draft is not None:
            total = self.draft.beside(total, self.timing.busy(x), float(context))
        if self.fetch is not None and fetched is not None:
            total = max(total, awaited(self.fetch, float(fetched)))
        return total

    def seconds_into(
        self,
        contexts: np.ndarray,
        attended: np.ndarray | None = None,
        pages: np.ndarray | None = None,
        fetched: np.ndarray | None = None,
    ) -> np.ndarray:
        """`seconds` for each element of the arrays."""
        total = cost_table.seconds(*self.own, self._read(contexts, attended, pages))
        if self.fetch is not None and fetched is not None:
            total = np.maximum(total, awaited(self.fetch, fetched))
        return total

    def account(
        self,
        contexts: np.ndarray,
        attended: np.ndarray | None = None,
        pages: np.ndarray | None = None,
        fetched: np.ndarray | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """GPU-busy seconds and seconds of launches queued, for each of the elements."""
        x = self._xs(contexts, attended, pages)
        busy, tklqt = self.timing.busy(x), self.timing.tklqt(x, np.maximum)
        if self.draft is not None:
            busy = busy + self.draft.busy(contexts)
            tklqt = tklqt + self.draft.tklqt(contexts, np.maximum)
        return busy, tklqt

    def reading(self, context: int, attended: float | None, pages: float | None) -> float:
        """Seconds that a layer takes for the KV, as `seconds` counts them."""
        return layer_time(self.layer, context, attended, pages, whole=False)

    @property
    def launches(self) -> int:
        """Launches by the host, those of drafting included."""
        return self.timing.launches + (0 if self.draft is None else self.draft.launches)

    @property
    def syncs(self) -> int:
        """Times that the host waits for the GPU."""
        return self.timing.syncs

    @property
    def barriers(self) -> int:
        """Times that all SMs wait for each other inside a resident loop."""
        return self.timing.barriers + (0 if self.draft is None else self.draft.barriers)

    def _xs(
        self, contexts: np.ndarray, attended: np.ndarray | None, pages: np.ndarray | None
    ) -> np.ndarray:
        if isinstance(self.layer, Curve):
            return self.layer.into(contexts.copy())
        return self.layer.array(self._read(contexts, attended, pages))

    def _read(
        self, contexts: np.ndarray, attended: np.ndarray | None, pages: np.ndarray | None
    ) -> Read:
        """What iterations read, all of it where nothing is *attended* alone."""
        if isinstance(self.layer, Curve):
            return Read(contexts, contexts, contexts)  # of which it reads the first
        none = np.zeros_like(contexts) if pages is None else pages
        return Read(contexts, contexts if attended is None else attended, none)


def awaited(link: tuple[float, float], blocks: Number) -> Number:
    """Seconds that a *link* with such a latency and time a block takes for *blocks* blocks."""
    # Model: while a layer computes, the link brings what later layers will read; the iteration
    # takes at least as long as the link needs for all of its blocks.
    latency, each = link
    return latency * (blocks > 0) + each * blocks


def layer_time(
    layer: Layer, context: int, attended: float | None, pages: float | None, whole: bool = True
) -> float:
    """Seconds of what *layer* does with the KV; *whole*: with all of scoring and selection."""
    if isinstance(layer, Curve):
        return layer.seconds(float(context))
    read = float(context if attended is None else attended)
    seconds = layer.seconds(Read(float(context), read, float(pages or 0)))
    return seconds + layer.held if whole else seconds
