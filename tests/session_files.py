"""Writing small traces with sessions, and reading them back as one chunk."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from sim.errors import InputError
from sim.trace.read import read
from sim.trace.turns import Replay

if TYPE_CHECKING:
    from pathlib import Path

    from sim.trace.chunk import Chunk

DRAWN = Replay(rate_per_s=0.01, arrivals="constant")


def put(tmp_path: Path, *rows: object) -> Path:
    path = tmp_path / "trace.jsonl"
    text = "".join(row if isinstance(row, str) else json.dumps(row) + "\n" for row in rows)
    path.write_text(text)
    return path


def load(path: Path, format: str, **options: Any) -> Chunk:
    """The whole trace as one chunk; `links` are there."""
    every = list(read(path, format, **options))
    assert all(chunk.links is not None for chunk in every)
    (chunk,) = every
    return chunk


def told(path: Path, format: str, **options: Any) -> str:
    with pytest.raises(InputError) as caught:
        list(read(path, format, **options))
    assert all(str(path) in line or line.startswith("...") for line in caught.value.lines)
    return str(caught.value)


def shape(chunk: Chunk) -> list[Any]:
    """(arrival, prompt, output, session, after, delay) of each request."""
    links = chunk.links
    assert links is not None
    columns = (
        chunk.arrival_s.tolist(), chunk.prompt_tokens.tolist(), chunk.output_tokens.tolist(),
        links.session, list(links.after), links.delay_s.tolist(),
    )  # fmt: skip
    return list(zip(*columns, strict=True))


def ask(t: float, prompt: int, ids: list[int], **more: Any) -> dict[str, Any]:
    return {"t": t, "type": "n", "model": "m", "in": prompt, "out": 10, "hash_ids": ids, **more}


def session(name: str, *requests: Any, **more: Any) -> dict[str, Any]:
    return {
        "id": name, "models": ["m"], "block_size": 64, "hash_id_scope": "local", "tool_tokens": 128,
        "system_tokens": 64, "requests": list(requests), "totals": {}, **more,
    }  # fmt: skip


def agent(t: float, duration_ms: float | None, *requests: Any, **more: Any) -> dict[str, Any]:
    return {
        "t": t, "type": "subagent", "agent_id": "x", "duration_ms": duration_ms,
        "status": "completed", "tool_tokens": 64, "system_tokens": 0,
        "requests": list(requests), **more,
    }  # fmt: skip


# the parent's first answer takes from 0 to 5; two sub-agents run from 6 to 20 and from 7 to 30
FORK = session(
    "one",
    ask(0.0, 200, [1, 2, 3], api_time=5.0, think_time=0.0),
    agent(20.0, 14_000, ask(0.0, 64, [9], api_time=2.0, think_time=0.0),
          ask(10.0, 128, [9, 10], api_time=3.0, think_time=8.0)),
    agent(30.0, 23_000, ask(0.0, 65, [9], api_time=20.0)),
    ask(33.0, 300, [1, 2, 3, 4], api_time=1.0, think_time=28.0),
    ask(40.0, 320, [1, 2, 3, 4, 5], think_time=6.0),
    ask(50.0, 320, [1, 2, 3, 4, 5]),
)  # fmt: skip
