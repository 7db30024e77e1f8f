"""A trace's requests for the engine: Azure's CSV, Mooncake's JSONL, or plain rows of three columns.

Known columns: `TIMESTAMP,ContextTokens,GeneratedTokens` (Azure), `timestamp` in ms with
`input_length` and `output_length` (Mooncake), `arrival_s,prompt_tokens,output_tokens` (plain).
"""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass
from datetime import datetime
from math import inf, isfinite
from typing import TYPE_CHECKING, Any, NamedTuple

from ..fit.samples import SamplesError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

MOST_TOKENS = 1 << 20


class Arrival(NamedTuple):
    """A request of a trace: seconds from the window's begin, and lengths in tokens."""

    time: float
    prompt_tokens: int
    output_tokens: int


@dataclass(frozen=True, slots=True)
class Cut:
    """What of a trace is taken, and how it is changed.

    Rows from *begin* to before *end* seconds after the first; then *requests* of them at most;
    arrivals come *rate_scale* times as fast; longer prompts and outputs are clipped.
    """

    begin: float = 0.0
    end: float = inf
    requests: int | None = None
    rate_scale: float = 1.0
    most_prompt: int | None = None
    most_output: int | None = None


class _Format(NamedTuple):
    columns: tuple[str, str, str]
    seconds: Callable[[Any], float]


def _azure_seconds(value: str) -> float:
    """Seconds of an Azure time stamp, which has up to seven digits and perhaps a zone."""
    text = value.strip().removesuffix("Z").removesuffix("+00:00")
    whole, _, rest = text.replace("T", " ").partition(".")
    seconds = datetime.strptime(f"{whole}+0000", "%Y-%m-%d %H:%M:%S%z").timestamp()
    return seconds + (float(f"0.{rest}") if rest else 0.0)


FORMATS = {
    "azure": _Format(("TIMESTAMP", "ContextTokens", "GeneratedTokens"), _azure_seconds),
    "mooncake": _Format(
        ("timestamp", "input_length", "output_length"), lambda value: float(value) / 1e3
    ),
    "plain": _Format(("arrival_s", "prompt_tokens", "output_tokens"), float),
}


def read_trace(path: Path, cut: Cut | None = None) -> list[Arrival]:
    """The requests of *path*, sorted by time, the first of the window at 0.

    Raises `SamplesError`, one line with file and line number, for what is no trace or has no
    request in the window.
    """
    cut = cut or Cut()
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = list(_rows(path, file))
    except OSError as error:
        raise SamplesError(f"{path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise SamplesError(f"{path}: not a text file in UTF-8") from None
    rows.sort(key=lambda row: row.time)
    first = rows[0].time if rows else 0.0
    rows = [row for row in rows if cut.begin <= row.time - first < cut.end][: cut.requests]
    if not rows:
        raise SamplesError(f"{path}: no request between {cut.begin:g} s and {cut.end:g} s")
    zero = rows[0].time
    return [
        Arrival(
            (row.time - zero) / cut.rate_scale,
            min(row.prompt_tokens, cut.most_prompt or row.prompt_tokens),
            min(row.output_tokens, cut.most_output or row.output_tokens),
        )
        for row in rows
    ]


def _rows(path: Path, file: Any) -> Iterator[Arrival]:
    if path.suffix == ".jsonl":
        records: Iterator[tuple[int, Any]] = _json_rows(path, file)
    else:
        reader = csv.DictReader(file)
        records = ((reader.line_num, row) for row in reader)
    kind: _Format | None = None
    for number, record in records:
        if kind is None:
            kind = _format_of(path, number, record)
        yield _arrival(path, number, record, kind)


def _json_rows(path: Path, file: Any) -> Iterator[tuple[int, Any]]:
    for number, line in enumerate(file, 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except json.JSONDecodeError as error:
            raise SamplesError(f"{path}:{number}:{error.colno}: no JSON: {error.msg}") from None
        if not isinstance(record, dict):
            raise SamplesError(f"{path}:{number}: expected an object")
        yield number, record


def _format_of(path: Path, number: int, record: dict[str, Any]) -> _Format:
    for kind in FORMATS.values():
        if set(kind.columns) <= set(record):
            return kind
    known = "; ".join(", ".join(kind.columns) for kind in FORMATS.values())
    found = ", ".join(str(name) for name in record)[:80]
    raise SamplesError(f"{path}:{number}: columns {found or 'none'}; known are {known}")


def _arrival(path: Path, number: int, record: dict[str, Any], kind: _Format) -> Arrival:
    when, *lengths = kind.columns
    try:
        time = kind.seconds(record[when])
    except (KeyError, TypeError, ValueError):
        raise SamplesError(f"{path}:{number}: {when}: {record.get(when)!r} is no time") from None
    if not isfinite(time):
        raise SamplesError(f"{path}:{number}: {when}: {time} is no time")
    tokens = []
    for name in lengths:
        try:
            count = float(record[name])
        except (KeyError, TypeError, ValueError):
            count = 0.0
        if not (count.is_integer() and 1 <= count <= MOST_TOKENS):
            raise SamplesError(
                f"{path}:{number}: {name}: {record.get(name)!r}, expected 1 to {MOST_TOKENS:,}"
            )
        tokens.append(int(count))
    return Arrival(time, *tokens)
