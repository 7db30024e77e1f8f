"""Which KV a decode step reads: the section `sparse` of a scenario.

The one rule: a scenario without this section is as it was, and a key without effect is named in a
warning. What the keys mean for a run is `Selection` in `sparse/selection.py`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, PlainValidator

from .errors import shown
from .node import Flag, Node, Place
from .tiers import without_defaults

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .models import ModelShape
    from .scenario import Hardware
    from .tiers import Kv

Tokens = Annotated[int, Field(strict=True, ge=1, le=10_000_000)]
Layers = Annotated[int, Field(strict=True, ge=0, le=10_000)]
Share = Annotated[float, Field(strict=True, ge=0, le=1)]
CURVES = ("power",)
"""Names of the curves of recall."""
Policy = Literal["dense", "recency", "topk", "window", "h2o", "cluster"]


def _recall(value: Any) -> Any:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if value in CURVES or (number and 0 <= value <= 1):
        return value
    raise ValueError(f"expected a number from 0 to 1 or {' or '.join(CURVES)}, got {shown(value)}")


Recall = Annotated[float | str, PlainValidator(_recall)]

QUERY_AWARE = ("topk", "cluster")
"""Policies that score what there is at every step, so that a step's selection may be new."""
OF_POLICY: dict[str, tuple[Policy, ...]] = {
    "top_k_tokens": ("recency", "topk", "h2o", "cluster"),
    "sink_tokens": ("topk", "window", "cluster"),
    "recent_tokens": ("topk", "window", "h2o", "cluster"),
    "cluster_tokens": ("cluster",),
    "dense_layers": ("recency", "topk", "window", "h2o", "cluster"),
    "shared_layers": ("topk", "cluster"),
    "locality": ("topk", "cluster"),
    "returning": ("topk", "cluster"),
    "recall": ("recency", "topk", "window", "h2o", "cluster"),
    "drop": ("window", "h2o"),
}
"""The policies with which a key has an effect."""


class Offload(Node):
    """KV that decode steps select from lies in a lower tier; HBM keeps a part of each request."""

    tier: Literal["dram"] = "dram"
    """Where all of it is."""
    resident_tokens: Tokens
    """Tokens of a request that HBM keeps, those least recently selected leaving first; at least
    what a step selects."""


class Sparse(Node):
    """What a decode step selects of a request's KV; sizes are rounded up to whole blocks."""

    select: Policy = "topk"
    """dense: everything. recency: the seeds' rule, by position alone. topk: the blocks that score
    best for the query. window: the first and the newest. h2o: those with most attention so far,
    and the newest. cluster: as topk, but clusters of keys are scored and selected."""
    top_k_tokens: Tokens = 2048
    """Tokens selected by score, beside `sink_tokens` and `recent_tokens`."""
    sink_tokens: Annotated[int, Field(strict=True, ge=0, le=10_000_000)] = 64
    """First tokens, always selected."""
    recent_tokens: Tokens = 256
    """Newest tokens, always selected; the newest block counts as one, however full it is."""
    cluster_tokens: Tokens = 80
    """Tokens of a cluster (`select: cluster`)."""
    dense_layers: Layers = 0
    """Layers that attend to everything, the first ones."""
    shared_layers: Annotated[int, Field(strict=True, ge=1, le=10_000)] = 1
    """Consecutive layers that share one selection: only the first of them scores."""
    locality: Share = 0.6
    """Share of a step's selection, sink and recent apart, that the next step selects again; never
    less than chance. An assumption: `sparse/locality.py` has what was measured."""
    returning: Share = 0.0
    """Share of the newly selected that is drawn from what was selected shortly before; the others
    come from anywhere. An assumption."""
    recall: Recall | None = None
    """Share of attention mass that a selection keeps: a number, or `power` for a curve. Has no
    effect on time; reported as an assumption, and not at all if not given."""
    drop: Flag = False
    """Whether KV that is not selected is given back (`select: window` or `h2o`)."""
    offload: Offload | None = None

    def resolved(self, data: dict[str, Any]) -> dict[str, Any]:
        """*data*, which is this node as plain data, without defaults."""
        return without_defaults(self, data, ("select",))


# ---------------------------------------------------------------- what the keys have to do
def faults(
    sparse: Sparse | None, hardware: Hardware, kv: Kv, shape: ModelShape
) -> list[tuple[Place, str]]:
    """What is wrong with the section beside the rest of the scenario."""
    if sparse is None:
        return []
    found: list[tuple[Place, str]] = []

    def fault(key: str, what: str) -> None:
        found.append((("sparse", key), what))

    for key in ("top_k_tokens", "cluster_tokens"):
        tokens: int = getattr(sparse, key)
        if sparse.select in OF_POLICY[key] and tokens < kv.block_tokens:
            what = f"{tokens} is less than a block of {kv.block_tokens} (kv.block_tokens)"
            fault(key, f"{what}; give at least a block")
    if sparse.dense_layers >= shape.layers:
        what = f"{sparse.dense_layers} leave none of the model's {shape.layers} layers"
        fault("dense_layers", f"{what} to select in; give less, or select: dense")
    elif sparse.shared_layers > shape.layers - sparse.dense_layers:
        what = f"{sparse.shared_layers} is more than the {shape.layers - sparse.dense_layers}"
        fault("shared_layers", f"{what} layers that select; give at most these")
    if sparse.recall == "power" and sparse.select not in QUERY_AWARE:
        what = "power is the curve of the blocks that score best"
        fault("recall", f"{what}; give a number, or select: {' or '.join(QUERY_AWARE)}")
    if sparse.offload is not None:
        found += _offload_faults(sparse, sparse.offload, hardware, kv)
    return found


def _offload_faults(
    sparse: Sparse, offload: Offload, hardware: Hardware, kv: Kv
) -> list[tuple[Place, str]]:
    found: list[tuple[Place, str]] = []
    place: Place = ("sparse", "offload")
    if hardware.dram is None:
        what = "needs hardware.dram, where the KV goes; add e.g. `dram: {capacity: 64 GiB}` there"
        found.append((place, what))
    if sparse.select == "dense":
        what = "needs a selection, since every step of select: dense reads all KV"
        found.append((place, f"{what}; choose another sparse.select"))
    elif sparse.drop and sparse.select in OF_POLICY["drop"]:
        found.append((place, "not together with sparse.drop, which keeps nothing to fetch"))
    else:
        # SEEDS trap: a selection larger than its tier is refused before the run.
        selected = selected_blocks(sparse, kv) * kv.block_tokens
        if offload.resident_tokens < selected:
            what = f"{offload.resident_tokens} do not hold the {selected} tokens of a selection"
            found.append(((*place, "resident_tokens"), f"{what}; give at least these"))
    return found


def in_blocks(tokens: int, kv: Kv) -> int:
    """*tokens* in blocks, rounded up."""
    return -(-tokens // kv.block_tokens)


def selected_blocks(sparse: Sparse, kv: Kv) -> int:
    """Blocks that a step of a long context selects."""
    total = 0
    for key in ("sink_tokens", "recent_tokens"):
        if sparse.select in OF_POLICY[key]:
            total += in_blocks(getattr(sparse, key), kv)
    if sparse.select == "cluster":
        clusters = -(-sparse.top_k_tokens // sparse.cluster_tokens)
        return total + clusters * in_blocks(sparse.cluster_tokens, kv)
    if sparse.select in OF_POLICY["top_k_tokens"]:
        total += in_blocks(sparse.top_k_tokens, kv)
    return total


def warnings(sparse: Sparse | None) -> Iterator[str]:
    """One line for every key that was given and has no effect beside the others."""
    if sparse is None:
        return
    for key, policies in OF_POLICY.items():
        if key not in sparse.model_fields_set:
            continue
        said = getattr(sparse, key) not in (None, False)
        if sparse.select not in policies and said:
            others = "".join(f"{policy}, " for policy in policies[:-2])
            why = f"only with sparse.select: {others}{' or '.join(policies[-2:])}"
            if sparse.select == "dense":
                why = "not with sparse.select: dense"
            yield f"sparse.{key}: has no effect here; {why}"
        elif key in ("locality", "returning") and sparse.offload is None:
            yield f"sparse.{key}: has no effect here; only with sparse.offload"
