"""What a run's iterations did with experts, for the summary; all of it expected, nothing drawn."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import numpy as np

from .dtypes import BITS

if TYPE_CHECKING:
    from .iteration_log import Columns
    from .setup import Setup


class MoeStats:
    """Experts that the iterations of the model of *setup* read and missed."""

    def __init__(self, setup: Setup) -> None:
        self.setup = setup
        self.tokens: Counter[int] = Counter()  # tokens of an iteration -> iterations

    def add(self, columns: Columns) -> None:
        """Takes a slice of iterations."""
        if self.setup.experts is None:
            return
        rows = columns.get("decode_rows", columns["decode_requests"])
        tokens, counts = np.unique(rows + columns["prefill_tokens"], return_counts=True)
        self.tokens.update(dict(zip(tokens.tolist(), counts.tolist(), strict=True)))

    def summary(self) -> dict[str, float]:
        """Keys with the prefix `moe_`; none for a dense model or without a `moe` section.

        Distinct experts a layer and iteration, on average; bytes of experts that were read and,
        with offload, fetched from DRAM; the share of experts read that HBM held.
        """
        experts, shape = self.setup.experts, self.setup.shape
        iterations = sum(self.tokens.values())
        if experts is None or not iterations or not (experts.weights or experts.offloaded):
            return {}
        size = shape.layers * shape.expert_params * BITS[self.setup.weights] / 8.0
        counts = sorted(self.tokens.items())
        read = sum(experts.distinct(tokens) * count for tokens, count in counts)
        found = {
            "moe_distinct_experts_mean": read / iterations,
            "moe_expert_bytes_read": read * size,
        }
        if experts.offloaded:
            missed = sum(experts.missed(tokens) * count for tokens, count in counts)
            found["moe_expert_bytes_fetched"] = missed * size
            found["moe_hit_rate"] = 1.0 - missed / read
        return found
