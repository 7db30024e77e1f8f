"""Which format a trace file has, from its first bytes or its first line; never from its name."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from sim.errors import InputError, shown

from .formats.mooncake import KEYS
from .formats.table import AZURE, VIDUR, not_commas, separator
from .lines import head
from .naming import said

if TYPE_CHECKING:
    from pathlib import Path

PARQUET_MAGIC = b"PAR1"
_REMEDY = (
    "name the format with --format (trace.format in a scenario): mooncake, azure, vidur, parquet"
)
# keys that tell other publishers' JSON lines from Mooncake's, whose times would be misread
_FOREIGN = {
    "chat_id": "Qwen-Bailian (times in seconds, blocks of 16 tokens)",
    "parent_chat_id": "Qwen-Bailian (times in seconds, blocks of 16 tokens)",
    "arrival_time_ns": "LLMServingSim (times in nanoseconds)",
}


def detect(path: Path) -> str:
    """The format of the file at *path*, one of `FORMATS`; raises `InputError` if unknown."""
    return explain(path)[0]


def explain(path: Path) -> tuple[str, str]:
    """The format of the file at *path*, and by what it was told; raises `InputError`."""
    data = head(path)
    if data.startswith(PARQUET_MAGIC):
        return "parquet", "the file begins with PAR1"
    lines = (line.strip() for line in data.splitlines())
    number, first = next(((i, line) for i, line in enumerate(lines, 1) if line), (1, b""))
    if not first:
        raise InputError(f"{said(path)}: nothing but blank lines; fetch or write the file again")
    if first.startswith(b"{"):
        return _json_format(path, number, first)
    names = {name.strip(' "') for name in first.decode(errors="replace").split(",")}
    for format, wanted in (("azure", AZURE), ("vidur", VIDUR)):
        if names >= set(wanted):
            return format, f"line {number} has the columns {', '.join(wanted)}"
    if names >= set(VIDUR[1:]):
        return "vidur", f"line {number} has the columns {', '.join(VIDUR[1:])}"
    for columns in (AZURE, VIDUR[1:]):
        if mark := separator(first.decode(errors="replace"), columns):
            raise not_commas(f"{said(path)}:{number}", mark)
    raise InputError(
        f"{said(path)}:{number}: unknown trace format, the first line is "
        f"{shown(first.decode(errors='replace'), 100)}; {_REMEDY}"
    )


def _json_format(path: Path, number: int, first: bytes) -> tuple[str, str]:
    try:
        record = json.loads(first)
        keys = list(record)
    except (ValueError, RecursionError):
        # cut off or broken: the reader says what is wrong with it
        keys = [key for key in KEYS if f'"{key}"'.encode() in first]
    for key, publisher in _FOREIGN.items():
        if key in keys:
            raise InputError(
                f"{said(path)}:{number}: {key}: a trace of {publisher}; write its rows as Mooncake "
                "lines first (timestamp in ms, input_length, output_length)"
            )
    if set(keys) >= set(KEYS):
        return "mooncake", f"line {number} is a JSON object with {', '.join(KEYS)}"
    raise InputError(
        f"{said(path)}:{number}: unknown trace format, the first object has the keys "
        f"{shown(', '.join(keys), 100)}; {_REMEDY}"
    )
