"""A measured run's folder: a summary with vLLM's keys, requests, steps and tokens.

`summary.json`, `steps.jsonl.gz` and `requests.jsonl.gz` are always there; where pyarrow is
installed, so are `requests.parquet`, `iterations.parquet` and `tokens.parquet` with the simulator's
columns. There `gpu_s` is what was measured; `gpu_busy_s` of a step whose device time was not taken
is its length less the usual gap of its kind.
"""

from __future__ import annotations

import gzip
import json
from typing import TYPE_CHECKING, Any

import numpy as np

from .records import request_rows, token_rows, write_steps

if TYPE_CHECKING:
    from pathlib import Path

    from .engine import Engine
    from .records import Step

SHARES = (50, 90, 95, 99)
KEPT = ("ttft", "tpot", "itl", "e2el", "queue")


def summary(engine: Engine) -> dict[str, Any]:
    """What the run of *engine* came to."""
    rows = list(request_rows(engine.requests))
    done = [row for row in rows if row["status"] == "finished"]
    end = max((row["finished_s"] for row in done), default=0.0)
    prompts = sum(row["prompt_tokens"] for row in done)
    outputs = sum(row["generated_tokens"] for row in done)
    seconds = end or 1.0
    found: dict[str, Any] = {
        "kind": "measured",
        "duration": end,
        "completed": len(done),
        "failed": len(rows) - len(done),
        "total_input_tokens": prompts,
        "total_output_tokens": outputs,
        "request_throughput": len(done) / seconds,
        "output_throughput": outputs / seconds,
        "total_token_throughput": (prompts + outputs) / seconds,
    }
    values = {
        name: [row[f"{name}_ms"] for row in done if row[f"{name}_ms"] is not None]
        for name in KEPT
        if name != "itl"
    }
    values["itl"] = [gap * 1e3 for gap in gaps(engine.steps)]
    for name in KEPT:
        found |= _statistics(name, np.array(values[name]))
    found["requests_in"] = len(rows)
    for status in ("unfinished", "finished", "rejected"):
        found[f"requests_{status}"] = sum(row["status"] == status for row in rows)
    found["requests_preempted"] = sum(row["preemptions"] > 0 for row in rows)
    found["tokens_committed"] = sum(row["generated_tokens"] for row in rows)
    return found | _of_steps(engine, seconds)


def gaps(steps: list[Step]) -> list[float]:
    """Seconds between the commits of each request, all pooled."""
    last: dict[int, float] = {}
    found = []
    for request, time, _ in token_rows(steps):
        if request in last:
            found.append(time - last[request])
        last[request] = time
    return found


def _statistics(name: str, values: np.ndarray[Any, Any]) -> dict[str, Any]:
    if not len(values):
        return {}
    found = {f"mean_{name}_ms": float(values.mean()), f"median_{name}_ms": float(np.median(values))}
    found[f"std_{name}_ms"] = float(values.std())
    for share in SHARES:
        found[f"p{share}_{name}_ms"] = float(np.percentile(values, share))
    return found


def _of_steps(engine: Engine, seconds: float) -> dict[str, Any]:
    steps = engine.steps
    records = [step.record() for step in steps]
    kinds = [record["kind"] for record in records]
    time = sum(record["duration_s"] for record in records)
    timed = [record for record in records if "gpu_s" in record]
    found: dict[str, Any] = {
        "loop_iterations": len(steps),
        **{f"loop_iterations_{kind}": kinds.count(kind) for kind in ("decode", "mixed", "prefill")},
        "loop_time_s": time,
        "loop_idle_s": engine.idle_s,
        "loop_host_s": sum(record["host_s"] for record in records),
        "loop_prefill_tokens": sum(record["prefill_tokens"] for record in records),
        "loop_mean_decode_requests": sum(
            record["decode_requests"] * record["duration_s"] for record in records
        )
        / (time or 1.0),
        "loop_max_decode_requests": max((len(step.decode) for step in steps), default=0),
        "loop_timed_iterations": len(timed),
        "kv_blocks_capacity": engine.scheduler.account.capacity,
        "kv_peak_blocks": engine.scheduler.account.peak,
    }
    if timed:
        share = sum(r["gpu_s"] for r in timed) / sum(r["duration_s"] for r in timed)
        found["loop_gpu_share_of_timed"] = share
        found["loop_gpu_busy_fraction"] = share * time / seconds
    if hasattr(engine, "entered"):
        found["loop_entered"] = engine.entered
    return found


def write(folder: Path, engine: Engine, header: dict[str, Any]) -> dict[str, Any]:
    """Writes the folder, which must not exist; returns the summary."""
    folder.mkdir(parents=True)
    found = summary(engine)
    text = json.dumps({**found, "run": header}, indent=2)
    (folder / "summary.json").write_text(text + "\n")
    write_steps(folder / "steps.jsonl.gz", header, engine.steps)
    lines = [json.dumps(row, separators=(",", ":")) for row in request_rows(engine.requests)]
    (folder / "requests.jsonl.gz").write_bytes(
        gzip.compress(("\n".join(lines) + "\n").encode(), mtime=0)
    )
    try:
        _parquet(folder, engine)
    except ImportError:
        print("no pyarrow: the folder has JSON lines alone")
    return found


def _parquet(folder: Path, engine: Engine) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    def save(name: str, rows: list[dict[str, Any]], kinds: dict[str, Any]) -> None:
        names = list(dict.fromkeys([*(key for row in rows for key in row), *kinds]))
        columns = {key: pa.array([row.get(key) for row in rows], kinds.get(key)) for key in names}
        pq.write_table(pa.table(columns), folder / f"{name}.parquet", compression="zstd")

    blank = {"session": "", "waited_for": 0, "think_s": 0.0}
    text = {"reason": pa.string()}
    save("requests", [row | blank for row in request_rows(engine.requests)], text)
    rows = [step.record() for step in engine.steps]
    gap = typical_gaps(rows)
    for row in rows:
        missing = min(row["duration_s"], gap[row["path"], row["kind"]])
        row["gap_s"] = max(0.0, row["duration_s"] - row.get("gpu_s", row["duration_s"] - missing))
        row["gpu_busy_s"] = row["duration_s"] - row["gap_s"]
        for name in ("preempted", "swapped_in", "turn", "seen_s", "late"):
            row.pop(name, None)
    save("iterations", rows, {"gpu_s": pa.float64()})
    names = ("request_id", "time_s", "tokens")
    save("tokens", [dict(zip(names, one, strict=True)) for one in token_rows(engine.steps)], {})


def typical_gaps(rows: list[dict[str, Any]]) -> dict[tuple[str, str], float]:
    """Median seconds that the GPU had nothing to do in a step, by path and kind.

    From the steps whose device time was taken; zero for a loop on the device, which has none.
    """
    found: dict[tuple[str, str], list[float]] = {}
    for row in rows:
        gaps_ = found.setdefault((row["path"], row["kind"]), [])
        if "gpu_s" in row:
            gaps_.append(row["duration_s"] - row["gpu_s"])
    return {key: float(np.median(values)) if values else 0.0 for key, values in found.items()}


TABLE = """\
{mode:12s} {kernels:8s} {completed:6d} done {duration:7.1f} s {output_throughput:8.1f} tok/s | \
TTFT {p50_ttft_ms:7.1f} {p90_ttft_ms:7.1f} {p99_ttft_ms:7.1f} ms | \
TPOT {mean_tpot_ms:6.2f} {p99_tpot_ms:6.2f} ms | ITL {p50_itl_ms:6.2f} {p99_itl_ms:6.2f} ms | \
{loop_iterations:6d} steps ({loop_iterations_mixed:d} mixed, {loop_iterations_prefill:d} prefill) \
batch {loop_mean_decode_requests:4.1f} gpu {gpu}"""
"""TTFT P50, P90, P99; TPOT mean, P99; ITL P50, P99."""


def line(mode: str, kernels: str, found: dict[str, Any]) -> str:
    """One line of a run's figures."""
    share = found.get("loop_gpu_busy_fraction")
    gpu = "-" if share is None else f"{share:.0%}"
    blank = {f"{p}_{name}_ms": float("nan") for p in ("p50", "p90", "p99", "mean") for name in KEPT}
    return TABLE.format(**{**blank, **found}, mode=mode, kernels=kernels, gpu=gpu)
