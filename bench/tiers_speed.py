"""How fast runs with KV in HBM, DRAM and on SSD are: `python bench/tiers_speed.py [--trace FILE]`.

FILE is the Mooncake conversation trace (12,031 requests, prompts with ids of 512-token blocks);
without it, as many generated requests with the statistics of that trace, and four times as many to
see what memory follows. Each row is a process of its own, from start to written results. `cpu s` is
the time of all its threads, which is what it would take on one core that nothing else uses.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
REQUESTS = 12_031
HARDWARE = {"dram": {"capacity": "256 GiB"}, "ssd": {"capacity": "4 TiB"}}
HARD = {"write_back": "eager", "prefetch": "lookahead", "preemption": "swap"}
CASES = {
    "HBM alone": {},
    "all tiers, defaults": {"hardware": HARDWARE},
    "all tiers, eager, lookahead, swap": {"hardware": HARDWARE, "kv": HARD},
    "the same, cost_aware eviction": {
        "hardware": HARDWARE,
        "kv": HARD | {"eviction": "cost_aware"},
    },
}
HEADER = (
    f"{'setting':34} {'engine':6} {'requests':>8} {'wall s':>7} {'cpu s':>7} {'req/s':>6} "
    f"{'req/cpu s':>9} {'hit rate':>8} {'MiB':>5} {'ev/req':>6}"
)
CHILD = """
import json, resource, sys, time
from pathlib import Path
from sim.scenario import Scenario
from sim.simulate import run
data, folder, engine = json.loads(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
summary = run(Scenario.model_validate(data), folder, engine)
usage = resource.getrusage(resource.RUSAGE_SELF)
print(json.dumps({
    "requests": summary["requests_in"],
    "hit_rate": summary["kv_prefix_hit_rate"],
    "events": json.loads((folder / "environment.json").read_text())["simpy_events"],
    "peak_mib": usage.ru_maxrss / 1024,
    "cpu_s": time.process_time(),
}))
"""


def once(scenario: dict, engine: str) -> dict:
    """What a run of *scenario* in a process of its own says, and how long that took."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-c", CHILD, json.dumps(scenario), folder, engine]
        begin = time.perf_counter()
        child = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        wall = time.perf_counter() - begin
    if child.returncode:
        sys.exit(f"failed\n{child.stderr}")
    return json.loads(child.stdout) | {"wall_s": wall}


def measure(name: str, scenario: dict, engine: str, repeat: int) -> None:
    """Prints the best of *repeat* runs of *scenario*: least wall and least CPU time."""
    runs = [once(scenario, engine) for _ in range(repeat)]
    facts, wall, cpu = runs[0], min(r["wall_s"] for r in runs), min(r["cpu_s"] for r in runs)
    requests = facts["requests"]
    print(
        f"{name:34} {engine:6} {requests:8,} {wall:7.2f} {cpu:7.2f} {requests / wall:6,.0f} "
        f"{requests / cpu:9,.0f} {facts['hit_rate']:8.4f} {facts['peak_mib']:5.0f} "
        f"{facts['events'] / requests:6.2f}",
        flush=True,
    )


def main() -> None:
    """Runs the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--trace", type=Path, help="the Mooncake conversation trace, as JSON lines")
    parser.add_argument("--engine", choices=("leap", "step"), default="leap")
    parser.add_argument("--repeat", type=int, default=3, help="runs a row; the best counts")
    options = parser.parse_args()
    if options.trace is not None:
        traces = [{"file": str(options.trace.resolve())}]
    else:
        source = {"source": "mooncake-conversation-like"}
        traces = [source | {"requests": count} for count in (REQUESTS, 4 * REQUESTS)]
    print(HEADER)
    for trace in traces:
        for name, case in CASES.items():
            scenario = {"trace": trace, "model": "llama-3.1-8b", **case}
            measure(name, scenario, options.engine, options.repeat)


if __name__ == "__main__":
    main()
