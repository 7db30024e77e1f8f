"""A step-level profile in tables: form, coefficients, residuals, coverage."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .step_domain import WORDS, edge
from .step_form import UNITS, Term

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from rich.console import Console
    from rich.table import Table

    from .profile import Profile
    from .step_form import Form
    from .step_profile import Steps

_SCALES = ((1e-3, "ms", 1e3), (1e-6, "us", 1e6), (0.0, "ns", 1e9))


def show(console: Console, profile: Profile) -> None:
    """All that *profile*, which is of steps, holds."""
    steps = profile.steps
    assert steps is not None

    def said(text: str) -> None:
        console.print(text, markup=False, highlight=False, soft_wrap=True)

    said(f"profile {profile.name} ({profile.hash}): steps, for loop.mode: {steps.mode}")
    log = steps.log
    files = log.get("files")
    names = ", ".join(map(str, files)) if isinstance(files, list) else ""
    said(f"  from {log.get('steps')} steps {names}; {log.get('warm_up_steps')} of warm-up left out")
    columns = log.get("columns")
    if isinstance(columns, dict):
        said("  columns: " + ", ".join(f"{ours} = {theirs}" for ours, theirs in columns.items()))
    console.print(_form("Seconds of a step: the larger of its branches", steps.form))
    if steps.gpu is not None:
        console.print(_form("Seconds in which the GPU works", steps.gpu))
    console.print(residual_table(steps.residuals))
    for line in summary_lines(steps):
        said(line)


def summary_lines(steps: Steps) -> Iterator[str]:
    """Noise, outliers, coverage and notes, a line each."""
    if steps.noise_floor is not None:
        yield f"noise floor: {steps.noise_floor:.2%} (median, from alike steps)"
    share, lost = steps.outliers.get("share", 0.0), steps.outliers.get("time_lost", 0.0)
    yield f"outliers: {share:.2%} of steps over 1.5 x their usual time, {lost:.2%} of all time"
    ranges = (
        f"{words} {low:,.0f} to {high:,.0f}"
        for words, (low, high) in zip(WORDS, steps.domain.ranges.values(), strict=False)
    )
    yield f"covers: {'; '.join(ranges)}; {len(steps.domain.cells)} cells of load"
    yield from coverage(steps)
    yield from (f"note: {note}" for note in steps.notes)


def coverage(steps: Steps) -> Iterator[str]:
    """A map of the occupied cells without prefill: contexts across, requests down."""
    cells = {(cell[0], cell[1]) for cell in steps.domain.cells if cell[2] == 0 and cell[0] > 0}
    if not cells:
        return
    rows = sorted({row for row, _ in cells})
    columns = range(min(c for _, c in cells), max(c for _, c in cells) + 1)
    yield "decode steps covered (context tokens each from, across; decoding requests from, down):"
    yield "        " + "".join(f"{_short(edge(column)):>6}" for column in columns)
    for row in range(rows[0], rows[-1] + 1):
        marks = "".join("     #" if (row, column) in cells else "     ." for column in columns)
        yield f"  {_short(edge(row)):>6}{marks}"


def _short(count: int) -> str:
    return f"{count / 1000:.0f}k" if count >= 10_000 else str(count)


def residual_table(residuals: Mapping[str, Mapping[str, float]], title: str = "") -> Table:
    """Errors by region; *residuals* as in `step_residuals.figures`."""
    name = title or "Held-out errors of single steps: predicted / measured - 1"
    table = _table(name, ("steps", "n.", "median.", "p90.", "max.", "bias."))
    for region, entry in residuals.items():
        shares = (f"{entry.get(key, 0.0):.2%}" for key in ("median", "p90", "max"))
        table.add_row(region, f"{entry.get('n', 0):,.0f}", *shares,
                      f"{entry.get('signed_median', 0.0):+.2%}")  # fmt: skip
    return table


def _form(title: str, form: Form) -> Table:
    table = _table(title, ("steps", "branch", "term", "value.", "unit"))
    for kind, regime in (("decode only", form.decode), ("with prefill", form.mixed)):
        for number, branch in enumerate(regime.branches):
            for term in branch:
                value, unit = value_of(term.seconds, UNITS[term.name])
                of = str(number + 1) if len(regime.branches) > 1 else ""
                table.add_row(kind, of, _words(term), value, unit)
        if regime.grain > 1:
            table.add_row(kind, "", "tokens rounded up to", f"{regime.grain}", "tokens")
    if form.cold is not None:
        value, unit = value_of(form.cold.seconds, UNITS["step"])
        what = "length" if form.cold.by == "tokens" else "shape"
        unit = unit.replace("a step", f"a chunk of a new {what}")
        table.add_row("with prefill", "", f"new {what}", value, unit)
    return table


def _words(term: Term) -> str:
    if term.name != "tokens" or (not term.low and term.high is None):
        return term.name
    if term.high is None:
        return f"tokens above {term.low:g}"
    return f"tokens from {term.low:g} to {term.high:g}"


def value_of(seconds: float, unit: str) -> tuple[str, str]:
    """A coefficient as number and unit, e.g. ("3.52", "us a decoding request")."""
    rest = unit.removeprefix("s ")
    for least, name, factor in _SCALES:
        if seconds and abs(seconds) >= least:
            return f"{seconds * factor:.4g}", f"{name} {rest}"
    return "0", f"s {rest}"


def _table(title: str, columns: Iterable[str]) -> Table:
    from rich.table import Table

    table = Table(title=title, title_justify="left")
    for name in columns:
        table.add_column(name.rstrip("."), justify="right" if name.endswith(".") else "left")
    return table
