"""Options of `python -m kernels decode`: one kind of step on the GPU, and its account."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..fit.samples import SamplesError
from .bench_points import Point
from .shape import SHAPES

if TYPE_CHECKING:
    import argparse

    from ..backend import Gpu
    from .account import Ceiling
    from .modes import Step
    from .timeline import Spans

MODES = ("host-python", "host-c", "graph", "control", "resident")
KERNELS = ("library", "fused")
HOSTS = ("host-python", "host-c")
"""Modes whose host submits kernel by kernel."""
ROOT, SHIPPED = Path(__file__).parents[2], "profiles/nvidia-h200.json"
PROFILE = ROOT / "sim" / SHIPPED if (ROOT / "sim").is_dir() else ROOT / SHIPPED
"""Beside this package in a checkout, around it in an installed `sim`."""
BATCHES, MOST_TOKENS, MOST_STEPS, PAGE_TOKENS = 64, 8, 1000, 16
WARM, SKIPPED, LEAST_STEPS = 10, 3, 5
ROOM = 512
"""Tokens that a request may grow by besides the timed steps: warm-up, stages, stamps."""
STAMPED_RUNS = 9
"""Runs whose last step is stamped; it is the step in the middle of the timed ones."""
CLOCKED_S, MOST_CLOCKED = 0.25, 300
"""How long, and for how many steps at most, the loop runs to tell its clock."""


def add_decode(commands: Any) -> None:
    """Adds the command `decode` to the parser's *commands*."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "decode",
        help="run one kind of decode step on the GPU and print its account",
        description="A Llama-shaped model with random weights. Prints the wall time of a step as "
        "its host sees it, GPU time and bytes by stage, barriers and control, and what is not "
        "accounted for.",
    )
    parser.add_argument("--mode", choices=MODES, required=True)
    parser.add_argument("--kernels", choices=KERNELS, required=True)
    parser.add_argument("--model", choices=("1b", "8b"), default="1b")
    parser.add_argument("--batch", type=int, default=1, metavar="N", help="requests, 1 to 64")
    parser.add_argument("--context", type=int, default=1024, metavar="L",
                        help="committed tokens of each request")  # fmt: skip
    parser.add_argument("--tokens", type=int, default=1, metavar="T",
                        help="new tokens a request: 1 and the drafts, at most 8")  # fmt: skip
    parser.add_argument("--budget-tokens", type=int, default=0, metavar="N",
                        help="attend to so many selected tokens; default: to all")  # fmt: skip
    parser.add_argument("--weights", choices=("bf16", "w4a16"), default="bf16")
    parser.add_argument("--kv", choices=("bf16", "int8"), default="bf16")
    parser.add_argument("--steps", type=int, default=60, metavar="N", help="steps to time")
    parser.add_argument("--commit", help="of the code, for the record; default: git's")
    parser.add_argument("--seed", type=int, default=1, help="of weights, caches and tokens")
    parser.add_argument("--profile", type=Path, default=PROFILE, metavar="FILE",
                        help="for the read ceiling and the costs of control")  # fmt: skip
    parser.add_argument("--out", type=Path, metavar="FILE", help="the record and account as JSON")
    parser.add_argument("--timeline", type=Path, metavar="FILE",
                        help="a resident step for ui.perfetto.dev (JSON)")  # fmt: skip


def run_decode(arguments: argparse.Namespace) -> int:
    """Prints the account; 0, or raises `SamplesError`, one line, if the arguments are at fault."""
    from .account import account
    from .account_text import plain, text

    point = point_of(arguments)
    ceiling = ceiling_of(arguments.profile)
    gpu = a_gpu()
    try:
        record, whole = measure(gpu, point, arguments.steps, arguments.seed)
        record["sha"] = arguments.commit or record["sha"]
    except ValueError as error:
        raise SamplesError(f"decode: {str(error)[:200]}") from None
    found = account(record, ceiling)
    print(text(found))
    if arguments.out:
        _save(arguments.out, json.dumps(plain(found)) + "\n")
    if arguments.timeline and whole is not None:
        from .timeline import trace, write

        try:
            write(trace(whole, timeline_facts(record)), arguments.timeline)
        except OSError as error:
            raise SamplesError(f"{arguments.timeline}: {error.strerror}") from None
    return 0


def timeline_facts(record: dict[str, Any]) -> dict[str, Any]:
    """What a timeline says of its step."""
    names = ("model", "weights", "kv", "kernels", "mode", "batch", "tokens", "context",
             "budget_tokens", "sha", "sm_mhz")  # fmt: skip
    return {name: record[name] for name in names}


def _save(path: Path, words: str) -> None:
    try:
        path.write_text(words, encoding="utf-8")
    except OSError as error:
        raise SamplesError(f"{path}: {error.strerror}") from None


# ------------------------------------------------------------------------------ arguments
def point_of(arguments: argparse.Namespace) -> Point:
    """The point that the options name; raises `SamplesError` for what cannot be run."""
    given = vars(arguments)
    for name, low, high in (
        ("batch", 1, BATCHES), ("tokens", 1, MOST_TOKENS), ("context", 1, 1 << 20),
        ("budget_tokens", 0, 1 << 20), ("steps", LEAST_STEPS, MOST_STEPS),
    ):  # fmt: skip
        if not low <= given[name] <= high:
            option = name.replace("_", "-")
            raise SamplesError(f"--{option} {given[name]}: expected {low} to {high:,}")
    names = ("model", "weights", "kv", "kernels", "mode", "batch", "tokens", "context",
             "budget_tokens")  # fmt: skip
    point = Point(**{name: given[name] for name in names}, page_tokens=PAGE_TOKENS)
    if point.mode == "resident" and point.kernels != "fused":
        raise SamplesError("--mode resident runs the fused kernels only: add --kernels fused")
    if arguments.timeline and point.mode != "resident":
        raise SamplesError("--timeline needs --mode resident: only that kernel writes stamps")
    if point.budget_tokens % PAGE_TOKENS or point.budget_tokens >= max(point.context, 1):
        raise SamplesError(
            f"--budget-tokens {point.budget_tokens}: expected whole pages of {PAGE_TOKENS} and "
            f"fewer than the context's {point.context:,}"
        )
    if point.kernels == "fused" and (point.weights, point.kv) != ("bf16", "bf16"):
        raise SamplesError("--kernels fused has bf16 weights and bf16 KV only")
    if not point.possible:
        raise SamplesError(
            f"--batch {point.batch} --tokens {point.tokens} --context {point.context}: more rows "
            f"than {point.kernels} kernels take with {point.weights} weights, or more KV than fits"
        )
    return point


def ceiling_of(profile: Path) -> Ceiling:
    """The profile's read ceiling; an earlier run's where the shipped profile is not there."""
    from .account import read_ceiling

    try:
        return read_ceiling(profile if profile != PROFILE or profile.exists() else None)
    except OSError as error:
        raise SamplesError(f"{profile}: {error.strerror}; give a profile") from None
    except ValueError as error:
        raise SamplesError(f"{profile}: {str(error)[:160]}") from None


def a_gpu(command: str = "decode") -> Gpu:
    """The current device for *command*; raises `SamplesError` where there is none."""
    try:
        from ..backend import Gpu

        return Gpu()
    except ImportError as error:
        raise SamplesError(f"{command} needs an NVIDIA GPU and CuPy: {error}") from None
    except Exception as error:
        if "CUDA" not in type(error).__name__:
            raise
        raise SamplesError(f"{command} needs an NVIDIA GPU: {str(error)[:160]}") from None


# ------------------------------------------------------------------------------ measuring
def measure(gpu: Gpu, point: Point, steps: int, seed: int) -> tuple[dict[str, Any], Spans | None]:
    """The record of *point*, and for the resident kernel one stamped step."""
    from .. import machine
    from .modes import make_mode
    from .state import DecoderState
    from .weights import Weights

    shape = SHAPES[point.model]
    weights = Weights(gpu, shape, seed)
    room = point.tokens * (steps + ROOM)
    size = 4 * point.page_tokens
    state = DecoderState(
        gpu, shape, point.batch, point.tokens, point.page_tokens,
        text_size=-(-(point.context + room) // size) * size, kv_bits=point.kv_bits,
    )  # fmt: skip
    count = point.batch
    state.fill([point.context] * count, [1 << 20] * count, np.random.default_rng(seed))
    saved = state.save()
    step = make_step(gpu, weights, state, point)
    mode = make_mode(step, point.mode)
    mode.run(WARM)
    state.load(saved)
    seconds = list(mode.run(SKIPPED + steps))[SKIPPED:]
    record = {
        "kind": "step", **point.record(), "seconds": [round(float(one), 9) for one in seconds],
        "nodes": getattr(mode, "nodes", None), "barriers": getattr(mode, "barriers", None),
        "stages": None, "sha": machine.commit(Path(__file__).parents[2]), "seed": seed,
        "sm_mhz": None, "device": machine.facts(gpu),
    }  # fmt: skip
    if mode.name in HOSTS:
        record["submit_s"] = submission(mode)
    mode.close()
    state.load(saved)
    whole = None
    if point.mode == "resident":
        record["stages"], whole, record["sm_mhz"] = stamped(
            gpu, step, state, saved, SKIPPED + steps // 2
        )
    else:
        from .bench_stages import stage_seconds

        record["stages"] = stage_seconds(gpu, step, samples=8)
    return record, whole


def submission(mode: Any, steps: int = 20) -> float:
    """Median seconds until a host has submitted a step, which then runs on."""
    from .modes import on_stream

    if mode.name == "host-c":
        return float(np.median(mode.list.submitted))  # of the run before
    seconds = []
    with on_stream(mode.stream):
        for _ in range(steps):
            begin = time.perf_counter()
            mode.step.launch()
            seconds.append(time.perf_counter() - begin)
            mode.stream.synchronize()
    return float(np.median(seconds))


def make_step(gpu: Gpu, weights: Any, state: Any, point: Point) -> Step:
    """The step of *point* over *state*."""
    budget = point.budget_tokens // point.page_tokens
    if point.kernels == "library":
        from .library import LibraryStep

        return LibraryStep(gpu, weights, state, weight_bits=point.weight_bits, budget_pages=budget)
    from ..fused_step.launch import FusedStep, Model

    step: Step = FusedStep(gpu, Model(gpu, weights), state, budget_pages=budget)
    return step


def stamped(
    gpu: Gpu, step: Any, state: Any, saved: dict[str, Any], steps: int
) -> tuple[dict[str, float], Spans, float]:
    """Median seconds by stage of step number *steps* in a few runs, the median one's spans, MHz."""
    from ..fused_step.resident import Resident
    from .modes import HOST_S, make_mode
    from .timeline import spans, stage_seconds

    mode: Any = make_mode(step, "resident")
    mode.loop = Resident(step, mode.mailbox, host_s=HOST_S, stamps=True)
    stamps = []
    for _ in range(STAMPED_RUNS):
        state.load(saved)
        usual = float(np.median(mode.run(steps)))
        stamps.append(mode.loop.stamps.get())
    state.load(saved)
    mhz = clock_mhz(gpu, mode, int(min(MOST_CLOCKED, CLOCKED_S / usual)))
    mode.close()
    found = [spans(one, step.stages, ticks_a_us=mhz, own_clocks=True) for one in stamps]
    found.sort(key=lambda one: one.seconds)
    times = [stage_seconds(one) for one in found]
    medians = {name: float(np.median([one[name] for one in times])) for name in times[0]}
    return medians, found[len(found) // 2], mhz


def clock_mhz(gpu: Gpu, mode: Any, steps: int) -> float:
    """MHz at which the SMs count while *mode* runs: its stamps, read twice meanwhile.

    The management library tells the clock that was asked for, which is more under such a load.
    """
    stream = gpu.xp.cuda.Stream(non_blocking=True)
    seen = []
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(mode.run, steps)
        for _ in range(2):
            time.sleep(CLOCKED_S / 3.0)
            last = mode.loop.stamps.get(stream=stream).max(axis=1)
            seen.append((time.perf_counter(), last))
        running.result()
    (begin, first), (end, second) = seen
    return round(float(np.median(second - first) / (end - begin) * 1e-6), 1)
