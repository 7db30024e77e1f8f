"""What a run says on the console."""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from . import kv_words, wide_words

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .quantiles import Summary

LATENCIES = ("ttft", "tpot", "itl", "e2el", "queue")
STATISTICS = ("mean", "median", "p90", "p99")


def print_summary(
    summary: Summary, trace: Iterable[str] = (), console: Console | None = None
) -> None:
    """One run: what it played (in the lines of *trace*), latencies, throughput, what the GPU did,
    and what the numbers rest on."""
    console = console or console_of()
    table = Table(title=f"{summary['scenario']} (simulated)", title_justify="left")
    table.add_column("ms")
    for statistic in STATISTICS:
        table.add_column(statistic, justify="right")
    for name in LATENCIES:
        values = (summary[f"{statistic}_{name}_ms"] for statistic in STATISTICS)
        table.add_row(name.upper() if name != "queue" else "queue", *map(number_text, values))
    console.print(table)
    for line in [*trace, *facts(summary)]:
        console.print(line, highlight=False, soft_wrap=True)


def facts(summary: Summary) -> list[str]:
    """A run in a few sentences."""
    lines = [
        f"requests: {summary['requests_in']:,} in = {summary['requests_finished']:,} finished"
        f" + {summary['requests_rejected']:,} rejected + {summary['requests_unfinished']:,}"
        f" unfinished; {summary['kv_preemptions']:,} preemptions",
        f"throughput: {summary['request_throughput']:.2f} requests/s,"
        f" {summary['output_throughput']:,.0f} output tokens/s over {summary['duration']:,.1f} s",
        f"loop: {summary['loop_mode']}, {summary['loop_iterations']:,} iterations of"
        f" {summary['loop_mean_decode_requests']:.1f} decoding requests on average; GPU busy"
        f" {summary['loop_gpu_busy_fraction']:.1%} of the time, gaps take"
        f" {summary['loop_gap_fraction']:.1%} of the iterations",
        f"KV in HBM: {summary['kv_blocks_capacity']:,} blocks, {summary['kv_mean_utilization']:.1%}"
        f" in use on average, peak {summary['kv_blocks_peak']:,}",
    ]
    lines += kv_words.lines(summary) + wide_words.lines(summary)
    if summary["trace_sessions"]:
        lines.append(_sessions(summary))
    for reason, count in summary["requests_rejected_by_reason"].items():
        lines.append(f"rejected: {count:,} requests: {reason}")
    if summary["trace_prefix_ids_unused"]:
        lines.append("note: the trace's prefix ids are not used; every prompt is computed in full")
    if summary["trace_rows_skipped"]:
        lines.append(f"note: {summary['trace_rows_skipped']:,} bad rows of the trace were skipped")
    if summary["request_goodput"] is not None:
        lines.append(f"goodput within the SLO: {summary['request_goodput']:.2f} requests/s")
    return lines + provenance(summary)


def _sessions(summary: Summary) -> str:
    """How many sessions there were, how long they took, and what was not sent."""
    said = f"sessions: {summary['trace_sessions']:,}, " + (
        "each turn sent after the answers it waits for"
        if summary["trace_closed_loop"]
        else "sent as recorded, whether answered or not"
    )
    if summary["trace_session_median_s"] is not None:
        median, p99 = summary["trace_session_median_s"], summary["trace_session_p99_s"]
        said += f"; from first request to last answer median {median:,.3g} s, p99 {p99:,.3g} s"
    if summary["trace_sessions_unfinished"]:
        said += (
            f"; {summary['trace_sessions_unfinished']:,} cut off by the end of the run, with"
            f" {summary['trace_requests_not_sent']:,} turns not sent"
        )
    return said


def provenance(*summaries: Summary) -> list[str]:
    """What the numbers rest on: profiles, what in them is estimated, where they extrapolate."""

    def distinct(key: str) -> list[str]:
        return list(dict.fromkeys(entry for summary in summaries for entry in summary[key]))

    profiles = dict.fromkeys(f"{s['cost_profile']}, {s['cost_profile_status']}" for s in summaries)
    lines = [f"costs: profile {'; '.join(profiles)}"]
    if estimated := distinct("cost_estimated"):
        lines.append(f"estimated, not measured: {', '.join(estimated)}")
    if extrapolated := _together(distinct("cost_extrapolated")):
        lines.append(f"extrapolated: {'; '.join(extrapolated)}")
    return lines


_OUTSIDE = re.compile(r"(.*) (\d+) (outside .*)")


def _together(phrases: Iterable[str]) -> list[str]:
    """*phrases* that differ in the number that is outside as one, with all that it was."""
    numbers: dict[tuple[str, str], list[int]] = {}
    others = []
    for phrase in phrases:
        found = _OUTSIDE.fullmatch(phrase)
        if found is None:
            others.append(phrase)
        else:
            numbers.setdefault((found[1], found[3]), []).append(int(found[2]))
    said = []
    for (what, domain), values in numbers.items():
        low, high = min(values), max(values)
        said.append(
            f"{what} {low:g} {domain}" if low == high else f"{what} {low} to {high} {domain}"
        )
    return said + others


def number_text(value: float | None, factor: float = 1.0) -> str:
    if value is None:
        return "-"
    value *= factor
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def console_of() -> Console:
    """As wide as the terminal; wide enough for a study's table in a pipe."""
    return Console(width=None if sys.stdout.isatty() else 132)
