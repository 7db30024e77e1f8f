"""The page of a validation: one self-contained HTML file with tables and inline figures."""

from __future__ import annotations

import tempfile
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from sim.page import document
from sim.report.inline import DARK, LIGHT, STYLE, inline

from .errors import METRICS
from .figures import draw

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from .errors import Comparison

_LABELS = {
    "cdf": "Distributions of TTFT, TPOT, ITL and E2EL, measured and simulated",
    "scatter": "Each request and step, simulated over measured",
}
_STYLE = "h2{margin-top:1.4rem}.outside{color:var(--bad)}.within{color:var(--good)}" + STYLE


def page(found: Comparison) -> str:
    """The HTML of *found*; the same comparison, the same bytes."""
    head = f"{found.measured.name} (measured) and {found.simulated.name} (simulated)"
    parts = [
        f"<h1>Validation</h1><p>{escape(head)}: {len(found.measured):,} requests.</p>",
        "<h2>Errors</h2><p>simulated / measured - 1, with bootstrap 95 % intervals over "
        "requests</p>",
        _table(metric_head(found), metric_rows(found)),
        "<h2>Distributions and requests</h2>",
        _table(("quantity", "KS distance", "median |error| a request", "p90"), each_rows(found)),
    ]  # fmt: skip
    if found.steps:
        parts += ["<h2>Steps, teacher-forced</h2>",
                  _table(("steps", "n", "median", "p90", "max", "bias"),
                         step_rows(found))]  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        for file in draw(found, Path(folder)):
            if file.suffix == ".svg":
                parts.append(inline(file.read_text(), file.stem, _LABELS[file.stem]))
    if found.notes:
        notes = "".join(f"<li>{escape(note)}</li>" for note in found.notes)
        parts.append(f"<h2>Notes</h2><ul>{notes}</ul>")
    return document("Validation", "".join(parts), _STYLE, LIGHT, DARK)


def metric_rows(found: Comparison) -> list[tuple[str, ...]]:
    """A row of words a metric."""
    rows: list[tuple[str, ...]] = []
    for row in found.rows:
        spread = "" if row.low is None or row.high is None else f"{row.low:+.1%} to {row.high:+.1%}"
        rows.append((
            METRICS[row.metric], f"{row.measured:,.4g}", f"{row.simulated:,.4g}",
            f"{row.error:+.1%}", spread, "" if row.noise is None else f"{row.noise:+.1%}",
            "" if row.bar is None else f"{row.bar:g} %", row.verdict,
            *(() if row.spread is None else (f"{row.spread:.1%}",)),
        ))  # fmt: skip
    return rows


def metric_head(found: Comparison) -> tuple[str, ...]:
    """What the columns of `metric_rows` are."""
    head = ("metric", "measured", "simulated", "error", "95 %", "noise", "bar", "verdict")
    return (*head, "seeds differ") if any(row.spread is not None for row in found.rows) else head


def each_rows(found: Comparison) -> list[tuple[str, ...]]:
    """A row of words a quantity."""
    rows: list[tuple[str, ...]] = []
    for name, distance in found.ks.items():
        one = found.per_request.get(name)
        shares = (f"{one['median']:.1%}", f"{one['p90']:.1%}") if one else ("", "")
        rows.append((name.upper(), f"{distance:.3f}", *shares))
    return rows


def step_rows(found: Comparison) -> list[tuple[str, ...]]:
    """A row of words a region of load."""
    return [
        (
            region, f"{one['n']:,.0f}", *(f"{one[key]:.1%}" for key in ("median", "p90", "max")),
            f"{one['signed_median']:+.1%}",
        )
        for region, one in found.steps.items()
    ]  # fmt: skip


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    def cells(row: Sequence[str]) -> str:
        return "".join(
            f'<td class="{cell}">{cell}</td>' if cell in ("within", "outside")
            else f"<td>{escape(cell)}</td>"
            for cell in row
        )  # fmt: skip

    body = "".join(f"<tr>{cells(row)}</tr>" for row in rows)
    titles = "".join(f"<th>{escape(name)}</th>" for name in head)
    return f"<section><table><tr>{titles}</tr>{body}</table></section>"
