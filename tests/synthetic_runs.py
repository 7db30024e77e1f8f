"""Runs whose requests are made up, so that what statistics say of them is known beforehand."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from sim.quantiles import statistics
from sim.runs import Cell, Results, Run
from sim.stats import Statistics


@dataclass(frozen=True)
class MadeUp(Run):
    """A run with its records in memory."""

    table: dict[str, np.ndarray] = field(default_factory=dict)
    slo: dict[str, float | None] = field(default_factory=dict)

    def columns(self, table: str, *names: str) -> dict[str, np.ndarray]:
        assert table == "requests"
        return {name: self.table[name] for name in names}

    @property
    def scenario(self) -> dict[str, Any]:  # type: ignore[override]
        return {"slo": self.slo}


def made_up(
    ttft: np.ndarray | list[float],
    axes: dict[str, Any] | None = None,
    *,
    gap: float = 1.0,
    tokens: int | np.ndarray = 11,
    tpot: float | np.ndarray = 0.01,
    ids: np.ndarray | None = None,
    replication: int = 0,
    finished: np.ndarray | None = None,
    slo: dict[str, float | None] | None = None,
) -> MadeUp:
    """A run of a request every *gap* seconds that waits *ttft* and takes *tpot* a token after."""
    ttft = np.asarray(ttft, float)
    count = len(ttft)
    arrival = gap * np.arange(count)
    output = np.broadcast_to(tokens, count).astype(np.int64)
    first = arrival + ttft
    end = first + tpot * (output - 1)
    done = np.ones(count, bool) if finished is None else finished
    table = {
        "request_id": np.arange(count) if ids is None else ids,
        "arrival_s": arrival, "admitted_s": arrival, "first_token_s": first, "finished_s": end,
        "prompt_tokens": np.full(count, 8), "output_tokens": output,
        "status": np.where(done, "finished", "unfinished"),
    }  # fmt: skip
    duration = float(end[done].max(initial=1.0))
    more = output > 1
    summary: dict[str, Any] = {
        "loop_mode": "graph", "seed": replication, "duration": duration, "requests_in": count,
        "completed": int(done.sum()), "scenario_hash": f"{replication}",
        **statistics("ttft", (first - arrival)[done]),
        **statistics("tpot", ((end - first)[more] / (output - 1)[more])[done[more]]),
        **statistics("e2el", (end - arrival)[done]),
        **statistics("queue", np.zeros(int(done.sum()))),
        "request_throughput": int(done.sum()) / duration,
        "output_throughput": int(output[done].sum()) / duration,
        "request_goodput": None,
    }  # fmt: skip
    return MadeUp(
        Path("nowhere"), axes or {}, summary, replication=replication, table=table, slo=slo or {}
    )


def cell(*runs: MadeUp) -> Cell:
    return Cell(runs[0].axes, runs)


def with_values(axes: dict[str, Any], **values: list[float | None]) -> Cell:
    """A cell of replications with these summary values."""
    count = len(next(iter(values.values())))
    runs = []
    for number in range(count):
        own = {name: of[number] for name, of in values.items()}
        summary = {
            "loop_mode": "graph", "seed": number, "completed": 1, "requests_in": 1, "duration": 1.0
        } | own  # fmt: skip
        runs.append(Run(Path("nowhere"), axes, summary, replication=number))
    return Cell(axes, tuple(runs))


def study(*cells: Cell, **settings: Any) -> Results:
    """Cells as a study."""
    axes: dict[str, list[Any]] = {}
    for one in cells:
        for key, value in one.axes.items():
            if value not in axes.setdefault(key, []):
                axes[key].append(value)
    return Results(Path("nowhere"), "study", "", axes, cells, statistics=Statistics(**settings))
