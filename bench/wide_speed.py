"""Speed of runs with speculation, sparse KV and block decode beside plain ones of the same trace.

`python bench/wide_speed.py [--requests N] [--repeat N] [--only NAME]` prints requests a second of
processor time, from the scenario to the summary, without imports and files. Plain runs are
interleaved with the others, since a machine that others use too is faster at one time than at
another; the fastest of each counts.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from sim.scenario import Scenario
from sim.simulate import Simulation

FIXED = {"draft": "mtp", "width": 4, "acceptance": 0.7}
SPARSE = {"select": "topk"}


def controlled(name: str) -> dict:
    """Speculation whose width *name* controls."""
    return {"draft": "mtp", "width": {"controller": name}, "acceptance": 0.7}


CASES: dict[str, dict] = {
    "plain": {},
    "fixed width 4, mtp": {"speculation": FIXED},
    "fixed width 4, n-gram": {"speculation": FIXED | {"draft": "ngram"}},
    "asbs": {"speculation": controlled("asbs")},
    "windowed": {"speculation": controlled("windowed")},
    "load_aware": {
        "speculation": {
            "draft": "mtp", "acceptance": 0.7, "width": {
                "controller": "load_aware", "max": 8,
                "thresholds": [{"batch": 8, "width": 8}, {"batch": 32, "width": 4}],
            },
        },
    },
    "goodput": {"speculation": controlled("goodput")},
    "sparse": {"sparse": SPARSE},
    "sparse, offload": {
        "sparse": SPARSE | {"offload": {"resident_tokens": 4096}},
        "hardware": {"dram": {"capacity": "512 GiB"}},
    },
    "fixed and sparse": {"speculation": FIXED, "sparse": SPARSE},
    "asbs and sparse": {"speculation": controlled("asbs"), "sparse": SPARSE},
    "block decode": {"block_decode": {"block": 32, "steps": 8}},
}  # fmt: skip


def seconds(case: dict, requests: int) -> tuple[float, int]:
    """Processor time of a run, and its iterations."""
    scenario = Scenario.model_validate(
        {
            "model": "llama-3.1-8b",
            "loop": {"max_batch": 256, "mode": "graph"},
            "trace": {"source": "azure-conv-like", "requests": requests, "rate_scale": 3.0},
            **case,
        }
    )
    begin = time.process_time()
    summary = Simulation(scenario).run()
    return time.process_time() - begin, summary["loop_iterations"]


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--requests", type=int, default=2_000)
    parser.add_argument("--repeat", type=int, default=3, help="runs a row; the fastest counts")
    parser.add_argument("--only", help="rows whose names have this in them")
    options = parser.parse_args()
    best = dict.fromkeys(CASES, float("inf"))
    iterations: dict[str, int] = {}
    for _ in range(options.repeat):
        for name, case in CASES.items():
            if options.only and options.only not in name and name != "plain":
                continue
            taken, iterations[name] = seconds(case, options.requests)
            best[name] = min(best[name], taken)
    print(f"{'case':24} {'CPU s':>7} {'requests/s':>10} {'of plain':>8} {'iterations':>10}")
    for name in iterations:
        rate = options.requests / best[name]
        share = best["plain"] / best[name]
        print(f"{name:24} {best[name]:7.2f} {rate:10,.0f} {share:8.2f} {iterations[name]:10,}")


if __name__ == "__main__":
    main()
