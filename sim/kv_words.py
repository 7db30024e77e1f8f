"""What the console says of a run that keeps KV for reuse or moves it between tiers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .units import bytes_text, count_text

if TYPE_CHECKING:
    from .quantiles import Summary

_TIERS = ("hbm", "dram", "ssd", "remote")
_LINKS = ("h2d", "d2h", "ssd_read", "ssd_write", "remote_read", "remote_write")


def lines(summary: Summary) -> list[str]:
    """A few sentences; none for runs without such a memory, and for results of old."""
    if "kv_unit_tokens" not in summary:
        return []
    said = []
    if summary["kv_prefix_lookup_units"]:
        said.append(_found(summary))
    below = [tier for tier in _TIERS[1:] if summary[f"kv_{tier}_bytes_capacity"]]
    if below:
        peaks = (
            f"{tier.upper()} {bytes_text(summary[f'kv_{tier}_bytes_peak'])} of"
            f" {bytes_text(summary[f'kv_{tier}_bytes_capacity'])}"
            for tier in below
        )
        said.append(f"KV below HBM, peak: {', '.join(peaks)}")
    moved = [link for link in _LINKS if summary[f"kv_{link}_transfers"]]
    if moved:
        # Without a stop, copies go on for a while after the last token.
        seconds = max(summary["duration"], summary.get("kv_transfers_end_s", 0.0)) or 1.0
        each = dict.fromkeys(("h2d", "d2h"), len(summary.get("replicas", (None,))))
        parts = (
            f"{link.replace('_', ' ')} {bytes_text(summary[f'kv_{link}_bytes'])} in"
            f" {summary[f'kv_{link}_transfers']:,} transfers, busy"
            f" {summary[f'kv_{link}_busy_s'] / seconds / each.get(link, 1):.1%}"
            for link in moved
        )
        said.append(f"KV moved: {'; '.join(parts)}")
    if cut := summary.get("kv_transfers_unfinished"):
        size = bytes_text(summary["kv_bytes_unfinished"])
        said.append(f"KV on its way at the end: {size} in {cut:,} transfers")
    return said + _prefetched(summary) + _swapped(summary) + _waited(summary)


def _found(summary: Summary) -> str:
    total = summary["kv_prefix_lookup_tokens"] or 1
    tiers = ((tier, summary[f"kv_hit_tokens_{tier}"]) for tier in _TIERS)
    parts = ", ".join(f"{tier.upper()} {tokens / total:.1%}" for tier, tokens in tiers if tokens)
    said = f"prefixes found: {summary['kv_prefix_hit_rate']:.1%} of the prompt tokens"
    said += f" ({parts})" if parts else ""
    if (rate := summary.get("kv_prefix_block_hit_rate")) is not None:
        said += f", {rate:.2%} of the trace's blocks"
    return f"{said}; {count_text(summary['kv_prefill_tokens_saved'])} tokens not computed"


def _prefetched(summary: Summary) -> list[str]:
    units = summary["kv_prefetched_units"]
    if not units:
        return []
    what = (
        f"{summary[f'kv_prefetched_units_{how}']:,} {how}" for how in ("used", "late", "wasted")
    )
    return [f"prefetched: {units:,} units of {summary['kv_unit_tokens']} tokens, {', '.join(what)}"]


def _swapped(summary: Summary) -> list[str]:
    swaps = summary["kv_swaps"]
    others = {
        "computed again as cheaper": summary["kv_swaps_dearer"],
        "for lack of room in DRAM": summary["kv_swaps_without_room"],
    }
    if not swaps and not any(others.values()):
        return []
    rest = "".join(f", {count:,} {why}" for why, count in others.items() if count)
    return [f"swapped: {swaps:,} requests with {summary['kv_swapped_blocks']:,} blocks{rest}"]


def _waited(summary: Summary) -> list[str]:
    """What it cost that KV was not there."""
    said = []
    if summary["kv_stall_s"]:
        said.append(f"the loop stood still for KV {summary['kv_stall_s']:,.3g} s")
    if summary["kv_dropped_unsaved_units"]:
        said.append(f"{summary['kv_dropped_unsaved_units']:,} units dropped unsaved from HBM")
    if summary["kv_promotions_put_off"]:
        said.append(f"{summary['kv_promotions_put_off']:,} loads put off, links were full")
    return ["; ".join(said)] if said else []
