"""Two clocks: what clients see is on theirs, what the engine does on its own.

The one rule: `arrival_s`, `first_token_s` and `finished_s` of a request are the client's, as are
all latencies; `admitted_s`, iterations and transfers are the engine's. Whoever puts the two side by
side asks here what lies between them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


def token_delay(scenario: Mapping[str, Any]) -> float:
    """Seconds by which clients of a run see tokens later than iterations end, from its resolved
    *scenario*; 0 for a run without such keys."""
    schedule = scenario.get("schedule")
    delay = schedule.get("token_delay") if isinstance(schedule, dict) else None
    return float(delay) if isinstance(delay, int | float) else 0.0


def token_delay_of(folder: Path) -> float:
    """The same of the run in *folder*, measured or simulated."""
    from .result import read_json

    path = folder / "scenario.json"
    return token_delay(read_json(path)) if path.is_file() else 0.0
