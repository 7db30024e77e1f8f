"""The summary of `trace inspect` as tables for people: boxed on a terminal, plain in a pipe."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console


def show(console: Console, summary: dict[str, Any]) -> None:
    """Print *summary*, as `Inspection.summary` makes it plus file, format and format_why."""
    _pairs(console, f"{summary['file']}: {summary['format']}", _traffic(summary))
    _lengths(console, summary)
    if summary["prefix"]:
        _pairs(console, "prefix reuse", _prefix(summary["prefix"]))
    reasons = summary["bad_rows"]["reasons"]
    if reasons:
        rows = sorted(reasons.items(), key=lambda item: (-item[1], item[0]))
        _pairs(console, "bad rows", [(reason, f"{count:,}") for reason, count in rows])
    for note in summary["notes"]:
        console.print(f"note: {note}")


def _number(value: float | None, unit: str = "") -> str:
    if value is None:
        return "-"
    text = f"{value:,}" if isinstance(value, int) else f"{value:,.6g}"
    return f"{text} {unit}".rstrip()


def _traffic(summary: dict[str, Any]) -> list[tuple[str, str]]:
    gaps = summary["inter_arrival_s"] or {}
    rows = [
        ("format told by", summary["format_why"]),
        ("requests", _number(summary["requests"])),
        ("bad rows skipped", _number(summary["bad_rows"]["skipped"])),
        ("duration", _number(summary["duration_s"], "s")),
        ("mean rate", _number(summary["mean_rate_per_s"], "requests/s")),
        ("busiest second", _number(summary["peak_requests_in_1s"], "requests")),
        ("busiest 60 s", _number(summary["peak_requests_in_60s"], "requests")),
        ("gap CV (Poisson 1)", _number(summary["inter_arrival_cv"])),
        (
            f"gap p50, p90, p99, max ({summary['inter_arrival_method']})",
            ", ".join(f"{value:.4g}" for value in gaps.values()) + " s" if gaps else "-",
        ),
    ]
    for window, value in summary["index_of_dispersion"].items():
        rows.append((f"index of dispersion, {window.rstrip('s')} s windows", _number(value)))
    share = summary["duplicate_times_share"]
    rows.append(("requests at the time of the one before", f"{100 * share:.2f} %"))
    return rows


def _prefix(prefix: dict[str, float]) -> list[tuple[str, str]]:
    return [
        ("tokens a block", _number(prefix["block_tokens"])),
        ("block references", _number(prefix["blocks"])),
        ("distinct blocks", _number(prefix["distinct_blocks"])),
        ("hit rate, infinite cache", f"{100 * prefix['infinite_cache_hit_rate']:.1f} %"),
        (
            "prefill saved at most",
            f"{prefix['saved_prompt_tokens']:,} tokens, "
            f"{100 * prefix['saved_prompt_share']:.1f} % of the prompts",
        ),
    ]


def _table(console: Console, title: str) -> Any:
    from rich import box
    from rich.table import Table

    style = box.SIMPLE_HEAD if console.is_terminal else None
    return Table(title=title, title_justify="left", box=style, pad_edge=False)


def _pairs(console: Console, title: str, rows: list[tuple[str, str]]) -> None:
    table = _table(console, title)
    table.show_header = False
    table.add_column(style="dim")
    table.add_column(overflow="fold")
    for name, value in rows:
        table.add_row(name, value)
    console.print(table)
    console.print()


def _lengths(console: Console, summary: dict[str, Any]) -> None:
    table = _table(console, "lengths, tokens")
    table.add_column("")
    for name in summary["prompt_tokens"]:
        table.add_column(name, justify="right")
    table.add_column("total", justify="right")
    for kind in ("prompt", "output"):
        values = summary[f"{kind}_tokens"].values()
        total = summary[f"total_{kind}_tokens"]
        table.add_row(kind, *(f"{value:,.6g}" for value in values), f"{total:,}")
    console.print(table)
    console.print()
