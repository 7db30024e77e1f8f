"""The kernel profile in our engine: fitted, judged, and judged again with one term removed.

    python bench/ablate_terms.py fit                        # engines over nvidia-h200
    python bench/ablate_terms.py judge --windows windows [--whole FOLDER]
    python bench/ablate_terms.py skew --whole FOLDER
    python bench/ablate_terms.py table                      # Markdown of what judge wrote

Of the newest round that has measured runs, unless `--round` says otherwise. The terms of an engine
are fitted to the round's training logs, over the shipped profile of kernels, which has seen no log
of the engine. Judged are measured runs: not blind, as they were known when this was written. A term
is removed by setting it to nothing, without a new fit. Skew needs who took part in a step: whole
logs with ids (--whole).
"""

from __future__ import annotations

import argparse
import copy
import gzip
import json
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from bench.blind_ablate import KERNELS, NOISE, SIZES, lines, of_kernels, promised  # noqa: E402
from bench.blind_pack import requests  # noqa: E402
from bench.blind_predict import JOBS, predicted  # noqa: E402
from bench.blind_rounds import ROUNDS  # noqa: E402
from bench.blind_scenario import cell_scenario, scenario, simulated  # noqa: E402
from bench.blind_steps import log_of  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from bench.blind_rounds import Engine, Round
    from sim.cost import Cost
    from sim.step_log import StepLog

    Document = dict[str, Any]
    Change = Callable[[Document, Document], None]
    Variant = tuple[str, Document]

OVER = ROOT / "sim" / "profiles" / "nvidia-h200.json"
NOTHING = 1e-12
"""Of what a profile wants above 0."""
WHOLE = "with its engine"
JUDGED = (
    "output_throughput", "mean_tpot_ms", "p99_itl_ms", "median_ttft_ms", "p90_ttft_ms",
    "p99_ttft_ms",
)  # fmt: skip
WORDS = ("throughput", "TPOT mean", "ITL p99", "TTFT p50", "TTFT p90", "TTFT p99")


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
def engine_file(chosen: Round, engine: Engine) -> Path:
    """The fitted profile of an *engine* of a round."""
    return chosen.profile(engine.name, chosen.folder / "engines")


def out_file(chosen: Round) -> Path:
    """Where what was judged of a round is."""
    return chosen.folder / "terms.json"


def inside(engine: Engine, base: Document, profile: Path) -> Document:
    """The scenario *base* of an *engine* in the simulator's own loop mode, with *profile*."""
    found = of_kernels(engine, base)
    found["loop"] = {k: v for k, v in found["loop"].items() if k != "captured_batches"}
    if found["loop"]["mode"] != "host":
        found["schedule"] = base["schedule"]
    hardware = {"profile": str(profile.resolve()), "step_noise": "measured"}
    return found | {"hardware": hardware}


def fit(chosen: Round) -> None:
    """Writes the engines that the training logs of a round give."""
    from sim.cli_engine import engine as fit_log
    from sim.errors import InputError

    for engine in chosen.engines.values():
        path = engine_file(chosen, engine)
        training = chosen.folder / "fitted" / f"{path.stem.removeprefix('h200-')}.jsonl.gz"
        if not training.is_file():
            print(f"{engine.name}: no log")
            continue
        path.parent.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory() as name:
            file, trace = Path(name) / "scenario.yaml", Path(name) / "trace.csv"
            trace.write_text("arrival_s,prompt_tokens,output_tokens\n0,1,1\n")
            data = inside(engine, scenario(engine, OVER, trace, 1.0, chosen.clip), OVER)
            # The engine's sizes in every mode; a log shows those of its own batches only.
            data["loop"]["captured_batches"] = [n for n in SIZES if n <= engine.batch]
            file.write_text(json.dumps(data | {"hardware": {"profile": "nvidia-h200"}}))
            log = Path(name) / "steps.jsonl.gz"
            log.write_bytes(training.read_bytes())
            try:
                fit_log([log], file, path, name=f"{path.stem}-engine", quiet=True, maps=None,
                        unit=None, only=None, pace="auto", prefill="apart",
                        prefill_kernels="library", sets=None)  # fmt: skip
            except InputError as error:
                print(f"{engine.name}: {error}")


# ---------------------------------------------------------------- judging
def variants(engine: Engine, base: Document, path: Path, folder: Path) -> Iterator[Variant]:
    """The scenario *base* with all terms of the engine at *path*, without each, and without any."""
    whole = inside(engine, base, path)
    yield WHOLE, whole
    for number, (name, change) in enumerate(REMOVED.items()):
        kernels, own = json.loads(OVER.read_text()), json.loads(path.read_text())
        before = copy.deepcopy((kernels, own))
        change(kernels, own)
        if (kernels, own) == before:
            continue
        stem = f"{engine.name}-{number}"
        (folder / f"{stem}-kernels.json").write_text(json.dumps(kernels))
        own["over"] = f"{stem}-kernels.json"
        (folder / f"{stem}.json").write_text(json.dumps(own))
        yield name, inside(engine, base, folder / f"{stem}.json")
    yield NOISE, whole | {"hardware": whole["hardware"] | {"step_noise": "none"}}
    yield KERNELS, of_kernels(engine, base)


def judge(chosen: Round, windows: Path, whole: Path | None, jobs: int = JOBS) -> None:
    """Writes by variant the figures of every cell, and errors of the steps of a recorded run.

    Judged are measured cells at loads that carry a promise, with the first seed of the round.
    """
    from bench.blind_judge import runs

    there = {run.cell for run in runs(chosen.folder)}
    cells = [one for one in promised(chosen) if one["cell"] in there]
    known = [one for one in cells if engine_file(chosen, chosen.engine_of(one)).is_file()]
    free: dict[str, dict[str, Any]] = {}
    steps: dict[str, dict[str, Any]] = {}
    with ProcessPoolExecutor(jobs) as pool:
        parts = pool.map(partial(judged, chosen, windows), known)
        for cell, part in zip(known, parts, strict=True):
            for variant, (figures, forced_) in part.items():
                free.setdefault(variant, {})[cell["cell"]] = figures
                if forced_:
                    steps.setdefault(variant, {})[cell["cell"]] = forced_
            print(f"{cell['cell']}: {free[WHOLE][cell['cell']]['mean_tpot_ms']:.3f} ms TPOT")
    tables: Document = {f"free: {name}": rows for name, rows in free.items()}
    tables |= {f"steps: {name}": rows for name, rows in steps.items()}
    out_file(chosen).write_text(lines(tables))
    if whole is not None:
        judge_skew(chosen, whole)
    left = sorted({chosen.engine_of(one).name for one in cells if one not in known})
    print(f"{out_file(chosen)}{'; no engine fitted: ' if left else ''}{', '.join(left)}")


def judged(chosen: Round, windows: Path, cell: Document) -> dict[str, tuple[Document, Document]]:
    """By variant: figures of a *cell*, and errors of the steps that a run of it logged, if any."""
    engine = chosen.engine_of(cell)
    base = cell_scenario(chosen, cell, windows)
    run = chosen.folder / "measured" / cell["cell"]
    log = log_of(run) if run.is_dir() else None
    found = {}
    with tempfile.TemporaryDirectory() as name:
        for variant, data in variants(engine, base, engine_file(chosen, engine), Path(name)):
            _, summary = simulated(data)
            figures = {metric: summary[metric] for metric in JUDGED}
            found[variant] = figures, {} if log is None else forced_steps(data, log)
    return found


def read(chosen: Round) -> Document:
    """What was judged of a round: `free` and `steps` by variant, and `skew`; none: empty."""
    found: Document = {"free": {}, "steps": {}, "skew": {}}
    if out_file(chosen).is_file():
        for name, rows in json.loads(out_file(chosen).read_text()).items():
            kind, _, variant = name.partition(": ")
            found[kind] = found[kind] | {variant: rows} if variant else rows
    return found


def cost_model(data: Document) -> Cost:
    """The cost model of a scenario."""
    from sim.profile import load_profile
    from sim.scenario import Scenario
    from sim.step_cost import cost_of

    chosen = Scenario.model_validate(data)
    return cost_of(chosen, load_profile(chosen.hardware.profile))


def forced_steps(data: Document, log: StepLog) -> dict[str, Any]:
    """Errors of single steps: logged compositions through the cost model, by region."""
    from sim.validation.forced import forced

    found, _, _ = forced(log, cost_model(data))
    regions, keys = ("all", "decode only", "with prefill"), ("n", "median", "p90", "signed_median")
    return {name: {k: found[name][k] for k in keys} for name in regions if name in found}


# ---------------------------------------------------------------- skew, from whole logs
def contexts(run: Path) -> tuple[list[Document], list[np.ndarray]]:
    """Steps of a whole log, and the contexts of those who decode in each."""
    lengths = {row["request_id"]: row["prompt_tokens"] for row in requests(run)}
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


def judge_skew(chosen: Round, whole: Path) -> None:
    """Adds what skew does in the runs in folder *whole* to the judged terms; no speculative ones,
    of which a log does not say how long each request is."""
    tables: Document = json.loads(out_file(chosen).read_text())
    known = tables[f"steps: {WHOLE}"]
    tables["skew"] = {
        one["cell"]: skew(chosen, whole / one["cell"]) for one in predicted(chosen)
        if one["cell"] in known and (whole / one["cell"]).is_dir()
        and chosen.engine_of(one).tokens == 1
    }  # fmt: skip
    out_file(chosen).write_text(lines(tables))
    print(f"{out_file(chosen)}: skew in {len(tables['skew'])} runs")


def skew(chosen: Round, run: Path) -> dict[str, float]:
    """What the imbalance of contexts does to decode steps of a whole log.

    Errors as the model has it (the sum of the contexts decides), with every request as long as the
    longest, and with a term for b * longest - sum fitted on top.
    """
    (cell,) = (one for one in predicted(chosen) if one["cell"] == run.name)
    engine = chosen.engine_of(cell)
    base = cell_scenario(chosen, cell, run)  # its trace is not read
    cost = cost_model(inside(engine, base, engine_file(chosen, engine)))
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
def rows_of(chosen: Round) -> list[dict[str, Any]]:
    """A row a variant: median and largest |error| of runs at promised loads, and of their steps."""
    from bench.blind_judge import runs

    found, measured = read(chosen), runs(chosen.folder)
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
        row |= {"runs": len(own), "cells": len(figures)}
        rows.append(row)
    return rows


def newest() -> int:
    """The last round of which there are measured runs."""
    return max(one.number for one in ROUNDS.values() if (one.folder / "measured").is_dir())


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


def skew_markdown(found: dict[str, Document]) -> str:
    """What skew does, a row a run of which a whole log was at hand; per cent."""
    lines = [
        "| run | longest / mean context | error by the sum | a term for skew on top |"
        " all as long as the longest |",
        "| :-- | --: | --: | --: | --: |",
    ]
    for name, one in found.items():
        errors = (
            f"{one[f'{kind} median'] * 100:.2f}" for kind in ("sum", "sum and skew", "longest")
        )
        lines.append(f"| {name} | {one['longest over mean']:.2f} | {' | '.join(errors)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("fit", "judge", "skew", "table"))
    parser.add_argument("--round", type=int, choices=tuple(ROUNDS), default=newest())
    parser.add_argument("--windows", type=Path, help="the folder that bench/blind.py cut wrote")
    parser.add_argument("--whole", type=Path, help="folder of measured runs with ids")
    given = parser.parse_args()
    chosen = ROUNDS[given.round]
    if given.what == "fit":
        fit(chosen)
    elif given.what == "judge":
        if given.windows is None:
            parser.error("judge needs --windows")
        judge(chosen, given.windows, given.whole)
    elif given.what == "skew":
        if given.whole is None:
            parser.error("skew needs --whole")
        judge_skew(chosen, given.whole)
    else:
        print(markdown(rows_of(chosen)))
        print(skew_markdown(read(chosen)["skew"]))


if __name__ == "__main__":
    main()
