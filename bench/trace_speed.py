"""How fast a large trace is read, inspected and converted: `python bench/trace_speed.py`.

Makes a Mooncake file of a million requests with prefix block ids (about 260 MB) in a temporary
folder, or takes --trace FILE, and runs each command as a process of its own on one core and one
thread: wall seconds, processor seconds and peak memory are the process's, from start to end.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
COMMAND = "from sim.cli import main; main()"
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "ARROW_IO_THREADS")
ONE_THREAD = dict.fromkeys(THREADS, "1")


def timed(name: str, *arguments: object, core: int | None) -> tuple[float, float]:
    """Runs `residentsim trace` with *arguments* on one *core*; prints and returns the seconds."""
    words = [sys.executable, "-c", COMMAND, "trace", *map(str, arguments)]
    begin = time.perf_counter()
    child = subprocess.Popen(
        words, cwd=ROOT, env={**os.environ, **ONE_THREAD}, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True,
        preexec_fn=None if core is None else lambda: os.sched_setaffinity(0, {core}),
    )  # fmt: skip
    assert child.stdout is not None
    said = child.stdout.read()
    _, status, usage = os.wait4(child.pid, 0)
    wall_s = time.perf_counter() - begin
    if os.waitstatus_to_exitcode(status):
        sys.exit(f"{name}: failed\n{said}")
    cpu_s = usage.ru_utime + usage.ru_stime
    print(f"{name:24} {wall_s:8.2f} {cpu_s:8.2f} {usage.ru_maxrss / 1024:8.0f}", flush=True)
    return wall_s, cpu_s


def main() -> None:
    """Prints a line a command, and the sum."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trace", type=Path, help="a file to take in place of a generated one")
    parser.add_argument("--requests", type=int, default=1_000_000)
    parser.add_argument("--source", default="mooncake-conversation-like")
    parser.add_argument("--core", type=int, help="the core to run on; any if not given")
    options = parser.parse_args()
    core = options.core
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        print(f"{'command':24} {'wall s':>8} {'cpu s':>8} {'peak MiB':>8}")
        trace = options.trace
        if trace is None:
            trace = folder / "trace.jsonl"
            arguments = ("generate", options.source, "--requests", options.requests)
            timed("generate", *arguments, "--out", trace, core=core)
        print(f"-- {trace.stat().st_size / 1e6:,.0f} MB", flush=True)
        runs = [timed("inspect", "inspect", trace, core=core)]
        for target in ("parquet", "mooncake", "vidur"):
            out = folder / f"out.{target}"
            arguments = ("convert", trace, out, "--to", target)
            runs.append(timed(f"convert to {target}", *arguments, core=core))
        wall_s, cpu_s = (sum(column) for column in zip(*runs[:3], strict=True))
        print(f"{'inspect + two converts':24} {wall_s:8.2f} {cpu_s:8.2f}")
        timed("inspect the Parquet", "inspect", folder / "out.parquet", core=core)
        same = (folder / "out.mooncake").read_bytes() == trace.read_bytes()
        print(f"-- mooncake to mooncake gives {'the same bytes' if same else 'other bytes'}")


if __name__ == "__main__":
    main()
