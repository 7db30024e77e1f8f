"""Profiles from the logs to calibrate on, and predictions from profiles."""

from __future__ import annotations

import json
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from bench.blind_rounds import AGAIN
from bench.blind_scenario import METRICS, cell_scenario, simulated

if TYPE_CHECKING:
    from bench.blind_rounds import Round, Wanted

RATE_STEP = 0.05
"""Rates are whole multiples of it, rounded down, lest a load be above what was asked for."""
FLOOD = 1000.0
"""So many times as fast as recorded, all requests are there at once."""
JOBS = 2


def predicted(chosen: Round) -> list[dict[str, Any]]:
    """The committed cells."""
    cells: list[dict[str, Any]] = document(chosen)["cells"]
    return cells


def document(chosen: Round) -> dict[str, Any]:
    """The committed predictions, whole."""
    found: dict[str, Any] = json.loads((chosen.folder / "predictions.json").read_text())
    return found


class Predictor:
    """Cells of a round from the requests in the folder *windows*."""

    def __init__(self, chosen: Round, windows: Path) -> None:
        self.chosen, self.windows = chosen, windows
        self._capacity: dict[tuple[str, str], float] = {}
        self._native: dict[tuple[str, int], float] = {}

    def there(self, engine: str) -> bool:
        """Whether a profile of *engine* was fitted."""
        return self.chosen.profile(engine).is_file()

    def native(self, engine: str, window: str) -> float:
        """Requests a second of the *window*, as recorded."""
        from bench.blind_traffic import span

        requests = self.chosen.engines[engine].requests
        if (window, requests) not in self._native:
            file = self.chosen.window_of({"window": window}, self.windows)
            self._native[window, requests] = requests / span(file, requests)
        return self._native[window, requests]

    def capacity(self, engine: str, window: str) -> float:
        """Requests a second of the *window* that *engine* serves at most, simulated."""
        if (engine, window) not in self._capacity:
            cell = {"engine": engine, "window": window, "rate_scale": FLOOD}
            _, most = simulated(cell_scenario(self.chosen, cell, self.windows))
            self._capacity[engine, window] = most["completed"] / most["duration"]
        return self._capacity[engine, window]

    def rate(self, one: Wanted) -> float:
        """How many times as fast as recorded the requests of a wanted cell come."""
        if one.rate:
            return one.rate
        least = min(
            self.capacity(name, one.window) for name in one.of or (one.engine,) if self.there(name)
        )
        steps = int(one.load * least / self.native(one.engine, one.window) / RATE_STEP + 1e-9)
        return round(steps * RATE_STEP, 6)

    def cell(self, one: Wanted) -> dict[str, Any]:
        """What a wanted cell is, without its figures."""
        engine, scale = self.chosen.engines[one.engine], self.rate(one)
        rate = scale * self.native(one.engine, one.window)
        capacity = self.capacity(one.engine, one.window)
        words = [one.engine, one.window, f"{scale:g}"]
        return {
            "cell": "-".join(word for word in words if word), "engine": one.engine,
            "window": one.window, "mode": engine.loop, "kernels": engine.kernels,
            "requests": engine.requests, "rate_scale": scale, "requests_per_s": rate,
            "capacity_per_s": capacity, "load": rate / capacity,
        }  # fmt: skip

    def figures(self, cell: dict[str, Any]) -> dict[str, Any]:
        """The simulated figures of a *cell*: means over the round's seeds."""
        from sim.profile import load_profile

        runs = [
            simulated(cell_scenario(self.chosen, cell, self.windows, seed))
            for seed in self.chosen.seeds or (None,)
        ]
        by_seed = [{name: summary[name] for name in METRICS} for _, summary in runs]
        scenario, first = runs[0]
        return {
            "scenario_hash": scenario.hash,
            "profile_hash": load_profile(self.chosen.profile(cell["engine"])).hash,
            "duration_s": first["duration"],
            "predicted": {name: fmean(one[name] for one in by_seed) for name in METRICS},
            "by_seed": by_seed,
            "extrapolated": first["cost_extrapolated"],
        }


def predict(chosen: Round, windows: Path, out: Path, jobs: int = JOBS) -> None:
    """Writes *out*: cells with hashes and predicted figures, and the runs in their order.

    A cell that was predicted before just so keeps the time at which it was.
    """
    predictor = Predictor(chosen, windows)
    told = json.loads(out.read_text())["cells"] if out.is_file() else []
    before = {one["cell"]: one for one in told}
    cells: dict[str, dict[str, Any]] = {}
    runs: list[str] = []
    for one in chosen.wanted:
        if not predictor.there(one.engine):
            print(f"no profile of {one.engine}: left out", file=sys.stderr)
            continue
        cell = predictor.cell(one)
        name = cell["cell"] + (AGAIN if one.again else "")
        if name in runs:
            print(f"{name} at a load of {one.load:g} is there already", file=sys.stderr)
            continue
        runs.append(name)
        cells.setdefault(cell["cell"], cell)
    with ProcessPoolExecutor(JOBS) as pool:
        each = pool.map if jobs > 1 else map
        for cell, figures in zip(
            cells.values(), each(predictor.figures, cells.values()), strict=True
        ):
            cell.update(figures)
            print(_line(cell), flush=True)
    now = datetime.now(UTC).isoformat(timespec="seconds")
    for name, cell in cells.items():
        made = before.get(name, {}).pop("made", now)
        cell["made"] = made if before.get(name) == cell else now
    found = {"fitted": fitted(chosen), "runs": runs, "cells": list(cells.values())}
    out.write_text(json.dumps(found, indent=1) + "\n")
    print(f"{out}: {len(cells)} cells, {len(runs)} runs")


def _line(cell: dict[str, Any]) -> str:
    figures = "  ".join(
        f"{name.replace('_ms', '')} {cell['predicted'][name]:.4g}" for name in METRICS[:6]
    )
    return f"{cell['cell']:32s} load {cell['load']:.2f}  {cell['duration_s']:5.1f} s  {figures}"


# ---------------------------------------------------------------- profiles
def fit(chosen: Round, out: Path) -> None:
    """Writes the profiles that the predictions are made with, from the round's fitted logs."""
    from sim.cli_fit import fit as fit_profile

    out.mkdir(parents=True, exist_ok=True)
    for log in sorted((chosen.folder / "fitted").glob("*.jsonl.gz")):
        with tempfile.TemporaryDirectory() as folder:
            same = Path(folder) / "steps.jsonl.gz"  # a profile says its log's name
            same.write_bytes(log.read_bytes())
            name = f"h200-{log.name.removesuffix('.jsonl.gz')}"
            fit_profile([same], out / f"{name}.json", name=name, quiet=True, maps=None,
                        map_file=None, unit=None, only=None, captured=None, pace="auto",
                        mode="engine", hold_out=None, plots=None)  # fmt: skip


def fitted(chosen: Round) -> dict[str, dict[str, Any]]:
    """By engine: on which GPU, when and of which code its log was made."""
    from bench.blind_pack import device_of, header

    found = {}
    for log in sorted((chosen.folder / "fitted").glob("*.jsonl.gz")):
        head = header(log)
        found[log.name.removesuffix(".jsonl.gz")] = {
            "gpu": device_of(head), "date": head["date"], "commit": head["commit"],
        }  # fmt: skip
    return found
