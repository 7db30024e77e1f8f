"""How fast and how large: `python bench/speed.py [--trace FILE] [--million] [--repeat N]`.

Each row is a process of its own, from start to written results, so that imports, reading and
writing count and peak memory is the row's. Without --trace, only generated requests are run. As
a yardstick for the machine, the first line is SimPy's own speed: timeouts of one process a second.
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
HEADER = (
    f"{'case':44} {'engine':6} {'wall s':>7} {'requests/s':>10} {'out tok/s':>10} "
    f"{'iter/s':>9} {'ev/req':>6} {'MiB':>6}"
)
CHILD = """
import json, resource, sys
from pathlib import Path
from sim.scenario import Scenario
from sim.simulate import run
data, folder, engine = json.loads(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
summary = run(Scenario.model_validate(data), folder, engine)
facts = {key: summary[key] for key in ("requests_in", "tokens_committed", "loop_iterations")}
facts["peak_kib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
facts["events"] = json.loads((folder / "environment.json").read_text())["simpy_events"]
print(json.dumps(facts))
"""


def simpy_rate() -> float:
    """Timeouts a second of one SimPy process: what a core of this machine is worth."""
    import simpy

    def ticks(env: simpy.Environment):
        while True:
            yield env.timeout(1)

    rates = []
    for _ in range(3):
        env = simpy.Environment()
        env.process(ticks(env))
        begin = time.perf_counter()
        env.run(until=200_000)
        rates.append(200_000 / (time.perf_counter() - begin))
    return max(rates)


def measure(name: str, scenario: dict, engine: str, repeat: int) -> None:
    """Prints the fastest of *repeat* runs of *scenario*."""
    best, facts = float("inf"), {}
    for _ in range(repeat):
        with tempfile.TemporaryDirectory() as folder:
            begin = time.perf_counter()
            command = [sys.executable, "-c", CHILD, json.dumps(scenario), folder, engine]
            child = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
            wall = time.perf_counter() - begin
        if child.returncode:
            sys.exit(f"{name}: failed\n{child.stderr}")
        if wall < best:
            best, facts = wall, json.loads(child.stdout)
    requests = facts["requests_in"]
    print(
        f"{name:44} {engine:6} {best:7.2f} {requests / best:10,.0f} "
        f"{facts['tokens_committed'] / best:10,.0f} {facts['loop_iterations'] / best:9,.0f} "
        f"{facts['events'] / requests:6.2f} {facts['peak_kib'] / 1024:6.0f}",
        flush=True,
    )


def case(trace: dict, batch: int = 256, mode: str = "graph") -> dict:
    """A scenario of llama-3.1-8b on one H200."""
    return {"trace": trace, "model": "llama-3.1-8b", "loop": {"max_batch": batch, "mode": mode}}


def main() -> None:
    """Runs the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--trace", type=Path, help="the Azure 2023 conversation trace, as CSV")
    parser.add_argument("--million", action="store_true", help="also a million requests")
    parser.add_argument("--repeat", type=int, default=3, help="runs a row; the fastest counts")
    options = parser.parse_args()
    print(f"SimPy alone: {simpy_rate() / 1e6:.2f} million timeouts/s on this machine\n{HEADER}")
    for requests in (1_000, 10_000, 100_000):
        trace = {"source": "azure-conv-like", "requests": requests, "rate_scale": 3.0}
        for engine in ("leap", "step"):
            repeat = options.repeat if requests < 100_000 else 1
            measure(f"azure-conv-like x3, {requests:,}", case(trace), engine, repeat)
    synthetic = {
        "source": "synthetic", "requests": 20_000, "rate": "6 /s", "prompt_tokens": 1024,
        "output_tokens": 256,
    }  # fmt: skip
    measure("Poisson 6/s, 1024 in, 256 out, 20,000", case(synthetic), "leap", options.repeat)
    if options.trace is not None:
        for scale in (1.0, 3.0):
            for batch in (64, 256):
                trace = {"file": str(options.trace.resolve()), "rate_scale": scale}
                name = f"Azure conv 2023 x{scale:g}, max batch {batch}"
                measure(name, case(trace, batch), "leap", options.repeat)
        for mode in ("host", "resident"):
            trace = {"file": str(options.trace.resolve()), "rate_scale": 3.0}
            measure(f"Azure conv 2023 x3, {mode} loop", case(trace, 64, mode), "leap", 1)
    if options.million:
        trace = {"source": "azure-conv-like", "requests": 1_000_000, "rate_scale": 3.0}
        measure("azure-conv-like x3, 1,000,000", case(trace), "leap", 1)


if __name__ == "__main__":
    main()
