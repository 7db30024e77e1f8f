"""Numbers and tables in Markdown."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from .targets import Row

NONE = "–"


def number(value: float | None, digits: int = 4) -> str:
    """*value* to *digits* significant digits, without powers and trailing zeros."""
    if value is None:
        return NONE
    text = f"{value:.{digits}g}"
    if "e" in text:
        return f"{float(text):,.0f}" if abs(value) >= 1.0 else f"{float(text):.9f}".rstrip("0")
    return text


def fixed(value: float | None, places: int) -> str:
    """*value* with *places* digits after the point."""
    return NONE if value is None else f"{value:,.{places}f}"


def figure_of(value: float | None, unit: str) -> str:
    """A measured value as its unit deserves."""
    if value is None:
        return NONE
    if unit == "us":
        return fixed(value, 2 if value < 10 else 1)
    if unit == "%":
        return f"{value:+.1f}"
    return fixed(value, 1 if value >= 10 else 2)


def percent(value: float | None, places: int = 0) -> str:
    """A ratio in percent."""
    return NONE if value is None else f"{100.0 * value:.{places}f} %"


def size(nbytes: float | None) -> str:
    """Bytes in MB, or kB where there are few."""
    if nbytes is None:
        return NONE
    for unit, scale, digits in (("kB", 1e3, 3), ("MB", 1e6, 4), ("GB", 1e9, 3)):
        if nbytes < 1e3 * scale or unit == "GB":
            return f"{number(nbytes / scale, digits)} {unit}"
    raise AssertionError


def table(head: Sequence[str], rows: Iterable[Sequence[str]], align: str = "") -> list[str]:
    """A Markdown table; *align* has l or r for each column."""
    marks = {"l": ":--", "r": "--:", "c": ":-:"}
    sides = (align or "l" * len(head)).ljust(len(head), "r")
    lines = ["| " + " | ".join(head) + " |", "|" + "|".join(marks[s] for s in sides) + "|"]
    lines += ["| " + " | ".join(cell.replace("|", "/") for cell in row) + " |" for row in rows]
    return [*lines, ""]


def listed(items: Sequence[str]) -> str:
    """Items as words: "a, b and c"."""
    if len(items) < 2:
        return "".join(items)
    return f"{', '.join(items[:-1])} and {items[-1]}"


def beyond(row: Row) -> str:
    """How far a missed row is from its bar: points for percentages, else percent of the bar."""
    if row.target.unit == "%" and row.found is not None and row.target.bar is not None:
        return f"{row.found.value - row.target.bar:.1f} points"
    return percent(row.gap, 0 if row.gap > 0.05 else 1)


def target_cells(row: Row) -> list[str]:
    """A line of the target table."""
    target, found = row.target, row.found
    sign = "<=" if target.better == "less" else ">="
    bar = NONE if target.bar is None else f"{sign} {number(target.bar, 3)}"
    if target.stretch is not None:
        bar += f" ({number(target.stretch, 3)})"
    verdict = {
        "met": "**met**" + (" (stretch)" if row.stretched else ""),
        "missed": f"**missed** by {beyond(row)}",
        "recorded": "recorded",
        "not measured": "not measured",
    }[row.verdict]
    if found is None:
        return [target.number, target.case, target.unit, *[NONE] * 7, bar, verdict, row.reference]
    moved = found.bytes / found.value * 1e-6 if found.bytes and target.unit == "us" else None
    mark = {"estimated": " (est.)", "link": " (link)", "data sheet": " (sheet)"}
    base = f"{found.baseline[1]:.1f} {found.baseline[0]}" if found.baseline else NONE
    value = figure_of(found.value, target.unit)
    if found.kind != "measured":
        value += f" ({found.kind})"
    return [
        target.number,
        target.case,
        target.unit,
        value,
        size(found.bytes),
        fixed(moved, 2),
        figure_of(found.floor, target.unit) + mark.get(found.floor_kind, ""),
        percent(found.fraction),
        base,
        fixed(found.score, 2),
        bar,
        verdict,
        row.reference,
    ]


TARGET_HEAD = (
    "#", "case", "unit", "measured", "bytes", "TB/s", "floor", "of floor", "library, same run",
    "SOL", "target (stretch)", "verdict", "reference",
)  # fmt: skip
TARGET_ALIGN = "lllrrrrrrrlll"
