"""The first seed's metrics of a run, each with its unit and a meaning that holds.

The one rule: what a mode does not have is None, never 0, and all is worked out from a run's
records. Where the seed's formula was wrong, the meaning is that of the field, as `meaning` says.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from .result import read_json, read_summary
from .runs import columns_of
from .scenario import Scenario
from .widening import hbm_bytes

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

Value = float | None


class Records:
    """A run's folder, as the metrics look at it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.summary = read_summary(folder)
        data = read_json(folder / "scenario.json")
        known = set(Scenario.model_fields)
        self.scenario = Scenario.from_resolved({k: v for k, v in data.items() if k in known})

    @cached_property
    def iterations(self) -> dict[str, np.ndarray]:
        """All columns of the iterations."""
        return self._table("iterations")

    @cached_property
    def requests(self) -> dict[str, np.ndarray]:
        """All columns of the requests."""
        return self._table("requests")

    def _table(self, name: str) -> dict[str, np.ndarray]:
        import pyarrow.parquet as pq

        path = self.folder / f"{name}.parquet"
        return columns_of(path, pq.read_schema(path).names if path.is_file() else ())

    @property
    def steps(self) -> float:
        """Iterations that requests decoded in, each counted for every request."""
        return float(self.iterations["decode_requests"].sum())

    @property
    def decoded(self) -> float:
        """Tokens that these committed: one of the model's own, and accepted drafts."""
        return self.steps + (self.summary.get("spec_num_accepted_tokens") or 0)

    @property
    def alone(self) -> np.ndarray:
        """Which iterations decode and prefill nothing."""
        found: np.ndarray = self.iterations["kind"] == "decode"
        return found

    @property
    def block_bytes(self) -> float:
        """Bytes of a KV block, a drafter's keys and values included."""
        return hbm_bytes(self.scenario)[1] * self.scenario.kv.block_tokens

    @property
    def token_bytes(self) -> float:
        """Bytes of the model's own keys and values of a token."""
        return self.scenario.model.shape.kv_bytes_per_token(self.scenario.kv.bits)


def _ratio(above: Value, below: Value) -> Value:
    return None if above is None or not below else above / below


def _said(key: str) -> Callable[[Records], Value]:
    return lambda run: run.summary.get(key)


def _hit_rate(run: Records) -> Value:
    looked_up = run.summary.get("kv_prefix_lookup_tokens")
    return float(run.summary["kv_prefix_hit_rate"]) if looked_up else None


def _evicted(run: Records) -> Value:
    units = run.summary.get("kv_evicted_units_hbm")
    if units is None:
        return None
    return float(units * run.summary["kv_unit_tokens"] / run.scenario.kv.block_tokens)


def _evicted_bytes(run: Records) -> Value:
    blocks = _evicted(run)
    return None if blocks is None else blocks * run.block_bytes


def _pinned(run: Records) -> Value:
    held = run.iterations["kv_blocks"] - run.iterations.get("hbm_cached_blocks", 0)
    return float(held.max()) * run.block_bytes


def _fragmentation(run: Records) -> Value:
    block, empty, held = run.scenario.kv.block_tokens, 0, 0
    for prompt, tokens in zip(
        run.requests["prompt_tokens"], run.requests["generated_tokens"], strict=True
    ):
        context = np.arange(prompt, prompt + tokens)
        room = -(-context // block) * block
        empty, held = empty + int((room - context).sum()), held + int(room.sum())
    return _ratio(float(empty), float(held))


def _draft_bytes(run: Records) -> Value:
    blocks = run.iterations.get("kv_draft_blocks")
    return None if blocks is None else float(blocks.max()) * run.block_bytes


def _rejected(run: Records) -> Value:
    proposed = run.summary.get("spec_num_draft_tokens")
    return None if proposed is None else proposed - run.summary["spec_num_accepted_tokens"]


def _a_draft(key: str) -> Callable[[Records], Value]:
    return lambda run: _ratio(run.summary.get(key), run.summary.get("spec_num_drafts"))


def _widths(run: Records) -> np.ndarray | None:
    """Mean block of each request that drafted."""
    if "drafts" not in run.requests:
        return None
    drafts, tokens = run.requests["drafts"], run.requests["draft_tokens"]
    found: np.ndarray = tokens[drafts > 0] / drafts[drafts > 0]
    return found if len(found) else None


def _over_requests(function: Callable[[np.ndarray], Any]) -> Callable[[Records], Value]:
    def value(run: Records) -> Value:
        widths = _widths(run)
        return None if widths is None else float(function(widths))

    return value


def _per_iteration(column: str) -> Callable[[Records], Value]:
    def value(run: Records) -> Value:
        alone = run.alone
        return float(run.iterations[column][alone].mean()) if alone.any() else None

    return value


def _kv_read(run: Records) -> Value:
    if "kv_bytes_read" in run.summary:
        return float(run.summary["kv_bytes_read"])
    return float(run.iterations["context_tokens"].sum()) * run.token_bytes


@dataclass(frozen=True, slots=True)
class Metric:
    """A row of the table and a column of the CSV."""

    name: str
    """The seed's name where it has one, with the unit where vLLM writes it."""
    unit: str
    """What a number counts; bytes are printed with a prefix."""
    value: Callable[[Records], Value]
    meaning: str


METRICS = (
    Metric("mean_ttft_ms", "ms", _said("mean_ttft_ms"), "from arrival to the first token"),
    Metric("mean_tpot_ms", "ms", _said("mean_tpot_ms"), "per output token after the first"),
    *(
        Metric(f"p{share}_itl_ms", "ms", _said(f"p{share}_itl_ms"), "between commits of a request")
        for share in (50, 95, 99)
    ),
    Metric("output_throughput", "tokens/s", _said("output_throughput"), "of finished requests"),
    Metric(
        "acceptance_rate", "", _said("spec_acceptance_rate"),
        "draft tokens accepted / proposed, the model's own token apart",
    ),
    Metric(
        "tokens_per_resident_loop", "tokens", lambda r: _ratio(r.decoded, r.steps),
        "committed by a request in an iteration that it decodes in",
    ),
    Metric("kv_hit_rate", "", _hit_rate, "prompt tokens found in the prefix cache / looked up"),
    Metric(
        "live_kv_bytes", "B", lambda r: r.summary["kv_blocks_peak"] * r.block_bytes,
        "peak of KV in HBM, what is kept for reuse included",
    ),
    Metric("pinned_kv_bytes", "B", _pinned, "peak of what requests hold, which cannot be evicted"),
    Metric("draft_kv_bytes", "B", _draft_bytes, "peak of blocks that only drafts are in"),
    Metric("eviction_count", "blocks", _evicted, "taken from the prefix cache in HBM"),
    Metric("evicted_kv_bytes", "B", _evicted_bytes, "of these"),
    Metric("preemption_count", "", _said("kv_preemptions"), "requests that gave up their KV"),
    Metric(
        "fragmentation_ratio", "", _fragmentation,
        "share of a request's blocks that holds nothing, the mean over its output tokens",
    ),
    Metric("iterations", "", _said("loop_iterations"), "of the loop, those of prefills included"),
    Metric(
        "simulated_tokens_per_iteration", "tokens",
        lambda r: _ratio(r.decoded, float((r.iterations["decode_requests"] > 0).sum())),
        "committed by all requests together in an iteration that decodes",
    ),
    Metric("draft_blocks", "", _said("spec_num_drafts"), "drafts that were verified"),
    Metric("total_draft_tokens", "tokens", _said("spec_num_draft_tokens"), "proposed"),
    Metric("accepted_tokens_block", "tokens", _said("spec_num_accepted_tokens"), "of these"),
    Metric("rejected_tokens", "tokens", _rejected, "the rest of these"),
    Metric(
        "average_accepted_prefix_len", "tokens",
        _a_draft("spec_num_accepted_tokens"), "accepted tokens of a draft",
    ),
    Metric(
        "mean_block_size", "tokens", _a_draft("spec_num_draft_tokens"),
        "proposed tokens of a draft",
    ),
    Metric("min_block_size", "tokens", _over_requests(np.min), "least mean of a request"),
    Metric("max_block_size", "tokens", _over_requests(np.max), "greatest mean of a request"),
    Metric("block_size_variance", "tokens^2", _over_requests(np.var), "of the requests' means"),
    Metric("host_kernel_launches", "", _said("loop_launches"), "a graph's replay is one"),
    Metric("host_synchronizations", "", _said("loop_syncs"), "waits of the host for the GPU"),
    Metric(
        "launches_per_decode_iteration", "", _per_iteration("launches"), "without prefill"
    ),
    Metric("syncs_per_decode_iteration", "", _per_iteration("syncs"), "without prefill"),
    Metric(
        "tokens_per_launch", "tokens", lambda r: _ratio(r.decoded, r.summary["loop_launches"]),
        "committed by decoding, for every launch",
    ),
    Metric(
        "tokens_per_sync", "tokens", lambda r: _ratio(r.decoded, r.summary["loop_syncs"]),
        "committed by decoding, for every synchronisation",
    ),
    Metric(
        "iterations_per_residency", "", _said("loop_iterations_per_entry"),
        "that a resident loop runs before it leaves for a prefill",
    ),
    Metric("loop_gap_fraction", "", _said("loop_gap_fraction"), "of iterations' time, no kernel"),
    Metric("kv_blocks_total", "blocks", _said("kv_blocks_total"), "there, of each layer and step"),
    Metric("kv_blocks_selected", "blocks", _said("kv_blocks_selected"), "read of these"),
    Metric("kv_sparsity_ratio", "", _said("kv_sparsity_ratio"), "1 - selected / total"),
    Metric("estimated_kv_bytes_read", "B", _kv_read, "by attention of decode steps"),
    Metric("estimated_kv_bytes_saved", "B", _said("kv_bytes_saved"), "not read by it"),
    Metric("kv_bytes_scored", "B", _said("kv_bytes_scored"), "read to choose"),
)  # fmt: skip


def metrics(folder: Path) -> dict[str, Value]:
    """The metrics of the run in *folder*, by name."""
    run = Records(folder)
    found = {metric.name: metric.value(run) for metric in METRICS}
    return {name: None if value is None else float(value) for name, value in found.items()}
