"""Small profiles of steps whose lengths are fractions of a tick (2**-10 s), and runs on them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from toy import MODEL, TICK, write_trace

from sim.scenario import Scenario

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

AXES = ("decode_requests", "context_tokens_each", "prefill_tokens")
DECODE = [[("step", 4), ("decode_request", 0.5), ("context", 2**-6)]]
MIXED = [[("step", 6), ("tokens", 0.25), ("context", 2**-6)]]


def terms(branches: list[list[tuple[Any, ...]]]) -> list[list[dict[str, Any]]]:
    """Terms of (name, ticks) or (tokens, ticks, from, to) as a profile has them."""
    return [
        [
            {"term": name, "value": ticks * TICK, "unit": "s"}
            | (
                dict(
                    zip(
                        ("from", "to"),
                        [*span, 0, None][:2] if len(span) != 1 else [*span, None],
                        strict=True,
                    )
                )
                if name == "tokens"
                else {}
            )
            for name, ticks, *span in branch
        ]
        for branch in branches
    ]


def document(
    decode: Any = DECODE, mixed: Any = MIXED, captured: Iterable[int] = (), **others: Any
) -> dict[str, Any]:
    """A profile of steps that covers everything and knows no noise."""
    form = {
        "captured": list(captured), "context_of": "decode", "grains": [1, 1],
        "decode": terms(decode), "mixed": terms(mixed),
    }  # fmt: skip
    cells = [[d, c, p] for d in range(9) for c in range(18) for p in range(13)]
    return {
        "schema": 1, "kind": "steps", "name": "small", "status": "fitted", "mode": "engine",
        "log": {"steps": 100}, "form": form, "gpu": None,
        "domain": {"axes": list(AXES), "ranges": {a: [0, 1e6] for a in AXES}, "cells": cells},
        "residuals": {}, "noise_floor": None, "outliers": {"share": 0.0, "time_lost": 0.0},
        "ratios": {"at": [0.0, 1.0], "values": [1.0, 1.0]}, "notes": [],
    } | others  # fmt: skip


def step_scenario(
    folder: Path, requests: Iterable[tuple[float, int, int]], profile: dict[str, Any] | None = None,
    **sections: Any,
) -> Scenario:  # fmt: skip
    """The toy model on a profile of steps, 1000 KV blocks."""
    path = folder / "small.json"
    path.write_text(json.dumps(profile or document()))
    data: dict[str, Any] = {
        "model": MODEL,
        "hardware": {"profile": str(path)},
        "loop": {"mode": "engine", "max_batch": 4, "token_budget": 64},
        "kv": {"hbm_blocks": 1000, "prefix_cache": False},
        "trace": {"file": str(write_trace(folder / "trace.jsonl", requests)), "format": "mooncake"},
    }
    for key, value in sections.items():
        data[key] = data[key] | value if isinstance(data.get(key), dict) else value
    return Scenario.model_validate(data)
