"""`python -m kernels`: builds, checks and times the kernels and a decode step; reports."""

from __future__ import annotations

import argparse
import importlib
import sys
import time
import traceback
from typing import Any

import numpy as np

from .bench_command import add_bench, run_bench
from .build import ARCHITECTURES, BuildError, folders, resources
from .decoder.command import add_decode, run_decode
from .fit.samples import SamplesError
from .report.command import add_report, run_report
from .report.decoder_command import add_report_decoder, run_report_decoder
from .serve.command import add_serve, run_serve


def main() -> int:
    """Runs the command line; 0 done, 1 a kernel is wrong, 2 the arguments or the machine are."""
    parser = argparse.ArgumentParser("python -m kernels", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    listing = commands.add_parser("list", help="kernels with registers and shared memory")
    listing.add_argument("--arch", default="sm_90", choices=ARCHITECTURES)
    check = commands.add_parser("check", help="compare every kernel with its reference")
    check.add_argument("folders", nargs="*", help="default: all")
    check.add_argument("--cpu", action="store_true", help="small cases on the CPU, without a GPU")
    check.add_argument("--seed", type=int, help="default: from the clock, and printed")
    add_bench(commands)
    add_report(commands)
    add_decode(commands)
    add_report_decoder(commands)
    add_serve(commands)
    arguments = parser.parse_args()
    try:
        if arguments.command == "list":
            return list_kernels(arguments.arch)
        if arguments.command == "bench":
            return run_bench(arguments)
        if arguments.command == "report":
            return run_report(arguments)
        if arguments.command == "decode":
            return run_decode(arguments)
        if arguments.command == "report-decoder":
            return run_report_decoder(arguments)
        if arguments.command == "serve":
            return run_serve(arguments)
        return check_kernels(arguments.folders, arguments.cpu, arguments.seed)
    except (BuildError, SamplesError) as error:
        print(error, file=sys.stderr)
        return 2


def list_kernels(arch: str) -> int:
    """Prints what the assembler says of each kernel."""
    print(f"{'kernel':40s} {'registers':>9s} {'shared':>8s} {'stack':>6s} {'spills':>6s}   {arch}")
    for folder in folders():
        for name, found in resources(folder, arch).items():
            print(
                f"{folder + '.' + name:40s} {found.registers:9d} {found.shared_bytes:8d} "
                f"{found.stack_bytes:6d} {found.spill_bytes:6d}"
            )
    return 0


def check_kernels(names: list[str], cpu: bool, seed: int | None) -> int:
    """Prints one line a case; 1 if any case fails."""
    from .backend import Cpu, Gpu

    backend: Any = Cpu() if cpu else Gpu()
    seed = time.time_ns() % 2**32 if seed is None else seed
    print(f"seed {seed}")
    failed = 0
    for folder in names or folders():
        module = importlib.import_module(f".{folder}.check", __package__)
        start, worst, count = time.perf_counter(), 0.0, 0
        for index, case in enumerate(module.cases(cpu)):
            try:
                error = module.check(backend, case, np.random.default_rng([seed, index]))
                worst, count = max(worst, error), count + 1
            except Exception:
                failed += 1
                print(f"FAILED {folder} {case}", file=sys.stderr)
                traceback.print_exc(limit=-3)
        elapsed = time.perf_counter() - start
        print(f"{folder:20s} {count:4d} cases, largest error {worst:.2e}, {elapsed:.1f} s")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
