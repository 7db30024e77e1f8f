"""What a run's summary says about selection: blocks and bytes read, saved, scored, fetched.

The one rule: the names are those of the first seed, and a block is counted once for every layer,
as its pages were. What the seed had wrong is right here: bytes are those of tokens that are there,
so a newest block that is partly filled counts as what it holds, and the first step counts as any.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from .selection import Selection


class Sums(NamedTuple):
    """Sums over steps of requests; all but `context` of one sparse layer."""

    steps: int = 0
    blocks: int = 0
    """Blocks that there were."""
    chosen: int = 0
    """Blocks that were read."""
    context: int = 0
    """Tokens that there were."""
    attended: int = 0
    """Tokens that were read."""
    scored: int = 0
    """Blocks or clusters that were scored, of a layer that scores."""
    fetched: int = 0
    """Blocks of all layers that were fetched into HBM."""
    recall: float = 0.0
    """Of the share of attention mass kept, as assumed."""

    def plus(self, other: Sums) -> Sums:
        """Both together."""
        return Sums._make(a + b for a, b in zip(self, other, strict=True))


def summary(sums: Sums, selection: Selection) -> dict[str, object]:
    """The keys for *sums* over a whole run; each begins with `kv_`."""
    dense, sparse, scored = selection.layers
    total = sums.blocks * (dense + sparse)
    chosen = sums.blocks * dense + sums.chosen * sparse
    token = selection.token_layer_bytes
    block = token * selection.sizes.block_tokens * (dense + sparse)
    keys: dict[str, object] = {
        "kv_blocks_total": total,
        "kv_blocks_selected": chosen,
        "kv_sparsity_ratio": 1.0 - chosen / total if total else 0.0,
        "kv_bytes_read": token * (sums.context * dense + sums.attended * sparse),
        "kv_bytes_saved": token * (sums.context - sums.attended) * sparse,
        "kv_scored": sums.scored * scored,
        "kv_bytes_scored": sums.scored * scored * selection.thing_bytes,
        "kv_blocks_fetched": sums.fetched,
        "kv_bytes_fetched": sums.fetched * block,
        "kv_selection_assumptions": selection.assumptions(),
    }
    if selection.assumed_recall is not None:
        keys["kv_attention_recall_assumed"] = sums.recall / sums.steps if sums.steps else 1.0
    return keys
