"""What the console says of drafts, page selection, experts and blocks that are refined."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .units import bytes_text

if TYPE_CHECKING:
    from .quantiles import Summary


def lines(summary: Summary) -> list[str]:
    """A sentence for each of them that the run has; none for plain runs and results of old."""
    said = []
    if "spec_num_drafts" in summary:
        said.append(_drafts(summary))
    if summary.get("kv_blocks_total"):
        said.append(_selection(summary))
    if "moe_distinct_experts_mean" in summary:
        said.append(_experts(summary))
    if summary.get("loop_exits"):
        said.append(
            f"the loop left the GPU {summary['loop_exits']:,} times, {summary['loop_exit_s']:.3g} s"
            f" in all, after {summary['loop_iterations_per_entry']:.3g} iterations on average"
        )
    return said


def _drafts(summary: Summary) -> str:
    if not summary["spec_num_drafts"]:
        return "speculation: nothing was drafted"
    return (
        f"speculation: {summary['spec_num_draft_tokens'] / summary['spec_num_drafts']:.3g} tokens"
        f" a draft, {summary['spec_acceptance_rate']:.1%} accepted (follows from the scenario's"
        f" rates), {summary['spec_tokens_per_step']:.3g} tokens a step of a request"
    )


def _selection(summary: Summary) -> str:
    said = (
        f"page selection: {1 - summary['kv_sparsity_ratio']:.1%} of the blocks read, "
        f"{bytes_text(summary['kv_bytes_saved'])} of KV not read"
    )
    if summary["kv_blocks_fetched"]:
        said += f", {bytes_text(summary['kv_bytes_fetched'])} fetched from DRAM"
    recall = summary.get("kv_attention_recall_assumed")
    return said if recall is None else f"{said}; attention mass kept, assumed: {recall:.1%}"


def _experts(summary: Summary) -> str:
    said = f"experts: {summary['moe_distinct_experts_mean']:.3g} of a layer an iteration"
    said += f", {bytes_text(summary['moe_expert_bytes_read'])} read"
    if "moe_hit_rate" in summary:
        fetched = bytes_text(summary["moe_expert_bytes_fetched"])
        said += f"; {summary['moe_hit_rate']:.1%} found in HBM, {fetched} fetched"
    return said
