"""The keys of a Mooncake line that tools share, with their aliases, and what they hold."""

from __future__ import annotations

from dataclasses import dataclass
from math import nan
from typing import TYPE_CHECKING, Any

from sim.trace.bounds import MAX_SECONDS
from sim.trace.lines import blocks
from sim.trace.rows import BadRowError, tokens

from . import objects

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from sim.trace.chunk import Tally
    from sim.trace.rows import Findings

SESSION = "session_id"
TIME = ("timestamp", "created_time")
PROMPT = ("input_length", "input_tokens")
OUTPUT = ("output_length", "output_tokens")
DELAY = ("delay", "delay_ms")
IDS = "hash_ids"
KEYS = (SESSION, *TIME, *PROMPT, *OUTPUT, *DELAY, IDS)
BLOCK_TOKENS = 512


def records(path: Path, findings: Findings) -> Iterator[tuple[int, dict[str, Any]]]:
    """The objects of the file at *path* with their lines; what is none goes to *findings*."""
    for block in blocks(path, objects.LINE_LIMIT):
        for line, data in block.numbered():
            try:
                record = objects.record_of(data, ())
            except BadRowError as bad:
                findings.add(line, bad)
                continue
            if record is not None:
                yield line, record


def alias(record: dict[str, Any], keys: tuple[str, ...]) -> str | None:
    """Which of *keys*, names of the same thing, *record* has; null is as good as not there."""
    found = None
    for key in keys:
        if record.get(key) is None:
            continue
        if found is not None and record[found] != record[key]:
            raise BadRowError(
                "two values", f"{found}, {key}: two values of the same thing; delete one"
            )
        found = found or key
    return found


def milliseconds(record: dict[str, Any], keys: tuple[str, ...]) -> float:
    """The time under one of *keys* in seconds, nan if there is none; raises `BadRowError`."""
    key = alias(record, keys)
    return nan if key is None else objects.time_of(key, record[key], 1e3, "milliseconds") / 1e3


def wait_s(record: dict[str, Any], keys: tuple[str, ...]) -> float:
    """The delay under one of *keys* in seconds, nan if there is none; raises `BadRowError`."""
    delay_s = milliseconds(record, keys)
    if delay_s > MAX_SECONDS:
        key = alias(record, keys)
        raise BadRowError(
            "bad delay", f"{key}: {delay_s:,.4g} s is above {MAX_SECONDS:,.10g} s; correct it"
        )
    return delay_s


@dataclass(frozen=True, slots=True)
class Prompt:
    """A prompt as a row has it: its tokens, and its block ids or None."""

    tokens: int
    ids: NDArray[np.int64] | None

    @classmethod
    def of(cls, record: dict[str, Any], block_tokens: int, tally: Tally) -> Prompt:
        """That of *record*; without a length it is that of its blocks. Raises `BadRowError`."""
        ids = None if record.get(IDS) in (None, []) else objects.ids(IDS, record[IDS])
        if (key := alias(record, PROMPT)) is not None:
            return cls(objects.count(key, record[key], output=False), ids)
        if ids is None:
            objects.need(record, (PROMPT[0],))
        tally.note(f"rows without {PROMPT[0]} are taken for full blocks of {block_tokens} tokens")
        blocks = 0 if ids is None else len(ids)
        return cls(tokens(IDS, blocks * block_tokens, None, output=False), ids)


def answer(record: dict[str, Any]) -> int:
    """The output tokens of *record*; raises `BadRowError`."""
    if (key := alias(record, OUTPUT)) is None:
        objects.need({k: v for k, v in record.items() if v is not None}, (OUTPUT[0],))
    return objects.count(str(key), record[str(key)], output=True)
