"""How fast `residentsim report` is: `python bench/report_speed.py [--points N] [--keep FOLDER]`.

Makes a study of N small runs (loops, rates and batches, 120 requests each) and times its report in
a process of its own, from start to the page and all figures. `cpu s` is the time of all its
threads, which is what it would take on one core that nothing else uses.
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
sys.path.insert(0, str(ROOT))
STUDY = """# How do loops compare over rates and batches?
trace: {{source: synthetic, requests: 120, rate: 20 /s, prompt_tokens: 256,
  output_tokens: {{exponential: 60, cap: 600}}}}
model: llama-3.2-1b
slo: {{ttft: 100 ms, tpot: 5 ms}}
sweep:
  loop.mode: [host, graph, control, resident]
  loop.max_batch: [4, 8, 16, 32, 64]
  trace.rate_scale: {rates}
"""
CHILD = """
import json, resource, sys, time
from pathlib import Path
from sim.report.write import write_report
folder = Path(sys.argv[1])
files = write_report(folder, folder / "report.html", folder / "figures")
print(json.dumps({
    "cpu_s": time.process_time(),
    "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    "page_kib": files[0].stat().st_size / 1024,
    "figures": len(files) - 1,
}))
"""


def build(folder: Path, points: int) -> int:
    """Runs the study into *folder*; returns how many points it has."""
    from sim.study import load_study
    from sim.sweeping import run_study

    rates = [round(0.5 + 0.1 * number, 1) for number in range(max(1, points // 20))]
    (folder / "study.yaml").write_text(STUDY.format(rates=rates))
    study = load_study(folder / "study.yaml")
    run_study(study, folder / "out", quiet=True)
    return len(study.points)


def timed(folder: Path) -> dict[str, float]:
    """What a report of *folder* in a process of its own says, and how long that took."""
    begin = time.perf_counter()
    child = subprocess.run(
        [sys.executable, "-c", CHILD, str(folder)], cwd=ROOT, capture_output=True, text=True,
        check=True,
    )  # fmt: skip
    wall = time.perf_counter() - begin
    return json.loads(child.stdout.splitlines()[-1]) | {"wall_s": wall}


def main() -> None:
    """Prints a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--points", type=int, default=500)
    parser.add_argument("--keep", type=Path, help="Build the study here and leave it.")
    chosen = parser.parse_args()
    print(f"{'points':>6} {'build s':>8} {'wall s':>7} {'cpu s':>6} {'MiB':>5} {'page KiB':>8}"
          f" {'figures':>7}")  # fmt: skip
    with tempfile.TemporaryDirectory() as temporary:
        folder = chosen.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        begin = time.perf_counter()
        points = build(folder, chosen.points)
        built = time.perf_counter() - begin
        row = timed(folder / "out")
        print(f"{points:>6} {built:>8.1f} {row['wall_s']:>7.1f} {row['cpu_s']:>6.1f}"
              f" {row['peak_mib']:>5.0f} {row['page_kib']:>8.0f}"
              f" {row['figures']:>7.0f}")  # fmt: skip


if __name__ == "__main__":
    main()
