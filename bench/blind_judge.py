"""What became of the predictions: errors of every measured run, and what explains them.

A run is recorded (its folder came back) or printed (the engine's rounded line did). With the trace
the simulations are run again: they must give the committed figures, and their distributions are
compared, too.
"""

from __future__ import annotations

import csv
import gzip
import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bench.blind import METRICS, scenario, simulated

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from sim.validation.served import Served

BARS = {
    "output_throughput": 2.0, "mean_tpot_ms": 3.0, "p99_itl_ms": 6.0, "median_ttft_ms": 5.0,
    "p90_ttft_ms": 8.0, "p99_ttft_ms": 10.0,
}  # fmt: skip
"""Per cent within which a cell at a load of `PROMISED` or less is to be predicted."""
PROMISED = 0.8
SAME = 1e-9


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


def runs(serve: Path) -> list[Measured]:
    """All measured runs, printed ones first."""
    printed = json.loads((serve / "printed.json").read_text())
    found = [
        Measured(
            one["cell"], one["run"], dict(zip(printed["columns"], one["printed"], strict=True))
        )
        for one in printed["runs"]
    ]
    for folder in sorted((serve / "measured").iterdir(), key=lambda one: one.name):
        cell = folder.name.removesuffix("-again")
        number = 1 + sum(one.cell == cell for one in found)
        figures = json.loads((folder / "run.json").read_text())["figures"]
        found.append(Measured(cell, number, figures, folder))
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
    cells: Iterable[dict[str, Any]], measured: Sequence[Measured], floor: dict[str, float]
) -> list[dict[str, Any]]:
    """By rate and kernels, the modes from best to worst, predicted and measured, a metric each.

    A pair in the wrong order counts as a tie if its measured figures differ by less than *floor*.
    """
    groups: dict[tuple[str, float], list[dict[str, Any]]] = {}
    for cell in cells:
        groups.setdefault((cell["kernels"], cell["rate_scale"]), []).append(cell)
    found = []
    for (kernels, scale), group in groups.items():
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
            within = all(abs(real[a] / real[b] - 1.0) <= floor[metric] for a, b in swapped)
            verdict = "right" if not swapped else "tie" if within else "wrong"
            found.append({"kernels": kernels, "rate_scale": scale, "metric": metric,
                          "predicted": order, "measured": true, "verdict": verdict})  # fmt: skip
    return found


def forced_steps(cell: dict[str, Any], folder: Path, profiles: Path) -> dict[str, float]:
    """Errors of single steps: logged compositions through the profile."""
    from sim.profile import load_profile
    from sim.scenario import Scenario
    from sim.step_cost import cost_of
    from sim.step_log import read_steps
    from sim.validation.forced import forced

    mode = f"{cell['mode']}-{cell['kernels']}"
    profile = profiles / f"h200-1b-{mode}.json"
    chosen = Scenario.model_validate(scenario(mode, profile, Path("window.csv"), 1.0))
    cost = cost_of(chosen, load_profile(profile))
    found, _, _ = forced(read_steps([folder / "steps.jsonl.gz"]), cost)
    return {key: found["all"][key] for key in ("n", "median", "p90", "signed_median")} | {
        f"{region} median": found[region]["median"]
        for region in ("decode only", "with prefill") if region in found
    }  # fmt: skip


def residence(folder: Path) -> dict[str, float] | None:
    """What entering and leaving a loop on the device cost; None where nobody left one."""
    with gzip.open(folder / "steps.jsonl.gz", "rt") as file:
        steps = [json.loads(line) for line in file][1:]
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


# ---------------------------------------------------------------- distributions, with the trace
def waits(folder: Path) -> dict[str, np.ndarray]:
    """Milliseconds from arrival of each request of a packed run, by column."""
    with gzip.open(folder / "requests.csv.gz", "rt", newline="") as file:
        rows = list(csv.DictReader(file))
    return {name: np.array([float(row[name]) for row in rows]) for name in rows[0]}


def served(folder: Path, told: Served) -> Served:
    """The packed run in *folder* as requests, its arrivals and lengths from the simulation."""
    from dataclasses import replace

    own = waits(folder)
    first = told.arrival + own["first_token_ms"] * 1e-3
    finished = told.arrival + own["finished_ms"] * 1e-3
    with gzip.open(folder / "steps.jsonl.gz", "rt") as file:
        steps = [json.loads(line) for line in file][1:]
    ends = np.array([step["commit_s"] for step in steps if step["decode_requests"]])
    clock = 1e-5  # far less than a step, far more than what clocks are rounded to
    low, high = np.searchsorted(ends, first + clock), np.searchsorted(ends, finished + clock)
    gaps = [
        np.diff(ends[a:b], prepend=at) if b - a == count - 1 else np.empty(0)
        for a, b, at, count in zip(low.tolist(), high.tolist(), first, told.output, strict=True)
    ]
    return replace(told, name=folder.name, first=first, finished=finished, gaps=gaps)


def distributions(
    cells: Sequence[dict[str, Any]], measured: Sequence[Measured], trace: Path, profiles: Path
) -> tuple[dict[str, Any], dict[str, tuple[Served, Served]]]:
    """Intervals, KS distances and errors of single requests by recorded run, and the requests."""
    from sim.validation.errors import compare
    from sim.validation.served import read

    known = {cell["cell"]: cell for cell in cells}
    found: dict[str, Any] = {}
    pairs = {}
    for one in measured:
        if one.folder is None:
            continue
        cell = known[one.cell]
        mode = f"{cell['mode']}-{cell['kernels']}"
        with tempfile.TemporaryDirectory() as name:
            data = scenario(mode, profiles / f"h200-1b-{mode}.json", trace, cell["rate_scale"])
            _, summary = simulated(data, Path(name))
            told = read(Path(name))
        again = all(abs(summary[m] / cell["predicted"][m] - 1.0) < SAME for m in METRICS)
        real = served(one.folder, told)
        result = compare(real, told, {})
        found[one.folder.name] = {
            "as_committed": again, "ks": result.ks, "per_request": result.per_request,
            "intervals": {row.metric: [row.low, row.high] for row in result.rows},
            "queue_p50_ms": [float(np.median(waits(one.folder)["admitted_ms"])),
                             summary["median_queue_ms"]],
        }  # fmt: skip
        pairs[one.folder.name] = real, told
    return found, pairs


def judge(serve: Path, trace: Path | None, out: Path) -> None:
    """Writes the report of the predictions in *serve* to *out*."""
    from bench import blind_figures
    from bench.blind_page import page

    cells = json.loads((serve / "predictions.json").read_text())["cells"]
    known = {cell["cell"]: cell for cell in cells}
    measured = runs(serve)
    spread = noise(measured)
    floor = {name: max(one[name] for one in spread.values()) for name in BARS}
    recorded = [one for one in measured if one.folder is not None]
    found: dict[str, Any] = {
        "rows": errors(cells, measured), "noise": spread,
        "ranking": ranking(cells, measured, floor),
        "forced": {one.folder.name: forced_steps(known[one.cell], one.folder, serve)
                   for one in recorded if one.folder},
        "residence": {one.folder.name: residence(one.folder) for one in recorded if one.folder},
        "replayed": json.loads((serve / "replayed.json").read_text()),
        "ablation": _ablation(serve / "ablation.json", measured, known),
    }  # fmt: skip
    out.mkdir(parents=True, exist_ok=True)
    pairs: dict[str, tuple[Served, Served]] = {}
    if trace is not None:
        found["distributions"], pairs = distributions(cells, measured, trace, serve)
    blind_figures.draw(found, pairs, out)
    (out / "results.json").write_text(json.dumps(found, indent=1) + "\n")
    (out / "README.md").write_text(page(found, cells))
    print(f"{out}/README.md")


def _ablation(
    path: Path, measured: Sequence[Measured], known: dict[str, Any]
) -> dict[str, dict[str, list[float]]]:
    """By variant and metric: median and largest |error| over runs at promised loads."""
    if not path.is_file():
        return {}
    found: dict[str, dict[str, list[float]]] = {}
    for name, figures in json.loads(path.read_text()).items():
        for metric in BARS:
            sizes = [
                abs(figures[one.cell][metric] / one.figures[metric] - 1.0)
                for one in measured if round(known[one.cell]["load"], 2) <= PROMISED
            ]  # fmt: skip
            found.setdefault(name, {})[metric] = [float(np.median(sizes)), max(sizes)]
    return found
