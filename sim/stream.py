"""A resident step whose weights are read ahead: how long it takes, as lines in attention's time.

The workers of a persistent kernel go from stage to stage, and after each they meet. Their weights
come as one stream through a ring in shared memory, which runs ahead of them as far as the ring
reaches. The one rule: a stage ends when its workers have gone through its weights, and they can
neither begin before the stage before has ended nor be ahead of the stream.

For each stage, with *begin* when its workers may start, *end* and *arrived*, when the stream has
brought the last of its bytes:

    begin   = end before + meet + row * rows + tile * (tiles of 8 rows - 1)
    arrived = max(arrived before, begin - ring / rate) + bytes / rate
    end     = max(begin + bytes / consume rate, arrived)

Stages without weights (scoring and selection of pages, attention) read the same memory but not
through the ring: they end so many seconds after the stage before and a meeting, and hold the stream
up by that less their latency.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .timing import Line

Part = tuple[float, float]
"""A stage: bytes of weights that it streams or, if none, seconds that it takes."""
Ends = np.ndarray
"""Of lines in x: the constant of the line of each slope 0, 1, 2..., -inf where there is none."""


@dataclass(frozen=True, slots=True)
class Stream:
    """What a resident loop costs beside its bytes."""

    around_s: float
    """Once a step: choice of the token, commit, what the mailbox says."""
    bytes_per_s: float
    """Of the stream of weights."""
    consume_bytes_per_s: float
    """At which all workers go through weights that are in their rings already."""
    ring_bytes: float
    """Of all workers together."""
    meet_s: float
    """Between two stages: the last worker's end, the barrier, activations."""
    row_s: float
    """More of that for each token row."""
    tile_s: float
    """And for every eight token rows beyond the first, the narrow side of a tensor-core product."""
    latency_s: float
    """Part of attention in which the stream goes on."""

    def meeting(self, rows: int) -> float:
        """Seconds between two stages of a step of *rows* token rows."""
        return self.meet_s + self.row_s * rows + self.tile_s * (ceil(rows / 8) - 1)

    def lines(
        self,
        rows: int,
        before: Sequence[Part],
        after: Sequence[Part],
        tail: Sequence[Part],
        layers: int,
        chosen: Sequence[Part] = (),
        selections: int = 0,
    ) -> tuple[Line, ...]:
        """Seconds of a step of *rows* token rows, the largest of lines in attention's time.

        *before* and *after* attention are a layer's stages, *tail* those behind the layers;
        *chosen* come just before attention in *selections* of the layers, evenly spread.
        """
        ring = self.ring_bytes / self.bytes_per_s
        meet = self.meeting(rows)
        end = np.full(layers + 1, -np.inf)
        end[0] = self.around_s
        # While a step ends, the stream of the next one fills the ring.
        arrived = end - ring

        def stage(weights: float, seconds: float) -> None:
            nonlocal end, arrived
            begin = end + meet
            if weights:
                arrived = np.maximum(arrived, begin - ring) + weights / self.bytes_per_s
                end = np.maximum(begin + weights / self.consume_bytes_per_s, arrived)
            else:
                end = begin + seconds
                arrived = arrived + max(0.0, seconds - self.latency_s)

        for layer in range(layers):
            for part in before:
                stage(*part)
            if (layer + 1) * selections // layers > layer * selections // layers:
                for part in chosen:
                    stage(*part)
            # Attention: x seconds more, one slope further.
            end = np.concatenate(([-np.inf], end[:-1] + meet))
            moved = np.concatenate(([-np.inf], arrived[:-1] - self.latency_s))
            arrived = np.maximum(arrived, moved)
            for part in after:
                stage(*part)
        for part in tail:
            stage(*part)
        return _upper(end)


def _upper(ends: Ends) -> tuple[Line, ...]:
    """The lines of *ends* that are the largest somewhere at x >= 0, flattest first."""
    kept: list[Line] = []
    for slope, const in enumerate(ends.tolist()):
        if const == -np.inf:
            continue
        while kept and kept[-1][0] <= const:
            kept.pop()
        while len(kept) > 1:
            (a, m), (b, n) = kept[-2:]
            # b is below both others wherever it would overtake a only after this one has.
            if (a - b) * (slope - m) < (a - const) * (n - m):
                break
            kept.pop()
        kept.append((const, float(slope)))
    return tuple(kept)
