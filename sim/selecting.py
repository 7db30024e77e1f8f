"""Which layers of a step select pages, and what that lets them run.

The one rule: policies are told apart by the kernels that they need and by nothing else; which
pages they choose is not the cost model's business.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from .sparsity import QUERY_AWARE

if TYPE_CHECKING:
    from .sparsity import Sparse


@dataclass(frozen=True, slots=True)
class Selecting:
    """Of a step's *layers*, *dense* attend to everything, the others to pages that are selected.

    Scoring and selection run in *selections* layers; those between attend to what the one before
    has chosen.
    """

    layers: int
    dense: int
    selections: int
    vectors: int = 2
    """Vectors a KV head that are read to score a page: its channel-wise bounds, or a centroid."""

    @property
    def sparse_share(self) -> float:
        """Share of the layers that attend to selected pages."""
        return (self.layers - self.dense) / self.layers

    @property
    def selecting_share(self) -> float:
        """Share of the layers in which scoring and selection run."""
        return self.selections / self.layers


def selecting_of(sparse: Sparse | None, layers: int) -> Selecting | None:
    """What a scenario's `sparse` section has *layers* layers do; None if all attend densely."""
    if sparse is None or sparse.select == "dense":
        return None
    dense = min(layers, sparse.dense_layers)
    # Model: the newest pages and the first are known without any kernel, and attention adds up by
    # itself what h2o goes by.
    selects = sparse.select in QUERY_AWARE
    selections = -(-(layers - dense) // sparse.shared_layers) if selects else 0
    return Selecting(layers, dense, selections, 1 if sparse.select == "cluster" else 2)
