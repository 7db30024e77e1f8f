"""Results as pandas frames, and as a small table in a notebook; units stand in names and columns.

The one rule: a frame is the same numbers as `estimate` and `differences` give, a row each.
"""

from __future__ import annotations

from dataclasses import asdict
from html import escape
from typing import TYPE_CHECKING, Any

from sim.errors import InputError
from sim.units import three_digits

from .differences import differences
from .estimates import estimate
from .metrics import metric_of
from .words import within

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import pandas as pd

    from sim.runs import Results

    from .estimates import Estimate

SHOWN = ("mean_ttft_ms", "p99_ttft_ms", "mean_tpot_ms", "output_throughput")
"""Metrics of the small tables."""
_MOST_ROWS = 40


def runs_frame(results: Results) -> pd.DataFrame:
    """A row a run: its axes, `replication`, and every single value of its summary by its key."""
    import pandas as pd

    rows = []
    for run in results.runs:
        single = {k: v for k, v in run.summary.items() if not isinstance(v, list | dict)}
        rows.append({**run.axes, "replication": run.replication, **single})
    return pd.DataFrame(rows)


def estimates_frame(results: Results, metric: str) -> pd.DataFrame:
    """A row a cell: its axes, value, low, high and unit, and what the interval rests on."""
    import pandas as pd

    chosen = metric_of(metric, [run.summary for run in results.runs])
    unit = unit_of(chosen.unit, results)
    rows = []
    for cell in results.cells:
        found = estimate(cell, metric, results.statistics)
        rows.append({
            **cell.axes, "metric": metric, "value": found.value, "low": found.low,
            "high": found.high, "unit": unit, "n": found.n, "method": found.method,
            "note": found.note,
        })  # fmt: skip
    return _numeric(pd.DataFrame(rows), ("value", "low", "high"))


def differences_frame(results: Results, metrics: str | Sequence[str]) -> pd.DataFrame:
    """A row a cell and metric, all judged together: relative difference, interval and verdict."""
    import pandas as pd

    names = [metrics] if isinstance(metrics, str) else list(metrics)
    for name in names:
        metric_of(name, [run.summary for run in results.runs])
    left_out = ("axes", "alpha", "cell", "baseline")
    columns = [
        *results.axes, "metric", "relative", "low", "high", "n", "paired", "p", "distinguishable",
        "better", "method", "note", "verdict",
    ]  # fmt: skip
    rows = [
        {**row.axes, **{k: v for k, v in asdict(row).items() if k not in left_out}}
        for row in differences(results, names)
    ]
    return _numeric(pd.DataFrame(rows, columns=columns), ("relative", "low", "high", "p"))


def _numeric(frame: pd.DataFrame, columns: Iterable[str]) -> pd.DataFrame:
    """*frame* with `nan` for what is not known in *columns*."""
    return frame.astype(dict.fromkeys(columns, float))


def unit_of(unit: str, results: Results) -> str:
    """*unit*, or the price table's where it is that of money."""
    return unit if unit != "currency" or results.prices is None else results.prices.currency


# ---------------------------------------------------------------------------- notebooks
def results_html(results: Results) -> str:
    """A row a cell with the metrics that matter most, as value and half-width."""
    known = [run.summary for run in results.runs]
    header = [*results.axes, *(metric_of(name, known).title for name in SHOWN)]
    rows = []
    for cell in results.cells[:_MOST_ROWS]:
        texts = [str(cell.axes.get(axis, "")) for axis in results.axes]
        for name in SHOWN:
            found = estimate(cell, name, results.statistics)
            texts.append(_with_error(found))
        rows.append(texts)
    more = [f"{len(results.cells) - _MOST_ROWS} more points"] * (len(results.cells) > _MOST_ROWS)
    more += [f"{len(results.failures)} failed"] * bool(results.failures)
    more += [f"{len(results.missing)} not run yet"] * bool(results.missing)
    return table_html(f"{results.name} (simulated)", header, rows, more)


def summary_html(summary: dict[str, Any]) -> str:
    """A run's few numbers that matter most."""
    rows = []
    for name in (*SHOWN, "request_goodput", "completed", "failed"):
        try:
            title = metric_of(name, [summary]).title
        except InputError:  # not in this summary
            continue
        if summary.get(name) is not None:
            rows.append([title, three_digits(summary[name])])
    return table_html(f"{summary.get('scenario', 'run')} (simulated)", ["", ""], rows)


def _with_error(found: Estimate) -> str:
    if found.value is None:
        return "-"
    if found.reach is None:
        return three_digits(found.value)
    return within(found.value, found.reach)


def table_html(
    caption: str, header: Sequence[str], rows: Sequence[Sequence[str]], notes: Sequence[str] = ()
) -> str:
    """A plain HTML table; all texts are escaped."""

    def row(texts: Sequence[str], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{escape(text)}</{tag}>" for text in texts) + "</tr>"

    lines = [f"<table><caption>{escape(caption)}</caption>"]
    lines += ["<thead>", row(header, "th"), "</thead><tbody>"] if any(header) else ["<tbody>"]
    lines += [row(texts, "td") for texts in rows]
    lines.append("</tbody></table>")
    return "\n".join([*lines, *(f"<p>{escape(note)}</p>" for note in notes)])
