"""Differences said in words: how much better or worse at what, or that nobody can tell."""

from __future__ import annotations

from math import floor, log10
from typing import TYPE_CHECKING

from sim.units import three_digits

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from .differences import Difference
    from .metrics import Metric


def percent(relative: float, reach: float | None = None) -> str:
    """0.1234 within 0.031 as '12 % ± 3 %': no more digits than the error lets stand."""
    size = 100.0 * relative
    if reach is None:
        return f"{size:.{_places(size)}f} %"
    places = _places(100.0 * reach) if reach > 0 else max(0, _places(size))
    return f"{size:.{places}f} % ± {100.0 * reach:.{places}f} %"


def within(value: float, reach: float) -> str:
    """15.661 within 0.342 as '15.7 ± 0.3', as `percent`."""
    if reach == 0:
        return f"{three_digits(value)} ± 0"
    places = _places(reach)
    if value:
        places = min(places, max(0, 4 - floor(log10(abs(value)))))  # five digits are enough
    return f"{value:,.{places}f} ± {reach:,.{places}f}"


def _places(size: float) -> int:
    """Decimals that leave one digit of *size*, two if the first is 1; at most six."""
    if size == 0 or not -1e9 < size < 1e9:
        return 0
    exponent = floor(log10(abs(size)))
    leading = abs(size) / 10**exponent
    return min(6, max(0, (1 if leading < 1.95 else 0) - exponent))


def amount(row: Difference, metric: Metric) -> str:
    """'12 % ± 3 % better', or higher and lower where no way is better."""
    assert row.relative is not None, "what is not known is not said"
    reach = None if row.low is None or row.high is None else (row.high - row.low) / 2
    if metric.better is None:
        way = "higher" if row.relative > 0 else "lower"
    else:
        way = "better" if (row.relative > 0) == (metric.better == "higher") else "worse"
    return f"{percent(abs(row.relative), reach)} {way}"


def verdict(row: Difference, metric: Metric, together: int = 1) -> str:
    """One difference in a sentence; *together* is how many were judged at one level."""
    against = f"{row.cell} is"
    if row.relative is None:
        return f"{row.cell} against {row.baseline} at {metric.label}: {row.note}"
    if not row.judged:
        return f"{against} {amount(row, metric)} at {metric.label}, not judged: {row.note}"
    if row.relative == 0 and row.low == row.high:
        return f"{against} the same as {row.baseline} at {metric.label}"
    if row.distinguishable:
        return f"{against} {amount(row, metric)} at {metric.label}"
    told = f"{against} not distinguishable from {row.baseline} at {metric.label}"
    if row.p is not None and row.p < row.alpha and together > 1:
        return f"{told} among {together} comparisons (by itself {amount(row, metric)})"
    return f"{told} ({amount(row, metric)})"


def joined_words(parts: Sequence[str]) -> str:
    """'a', 'a and b', 'a, b and c'."""
    return " and ".join(filter(None, (", ".join(parts[:-1]), *parts[-1:])))


def sentence(rows: Iterable[tuple[Difference, Metric]]) -> str:
    """All differences between one cell and its baseline in a sentence; empty if there are none."""
    rows = list(rows)
    if not rows:
        return ""
    told, same, alike, unknown = [], [], [], []
    for row, metric in rows:
        if row.relative is None or not row.judged:
            unknown.append(metric.label)
        elif row.distinguishable:
            told.append(f"{amount(row, metric)} at {metric.label}")
        elif row.relative == 0 and row.low == row.high:
            same.append(metric.label)
        else:
            alike.append(metric.label)
    parts = [joined_words(told)] if told else []
    baseline = rows[0][0].baseline
    parts += [f"the same at {joined_words(same)}"] if same else []
    parts += [f"not distinguishable at {joined_words(alike)}"] if alike else []
    parts += [f"not judged at {joined_words(unknown)}"] if unknown else []
    said = "; ".join(parts)
    return f"Against {baseline}, {rows[0][0].cell} is {said}"
