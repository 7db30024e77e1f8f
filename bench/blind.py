"""Predictions of the engine's runs before they are made, and what became of them.

    python bench/blind.py cut --trace azure.csv --out window.csv
    python bench/blind.py fit --out calibration/serve
    python bench/blind.py predict --trace window.csv --profiles calibration/serve --out predictions
    (the runs: `python bench/blind.py commands` prints them, for a machine with a GPU)
    python bench/blind.py replay RUN... --out calibration/serve/replayed.json
    python bench/blind.py pack RUN... --out calibration/serve/measured
    python bench/blind.py ablate --trace window.csv --out calibration/serve/ablation.json
    python bench/blind.py judge [--trace window.csv] --out reports/validation

A cell is a mode of the engine and a rate; its load is the share of the requests a second that the
simulator says the mode can serve of this traffic at most. Profiles are fitted to runs over another
window of the trace at another rate; nothing of the predicted window was measured before.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
import tempfile
from datetime import datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

SERVE = ROOT / "calibration" / "serve"
OUTS = {
    "cut": "window.csv", "fit": "calibration/serve",
    "predict": "calibration/serve/predictions.json",
    "commands": "calibration/serve/predictions.json", "replay": "calibration/serve/replayed.json",
    "pack": "calibration/serve/measured", "ablate": "calibration/serve/ablation.json",
    "judge": "reports/validation",
}  # fmt: skip
"""What there is to do, and where it writes (`commands`: reads) unless told otherwise."""
MODES = {
    "host-python-library": 64, "host-c-library": 64, "graph-library": 64, "control-library": 64,
    "graph-fused": 16, "resident-fused": 16,
}  # fmt: skip
"""Loop and kernels of the engine, and the most requests that they take."""
CELLS = (
    ("graph-library", 6.6), ("graph-fused", 4.5), ("resident-fused", 4.5), ("host-c-library", 6.6),
    ("host-python-library", 6.6), ("graph-library", 8.8), ("host-c-library", 8.8),
    ("host-python-library", 8.8), ("graph-fused", 6.0), ("resident-fused", 6.0),
    ("control-library", 6.6), ("graph-library", 12.1), ("graph-library", 15.3),
    ("graph-library", 3.3),
)  # fmt: skip
"""Mode, and how many times as fast as recorded requests come; in the order in which they run."""
AGAIN = ("graph-library-6.6", "resident-fused-4.5")
"""Cells that are measured twice, to know how much two runs differ."""
BEGIN_S, REQUESTS, CLIP = 600.0, 600, 7000
BLOCK, CONTEXT, BUDGET = 16, 8192, 2048
METRICS = (
    "output_throughput", "median_ttft_ms", "p90_ttft_ms", "p99_ttft_ms", "mean_tpot_ms",
    "p99_tpot_ms", "median_itl_ms", "p99_itl_ms", "mean_e2el_ms",
)  # fmt: skip


def scenario(mode: str, profile: Path, trace: Path, rate_scale: float) -> dict[str, Any]:
    """The scenario of a cell: the engine's own settings."""
    batch = MODES[mode]
    alone = mode.split("-")[0] in ("control", "resident")
    return {
        "name": f"{mode}-{rate_scale:g}".lower(),
        "trace": {
            "file": str(trace.resolve()), "rate_scale": rate_scale, "clip_prompt": {"to": CLIP},
        },
        "model": {"preset": "llama-3.2-1b", "max_context": CONTEXT},
        "hardware": {"profile": str(profile.resolve()), "step_noise": "measured"},
        "loop": {"mode": "engine", "max_batch": batch, "token_budget": BUDGET},
        "schedule": {"order": "prefill_alone" if alone else "decode_first"},
        "kv": {
            "block_tokens": BLOCK, "hbm_blocks": batch * CONTEXT // BLOCK, "prefix_cache": False,
        },
    }  # fmt: skip


def cut(trace: Path, out: Path) -> None:
    """Writes the window of an Azure *trace*: its first rows from `BEGIN_S` on, unchanged."""
    with trace.open(newline="") as file:
        header, *rows = csv.reader(file)
    times = [datetime.fromisoformat(row[0][:26]) for row in rows]
    chosen = [
        row for row, at in zip(rows, times, strict=True)
        if (at - times[0]).total_seconds() >= BEGIN_S
    ]  # fmt: skip
    with out.open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([header, *chosen[:REQUESTS]])


def span(trace: Path) -> float:
    """Seconds from the first to the last request."""
    with trace.open(newline="") as file:
        times = [datetime.fromisoformat(row[0][:26]) for row in list(csv.reader(file))[1:]]
    return (times[-1] - times[0]).total_seconds()


def simulated(data: dict[str, Any], folder: Path | None = None) -> tuple[Any, dict[str, Any]]:
    """The scenario and its summary."""
    from sim.scenario import Scenario
    from sim.simulate import run

    chosen = Scenario.model_validate(data)
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        return chosen, run(chosen, folder)
    with tempfile.TemporaryDirectory() as name:
        return chosen, run(chosen, Path(name))


def predict(trace: Path, profiles: Path, out: Path) -> None:
    """Writes *out*: for every cell the engine's command, hashes and predicted figures."""
    from sim.profile import load_profile

    cells = []
    capacity: dict[str, float] = {}
    for mode, scale in CELLS:
        profile = profiles / f"h200-1b-{mode}.json"
        if mode not in capacity:
            _, most = simulated(scenario(mode, profile, trace, 1000.0))
            capacity[mode] = most["completed"] / most["duration"]
        chosen, summary = simulated(scenario(mode, profile, trace, scale))
        loop, _, kernels = mode.rpartition("-")
        rate = REQUESTS * scale / span(trace)
        cells.append(
            {
                "cell": f"{mode}-{scale:g}", "mode": loop, "kernels": kernels, "rate_scale": scale,
                "requests_per_s": rate, "load": rate / capacity[mode],
                "scenario_hash": chosen.hash, "profile_hash": load_profile(profile).hash,
                "predicted": {name: summary[name] for name in METRICS},
                "extrapolated": summary["cost_extrapolated"],
            }
        )  # fmt: skip
        print(
            f"{cells[-1]['cell']:24s} load {cells[-1]['load']:.2f}  {summary['duration']:5.1f} s  "
            + "  ".join(f"{n.replace('_ms', '')} {summary[n]:.4g}" for n in METRICS[:6])
        )
    out.write_text(json.dumps({"cells": cells}, indent=1) + "\n")


def commands(predictions: Path) -> None:
    """The engine's runs, a line each."""
    cells = json.loads(predictions.read_text())["cells"]
    again = [cell for cell in cells if cell["cell"] in AGAIN]
    for number, cell in enumerate([*cells, *again]):
        name = cell["cell"] + ("-again" if number >= len(cells) else "")
        print(
            f"python -m kernels serve --trace window.csv --clip-prompt {CLIP} "
            f"--mode {cell['mode']} --kernels {cell['kernels']} "
            f"--rate-scale {cell['rate_scale']:g} --out measured/{name}"
        )


def planned(mode: str, batch: int) -> dict[str, Any]:
    """The scenario whose planner replays the log of a run of *mode* with *batch* requests."""
    alone = mode.split("-")[0] in ("control", "resident")
    return {
        "trace": {"source": "synthetic", "requests": 1, "rate": "1 /s", "prompt_tokens": 1,
                  "output_tokens": 1},
        "model": {"preset": "llama-3.2-1b", "max_context": CONTEXT},
        "loop": {"mode": "host", "max_batch": batch, "token_budget": BUDGET},
        "schedule": {"order": "prefill_alone" if alone else "decode_first"},
        "kv": {"block_tokens": BLOCK},
    }  # fmt: skip


def fit(logs: Path, out: Path) -> None:
    """Writes the profiles that the predictions were made with, from the step logs in *logs*."""
    from sim.cli_fit import fit as fit_profile

    out.mkdir(parents=True, exist_ok=True)
    for log in sorted(logs.glob("*.jsonl.gz")):
        with tempfile.TemporaryDirectory() as folder:
            same = Path(folder) / "steps.jsonl.gz"  # a profile says its log's name
            same.write_bytes(log.read_bytes())
            name = f"h200-{log.name.removesuffix('.jsonl.gz')}"
            fit_profile([same], out / f"{name}.json", name=name, quiet=True, maps=None,
                        map_file=None, unit=None, only=None, captured=None, pace="auto",
                        mode="engine", hold_out=None, plots=None)  # fmt: skip


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=tuple(OUTS))
    parser.add_argument("runs", type=Path, nargs="*", help="folders of the engine's runs")
    parser.add_argument("--trace", type=Path)
    parser.add_argument("--profiles", type=Path, default=SERVE)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    out = given.out or ROOT / OUTS[given.what]
    if given.what == "cut":
        cut(given.trace, out)
    elif given.what == "predict":
        predict(given.trace, given.profiles, out)
    elif given.what == "commands":
        commands(out)
    elif given.what == "fit":
        fit(SERVE / "fitted", out)
    elif given.what == "replay":
        from bench.blind_pack import replayed

        rows = replayed(given.runs, planned)
        lines = ",\n ".join(json.dumps(row) for row in rows)
        out.write_text(f"[\n {lines}\n]\n")
    elif given.what == "pack":
        from bench.blind_pack import pack

        for run in given.runs:
            pack(run, out / run.name, METRICS)
    elif given.what == "ablate":
        from bench.blind_ablate import ablate

        ablate(given.trace, given.profiles, out)
    else:
        from bench.blind_judge import judge

        judge(given.profiles, given.trace, out)


if __name__ == "__main__":
    main()
