"""Single requests of packed runs beside the same requests simulated again.

A packed run says when each request was served, counted from its arrival; arrivals and lengths are
the trace's, so this needs the round's windows.
"""

from __future__ import annotations

import csv
import gzip
import tempfile
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bench.blind_predict import JOBS
from bench.blind_scenario import METRICS, cell_scenario, simulated
from bench.blind_steps import rows_of

if TYPE_CHECKING:
    from bench.blind_rounds import Round
    from sim.validation.served import Served

SAME = 1e-9
"""Within which a simulation run again gives the committed figures."""


def waits(folder: Path) -> dict[str, np.ndarray]:
    """Milliseconds from arrival of each request of a packed run, by column."""
    with gzip.open(folder / "requests.csv.gz", "rt", newline="") as file:
        rows = list(csv.DictReader(file))
    return {name: np.array([float(row[name]) for row in rows]) for name in rows[0]}


def served(folder: Path, told: Served) -> Served:
    """The packed run in *folder* as requests, its arrivals and lengths from the simulation."""
    own = waits(folder)
    first = told.arrival + own["first_token_ms"] * 1e-3
    finished = told.arrival + own["finished_ms"] * 1e-3
    ends = np.array([step["commit_s"] for step in rows_of(folder) if step["decode_requests"]])
    clock = 1e-5  # far less than a step, far more than what clocks are rounded to
    low, high = np.searchsorted(ends, first + clock), np.searchsorted(ends, finished + clock)
    gaps = [
        np.diff(ends[a:b], prepend=at) if b - a == count - 1 else np.empty(0)
        for a, b, at, count in zip(low.tolist(), high.tolist(), first, told.output, strict=True)
    ]
    return replace(told, name=folder.name, first=first, finished=finished, gaps=gaps)


def distributions(
    chosen: Round, recorded: dict[Path, dict[str, Any]], windows: Path
) -> tuple[dict[str, Any], dict[str, tuple[Served, Served]]]:
    """Intervals, KS distances and errors of single requests by recorded run, and the requests.

    *recorded*: the cell of every packed run; their requests lie in the folder *windows*.
    """
    groups: dict[str, list[Path]] = {}
    for run, cell in recorded.items():
        groups.setdefault(cell["cell"], []).append(run)
    found: dict[str, Any] = {}
    with ProcessPoolExecutor(JOBS) as pool:
        cells = [recorded[group[0]] for group in groups.values()]
        for part in pool.map(partial(beside, chosen, windows), cells, groups.values()):
            found |= part
    names = [run.name for run in recorded]
    return {name: found[name][0] for name in names}, {name: found[name][1] for name in names}


def beside(
    chosen: Round, windows: Path, cell: dict[str, Any], runs: list[Path]
) -> dict[str, tuple[dict[str, Any], tuple[Served, Served]]]:
    """By run of a *cell*: how it compares with the cell simulated again, and both' requests."""
    from sim.validation.errors import compare
    from sim.validation.served import read

    with tempfile.TemporaryDirectory() as name:
        _, summary = simulated(cell_scenario(chosen, cell, windows), Path(name))
        told = read(Path(name))
    first = cell.get("by_seed", [cell["predicted"]])[0]
    again = all(abs(summary[m] / first[m] - 1.0) < SAME for m in METRICS)
    found = {}
    for run in runs:
        real = served(run, told)
        if chosen.engine_of(cell).tokens > 1:  # a packed step does not say who got how many
            real, told = replace(real, gaps=[]), replace(told, gaps=[])
        result = compare(real, told, {})
        row = {
            "as_committed": again, "ks": result.ks, "per_request": result.per_request,
            "intervals": {row.metric: [row.low, row.high] for row in result.rows},
            "queue_p50_ms": [float(np.median(waits(run)["admitted_ms"])),
                             summary["median_queue_ms"]],
        }  # fmt: skip
        found[run.name] = row, (real, told)
    return found
