"""Which format a trace file has, from its first bytes or rows; never from its name.

One rule: a file that fits no format, or has no requests in it, is refused with what to do instead.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

from sim.errors import InputError, shown

from .formats.csvlines import not_commas, separator
from .formats.table import AZURE, BURSTGPT, REQUESTS, SPLITWISE, VIDUR
from .lines import head
from .names import FORMATS
from .naming import said

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator
    from pathlib import Path

PARQUET_MAGIC = b"PAR1"
_HEAD_BYTES = 2**20
_REMEDY = (
    f"name it with --format (trace.format): {', '.join(FORMATS)}; "
    "an engine's log of requests: residentsim trace requests"
)
_TABLES = {
    "azure": AZURE, "burstgpt": BURSTGPT, "vidur": VIDUR, "splitwise": SPLITWISE,
    "requests": REQUESTS,
}  # fmt: skip

# the keys of a Mooncake row, under the names that tools give them
_TIME = ("timestamp", "created_time")
_INPUT = ("input_length", "input_tokens")
_OUTPUT = ("output_length", "output_tokens")
_IDS = "hash_ids"  # a row may have these in place of its input length
_SESSION = ("session_id", "delay", "delay_ms")
_AGENTIC = (
    "wait_for", "tool_wait_ms", "branches", "prefix_reset", "play_id", "not_before_ms",
    "dependencies",
)  # fmt: skip
_AGENTIC_SCHEMA = "dynamo.agentic_mooncake"
_DELTA = (
    "; where later turns of a session hold only what is new, which keys do not tell, it is "
    "--format mooncake-delta"
)
# other publishers' keys: a file has a format if each group has a key in its first row
_JSON: dict[str, tuple[tuple[str, ...], ...]] = {
    "bailian": (("chat_id", "parent_chat_id"),),
    "llmservingsim": (("arrival_time_ns",),),
    "applied-compute": (("num_turns",), ("input_prompt_length", "assistant_response_length")),
    "aibrix": (("timestamp",), ("requests",)),
    "weka": (("requests",), ("hash_id_scope", "block_size", "models")),
}
_TEXT = ("input", "output", "text_input", "messages", "payload", "prompt", "text")
_GENERATE = "make requests from them: residentsim trace generate servegen --clients FOLDER"
_SERVEGEN_ROW = re.compile(r"[0-9.]+,[0-9.]+,[0-9.e+-]+,(Gamma|Weibull)?,[0-9.e+-]+,[0-9.e+-]+")
_SERVEGEN_COLUMNS = {"rate_rps", "iat_cv", "iat_family"}
_SERVEGEN_LENGTHS = "pmf"  # of all clients together; those of one client are texts:
_SERVEGEN_LENGTH = re.compile(rb'_tokens"\s*:\s*"\{')
_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[{}\[\]:]')


def detect(path: Path) -> str:
    """The format of the file at *path*, one of `FORMATS`; raises `InputError` if unknown."""
    return explain(path)[0]


def explain(path: Path) -> tuple[str, str]:
    """The format of the file at *path*, and by what it was told; raises `InputError`."""
    data = head(path, _HEAD_BYTES)
    if data.startswith(PARQUET_MAGIC):
        return "parquet", "the file begins with PAR1"
    lines = [(i, line) for i, line in enumerate(map(bytes.strip, data.splitlines()), 1) if line]
    if not lines:
        raise InputError(f"{said(path)}: nothing but blank lines; fetch or write the file again")
    number, first = lines[0]
    place = f"{said(path)}:{number}"
    if first.startswith((b"{", b"[")):
        return _json_format(place, number, data, [line for _, line in lines])
    return _table_format(place, number, first.decode(errors="replace"))


def _table_format(place: str, number: int, first: str) -> tuple[str, str]:
    names = {name.strip(' "') for name in first.split(",")}
    for format, wanted in _TABLES.items():
        if names >= set(wanted):
            return format, f"line {number} has the columns {', '.join(wanted)}"
    if names >= set(VIDUR[1:]):
        return "vidur", f"line {number} has the columns {', '.join(VIDUR[1:])}"
    if names >= _SERVEGEN_COLUMNS or _SERVEGEN_ROW.fullmatch(first):
        raise InputError(
            f"{place}: ServeGen's rates of a client, parameters and not requests; {_GENERATE}"
        )
    for columns in (AZURE, BURSTGPT, VIDUR[1:], SPLITWISE, REQUESTS):
        if mark := separator(first, columns):
            raise not_commas(place, mark)
    raise InputError(
        f"{place}: unknown trace format, the first line is {shown(first, 100)}; {_REMEDY}"
    )


def _json_format(place: str, number: int, data: bytes, lines: list[bytes]) -> tuple[str, str]:
    keys = _keys(lines[0])
    if _SERVEGEN_LENGTHS in keys or (all(map(str.isdigit, keys)) and _SERVEGEN_LENGTH.search(data)):
        raise InputError(
            f"{place}: ServeGen's lengths of a client, parameters and not requests; {_GENERATE}"
        )
    if lines[0].startswith(b"[") or lines[0] == b"{":
        remedy = "jq -c . FILE" if lines[0] == b"{" else "jq -c '.[]' FILE"
        raise InputError(
            f"{place}: unknown trace format, JSON that is not one object a line; write it so: "
            f"{remedy}"
        )
    if f'"{_AGENTIC_SCHEMA}"'.encode() in lines[0] and "schema" in keys:
        return "agentic-mooncake", f'line {number} is a header with schema "{_AGENTIC_SCHEMA}"'
    for format, groups in _JSON.items():
        if _has(keys, groups):
            found = [key for group in groups for key in group if key in keys]
            return format, f"line {number} is a JSON object with {', '.join(found)}"
    return _mooncake_format(place, number, keys, lines)


def _mooncake_format(
    place: str, number: int, keys: list[str], lines: list[bytes]
) -> tuple[str, str]:
    """Which of Mooncake's relatives the rows are: any row of the head may tell."""
    if not _has(keys, ((*_INPUT, _IDS), _OUTPUT)):
        if any(key in keys for key in _TEXT):
            raise InputError(
                f"{place}: prompts as text without their numbers of tokens (LMCache and the like); "
                "count them with the model's tokenizer and write input_length and output_length, "
                f"with timestamp in ms; there are {shown(', '.join(keys), 100)}"
            )
        raise InputError(
            f"{place}: unknown trace format, the first object has the keys "
            f"{shown(', '.join(keys), 100)}; {_REMEDY}"
        )
    every = dict.fromkeys(key for line in lines for key in _keys(line))
    if agentic := [key for key in _AGENTIC if key in every]:
        return "agentic-mooncake", f"its first rows have {', '.join(agentic)}"
    has = [key for key in (*_TIME, *_INPUT, _IDS, *_OUTPUT) if key in keys]
    told = f"line {number} is a JSON object with {', '.join(has)}"
    if sessions := [key for key in _SESSION if key in every]:
        return "mooncake-sessions", f"{told}, and rows have {', '.join(sessions)}{_DELTA}"
    return "mooncake", told


def _has(keys: Collection[str], groups: tuple[tuple[str, ...], ...]) -> bool:
    return all(any(key in keys for key in group) for group in groups)


def _keys(line: bytes) -> list[str]:
    """The keys of an object; of one that is cut off or broken, those that come before that."""
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return list(_keys_of_broken(line.decode(errors="replace")))
    return list(record) if isinstance(record, dict) else []


def _keys_of_broken(text: str) -> Iterator[str]:
    depth, held = 0, None
    for match in _TOKEN.finditer(text):
        token = match[0]
        if token == ":":
            if depth == 1 and held is not None:
                yield held
        elif token in "{[":
            depth += 1
        elif token in "}]":
            depth -= 1
        held = token[1:-1] if token.startswith('"') else None
