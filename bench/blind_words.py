"""What the report of the predictions is written with: tables, shares, sums, and notes by hand."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Any

import numpy as np

from bench.blind_judge import BARS

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

STEP_BARS = {"median": 0.03, "p90": 0.07}
"""Of the error of single steps, teacher-forced."""


def paragraph(text: str, before: str = "") -> str:
    """*text* in lines of a hundred characters at most; the first begins with *before*."""
    return textwrap.fill(
        text, 100, initial_indent=before, subsequent_indent=" " * len(before),
        break_long_words=False, break_on_hyphens=False,
    )  # fmt: skip


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A Markdown table; the first column to the left."""
    names = list(head)
    lines = [names, [":--", *["--:"] * (len(names) - 1)], *map(list, rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def share(value: float, sign: str = "") -> str:
    """*value* in per cent."""
    return f"{100 * value:{sign}.1f} %"


def listed(words: Sequence[str], most: int = 12) -> str:
    """*words* with commas; how many more there are than *most*."""
    more = f" and {len(words) - most} more" if len(words) > most else ""
    return ", ".join(words[:most]) + more


def name_of(row: dict[str, Any]) -> str:
    """A run by its cell, and by its number if that was run before."""
    again = f", run {row['run']}" if row["run"] > 1 else ""
    return f"{row['cell']}{again}"


def sizes(rows: Iterable[dict[str, Any]], metric: str) -> np.ndarray:
    """|error| of *rows*."""
    return np.array([abs(row["errors"][metric]) for row in rows])


def summary(found: dict[str, Any]) -> dict[str, Any]:
    """What a round's results come to, over runs at promised loads."""
    rows = [row for row in found["rows"] if row["promised"]]
    cells = {row["cell"] for row in rows}
    steps = found["forced"].values()
    orders = [row["verdict"] for row in found["ranking"]]
    return {
        "cells": len(cells), "runs": len(rows), "figures": len(BARS) * len(rows),
        "within": sum(len(BARS) - len(row["missed"]) for row in rows),
        "good": len(cells - {row["cell"] for row in rows if row["missed"]}),
        "typical": {m: float(np.median(sizes(rows, m))) for m in BARS} if rows else {},
        "worst": {m: rows[int(np.argmax(sizes(rows, m)))] for m in BARS} if rows else {},
        "steps": [sum(all(one[k] <= bar for k, bar in STEP_BARS.items()) for one in steps),
                  len(steps)],
        "orders": {word: orders.count(word) for word in ("right", "tie", "wrong")},
    }  # fmt: skip


# ---------------------------------------------------------------- notes by hand
def notes_in(path: Path) -> dict[str, str]:
    """The texts of the Markdown file at *path* by their headings; none if there is no file."""
    found: dict[str, list[str]] = {}
    title = ""
    for line in path.read_text().splitlines() if path.is_file() else ():
        if line.startswith("## "):
            title = line[3:].strip()
        elif title:
            found.setdefault(title, []).append(line)
    return {title: "\n".join(lines).strip() for title, lines in found.items()}


def with_notes(parts: Iterable[str], notes: dict[str, str]) -> list[str]:
    """*parts*, each with the note of its heading at its end; other notes before the last part."""
    rest, found = dict(notes), []
    for part in parts:
        note = rest.pop(part.splitlines()[0].lstrip("# "), "")
        found.append(f"{part}\n\n{note}" if note else part)
    more = [f"## {title}\n\n{text}" for title, text in rest.items() if text]
    return [*found[:-1], *more, found[-1]]
