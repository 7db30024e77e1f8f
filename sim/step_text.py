"""Steps from an engine's text log: the iteration lines that vLLM writes when asked for details.

`Iteration(515): 0 context requests, 0 context tokens, 20 generation requests, 20 generation
tokens, iteration elapsed time: 10.99 ms`. They hold no start and no KV tokens read.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from .step_files import ROWS, from_dicts, text_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from .step_files import Chunk

_LINE = re.compile(
    r"Iteration\(\d+\): (\d+) context requests?, (\d+) context tokens?, "
    r"(\d+) generation requests?, (\d+) generation tokens?, iteration elapsed time: ([\d.]+) ms"
)
_NAMES = ("prefill_requests", "prefill_tokens", "decode_requests", "decode_tokens")


def with_iteration_lines(path: Path) -> Iterator[Chunk] | None:
    """Chunks of the iteration lines in *path*; None if it is no text log."""
    name = path.name.lower().removesuffix(".gz")
    if not name.endswith((".log", ".txt")) or not path.is_file():
        return None
    try:
        with text_of(path) as file:
            if not any(_LINE.search(line) for line, _ in zip(file, range(20 * ROWS), strict=False)):
                return None
    except (OSError, UnicodeDecodeError, EOFError):
        return None
    return from_dicts(_steps(path), f"{path}")


def _steps(path: Path) -> Iterator[dict[str, float]]:
    with text_of(path) as file:
        for line in file:
            found = _LINE.search(line)
            if found:
                *counts, elapsed = map(float, found.groups())
                if counts[1] or counts[3]:
                    yield {**dict(zip(_NAMES, counts, strict=True)), "duration_ms": elapsed}
