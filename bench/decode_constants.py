"""What entering and leaving a loop on the device costs, measured on the real decoder; needs a GPU.

    python bench/decode_constants.py --steps FILE [--batches 1 8] [--context 1024] [--rounds 20]

Appends lines of kind `constant` to a file of decode steps: for each loop and batch

- `relaunch`: from the launch call to the first step's tokens on the host, less a step in the middle
  of the same run;
- `exit`: from the last step's tokens on the host to the loop's status word;
- `exit_to_idle`: from there on until a Python host has synchronised with the GPU.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from kernels.backend import Gpu  # noqa: E402
from kernels.decoder.library import LibraryStep  # noqa: E402
from kernels.decoder.modes import PATIENCE_S, make_mode, on_stream  # noqa: E402
from kernels.decoder.shape import SHAPES  # noqa: E402
from kernels.decoder.state import DecoderState  # noqa: E402
from kernels.decoder.weights import Weights  # noqa: E402
from kernels.loop_control.host_c import read_outputs  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Iterator

LOOPS = (("library", "control"), ("fused", "control"), ("fused", "resident"))
STEPS, LIMIT_S = 8, 2.0


def main() -> int:
    """0 done, 1 a loop failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=Path, required=True, metavar="FILE")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--context", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--loops", nargs="+", default=["/".join(loop) for loop in LOOPS])
    arguments = parser.parse_args()
    gpu, failed = Gpu(), 0
    weights = Weights(gpu, SHAPES["1b"])
    model: Any = None
    for kernels, mode in LOOPS:
        if f"{kernels}/{mode}" not in arguments.loops:
            continue
        for batch in arguments.batches:
            state = DecoderState(gpu, weights.shape, batch, text_size=arguments.context + 1024)
            state.fill([arguments.context] * batch, [1 << 20] * batch, np.random.default_rng(1))
            try:
                if kernels == "fused":
                    from kernels.fused_step.launch import FusedStep, Model

                    model = model or Model(gpu, weights)
                    step: Any = FusedStep(gpu, model, state)
                else:
                    step = LibraryStep(gpu, weights, state)
                times = measure(step, mode, arguments.rounds)
            except Exception as error:
                print(f"{kernels}/{mode} {batch}: {type(error).__name__}: {error}", file=sys.stderr)
                failed = 1
                if "CUDA" in type(error).__name__:
                    return 1
                continue
            with arguments.steps.open("a") as file:
                for record in records(times, kernels, mode, batch, arguments.context):
                    file.write(json.dumps(record) + "\n")
                    middle = statistics.median(record["seconds"]) * 1e6
                    print(f"{kernels}/{mode} batch {batch} {record['name']} {middle:.2f} us")
    return failed


def measure(step: Any, mode_name: str, rounds: int) -> dict[str, list[float]]:
    """Seconds of entering and leaving the loop called *mode_name* over *step*."""
    mode = make_mode(step, mode_name)
    found: dict[str, list[float]] = {"relaunch": [], "exit": [], "exit_to_idle": []}
    for turn in range(rounds + 2):
        step.backend.synchronize()
        begin = time.perf_counter()
        with on_stream(mode.stream):
            (mode.launch if mode_name == "control" else mode.loop.launch)(STEPS)
        called = time.perf_counter()
        seconds = read_outputs(mode.mailbox, STEPS, patience_s=PATIENCE_S)[0]
        sent = time.perf_counter()
        while not mode.mailbox.status[0] and time.perf_counter() - sent < LIMIT_S:
            pass
        left = time.perf_counter()
        mode.stream.synchronize()
        idle = time.perf_counter()
        if turn < 2:
            continue
        usual = statistics.median(float(one) for one in seconds[2:])
        found["relaunch"].append(called - begin + float(seconds[0]) - usual)
        found["exit"].append(left - sent)
        found["exit_to_idle"].append(idle - left)
    mode.close()
    return found


def records(
    times: dict[str, list[float]], kernels: str, mode: str, batch: int, context: int
) -> Iterator[dict[str, Any]]:
    """Lines for a file of steps."""
    for name, seconds in times.items():
        yield {
            "kind": "constant", "name": name, "model": "1b", "kernels": kernels, "mode": mode,
            "batch": batch, "context": context, "seconds": [round(one, 9) for one in seconds],
        }  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
