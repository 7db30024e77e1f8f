"""Steps of a measured run as they are kept: times as whole 100 ns, each from the one before.

A row a step: pause since the end of the step before, duration, commit from the step's end, then
counts. That is a quarter of the engine's own log, of which it drops who took part and what other
columns say, too.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from sim.step_log import StepLog

TICK_S = 1e-7
TIMES = ("pause", "duration", "commit")
COUNTS = (
    "decode_requests", "decode_tokens", "padded_requests", "prefill_requests", "prefill_tokens",
    "prefill_context_tokens", "context_tokens", "waiting",
)  # fmt: skip
WORDS = ("turn", "late")


def packed(log: Path) -> str:
    """The rows of the engine's step *log* as CSV."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*(f"{name}_100ns" for name in TIMES), *COUNTS, *WORDS])
    last = 0
    for row in _lines(log):
        start, commit = _ticks(row["start_s"]), _ticks(row["commit_s"])
        duration = _ticks(row["duration_s"])
        words = row.get("turn", ""), int(row.get("late", False))
        times = start - last, duration, commit - start - duration
        writer.writerow([*times, *(row.get(name, 0) for name in COUNTS), *words])
        last = start + duration
    return text.getvalue()


def rows_of(run: Path) -> list[dict[str, Any]]:
    """The steps of a kept *run*: in seconds, by the names of the engine's log."""
    if not (run / "steps.csv.gz").is_file():
        return _lines(run / "steps.jsonl.gz")
    found: list[dict[str, Any]] = []
    last = 0
    with gzip.open(run / "steps.csv.gz", "rt", newline="") as file:
        for row in csv.DictReader(file):
            pause, duration, commit = (int(row[f"{name}_100ns"]) for name in TIMES)
            start = last + pause
            last = start + duration
            found.append(
                {
                    "start_s": start * TICK_S, "duration_s": duration * TICK_S,
                    "commit_s": (last + commit) * TICK_S,
                    **{name: int(row[name]) for name in COUNTS},
                    "turn": row["turn"], "late": row["late"] == "1",
                }
            )  # fmt: skip
    return found


def log_of(run: Path) -> StepLog:
    """The steps of a kept *run* as a log to judge."""
    from sim.step_log import from_dicts, read_steps

    if not (run / "steps.csv.gz").is_file():
        return read_steps([run / "steps.jsonl.gz"])
    taken = ("start_s", "duration_s", *COUNTS)
    return from_dicts([{name: row[name] for name in taken} for row in rows_of(run)])


def _lines(log: Path) -> list[dict[str, Any]]:
    with gzip.open(log, "rt") as file:
        return [json.loads(line) for line in file][1:]


def _ticks(seconds: float) -> int:
    return round(seconds / TICK_S)
