"""How well a sweep uses its cores: `python bench/sweep_speed.py [--points 200] [--jobs 2]`.

The study's points differ by their seed and take about a second each. First some are run one after
another in this process, to know what a point takes by itself; then all are swept into a new folder.
efficiency = points x seconds of one point by itself / (workers x seconds of the whole command). The
same of CPU seconds, over those of all processes of the command, says what the sweep adds even where
others use the machine meanwhile; the share of the time that workers had a point shows the waiting.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
TARGET_S = 1.05
SAMPLE = 8


def scenario(requests: int) -> dict:
    """One point: a chat workload of so many *requests*, on one H200."""
    trace = {"source": "azure-conv-like", "requests": requests, "rate_scale": 3.0}
    return {"trace": trace, "model": "llama-3.1-8b", "loop": {"max_batch": 256}}


def alone_s(requests: int, seeds: range) -> list[tuple[float, float]]:
    """Wall and CPU seconds of points by themselves, records written."""
    from sim.scenario import Scenario
    from sim.simulate import run

    found = []
    for seed in seeds:
        with tempfile.TemporaryDirectory() as folder:
            begin, cpu = time.perf_counter(), time.process_time()
            run(Scenario.model_validate(scenario(requests) | {"seed": seed}), Path(folder))
            found.append((time.perf_counter() - begin, time.process_time() - cpu))
    return found


def calibrated() -> int:
    """Requests of a point that takes `TARGET_S` of CPU."""
    requests = 4_000
    alone_s(500, range(1))  # imports and caches
    for _ in range(3):
        fastest = min(cpu for _, cpu in alone_s(requests, range(3)))
        requests = max(100, round(requests * TARGET_S / fastest))
    return requests


def main() -> None:
    """Measures and prints one line a figure."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--points", type=int, default=200)
    parser.add_argument("--jobs", type=int, default=2)
    options = parser.parse_args()
    points, jobs = options.points, options.jobs
    print(f"load before: {os.getloadavg()[0]:.2f} on {os.cpu_count()} cores", flush=True)
    requests = calibrated()
    pairs = alone_s(requests, range(1000, 1000 + SAMPLE))
    alone, cpu = (statistics.median(values) for values in zip(*pairs, strict=True))
    told = f"{alone:.3f} s, {cpu:.3f} s of CPU ({requests:,} requests; median of {SAMPLE})"
    print(f"a point by itself: {told}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        study = scenario(requests) | {"sweep": {"seed": [*range(points)]}}
        (Path(folder) / "study.yaml").write_text(json.dumps(study))
        command = [sys.executable, "-m", "sim", "sweep", "study.yaml", "--out", "out", "-q"]
        command += ["--no-plots", "--jobs", str(jobs)]
        begin = time.perf_counter()
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        subprocess.run(command, cwd=folder, env=environment, check=True, stdout=subprocess.DEVNULL)
        wall = time.perf_counter() - begin
        facts = [
            json.loads(path.read_text())
            for path in Path(folder).glob("out/points/*/environment.json")
        ]
    assert len(facts) == points
    taken = sum(fact["wall_s"] for fact in facts)
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = used.ru_utime + used.ru_stime
    print(f"sweep of {points} points, {jobs} jobs: {wall:.1f} s from start to end of the command")
    print(f"efficiency: {points * alone / (jobs * wall):.1%} of {jobs} undisturbed cores")
    print(f"of CPU seconds: {points * cpu / spent:.1%} of {spent:.1f} s of all its processes")
    print(f"workers had a point: {taken / (jobs * wall):.1%} of the time")
    print(f"largest process: {used.ru_maxrss / 1024:.0f} MiB; load after: {os.getloadavg()[0]:.2f}")


if __name__ == "__main__":
    main()
