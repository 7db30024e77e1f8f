"""What a study says on the console: a row a point, with intervals where it has several runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.table import Table

from .stats import differences, estimate, sentence
from .stats.baseline import baseline_axes, varying
from .stats.words import within
from .tables import console_of, number_text, provenance

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

    from rich.console import Console

    from .quantiles import Summary
    from .runs import Results, Run
    from .stats import Difference, Estimate

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
SEVERAL = (
    "request_throughput", "median_ttft_ms", "p99_ttft_ms", "mean_tpot_ms", "p99_itl_ms",
    "loop_gap_fraction",
)  # fmt: skip
"""What it shows of points with several runs, whose numbers take more room."""
JUDGED = ("p99_ttft_ms", "median_ttft_ms", "mean_tpot_ms", "request_goodput")
"""What a point is judged by against the baseline."""
MOST_VERDICTS = 24


def print_study(
    axes: Sequence[Mapping[str, Any]],
    summaries: Sequence[Summary],
    console: Console | None = None,
) -> None:
    """A study: a row a point, its axes first."""
    console = console or console_of()
    columns = _columns(summaries, console)
    table = _table(summaries[0], axes[0], columns)
    for values, summary in zip(axes, summaries, strict=True):
        cells = [number_text(summary.get(key), factor) for _, key, factor in columns]
        table.add_row(*map(_value, values.values()), *cells)
    console.print(table)
    _print_lines(provenance(*summaries), console)


def print_cells(
    results: Results, most: int, priced: Callable[[Run], Summary], console: Console | None = None
) -> None:
    """A study with several runs a point: a row a point, each number with the half-width of its
    interval, then what differs from the baseline; *most* rows."""
    console = console or console_of()
    cells = results.cells[:most]
    summaries = [priced(run) for cell in cells for run in cell.runs]
    columns = _columns(summaries, console, SEVERAL)
    table = _table(summaries[0], cells[0].axes, columns)
    for cell in cells:
        found = [
            _within(estimate(cell, key, results.statistics), factor) for _, key, factor in columns
        ]
        table.add_row(*map(_value, cell.axes.values()), *found)
    console.print(table)
    share = f"{results.statistics.confidence:.4g}".removeprefix("0.")
    _print_lines(
        [f"± is half of a {share.ljust(2, '0')} % confidence interval over the seeds"], console
    )
    _print_lines(verdicts(results), console)
    _print_lines(provenance(*summaries), console)


def verdicts(results: Results) -> list[str]:
    """What each cell is against its baseline, a sentence a cell; of many cells, of the first."""
    known = [name for name in JUDGED if any(run.summary.get(name) for run in results.runs)]
    rows = differences(results, known)
    by_cell: dict[str, list[Difference]] = {}
    for row in rows:
        by_cell.setdefault(repr(row.axes), []).append(row)
    others = [axis for axis in varying(results) if axis not in baseline_axes(results)]
    lines = []
    for several in list(by_cell.values())[:MOST_VERDICTS]:
        beside = {k: several[0].axes.get(k) for k in others}
        place = ", ".join(f"{k.rpartition('.')[2]} {_value(v)}" for k, v in beside.items())
        lines.append(f"{place}: {sentence(several, results)}".removeprefix(": "))
    if len(by_cell) > MOST_VERDICTS:
        lines.append(
            f"and {len(by_cell) - MOST_VERDICTS} more: residentsim report {results.folder}"
        )
    return lines


def _columns(
    summaries: Sequence[Summary], console: Console, wanted: Collection[str] = ()
) -> list[tuple[str, str, float]]:
    """What the table shows: of what is *wanted*, on a narrow console the essential."""
    # Results of old know nothing of sessions.
    sessions = OF_SESSIONS if any(summary.get("trace_sessions") for summary in summaries) else ()
    cached = (
        OF_MEMORY if any(summary.get("kv_prefix_lookup_units") for summary in summaries) else ()
    )
    return [
        column
        for column in (*COLUMNS, *cached, *sessions, *_economics(summaries))
        if (console.width >= 110 or column[1] in ESSENTIAL)
        and (not wanted or column[1] in wanted or column[1] in ESSENTIAL)
    ]


def _table(
    summary: Summary, axes: Mapping[str, Any], columns: Sequence[tuple[str, str, float]]
) -> Table:
    table = Table(title=f"{summary['scenario']} (simulated)", title_justify="left")
    for name in axes:
        table.add_column(name.rpartition(".")[2])
    for title, _, _ in columns:
        table.add_column(title, justify="right")
    return table


def _print_lines(lines: Iterable[str], console: Console) -> None:
    for line in lines:
        console.print(line, highlight=False, soft_wrap=True)


def _within(found: Estimate, factor: float) -> str:
    if found.value is None:
        return "-"
    if found.reach is None:
        return number_text(found.value, factor)
    return within(found.value * factor, found.reach * factor)


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
    """A value of an axis; of a map, what it holds; of a part that is missing, that."""
    if value is None:
        return "none"
    return " ".join(map(str, value.values())) if isinstance(value, dict) else str(value)
