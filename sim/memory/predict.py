"""How long computing a part of a prompt will take: what loading it competes with.

One rule: an estimate in a few operations, from the cost model's own iterations; asking changes
nothing in the run.
"""

from __future__ import annotations

from copy import copy
from typing import TYPE_CHECKING

from sim.cost import Chunk

if TYPE_CHECKING:
    from sim.cost import Cost


class Prefill:
    """Seconds of prefill with *cost*, in full iterations of *tokens* tokens."""

    def __init__(self, cost: Cost, tokens: int) -> None:
        apart = copy(cost)  # so that what it was asked about is not taken for what the run did
        far = 16 * tokens
        near_s = apart.mixed(0, 0, [Chunk(tokens, 0)], 1).seconds
        far_s = apart.mixed(0, 0, [Chunk(tokens, far)], 1).seconds
        # Model: an iteration grows in a straight line with the context before its chunk, and a
        # prompt's last chunk, which is not full, takes its share of a full one.
        self._per_token = near_s / tokens
        self._per_pair = max(0.0, far_s - near_s) / (far * tokens)
        self._half = self._per_pair / 2.0

    def seconds(self, first: int, last: int) -> float:
        """Computing the tokens from *first* to before *last* of a prompt alone on the GPU."""
        return self._per_token * (last - first) + self._half * (last * last - first * first)
