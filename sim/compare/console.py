"""A comparison on the console."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from sim.units import seconds_text

from . import loop, parts
from .studies import labels
from .words import times, values

if TYPE_CHECKING:
    from sim.stats import Difference

    from .comparison import Comparison
    from .moved import Moved
    from .studies import Studies

MOST_KEYS = 40


def show(found: Comparison, console: Console | None = None) -> None:
    """The answer, then keys, metrics, and where the time went."""
    console = console or Console(width=None if sys.stdout.isatty() else 120)

    def say(line: str) -> None:
        console.print(line, highlight=False, markup=False, soft_wrap=True)

    for name, side in zip("AB", found.both, strict=True):
        say(f"{name}: {side.run.folder} ({side.kind}, {side.run.summary.get('loop_mode')})")
    say("")
    for line in found.says:
        say(line)
    for line in found.notes:
        say(f"note: {line}")
    for table in (_keys(found), _metrics(found), *_means(found), *_loops(found)):
        if table is not None:
            say("")
            console.print(table)


def show_studies(found: Studies) -> None:
    """A row a cell: B's difference from A in a few metrics, * where it is no chance."""
    console = Console(width=None if sys.stdout.isatty() else 120)
    for name, study in (("A", found.a), ("B", found.b)):
        console.print(f"{name}: {study.folder}", highlight=False, markup=False, soft_wrap=True)
    for note in found.notes:
        console.print(f"note: {note}", highlight=False, markup=False, soft_wrap=True)
    title = "B against A (95 % intervals; * distinguishable from chance, ? has no interval)"
    table = _table(title, "point", *labels())
    for row in found.rows:
        table.add_row(_plain(row.name), *map(_judged, row.differences.values()))
    console.print(table)


def _judged(one: Difference | None) -> str:
    if one is None or one.relative is None:
        return "-"
    said = f"{100 * one.relative:+.3g} %"
    if one.low is None or one.high is None:
        return f"{said}?"
    return f"{said} ± {50 * (one.high - one.low):.2g}{' *' if one.distinguishable else ''}"


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left")
    for number, column in enumerate(columns):
        table.add_column(column, justify="right" if number else "left")
    return table


def _keys(found: Comparison) -> Table | None:
    if not found.keys:
        return None
    table = _table("keys of the scenarios", "key", "A", "B")
    for key in found.keys[:MOST_KEYS]:
        table.add_row(*map(_plain, key))
    if len(found.keys) > MOST_KEYS:
        table.add_row(f"... and {len(found.keys) - MOST_KEYS} more", "", "")
    return table


def _plain(text: str) -> str:
    """*text* from a file, which may look like markup and be long."""
    from rich.markup import escape

    return escape(text if len(text) <= 60 else f"{text[:57]}...")


def _metrics(found: Comparison) -> Table:
    table = _table("metrics that moved (95 % intervals; ? has none)", "metric", "A", "B",
                   "difference", "B is")  # fmt: skip
    rows = [row for row in found.metrics if not row.same]
    for row in rows:
        verdict = f"{row.verdict}{'?' if row.verdict and row.sure is None else ''}"
        table.add_row(row.metric.label, *values(row), _difference(row), verdict)
    if not rows:
        table.add_row("none", "", "", "", "")
    return table


def _difference(row: Moved) -> str:
    relative = row.relative
    if relative is None:
        return "-"
    factor = abs(relative) >= 10
    said = f"x {1 + relative:,.3g}" if factor else f"{100 * relative:+.3g} %"
    if row.low is not None and row.high is not None:
        reach = (0.5 if factor else 50) * (row.high - row.low)
        said += f" ± {reach:.2g}" if reach < 100 else f" ± {reach:,.0f}"
    return said


def _means(found: Comparison) -> list[Table]:
    tables = []
    for name, title in parts.MEANS.items():
        rows = found.means(name)
        if not rows:
            continue
        table = _table(f"where the time went: {title}", "part", "A", "B", "difference")
        for part, a, b in rows:
            table.add_row(parts.LABELS[part], *_both(a, b))
        table.add_section()
        table.add_row(title, *_both(sum(row[1] for row in rows), sum(row[2] for row in rows)))
        tables.append(table)
    return tables


def _both(a: float, b: float) -> tuple[str, str, str]:
    """Two times in seconds and their difference."""
    return *times(_clean(a), _clean(b)), _change(b - a)


def _clean(seconds: float) -> float:
    return 0.0 if abs(seconds) < 1e-9 else seconds


def _change(seconds: float) -> str:
    if abs(seconds) < 1e-9:
        return "0"
    return f"{'-' if seconds < 0 else '+'}{seconds_text(abs(seconds))}"


def _loops(found: Comparison) -> list[Table]:
    if found.a.loop is None or found.b.loop is None:
        return []
    a, b = found.a.loop, found.b.loop
    table = _table("the loop: number of iterations x mean length", "", "A", "B", "difference")
    for name in loop.KINDS:
        one, other = a.kind(name), b.kind(name)
        change = loop.Change.of(one, other)
        label = loop.LABELS[name]
        if not one.count and not other.count:
            continue
        table.add_row(label, f"{one.count:,}", f"{other.count:,}", f"{other.count - one.count:+,}")
        table.add_row("  mean length", *_both(one.each_s, other.each_s))
        table.add_row("    GPU busy", *_both(one.gpu_s, other.gpu_s))
        table.add_row("    gap", *_both(one.gap_s, other.gap_s))
        table.add_row("  together", *_both(one.total_s, other.total_s))
        why = f"number {_change(change.count_s)}, GPU {_change(change.gpu_s)}"
        table.add_row("    of which", "", "", f"{why}, gap {_change(change.gap_s)}")
    table.add_row("no iteration", *_both(a.rest_s, b.rest_s))
    table.add_section()
    table.add_row("the run, all replicas", *_both(a.whole_s, b.whole_s))
    if a.aside_s or b.aside_s:
        table.add_row("beside it: prefill partition", *_both(a.aside_s, b.aside_s))
    return [table]
