"""The page of `trace inspect` on a terminal: boxed and with small charts, plain in a pipe."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .sections import Section, bad_rows, comparison, sections
from .words import bar, short, span, spark

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

Chart = tuple[str, list[tuple[str, list[float], str]]]

_SIDE_BY_SIDE = 110  # columns of a terminal
_BAR = 32
_CHART = 52  # characters of a density


def show(console: Console, summary: dict[str, Any]) -> None:
    """Print *summary*, as `summary` makes it plus file, format and format_why."""
    found = sections(summary)
    if "sizes" in found:
        found["sizes"] = _with_bars(found["sizes"], _rich(console))
    tables = {name: _table(section) for name, section in found.items()}
    console.print(f"{summary['file']}: {summary['format']}", style="bold", overflow="fold")
    console.print()
    _print(console, [tables["traffic"], tables["arrivals"]])
    _print(console, [_chart(console, *_over_time(summary["rates"]))])
    if summary["hour_of_day_rate_over_mean"]:
        _print(console, [_chart(console, *_hours(summary["hour_of_day_rate_over_mean"]))])
    _print(console, [tables["lengths"]])
    _print(console, [_chart(console, *_densities(summary))])
    _print(console, [tables[name] for name in ("prefix", "sizes") if name in tables])
    if "sessions" in tables:
        _print(console, [tables["sessions"]])
    for section in bad_rows(summary):
        _print(console, [_table(section)])
    _notes(console, summary["notes"])


def show_comparison(
    console: Console, found: dict[str, Any], summaries: list[dict[str, Any]]
) -> None:
    """Print what `compare` *found*, then what was left out of each trace and the notes on it."""
    names = (summaries[0]["file"], summaries[1]["file"])
    _print(console, [_table(comparison(found, names))])
    for side, summary in zip("AB", summaries, strict=True):
        for section in bad_rows(summary, f" of {side}"):
            _print(console, [_table(section)])
    _notes(console, found["notes"])
    for side, summary in zip("AB", summaries, strict=True):
        how = f"format {summary['format']}: {summary['format_why']}"
        _notes(console, [f"{side}: {note}" for note in (how, *summary["notes"])])


def _rich(console: Console) -> bool:
    return console.is_terminal and console.encoding.startswith("utf")


def _notes(console: Console, notes: list[str]) -> None:
    for note in notes:
        console.print(f"note: {note}")


def _print(console: Console, parts: list[RenderableType]) -> None:
    """*parts* below each other, or two and two beside each other on a wide terminal."""
    from rich.table import Table

    at = 0
    while at < len(parts):
        beside = console.is_terminal and console.width >= _SIDE_BY_SIDE and at + 1 < len(parts)
        if beside:
            grid = Table.grid(padding=(0, 2), expand=True)
            grid.add_column(ratio=1)
            grid.add_column(ratio=1)
            grid.add_row(parts[at], parts[at + 1])
            console.print(grid)
        else:
            console.print(parts[at])
        console.print()
        at += 2 if beside else 1


def _table(section: Section) -> RenderableType:
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    if section.heads:
        for at, head in enumerate(section.heads):
            left = at == 0 or head in ("", "verdict")
            table.add_column(head, justify="left" if left else "right", overflow="fold")
    else:
        table.show_header = False
        table.add_column(style="dim")
        table.add_column(overflow="fold")
    for row in section.rows:
        table.add_row(*row)
    return Group(Text(section.title, style="bold"), table)


def _with_bars(section: Section, rich: bool) -> Section:
    """The table of hit rates with a bar a row."""
    rows = []
    for row in section.rows:
        rate = float(row[2].split()[0]) / 100 if row[2] != "-" else 0.0
        rows.append((*row, bar(rate, _BAR, rich=rich)))
    return Section(section.title, rows, (*section.heads, ""))


def _over_time(rates: dict[str, Any]) -> Chart:
    names = {"requests": "requests", "prompt_tokens": "prompt", "output_tokens": "output"}
    title = f"over time, {span(rates['bar_s'])} a character: requests and tokens a second"
    lines = []
    for key, name in names.items():
        values = rates[f"{key}_per_s"]
        lines.append((name, values, f"most {short(max(values))}"))
    return title, lines


def _densities(summary: dict[str, Any]) -> Chart:
    lines = []
    for kind in ("prompt", "output"):
        density = summary[f"{kind}_tokens_density"]
        edges, counts = density["edges_tokens"], density["requests"]
        wide = -(-len(counts) // _CHART)
        sums = [float(sum(counts[at : at + wide])) for at in range(0, len(counts), wide)]
        lines.append((kind, sums, f"{short(edges[0])} to {short(edges[-1])}"))
    return "length densities, logarithmic", lines


def _hours(profile: list[float]) -> Chart:
    said = f"{min(profile):.2f} to {max(profile):.2f} of the mean"
    return "rate by hour of the day, the first request in hour 0", [("hours", profile, said)]


def _chart(
    console: Console, title: str, lines: list[tuple[str, list[float], str]]
) -> RenderableType:
    """One line of small bars for each of *lines*: name, values, and what is said after them."""
    from rich.text import Text

    text = Text(title, style="bold")
    for name, values, said in lines:
        text.append("\n")
        text.append(f"{name:<9}", style="dim not bold")
        text.append(spark(values, rich=_rich(console)), style="not bold cyan")
        text.append(f" {said}", style="dim not bold")
    return text
