"""The kernel profile in our engine: fitted, judged, and judged again with one term removed.

    python bench/ablate_terms.py fit                        # engines over nvidia-h200
    python bench/ablate_terms.py judge --trace window.csv [--whole FOLDER]
    python bench/ablate_terms.py table                      # Markdown of what judge wrote

The terms of an engine are fitted to the training logs (calibration/serve/fitted), over the shipped
profile of kernels, which has seen no log of the engine. Judged are the measured runs of the first
round: not blind, as they were known when this was written. A term is removed by setting it to
nothing, without a new fit. Skew needs who took part in a step: whole logs with ids (--whole).
"""

from __future__ import annotations

import argparse
import copy
import gzip
import json
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from bench.blind import CELLS, METRICS, MODES, SERVE, scenario, simulated  # noqa: E402
from bench.blind_ablate import KERNELS, SIZES, of_kernels  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sim.cost import Cost

    Document = dict[str, Any]
    Change = Callable[[Document, Document], None]

ENGINES = ROOT / "calibration" / "serve" / "engines"
OUT = ROOT / "calibration" / "serve" / "terms.json"
OVER = ROOT / "sim" / "profiles" / "nvidia-h200.json"
NOTHING = 1e-12
"""Of what a profile wants above 0."""
WHOLE = "with its engine"
JUDGED = (
    "output_throughput", "mean_tpot_ms", "p99_itl_ms", "median_ttft_ms", "p90_ttft_ms",
    "p99_ttft_ms",
)  # fmt: skip
WORDS = ("throughput", "TPOT mean", "ITL p99", "TTFT p50", "TTFT p90", "TTFT p99")


INTERFERENCE = (
    "Interference does not occur in these runs: nothing was copied to or from DRAM while they ran, "
    "and prompts run behind decode steps, not beside them. What the model takes for it (attention "
    "beside copies takes 1.01 to 1.32 times as long) was measured on kernels alone; no measured "
    "run of the engine shows it, so no error can be shown to return."
)
SKEW = (
    "The model has no term for skew: a decode step costs what the sum of its contexts says. The "
    "library kernels show none (a term fitted on top is -0.3 to +0.1 ns a token of imbalance, "
    "beside 7 ns for a token that is read, and gains what a constant would; under the Python host, "
    "whose steps were all too short, it stands for that); the fused ones show 1 to 2 ns, worth up "
    "to 0.5 % of a step. Were every request read as if it were as long as the longest, steps would "
    "be as wrong as the last column says."
)
"""What there is to say of the two terms that cannot be removed; for the report."""


# ---------------------------------------------------------------- what a term is
def host_gap(kernels: Document, engine: Document) -> None:
    """What the host takes for launches, and what the GPU waits for it around a step."""
    for name, entry in kernels["constants"].items():
        parts = ("submit_s", "sync_s", "copyback_s", "graph_launch_s", "launch_latency_s")
        if name.endswith(parts):
            entry["value"] = NOTHING
    for loop in kernels["loops"].values():
        for name in ("around_s", "submit_s", "latency_s"):
            if name in loop["parameters"] and "ring_bytes" not in loop["parameters"]:
                loop["parameters"][name] = NOTHING
    for name in ("submit_s", "prefill_submit_s"):
        if name in engine["terms"]:
            engine["terms"][name]["value"] = NOTHING


def between_kernels(kernels: Document, engine: Document) -> None:
    """Gaps between the kernels of a step; in the resident loop what its workers' meetings take."""
    node = kernels["constants"]["graph_node_s"]["value"]
    for loop in kernels["loops"].values():
        for name in ("node_s", "meet_s", "row_s", "tile_s"):
            if name in loop["parameters"]:
                loop["parameters"][name] = NOTHING
    # Prompts are launched one by one: the gap is in the fixed time of each of their kernels.
    for kernel in kernels["kernels"].values():
        for name in ("t0_s", "gemv_t0_s"):
            if name in kernel["parameters"]:
                kernel["parameters"][name] = max(NOTHING, kernel["parameters"][name] - node)


def ramp(kernels: Document, engine: Document) -> None:
    """What filling the SMs costs small batches and short prompts."""
    for table in ("kernels", "in_step"):
        for kernel in kernels[table].values():
            for name in kernel["parameters"]:
                if name.endswith(("ramp_s", "half_tokens")):
                    kernel["parameters"][name] = 0.0


def fixed(kernels: Document, engine: Document) -> None:
    """What a kernel takes however little it does."""
    for table in ("kernels", "in_step"):
        for kernel in kernels[table].values():
            for name in ("t0_s", "gemv_t0_s"):
                if name in kernel["parameters"]:
                    kernel["parameters"][name] = NOTHING


def padding(kernels: Document, engine: Document) -> None:
    """Batches run at their own size."""
    engine["captured"] = list(range(1, max(engine["captured"]) + 1))


def without(*terms: str) -> Change:
    """Nothing for these terms of the engine."""

    def change(kernels: Document, engine: Document) -> None:
        for name in terms:
            if name in engine["terms"]:
                engine["terms"][name]["value"] = 0.0

    return change


STEPS = ("step_s", "decode_request_s")
PROMPTS = ("prefill_step_s", "prefill_request_s", "prefill_token_s")
TURNS = ("enter_s", "leave_s")
REMOVED: dict[str, Change] = {
    "host gap": host_gap,
    "gaps between kernels": between_kernels,
    "occupancy ramp": ramp,
    "kernels' fixed cost": fixed,
    "padding": padding,
    "engine: around a step": without(*STEPS),
    "engine: around prompts": without(*PROMPTS),
    "engine: entering and leaving": without(*TURNS),
    "engine: all of it": without(*STEPS, *PROMPTS, *TURNS),
}


# ---------------------------------------------------------------- fitting
def inside(mode: str, profile: Path, trace: Path, scale: float) -> Document:
    """The scenario of a cell in the simulator's own loop mode, with *profile*."""
    base = scenario(mode, profile, trace, scale)
    found = of_kernels(base, mode)
    found["loop"] = {k: v for k, v in found["loop"].items() if k != "captured_batches"}
    if found["loop"]["mode"] != "host":
        found["schedule"] = base["schedule"]
    hardware = {"profile": str(profile.resolve()), "step_noise": "measured"}
    return found | {"hardware": hardware}


def fit() -> None:
    """Writes the engines that the training logs give."""
    from sim.cli_engine import engine

    ENGINES.mkdir(exist_ok=True)
    for mode in MODES:
        with tempfile.TemporaryDirectory() as name:
            file, trace = Path(name) / "scenario.yaml", Path(name) / "trace.csv"
            trace.write_text("arrival_s,prompt_tokens,output_tokens\n0,1,1\n")
            data = inside(mode, OVER, trace, 1.0)
            # The engine's sizes in every mode; a log shows those of its own batches only.
            data["loop"]["captured_batches"] = [n for n in SIZES if n <= MODES[mode]]
            file.write_text(json.dumps(data | {"hardware": {"profile": "nvidia-h200"}}))
            log = Path(name) / "steps.jsonl.gz"
            log.write_bytes((SERVE / "fitted" / f"1b-{mode}.jsonl.gz").read_bytes())
            engine([log], file, ENGINES / f"h200-1b-{mode}.json", name=f"h200-1b-{mode}-engine",
                   quiet=True, maps=None, unit=None, only=None, pace="auto", prefill="apart",
                   prefill_kernels="library", sets=None)  # fmt: skip


# ---------------------------------------------------------------- judging
def variants(mode: str, trace: Path, scale: float, folder: Path) -> Iterator[tuple[str, Document]]:
    """The cell's scenario with all terms, with each removed, and by the kernels alone."""
    path = ENGINES / f"h200-1b-{mode}.json"
    whole = inside(mode, path, trace, scale)
    yield WHOLE, whole
    for name, change in REMOVED.items():
        kernels, engine = json.loads(OVER.read_text()), json.loads(path.read_text())
        before = copy.deepcopy((kernels, engine))
        change(kernels, engine)
        if (kernels, engine) == before:
            continue
        stem = f"{mode}-{list(REMOVED).index(name)}"
        (folder / f"{stem}-kernels.json").write_text(json.dumps(kernels))
        engine["over"] = f"{stem}-kernels.json"
        (folder / f"{stem}.json").write_text(json.dumps(engine))
        yield name, inside(mode, folder / f"{stem}.json", trace, scale)
    yield "step noise", whole | {"hardware": whole["hardware"] | {"step_noise": "none"}}
    yield KERNELS, of_kernels(scenario(mode, path, trace, scale), mode)


def judge(trace: Path, whole: Path | None) -> None:
    """Writes *OUT*: by variant, figures of every cell and errors of the steps of every run."""
    free: dict[str, dict[str, Any]] = {}
    steps: dict[str, dict[str, Any]] = {}
    runs = sorted((SERVE / "measured").iterdir())
    with tempfile.TemporaryDirectory() as name:
        for mode, scale in CELLS:
            cell = f"{mode}-{scale:g}"
            own = [run for run in runs if run.name.removesuffix("-again") == cell]
            for variant, data in variants(mode, trace, scale, Path(name)):
                _, summary = simulated(data)
                figures = {metric: summary[metric] for metric in METRICS}
                free.setdefault(variant, {})[cell] = figures
                for run in own:
                    steps.setdefault(variant, {})[run.name] = forced_steps(data, run)
            print(f"{cell}: {free[WHOLE][cell]['mean_tpot_ms']:.3f} ms TPOT")
    found: Document = {"free": free, "steps": steps}
    if whole is not None:
        found["skew"] = {run.name: skew(run, trace) for run in sorted(whole.iterdir())}
    OUT.write_text(json.dumps(found, indent=1) + "\n")
    print(f"{OUT}")


def cost_model(data: Document) -> Cost:
    """The cost model of a scenario."""
    from sim.profile import load_profile
    from sim.scenario import Scenario
    from sim.step_cost import cost_of

    chosen = Scenario.model_validate(data)
    return cost_of(chosen, load_profile(chosen.hardware.profile))


def forced_steps(data: Document, run: Path) -> dict[str, Any]:
    """Errors of single steps: logged compositions through the cost model, by region."""
    from sim.step_log import read_steps
    from sim.validation.forced import forced

    found, _, _ = forced(read_steps([run / "steps.jsonl.gz"]), cost_model(data))
    regions = ("all", "decode only", "with prefill")
    return {region: found[region] for region in regions if region in found}


# ---------------------------------------------------------------- skew, from whole logs
def contexts(run: Path) -> tuple[list[Document], list[np.ndarray]]:
    """Steps of a whole log, and the contexts of those who decode in each."""
    import pandas as pd

    prompts = pd.read_parquet(run / "requests.parquet").set_index("request_id")["prompt_tokens"]
    lengths = prompts.to_dict()
    with gzip.open(run / "steps.jsonl.gz", "rt") as file:
        rows = [json.loads(line) for line in file][1:]
    made: dict[int, int] = {}
    found = []
    for row in rows:
        ids = row.get("decode_ids", ())
        for one in ids:
            made[one] = made.get(one, 1) + 1
        found.append(np.array([lengths[one] + made[one] - 1 for one in ids], float))
        for one, start, tokens in row.get("chunks", ()):
            if start + tokens >= lengths[one]:
                made.setdefault(one, 1)
    return rows, found


def skew(run: Path, trace: Path) -> dict[str, float]:
    """What the imbalance of contexts does to decode steps of a whole log.

    Errors as the model has it (the sum of the contexts decides), with every request as long as the
    longest, and with a term for b * longest - sum fitted on top.
    """
    mode = run.name.removesuffix("-again").rpartition("-")[0]
    cost = cost_model(inside(mode, ENGINES / f"h200-1b-{mode}.json", trace, 1.0))
    rows, each = contexts(run)
    total = np.array([row["context_tokens"] for row in rows], float)
    assert (total == [one.sum() for one in each]).all(), "contexts that do not add up"
    chosen = [
        i for i, row in enumerate(rows)
        if row["decode_requests"] and not row["prefill_tokens"] and row.get("turn") != "entered"
    ]  # fmt: skip
    real = np.array([rows[i]["duration_s"] for i in chosen])
    batch = np.array([rows[i]["decode_requests"] for i in chosen])
    longest = np.array([each[i].max() for i in chosen]) * batch
    total = total[chosen]

    def told(context: np.ndarray) -> np.ndarray:
        seconds = np.empty(len(context))
        for size in np.unique(batch).tolist():
            own = batch == size
            seconds[own] = cost.decode(size).seconds_into(context[own])
        return seconds

    now, more = told(total), longest - total
    # least absolute error of one coefficient: the weighted median of its value at each step
    known = more > 0
    value, weight = (real - now)[known] / more[known], more[known] / real[known]
    order = np.argsort(value)
    half = np.searchsorted(np.cumsum(weight[order]), weight.sum() / 2)
    coefficient = float(value[order][half]) if known.any() else 0.0
    errors = {"sum": now, "longest": told(longest), "sum and skew": now + coefficient * more}
    found = {f"{name} median": float(np.median(np.abs(one / real - 1.0)))
             for name, one in errors.items()}  # fmt: skip
    found |= {f"{name} bias": float(np.median(one / real - 1.0)) for name, one in errors.items()}
    return found | {
        "steps": len(real), "longest over mean": float(np.median(longest / total)),
        "term_s": coefficient,
    }  # fmt: skip


# ---------------------------------------------------------------- the table
def rows_of(found: Document) -> list[dict[str, Any]]:
    """A row a variant: median and largest |error| of runs at promised loads, and of their steps."""
    from bench.blind_judge import PROMISED, runs

    cells = json.loads((SERVE / "predictions.json").read_text())["cells"]
    loads = {cell["cell"]: round(cell["load"], 2) for cell in cells}
    measured = [run for run in runs(SERVE) if loads[run.cell] <= PROMISED]
    rows = []
    for variant, figures in found["free"].items():
        row: dict[str, Any] = {"without": variant}
        own = [run for run in measured if run.cell in figures]
        for metric in JUDGED:
            sizes = [abs(figures[r.cell][metric] / r.figures[metric] - 1.0) for r in own]
            row[metric] = [float(np.median(sizes)), max(sizes)]
        steps = found["steps"].get(variant, {})
        for region in ("decode only", "with prefill"):
            kept = [one[region] for one in steps.values() if region in one]
            row[region] = {
                key: float(np.median([abs(one[key]) for one in kept])) if kept else None
                for key in ("median", "p90", "signed_median")
            }
        row["runs"] = len(own)
        rows.append(row)
    return rows


def markdown(rows: list[dict[str, Any]]) -> str:
    """Those rows as a table in Markdown; per cent."""
    head = ["without", "decode steps", "steps with prompts", *WORDS]
    lines = ["| " + " | ".join(head) + " |", "| :-- " + "| --: " * (len(head) - 1) + "|"]
    for row in rows:
        cells = [row["without"]]
        for region in ("decode only", "with prefill"):
            one = row[region]
            known = one["median"] is not None
            cells.append(f"{one['median']:.1%}, {one['p90']:.1%}" if known else "-")
        cells += [f"{row[m][0] * 100:.1f}, {row[m][1] * 100:.1f}" for m in JUDGED]
        lines.append("| " + " | ".join(cell.replace("%", "") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def skew_markdown(found: Document) -> str:
    """What skew does, a row a run of which a whole log was at hand; per cent."""
    lines = [
        "| run | longest / mean context | error by the sum | a term for skew on top |"
        " all as long as the longest |",
        "| :-- | --: | --: | --: | --: |",
    ]
    for name, one in found.get("skew", {}).items():
        errors = (
            f"{one[f'{kind} median'] * 100:.2f}" for kind in ("sum", "sum and skew", "longest")
        )
        lines.append(f"| {name} | {one['longest over mean']:.2f} | {' | '.join(errors)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("fit", "judge", "table"))
    parser.add_argument("--trace", type=Path)
    parser.add_argument("--whole", type=Path, help="folder of measured runs with ids")
    given = parser.parse_args()
    if given.what == "fit":
        fit()
    elif given.what == "judge":
        judge(given.trace, given.whole)
    else:
        found = json.loads(OUT.read_text())
        print(markdown(rows_of(found)))
        print(skew_markdown(found))
        print(f"{SKEW}\n\n{INTERFERENCE}")


if __name__ == "__main__":
    main()
