"""The seeds' modes side by side: a table with a column a mode, and a CSV with a row a mode."""

from __future__ import annotations

import csv
import io
import sys
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from .seed_metrics import METRICS
from .units import bytes_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from .seed_metrics import Metric, Value

    Values = Mapping[str, Mapping[str, Value]]

WIDTH = 160
"""Columns of the table in a pipe."""


def print_modes(values: Values, notes: Iterable[str], console: Console | None = None) -> None:
    """*values* by mode and metric, and below them the lines of *notes*."""
    console = console or Console(width=None if sys.stdout.isatty() else WIDTH)
    table = Table(title="The seeds' benchmark modes (simulated)", title_justify="left")
    table.add_column("metric", overflow="fold")
    for mode in values:
        table.add_column(mode.replace("_", "\n"), justify="right", vertical="bottom")
    for metric in METRICS:
        name = f"{metric.name} ({metric.unit})" if _says_unit(metric) else metric.name
        table.add_row(name, *(_text(of[metric.name], metric.unit) for of in values.values()))
    console.print(table)
    for line in notes:
        console.print(line, highlight=False, soft_wrap=True)


def to_csv(values: Values) -> bytes:
    """One row a mode; bytes and other units as in the header, what there is not is empty."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    names = [metric.name for metric in METRICS]
    writer.writerow(["mode", *names])
    for mode, of in values.items():
        writer.writerow([mode, *("" if of[n] is None else f"{of[n]:.10g}" for n in names)])
    return text.getvalue().encode()


def _says_unit(metric: Metric) -> bool:
    """Whether the unit stands neither in the name nor beside the numbers."""
    return metric.unit not in ("", "B") and not metric.name.endswith(f"_{metric.unit}")


def _text(value: Value, unit: str) -> str:
    if value is None:
        return "-"
    if unit == "B":
        return bytes_text(value)
    if value == int(value) or abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}"
