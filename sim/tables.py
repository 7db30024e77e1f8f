"""What a run or a study says on the console."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from . import kv_words, wide_words

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from .quantiles import Summary

LATENCIES = ("ttft", "tpot", "itl", "e2el", "queue")
STATISTICS = ("mean", "median", "p90", "p99")


def print_summary(
    summary: Summary, trace: Iterable[str] = (), console: Console | None = None
) -> None:
    """One run: what it played (in the lines of *trace*), latencies, throughput, what the GPU did,
    and what the numbers rest on."""
    console = console or _console()
    table = Table(title=f"{summary['scenario']} (simulated)", title_justify="left")
    table.add_column("ms")
    for statistic in STATISTICS:
        table.add_column(statistic, justify="right")
    for name in LATENCIES:
        values = (summary[f"{statistic}_{name}_ms"] for statistic in STATISTICS)
        table.add_row(name.upper() if name != "queue" else "queue", *map(_number, values))
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
    if extrapolated := distinct("cost_extrapolated"):
        lines.append(f"extrapolated: {'; '.join(extrapolated)}")
    return lines


COLUMNS = (
    ("req/s", "request_throughput", 1.0),
    ("tok/s", "output_throughput", 1.0),
    ("TTFT p50 ms", "median_ttft_ms", 1.0),
    ("TTFT p99 ms", "p99_ttft_ms", 1.0),
    ("TPOT mean ms", "mean_tpot_ms", 1.0),
    ("ITL p99 ms", "p99_itl_ms", 1.0),
    ("batch", "loop_mean_decode_requests", 1.0),
    ("GPU busy %", "loop_gpu_busy_fraction", 100.0),
    ("gap %", "loop_gap_fraction", 100.0),
)


OF_MEMORY = (("found %", "kv_prefix_hit_rate", 100.0),)
"""Columns of a study with a cache of prefixes: the share of prompt tokens that it had."""
OF_SESSIONS = (("session p50 s", "trace_session_median_s", 1.0),)
"""Columns of a study of sessions."""
ESSENTIAL = (
    "output_throughput", "p99_ttft_ms", "mean_tpot_ms", "loop_gap_fraction",
    "trace_session_median_s", "kv_prefix_hit_rate", "cost_per_mtok", "energy_j_per_token",
)  # fmt: skip
"""What a study's table shows on a narrow terminal."""


def print_study(
    axes: Sequence[Mapping[str, Any]],
    summaries: Sequence[Summary],
    console: Console | None = None,
) -> None:
    """A study: a row a point, its axes first."""
    console = console or _console()
    table = Table(title=f"{summaries[0]['scenario']} (simulated)", title_justify="left")
    for name in axes[0]:
        table.add_column(name.rpartition(".")[2])
    # Results of old know nothing of sessions.
    sessions = OF_SESSIONS if any(summary.get("trace_sessions") for summary in summaries) else ()
    cached = (
        OF_MEMORY if any(summary.get("kv_prefix_lookup_units") for summary in summaries) else ()
    )
    columns = [
        column
        for column in (*COLUMNS, *cached, *sessions, *_economics(summaries))
        if console.width >= 110 or column[1] in ESSENTIAL
    ]
    for title, _, _ in columns:
        table.add_column(title, justify="right")
    for values, summary in zip(axes, summaries, strict=True):
        cells = [_number(summary.get(key), factor) for _, key, factor in columns]
        table.add_row(*map(_value, values.values()), *cells)
    console.print(table)
    for line in provenance(*summaries):
        console.print(line, highlight=False, soft_wrap=True)


def _economics(summaries: Sequence[Summary]) -> list[tuple[str, str, float]]:
    """Columns of a study with prices or a power model, whose watts say what they are."""
    found = []
    currency = next((s["currency"] for s in summaries if s.get("currency")), None)
    if currency is not None:
        found.append((f"{currency}/Mtok", "cost_per_mtok", 1.0))
    kind = next((s["power_kind"] for s in summaries if s.get("power_kind")), None)
    if kind is not None:
        found.append((f"J/token, {kind}", "energy_j_per_token", 1.0))
    return found


def _value(value: Any) -> str:
    """A value of an axis; of a map, what it holds."""
    return " ".join(map(str, value.values())) if isinstance(value, dict) else str(value)


def _number(value: float | None, factor: float = 1.0) -> str:
    if value is None:
        return "-"
    value *= factor
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def _console() -> Console:
    """As wide as the terminal; wide enough for a study's table in a pipe."""
    return Console(width=None if sys.stdout.isatty() else 132)
