"""LLMServingSim JSON lines: times in nanoseconds, and the token ids themselves."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sim.trace.lines import blocks

from .objects import LINE_LIMIT, Unread, count, record_of, time_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from sim.trace.chunk import Tally
    from sim.trace.lines import Block
    from sim.trace.rows import Columns, Row

KEYS = ("arrival_time_ns", "input_toks", "output_toks")


class LlmServingSim:
    """The adapter for such lines."""

    time_key = KEYS[0]
    ticks_per_s = 1e9

    def __init__(self, tally: Tally) -> None:
        self._unread = Unread(KEYS, tally)

    def row(self, line: bytes) -> Row | None:
        """The row of *line*, or None if it is blank; raises `BadRowError`."""
        record = record_of(line, KEYS)
        if record is None:
            return None
        time = int(time_of(KEYS[0], record[KEYS[0]], 1e9, "nanoseconds"))
        prompt = count(KEYS[1], record[KEYS[1]], output=False)
        output = count(KEYS[2], record[KEYS[2]], output=True)
        self._unread.see(record)
        return time, prompt, output, None

    def clean(self, data: bytes) -> Columns | None:
        """No short cut: the JSON decoder is fast enough."""
        del data
        return None


def lines(path: Path, tally: Tally) -> tuple[LlmServingSim, Iterator[Block]]:
    """The rows as a stream."""
    return LlmServingSim(tally), blocks(path, LINE_LIMIT)
