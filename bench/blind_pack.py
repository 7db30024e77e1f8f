"""What is kept of the engine's runs: times of requests from their arrival, steps without names.

Lengths and arrivals of requests are the trace's and stay with it; who took part in a step is left
out of the log, after the planner has replayed it.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
from typing import TYPE_CHECKING, Any

from bench.blind_steps import packed

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

BY_REQUEST = ("decode_ids", "decode_commits", "chunks", "preempted", "swapped_in")
"""Columns of a step log that name requests or say how long single ones are."""
COLUMNS = ("number", "admitted_ms", "first_token_ms", "finished_ms")


def pack_all(runs: Iterable[Path], out: Path, metrics: Iterable[str], calibrate: bool) -> None:
    """Keeps of each of *runs* what is wanted, in the round's folder *out*."""
    for run in runs:
        if calibrate:
            (out / "fitted").mkdir(parents=True, exist_ok=True)
            strip(run / "steps.jsonl.gz", out / "fitted" / f"{run.name}.jsonl.gz")
        else:
            pack(run, out / "measured" / run.name, metrics)


def pack(run: Path, out: Path, metrics: Iterable[str]) -> None:
    """Writes the run in folder *run* to *out*: requests.csv.gz, steps.csv.gz, run.json."""
    out.mkdir(parents=True, exist_ok=True)
    summary = json.loads((run / "summary.json").read_text())
    kept = {
        "kind": "measured", "completed": summary["completed"],
        "figures": {name: summary[name] for name in metrics},
        "run": {k: v for k, v in summary["run"].items() if k != "cubins"},
    }  # fmt: skip
    (out / "run.json").write_text(json.dumps(kept, indent=1) + "\n")
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for row in sorted(requests(run), key=lambda one: int(one["request_id"])):
        since = (row[k] - row["arrival_s"] for k in ("admitted_s", "first_token_s", "finished_s"))
        writer.writerow([int(row["request_id"]), *(f"{seconds * 1e3:.6f}" for seconds in since)])
    zipped(out / "requests.csv.gz", text.getvalue())
    zipped(out / "steps.csv.gz", packed(run / "steps.jsonl.gz"))


def strip(log: Path, out: Path) -> None:
    """The step log without what it says of single requests."""
    lines = []
    for text in gzip.decompress(log.read_bytes()).decode().splitlines():
        row = {k: v for k, v in json.loads(text).items() if k not in BY_REQUEST}
        options = row.get("options")
        if isinstance(options, dict):
            options.pop("out", None)
        elif isinstance(options, list):
            row["options"] = [word for word in options if not word.startswith("out=")]
        lines.append(json.dumps(row, separators=(",", ":")))
    zipped(out, "\n".join(lines) + "\n")


def zipped(path: Path, text: str) -> None:
    """Writes *text* so that the same text gives the same bytes."""
    path.write_bytes(gzip.compress(text.encode(), 9, mtime=0))


def header(log: Path) -> dict[str, Any]:
    """The first line of the engine's step log."""
    with gzip.open(log, "rt") as file:
        found: dict[str, Any] = json.loads(file.readline())
    return found


def requests(run: Path) -> list[dict[str, Any]]:
    """The requests of a run of the engine, with or without Parquet."""
    if (run / "requests.parquet").is_file():
        import pyarrow.parquet as pq

        rows: list[dict[str, Any]] = pq.read_table(run / "requests.parquet").to_pylist()
        return rows
    with gzip.open(run / "requests.jsonl.gz", "rt") as file:
        return [json.loads(line) for line in file]


def device_of(head: dict[str, Any]) -> str:
    """The GPU of a log's header, by its id."""
    device = head["device"]
    return str(device["id"] if isinstance(device, dict) else device)


def replayed(runs: Iterable[Path], scenario_of: Any) -> list[dict[str, Any]]:
    """How many steps of each run's log the planner plans alike; *scenario_of* a log's header."""
    from sim.errors import InputError
    from sim.scenario import Scenario
    from sim.validation.replay import Asked, read_logged, replay

    found = []
    for run in runs:
        log = run / "steps.jsonl.gz"
        head = header(log)
        chosen = Scenario.model_validate(scenario_of(head))
        asked = [
            Asked(int(r["request_id"]), r["arrival_s"], r["prompt_tokens"], r["output_tokens"])
            for r in requests(run)
        ]
        row = {
            "run": run.name, "mode": head["mode"], "kernels": head["kernels"],
            "model": head["model"], "gpu": device_of(head), "date": head["date"],
            "requests": len(asked), "steps": 0, "alike": 0, "difference": None,
        }  # fmt: skip
        try:
            result = replay(chosen, head["blocks"], asked, read_logged(log))
        except InputError as error:
            row["refused"] = f"{error}"
            print(f"{run.name:32s} not replayed: {error}")
        else:
            row |= {
                "steps": result.steps, "alike": result.alike, "difference": result.difference,
            }  # fmt: skip
            print(f"{run.name:32s} {result.alike:,} of {result.steps:,} steps alike")
        found.append(row)
    return found
