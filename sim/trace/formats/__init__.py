"""One file a format; `lines_of` and `turns_of` are the registry of those that are text.

A format without sessions is an adapter: a line becomes a row, and the file is a stream. A format
with sessions gives turns, which know each other by key; `sim.trace.turns` puts them in order.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sim.trace.lines import Block, blocks

from . import (
    agentic,
    aibrix,
    applied_compute,
    azure,
    bailian,
    burstgpt,
    llmservingsim,
    mooncake,
    mooncake_sessions,
    objects,
    requests,
    splitwise,
    vidur,
    weka,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from sim.trace.chunk import Tally
    from sim.trace.rows import Adapter, Findings
    from sim.trace.turns import Replay, Turn

    Lines = Callable[[Path, Tally], tuple[Adapter, Iterator[Block]]]
    """Opens a file: the adapter of its rows, and the blocks of lines that hold them."""
    Turns = Callable[[Path, Findings, Tally, Replay], Iterator[Turn]]
    """The good turns of a file in its order; bad ones go to the findings."""


def _mooncake(path: Path, tally: Tally) -> tuple[Adapter, Iterator[Block]]:
    return mooncake.Mooncake(tally), blocks(path, objects.LINE_LIMIT)


lines_of: dict[str, Lines] = {
    "mooncake": _mooncake,
    "azure": azure.lines,
    "burstgpt": burstgpt.lines,
    "vidur": vidur.lines,
    "splitwise": splitwise.lines,
    "llmservingsim": llmservingsim.lines,
    "requests": requests.lines,
}
turns_of: dict[str, Turns] = {
    "mooncake-sessions": mooncake_sessions.turns,
    "mooncake-delta": mooncake_sessions.delta_turns,
    "agentic-mooncake": agentic.turns,
    "applied-compute": applied_compute.turns,
    "weka": weka.turns,
    "bailian": bailian.turns,
    "burstgpt": burstgpt.turns,
    "vidur": vidur.turns,
    "aibrix": aibrix.turns,
}
# formats of both kinds: which one a file is, its header says
_HAS_SESSIONS = {"burstgpt": burstgpt.has_sessions, "vidur": vidur.has_sessions}


def turns_reader(format: str, path: Path) -> Turns | None:
    """What reads the sessions of the file at *path*, or None if it is read line by line."""
    if format in _HAS_SESSIONS and not _HAS_SESSIONS[format](path):
        return None
    return turns_of.get(format)
