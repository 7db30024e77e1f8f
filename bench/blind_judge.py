"""What became of the predictions: errors of every measured run, and what explains them.

A run is recorded (its folder came back) or printed (the engine's rounded line did). With the trace
the simulations are run again: they must give the committed figures, and their distributions are
compared, too.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from bench.blind_pack import device_of
from bench.blind_predict import document, fitted
from bench.blind_rounds import AGAIN, ROUNDS
from bench.blind_scenario import METRICS, cell_scenario
from bench.blind_steps import log_of, rows_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from bench.blind_rounds import Round
    from sim.validation.served import Served

BARS = {
    "output_throughput": 2.0, "mean_tpot_ms": 3.0, "p99_itl_ms": 6.0, "median_ttft_ms": 5.0,
    "p90_ttft_ms": 8.0, "p99_ttft_ms": 10.0,
}  # fmt: skip
"""Per cent within which a cell at a load of `PROMISED` or less is to be predicted."""
PROMISED = 0.8


@dataclass(frozen=True)
class Measured:
    """A run of the engine: its number among those of its cell, and its figures by metric."""

    cell: str
    number: int
    figures: dict[str, float]
    folder: Path | None = None

    @property
    def kind(self) -> str:
        """recorded or printed."""
        return "recorded" if self.folder else "printed"


def runs(folder: Path) -> list[Measured]:
    """All measured runs of the round in *folder*, printed ones first."""
    found = []
    if (folder / "printed.json").is_file():
        printed = json.loads((folder / "printed.json").read_text())
        for one in printed["runs"]:
            figures = dict(zip(printed["columns"], one["printed"], strict=True))
            found.append(Measured(one["cell"], one["run"], figures))
    for run in sorted((folder / "measured").iterdir(), key=lambda one: one.name):
        cell = run.name.partition(AGAIN)[0]
        number = 1 + sum(one.cell == cell for one in found)
        found.append(Measured(cell, number, facts(run)["figures"], run))
    return found


def facts(run: Path) -> dict[str, Any]:
    """What a packed run says of itself: its figures, and the engine's header."""
    found: dict[str, Any] = json.loads((run / "run.json").read_text())
    return found


def errors(cells: Sequence[dict[str, Any]], measured: Iterable[Measured]) -> list[dict[str, Any]]:
    """A row a run: signed errors (predicted / measured - 1), and bars that it misses."""
    order = {cell["cell"]: place for place, cell in enumerate(cells)}
    rows = []
    for one in sorted(measured, key=lambda run: (order[run.cell], run.number)):
        cell = cells[order[one.cell]]
        found = {
            name: cell["predicted"][name] / one.figures[name] - 1.0
            for name in METRICS if name in one.figures
        }  # fmt: skip
        promised = round(cell["load"], 2) <= PROMISED
        missed = [name for name, bar in BARS.items() if abs(found[name]) > bar / 100.0]
        rows.append(
            {
                "cell": one.cell, "run": one.number, "kind": one.kind, "load": cell["load"],
                "promised": promised, "errors": found, "measured": one.figures,
                "missed": missed if promised else [],
            }
        )  # fmt: skip
    return rows


def noise(measured: Iterable[Measured]) -> dict[str, dict[str, float]]:
    """By cell that was measured again: largest over smallest figure, less one."""
    groups: dict[str, list[dict[str, float]]] = {}
    for one in measured:
        groups.setdefault(one.cell, []).append(one.figures)
    return {
        cell: {
            name: max(f[name] for f in figures) / min(f[name] for f in figures) - 1.0
            for name in BARS
        }
        for cell, figures in groups.items() if len(figures) > 1
    }  # fmt: skip


def ranking(
    chosen: Round, cells: Iterable[dict[str, Any]], measured: Sequence[Measured],
    floor: dict[str, dict[str, float]],
) -> list[dict[str, Any]]:  # fmt: skip
    """By configurations that differ by their loop alone, window and rate: loops from best to worst.

    Predicted and measured, a metric each. A pair in the wrong order counts as a tie if its measured
    figures differ by less than the *floor* of either configuration, which is by name and metric.
    """
    known = {run.cell for run in measured}
    groups: dict[tuple[str, str, float], list[dict[str, Any]]] = {}
    for cell in cells:
        if cell["cell"] in known:
            key = chosen.engine_of(cell).rival, cell.get("window", ""), cell["rate_scale"]
            groups.setdefault(key, []).append(cell)
    found = []
    for (rival, window, scale), group in groups.items():
        own = {c["mode"]: floor.get(chosen.engine_of(c).name, {}) for c in group}
        for metric in BARS if len(group) > 1 else ():
            sign = -1.0 if metric == "output_throughput" else 1.0
            told = {c["mode"]: sign * c["predicted"][metric] for c in group}
            real = {
                c["mode"]: sign * float(np.mean([r.figures[metric] for r in measured
                                                 if r.cell == c["cell"]]))
                for c in group
            }  # fmt: skip
            order, true = sorted(told, key=lambda m: told[m]), sorted(real, key=lambda m: real[m])
            swapped = [
                (a, b) for i, a in enumerate(order) for b in order[i + 1 :] if real[a] > real[b]
            ]
            within = all(
                abs(real[a] / real[b] - 1.0) <= max(own[one].get(metric, 0.0) for one in (a, b))
                for a, b in swapped
            )
            verdict = "right" if not swapped else "tie" if within else "wrong"
            found.append(
                {
                    "rival": rival, "window": window, "rate_scale": scale, "metric": metric,
                    "predicted": order, "measured": true, "verdict": verdict,
                }
            )  # fmt: skip
    return found


def forced_steps(chosen: Round, cell: dict[str, Any], run: Path) -> dict[str, float]:
    """Errors of single steps: compositions that *run* logged through the cell's profile."""
    from sim.profile import load_profile
    from sim.scenario import Scenario
    from sim.step_cost import cost_of
    from sim.validation.forced import forced

    data = cell_scenario(chosen, cell, run)  # its trace is not read
    profile = load_profile(chosen.profile(chosen.engine_of(cell).name))
    cost = cost_of(Scenario.model_validate(data), profile)
    found, _, _ = forced(log_of(run), cost)
    return {key: found["all"][key] for key in ("n", "median", "p90", "signed_median")} | {
        f"{region} median": found[region]["median"]
        for region in ("decode only", "with prefill") if region in found
    }  # fmt: skip


def residence(folder: Path) -> dict[str, float] | None:
    """What entering and leaving a loop on the device cost; None where nobody left one."""
    steps = rows_of(folder)
    entered = [step for step in steps if step.get("turn") == "entered"]
    late = [step["duration_s"] for step in steps if step.get("late")]
    if not entered:
        return None
    usual: dict[int, list[float]] = {}
    for step in steps:
        if not step["prefill_tokens"] and step.get("turn") != "entered":
            usual.setdefault(step["decode_requests"], []).append(step["duration_s"])
    more = [
        step["duration_s"] - float(np.median(usual[step["decode_requests"]]))
        for step in entered if step["decode_requests"] in usual
    ]  # fmt: skip
    return {
        "entered": len(entered), "late": len(late),
        "late_ms": float(np.median(late)) * 1e3 if late else 0.0,
        "entering_ms": float(np.median(more)) * 1e3,
    }  # fmt: skip


def judge(chosen: Round, windows: Path | None, out: Path) -> None:
    """Writes the report of a round to *out*; with its *windows* also distributions."""
    from bench import ablate_terms, blind_figures
    from bench.blind_page import page
    from bench.blind_requests import distributions
    from bench.blind_twice import twice
    from bench.blind_words import notes_in

    told = document(chosen)
    cells = ordered(chosen, told["cells"])
    known = {cell["cell"]: cell for cell in cells}
    measured = runs(chosen.folder)
    if unknown := sorted({one.cell for one in measured} - set(known)):
        raise SystemExit(f"measured and not predicted: {', '.join(unknown)}")
    places = list(known)
    measured.sort(key=lambda one: (places.index(one.cell), one.number))
    spread = noise(measured)
    floor: dict[str, dict[str, float]] = {}
    for cell, figures in spread.items():
        own = floor.setdefault(chosen.engine_of(known[cell]).name, dict.fromkeys(BARS, 0.0))
        own.update({name: max(own[name], figures[name]) for name in BARS})
    recorded = {one.folder: known[one.cell] for one in measured if one.folder is not None}
    found: dict[str, Any] = {
        "round": chosen.number, "fitted": fitted(chosen), "late": seen_before(recorded),
        "measured_on": machines(recorded), "cells": cells,
        "engines": {cell["cell"]: chosen.engine_of(cell).name for cell in cells},
        "requests": {cell["cell"]: chosen.engine_of(cell).requests for cell in cells},
        "not_run": [name for name in told.get("runs", ()) if name not in
                    {folder.name for folder in recorded}],
        "rows": errors(cells, measured), "noise": spread,
        "ranking": ranking(chosen, cells, measured, floor),
        "forced": {run.name: forced_steps(chosen, cell, run) for run, cell in recorded.items()},
        "residence": {run.name: residence(run) for run in recorded},
        "twice": twice(chosen, list(recorded)),
        "replayed": _read(chosen.folder / "replayed.json", []),
        "ablation": ablation(_read(chosen.folder / "ablation.json", {}), measured, known),
        "terms": ablate_terms.rows_of(chosen), "skew": ablate_terms.read(chosen)["skew"],
    }  # fmt: skip
    pairs: dict[str, tuple[Served, Served]] = {}
    if windows is not None:
        found["distributions"], pairs = distributions(chosen, recorded, windows)
    out.mkdir(parents=True, exist_ok=True)
    blind_figures.draw(found, pairs, out)
    (out / "results.json").write_text(json.dumps(found, indent=1) + "\n")
    earlier = [
        _read(one.report / "results.json", None) for one in ROUNDS.values()
        if one.number < chosen.number
    ]  # fmt: skip
    text = page(found, [one for one in earlier if one], notes_in(out / "notes.md"))
    (out / "README.md").write_text(text)
    print(f"{out}/README.md")


def ordered(chosen: Round, cells: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """*cells* by configuration, window and load."""
    places = list(chosen.engines)
    return sorted(
        cells,
        key=lambda one: (
            places.index(chosen.engine_of(one).name), one.get("window", ""), one["load"]
        ),
    )  # fmt: skip


def seen_before(recorded: dict[Path, dict[str, Any]]) -> list[str]:
    """Runs that began before their cell was predicted."""
    begun = machines(recorded)
    return sorted(
        run.name for run, cell in recorded.items() if begun[run.name]["date"] < cell.get("made", "")
    )


def machines(recorded: Iterable[Path]) -> dict[str, dict[str, Any]]:
    """By run: its GPU, its date and the code's commit."""
    found = {}
    for run in recorded:
        head = facts(run)["run"]
        found[run.name] = {
            "gpu": device_of(head), "date": head["date"], "commit": head["commit"],
        }  # fmt: skip
    return found


def _read(path: Path, otherwise: Any) -> Any:
    return json.loads(path.read_text()) if path.is_file() else otherwise


def ablation(
    variants: dict[str, Any], measured: Sequence[Measured], known: dict[str, Any]
) -> dict[str, dict[str, list[float]]]:
    """By variant and metric: median and largest |error| over runs at promised loads.

    Parts that only some cells have come last, behind what was predicted of those cells.
    """
    own = [one for one in measured if round(known[one.cell]["load"], 2) <= PROMISED]
    groups: dict[tuple[str, ...], dict[str, Any]] = {}
    for name, figures in variants.items():
        cells = tuple(sorted({one.cell for one in own} & set(figures)))
        groups.setdefault(cells, {})[name] = figures
    found: dict[str, dict[str, list[float]]] = {}
    whole, every = next(iter(variants), ""), max(groups, key=len, default=())
    for cells in sorted(groups, key=len, reverse=True) if every else ():
        runs_ = [one for one in own if one.cell in cells]
        before = {} if cells == every else {f"{whole}, {len(runs_)} runs": variants[whole]}
        for name, figures in (before | groups[cells]).items() if runs_ else ():
            for metric in BARS:
                sizes = [
                    abs(figures[one.cell][metric] / one.figures[metric] - 1.0) for one in runs_
                ]
                found.setdefault(name, {})[metric] = [float(np.median(sizes)), max(sizes)]
    return found
