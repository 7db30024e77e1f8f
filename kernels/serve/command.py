"""Options of `python -m kernels serve`: a trace, or the calibration grid, on one GPU."""

from __future__ import annotations

import gc
import shutil
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..fit.samples import SamplesError
from .trace_file import MOST_TOKENS, Cut, read_trace

if TYPE_CHECKING:
    import argparse

    from ..backend import Gpu
    from .engine import Engine

MODES = ("host-python", "host-c", "graph", "control", "resident")
KERNELS = ("library", "fused")
ROOT = Path(__file__).parents[2]
LEAD_S = 0.05
PROGRESS_S = 2.0


def add_serve(commands: Any) -> None:
    """Adds the command `serve` to the parser's *commands*."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "serve",
        help="serve a trace on the GPU with a small real engine, or calibrate it",
        description="Replays a trace's arrivals in real time against a Llama-shaped model with "
        "random weights: output lengths come from the trace, and time alone is measured.",
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--trace", type=Path, metavar="FILE", help="Azure CSV, Mooncake JSONL, or "
                      "arrival_s, prompt_tokens, output_tokens as CSV or JSONL")  # fmt: skip
    what.add_argument("--calibrate", action="store_true", help="run the grid of step compositions")
    parser.add_argument("--mode", choices=MODES, required=True)
    parser.add_argument("--kernels", choices=KERNELS, default="library")
    parser.add_argument("--model", choices=("1b", "8b"), default="1b")
    parser.add_argument("--out", type=Path, required=True, metavar="PATH",
                        help="folder of the run, or with --calibrate the step log")  # fmt: skip
    trace = parser.add_argument_group("trace")
    trace.add_argument("--requests", type=int, metavar="N", help="of the window at most")
    trace.add_argument("--rate-scale", type=float, default=1.0, metavar="X")
    trace.add_argument("--begin", type=float, default=0.0, metavar="S",
                       help="window in seconds of the trace")  # fmt: skip
    trace.add_argument("--end", type=float, default=float("inf"), metavar="S")
    trace.add_argument("--clip-prompt", type=int, metavar="N")
    trace.add_argument("--clip-output", type=int, metavar="N")
    engine = parser.add_argument_group("engine")
    engine.add_argument("--max-batch", type=int, metavar="N", help="default: what the kernels take")
    engine.add_argument("--token-budget", type=int, default=2048, metavar="N")
    engine.add_argument("--max-context", type=int, default=8192, metavar="N")
    engine.add_argument("--kv-blocks", type=int, metavar="N",
                        help="of 16 tokens; default: every slot at its longest")  # fmt: skip
    engine.add_argument("--preemption", choices=("recompute", "swap"), default="recompute")
    engine.add_argument("--swap-gib", type=float, default=4.0, metavar="X")
    engine.add_argument("--budget-tokens", type=int, default=0, metavar="N",
                        help="attend to so many selected tokens; default: to all")  # fmt: skip
    engine.add_argument("--tokens", type=int, default=1, metavar="T",
                        help="new tokens a step: 1 and the drafts")  # fmt: skip
    engine.add_argument("--acceptance", type=float, default=0.7, metavar="P",
                        help="of each draft if those before it are accepted")  # fmt: skip
    engine.add_argument("--timed-every", type=int, default=8, metavar="N",
                        help="take the GPU's time of every Nth step; 0: of none")  # fmt: skip
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--commit", help="of the code, for the record; default: git's")


def run_serve(arguments: argparse.Namespace) -> int:
    """Serves or calibrates; 0, or raises `SamplesError`, one line, for faulty arguments."""
    from ..decoder.command import a_gpu

    _check(arguments)
    rows = None
    if arguments.trace:
        window = (arguments.begin, arguments.end, arguments.requests, arguments.rate_scale)
        rows = read_trace(
            arguments.trace, Cut(*window, arguments.clip_prompt, arguments.clip_output)
        )
    gpu = a_gpu("serve")
    from .build_engine import open_engine

    with open_engine(gpu, arguments, rows) as (engine, header):
        header["commit"] = arguments.commit or header["commit"]
        gc.collect()
        gc.freeze()
        gc.disable()
        if arguments.calibrate:
            return _calibrate(gpu, engine, header, arguments.out)
        return _serve(gpu, engine, header, arguments)


def _check(arguments: argparse.Namespace) -> None:
    given = vars(arguments)
    for name, low, high in (
        ("requests", 1, 1 << 24), ("clip_prompt", 1, MOST_TOKENS), ("clip_output", 1, MOST_TOKENS),
        ("max_batch", 1, 64), ("token_budget", 1, 1 << 15), ("max_context", 64, 1 << 17),
        ("kv_blocks", 1, 1 << 24), ("tokens", 1, 8), ("timed_every", 0, 1 << 20),
    ):  # fmt: skip
        if given[name] is not None and not low <= given[name] <= high:
            option = name.replace("_", "-")
            raise SamplesError(f"--{option} {given[name]}: expected {low} to {high:,}")
    for name, low_, high_ in (("rate_scale", 1e-6, 1e6), ("acceptance", 0.0, 1.0)):
        if not low_ <= given[name] <= high_:
            raise SamplesError(f"--{name.replace('_', '-')} {given[name]}: {low_:g} to {high_:g}")
    if arguments.mode == "resident" and arguments.kernels != "fused":
        raise SamplesError("--mode resident runs the fused kernels only: add --kernels fused")
    if arguments.budget_tokens % 16:
        raise SamplesError(f"--budget-tokens {arguments.budget_tokens}: whole pages of 16")
    if arguments.out.exists():
        raise SamplesError(f"{arguments.out}: exists")


def _serve(gpu: Gpu, engine: Engine, header: dict[str, Any], arguments: Any) -> int:
    from ..machine import Clocks
    from .calibrate import warm_up
    from .measured import line, write

    waiting, engine.requests = engine.requests, ()
    warm_up(engine)
    engine.requests = waiting
    shown = _Progress(len(engine.requests))
    header["sm_mhz_before"] = Clocks(gpu).now()
    engine.clock = type(engine.clock)(LEAD_S)  # type: ignore[call-arg]
    engine.device.clock = engine.clock  # type: ignore[attr-defined]
    engine.run(shown)
    header["sm_mhz_after"] = Clocks(gpu).now()
    _check_end(engine)
    draft = arguments.out.with_name(f".{arguments.out.name}.part")
    shutil.rmtree(draft, ignore_errors=True)
    found = write(draft, engine, header)
    draft.rename(arguments.out)
    shown.end()
    print(line(arguments.mode, arguments.kernels, found))
    return 0


def _calibrate(gpu: Gpu, engine: Engine, header: dict[str, Any], out: Path) -> int:
    from ..machine import Clocks
    from .calibrate import Calibration, arrivals, points, warm_up
    from .engine import ResidentEngine
    from .records import write_steps

    begin = time.perf_counter()
    warm_up(engine)
    header["sm_mhz_before"] = Clocks(gpu).now()
    run, skipped = Calibration(engine).run(points(engine.scheduler.max_batch))
    if isinstance(engine, ResidentEngine):
        engine.requests = arrivals(engine.clock.now() + LEAD_S)
        while engine.turn():
            pass
    header["sm_mhz_after"] = Clocks(gpu).now()
    _check_end(engine)
    header |= {"points": run, "points_that_did_not_fit": skipped}
    out.parent.mkdir(parents=True, exist_ok=True)
    write_steps(out, header, engine.steps, composition=False)
    print(
        f"calibrated {header['model']} {header['kernels']} {header['mode']}: {run} points, "
        f"{len(engine.steps)} steps in {time.perf_counter() - begin:.1f} s, "
        f"{out.stat().st_size / 1e3:.0f} kB"
    )
    return 0


def _check_end(engine: Engine) -> None:
    """Raises `AssertionError` if a page or a block is missing."""
    device: Any = engine.device
    device.settle()
    device.check()
    if engine.scheduler.account.used:
        raise AssertionError(f"{engine.scheduler.account.used} blocks are still taken")


class _Progress:
    """One line on a terminal, rewritten every few seconds."""

    def __init__(self, requests: int) -> None:
        self.requests, self.next = requests, PROGRESS_S
        self.shown = sys.stderr.isatty()

    def __call__(self, engine: Engine) -> None:
        if self.shown and len(engine.steps) % 64 == 0 and (now := engine.clock.now()) > self.next:
            self.next = now + PROGRESS_S
            text = f"\r{now:7.1f} s  {engine.arrived} of {self.requests} arrived, "
            text += f"{len(engine.scheduler.ended)} served, {len(engine.steps)} steps "
            print(text, end="", file=sys.stderr, flush=True)

    def end(self) -> None:
        if self.shown:
            print("\r" + " " * 70 + "\r", end="", file=sys.stderr)


def prompts_of(requests: list[Any], vocabulary: int, seed: int) -> dict[int, Any]:
    """Random prompts by request id, int32."""
    rng = np.random.default_rng(seed)
    return {
        one.id: rng.integers(0, vocabulary, one.prompt_tokens).astype(np.int32) for one in requests
    }


def asked_of(arguments: Any) -> dict[str, Any]:
    """What a step's length or its schedule hangs on, beside the sizes: always in a header."""
    drafts = arguments.tokens > 1
    return {
        "token_budget": arguments.token_budget,
        "max_context": arguments.max_context,
        "preemption": arguments.preemption,
        "budget_tokens": arguments.budget_tokens,
        "tokens": arguments.tokens,
        "acceptance": arguments.acceptance if drafts else None,
        "timed_every": arguments.timed_every,
        "seed": arguments.seed,
    }


def settings(arguments: Any) -> list[str]:
    """The options as a header keeps them; as words, lest one be taken for a column of the log."""
    return [
        f"{name}={value.name if isinstance(value, Path) else value}"
        for name, value in vars(arguments).items()
        if name != "command" and value not in (None, float("inf"))
    ]
