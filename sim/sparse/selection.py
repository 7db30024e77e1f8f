"""What a scenario's `sparse` section means for one request: blocks read, scored, held, fetched.

The one rule: every function of a request's context is elementwise, and a number and an array give
the same to the last bit, so that both engines agree. *context* counts the KV entries of a request,
those that the step appends included; *rows* of them are the step's own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, overload

import numpy as np

from sim import sparsity

from .locality import Locality
from .numbers import N, Whole, blocks, least, most
from .recall import Recall
from .sizes import Sizes
from .summary import Sums

if TYPE_CHECKING:
    from sim.models import ModelShape
    from sim.sparsity import Sparse
    from sim.tiers import Kv

GOLDEN, TURN = 2_654_435_769, 2**32
"""The golden ratio's part of a turn, in whole numbers."""
DRAFT_BLOCKS = 1024
"""More than drafts take beyond the longest context."""
VECTOR_BYTES = 2.0
"""Of a number in what is kept to score a block: 16 bits, whatever the KV's format."""


class Layers(NamedTuple):
    """Layers by what they do in a step."""

    dense: int
    """Attend to the whole context."""
    sparse: int
    """Attend to the selection."""
    scored: int
    """Of the sparse ones, those that score and select; the others take their selection."""

    def mean(self, dense: float, sparse: float, choosing: float) -> float:
        """Mean over all layers of a time that dense, sparse and scoring layers have each."""
        total = self.dense * dense + self.sparse * sparse + self.scored * choosing
        return total / (self.dense + self.sparse)


class Selection:
    """The selection of *sparse* over the cache *kv* of a model of *shape*."""

    def __init__(self, sparse: Sparse, kv: Kv, shape: ModelShape) -> None:
        self.policy = sparse.select
        self.query_aware = sparse.select in sparsity.QUERY_AWARE
        self.keeps_scores = sparse.select == "h2o"
        """Whether attention adds its weights up for each token. Model: the kernel has them at
        hand, so that this takes no time."""
        self.vectors = {"topk": 2, "cluster": 1}.get(sparse.select, 0)
        """Vectors a KV head that are read to score a thing: a block's channel-wise minimum and
        maximum, or a cluster's centroid. Model: clusters are made during prefill, at no cost."""
        dense = shape.layers if sparse.select == "dense" else sparse.dense_layers
        selecting = shape.layers - dense
        scored = -(-selecting // sparse.shared_layers) if self.query_aware else 0
        self.layers = Layers(dense, selecting, scored)
        self.sizes = sizes_of(sparse, kv)
        self.locality = Locality(sparse.locality, sparse.returning)
        self.offload = sparse.offload is not None
        self.drop = sparse.drop and sparse.select in sparsity.OF_POLICY["drop"]
        self.resident_blocks = (
            sparsity.in_blocks(sparse.offload.resident_tokens, kv) if sparse.offload else 0
        )
        most_blocks = sparsity.in_blocks(shape.max_context, kv) + DRAFT_BLOCKS
        self.assumed_recall = None if sparse.recall is None else Recall(sparse.recall, most_blocks)
        self.token_layer_bytes = shape.kv_bytes_per_token(kv.bits) / shape.layers
        self.thing_bytes = self.vectors * shape.kv_heads * shape.head_dim * VECTOR_BYTES
        """Bytes that one layer reads to score one thing."""

    # ---------------------------------------------------------------- what a step reads
    def attended(self, context: N, rows: N | int = 1) -> N:
        """Tokens that a sparse layer attends to; a dense layer attends to *context*."""
        return self.sizes.attended(context, rows)

    def pages(self, context: N, rows: N | int = 1) -> N:
        """Things that a scoring layer scores: blocks or clusters; 0 where all is selected."""
        return self.sizes.scored(context, rows)

    def chosen(self, context: N, rows: N | int = 1) -> N:
        """Blocks that a sparse layer reads."""
        return self.sizes.chosen(context, rows)

    @overload
    def recall(self, context: int, rows: int = 1) -> float: ...
    @overload
    def recall(self, context: np.ndarray, rows: Whole = 1) -> np.ndarray: ...
    def recall(self, context: Any, rows: Any = 1) -> Any:
        """Assumed share of attention mass that is kept, the mean over all layers."""
        if self.assumed_recall is None:
            return context * 0.0 + 1.0
        kept = self.assumed_recall.of(self.chosen(context, rows), self.sizes.total(context))
        dense, sparse, _ = self.layers
        return (dense + sparse * kept) / (dense + sparse)

    # ---------------------------------------------------------------- where it lies
    def resident(self, context: N, rows: N | int = 1) -> N:
        """Blocks of HBM that the request holds, a block being of all layers; rounded up."""
        # Model: dense layers keep all their KV in HBM, sparse ones what they may; what a sparse
        # layer keeps need not be what another keeps, so memory is counted in bytes.
        total = self.sizes.total(context)
        dense, sparse, _ = self.layers
        return blocks(dense * total + sparse * self._held(context, rows), dense + sparse)

    def offloaded(self, context: N, rows: N | int = 1) -> N:
        """Blocks of the lower tier beyond those in HBM; their growth is copied down."""
        total = self.sizes.total(context)
        lower: N = total - self.resident(context, rows)
        return lower if self.offload else total * 0

    @overload
    def fetched(self, context: int, rows: int = 1, advance: int = 1) -> int: ...
    @overload
    def fetched(self, context: np.ndarray, rows: Whole = 1, advance: Whole = 1) -> np.ndarray: ...
    def fetched(self, context: Any, rows: Any = 1, advance: Any = 1) -> Any:
        """Blocks, each of all layers, that a step fetches: `fetched_on_average` in whole blocks."""
        # Model: rounded up or down so that the mean over consecutive contexts is kept, by a
        # golden-ratio sequence; one request's steps neither all lose nor all gain a part.
        if not (self.offload and self.query_aware):
            return context * 0
        average = self.fetched_on_average(context, rows, advance)
        whole = average // 1.0
        up = (context * GOLDEN % TURN) / TURN < average - whole
        if isinstance(context, int):
            return int(whole) + bool(up)
        return whole.astype(np.int64) + up

    @overload
    def fetched_on_average(self, context: int, rows: int = 1, advance: int = 1) -> float: ...
    @overload
    def fetched_on_average(
        self, context: np.ndarray, rows: Whole = 1, advance: Whole = 1
    ) -> np.ndarray: ...
    def fetched_on_average(self, context: Any, rows: Any = 1, advance: Any = 1) -> Any:
        """Expected blocks that a step selects newly and HBM does not have.

        *advance*: tokens committed since the selection before.
        """
        # Model: at its first step a request has in HBM what its last prompt token selected, and a
        # pool that grows by a block now and then is taken as if it had always had its size.
        if not (self.offload and self.query_aware):
            return context * 0.0
        sizes, (dense, sparse, _) = self.sizes, self.layers
        pool = sizes.pool(context, rows)
        held = (self._held(context, rows) - sizes.apart(context, rows)) // sizes.unit
        units = self.locality.fetched(pool, sizes.units, held, advance)
        return units * (sizes.unit * sparse) / (dense + sparse)

    def touched(self, context: int, steps: int) -> float:
        """Different blocks that a sparse layer reads in *steps* steps at this context."""
        sizes = self.sizes
        if not self.query_aware:
            return float(sizes.chosen(context))
        units = self.locality.touched(sizes.pool(context), sizes.units, steps)
        return min(float(sizes.total(context)), sizes.apart(context) + sizes.unit * units)

    def _held(self, context: N, rows: N | int) -> N:
        """Blocks that a sparse layer has in HBM."""
        total = self.sizes.total(context)
        if self.drop:
            return self.sizes.chosen(context, rows)
        if not self.offload:
            return total
        held: N = least(total, most(self.sizes.chosen(context, rows), self.resident_blocks))
        return held

    @property
    def index_bytes_per_block(self) -> float:
        """Bytes of HBM for what is kept to score a block, over all layers, offloaded or not."""
        return self.thing_bytes * self.layers.scored / self.sizes.unit

    @property
    def piece_layers(self) -> int:
        """Layers whose KV of a block is fetched together: those that share a selection."""
        _, sparse, scored = self.layers
        return -(-sparse // scored) if scored else sparse

    # ---------------------------------------------------------------- what is reported
    def sums(
        self, contexts: np.ndarray, rows: np.ndarray | int = 1, advance: np.ndarray | int = 1
    ) -> Sums:
        """What steps at *contexts* read, scored and fetched, together."""
        return Sums(
            steps=len(contexts),
            blocks=int(self.sizes.total(contexts).sum()),
            chosen=int(self.chosen(contexts, rows).sum()),
            context=int(contexts.sum()),
            attended=int(self.attended(contexts, rows).sum()),
            scored=int(self.pages(contexts, rows).sum()),
            fetched=int(self.fetched(contexts, rows, advance).sum()),
            recall=float(self.recall(contexts, rows).sum()),
        )

    def assumptions(self) -> list[str]:
        """One line for each input that nothing here can check, for reports."""
        lines = []
        if self.offload and self.query_aware:
            stay, back = self.locality.stay, self.locality.returning
            what = f"{stay:g} of a selection is selected again by the next step"
            lines.append(f"sparse.locality: {what}, {back:g} of the rest was shortly before")
        if self.assumed_recall is not None and self.layers.sparse:
            lines.append(f"sparse.recall: share of attention mass kept: {self.assumed_recall}")
        return lines


def sizes_of(sparse: Sparse, kv: Kv) -> Sizes:
    """The sizes of the section in blocks; what the policy has no use for is 0."""

    def given(key: str) -> int:
        has = sparse.select in sparsity.OF_POLICY[key]
        return sparsity.in_blocks(getattr(sparse, key), kv) if has else 0

    units, unit = given("top_k_tokens"), 1
    if sparse.select == "cluster":
        # Model: clusters are of equal size and lie in whole blocks of their own; all of a cluster
        # is read, so a selection is larger than `top_k_tokens` by up to a cluster.
        units, unit = -(-sparse.top_k_tokens // sparse.cluster_tokens), given("cluster_tokens")
    sink, recent = given("sink_tokens"), given("recent_tokens")
    return Sizes(sparse.select, kv.block_tokens, sink, recent, units, unit)
