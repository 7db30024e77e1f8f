"""Times decode steps over the grid: `python -m kernels.decoder.bench --samples FILE`.

One rule: a line of the file is one point with every sample; a point on file is not measured again.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import sys
import time
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import machine
from ..backend import Gpu
from .bench_points import KERNELS, MODES, Point, grid
from .bench_stages import stage_seconds
from .library import LibraryStep
from .modes import make_mode
from .shape import SHAPES
from .state import DecoderState, Pool
from .torch_step import TorchMode, TorchStep
from .weights import Weights

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from .modes import Mode, Step

WARM, SKIPPED, SAMPLES, FEWEST = 5, 3, 60, 30
"""Steps before timing, steps at the begin of the timed run that do not count, and samples."""
SPAN_S = 0.15
"""A point's samples span about this long where `FEWEST` allow it."""
ROOM = 256
"""Tokens that a request may grow by."""
STAGED = {"batches": (1, 8, 16, 64), "contexts": (1024, 2048, 8192, 32768)}
"""Where the stages are timed too, one by one, in graph mode."""


class Bench:
    """Measures points of one model, pool by pool, and appends records to *path*."""

    def __init__(self, gpu: Gpu, path: Path, sha: str | None, end: float) -> None:
        self.gpu, self.path, self.sha, self.end = gpu, path, sha, end
        self.count, self.failed = 0, 0

    @property
    def over(self) -> bool:
        """Whether the time is used up."""
        return time.monotonic() > self.end

    def run(self, points: Sequence[Point]) -> None:
        """Measures *points*, what they share being made once."""

        def model(p: Point) -> str:
            return p.model

        def pool(p: Point) -> tuple[Any, ...]:
            return p.kv, p.page_tokens

        for name, of_model in groupby(points, model):
            weights = Weights(self.gpu, SHAPES[name])
            fused: list[Any] = []
            for _, of_pool in groupby(of_model, pool):
                self._pool(weights, fused, list(of_pool))
            del weights, fused
            self._free()

    def _pool(self, weights: Weights, fused: list[Any], points: list[Point]) -> None:
        first = points[0]
        size = first.page_tokens
        needed = max(p.batch * -(-(p.context + ROOM) // size) for p in points)
        pool = Pool(self.gpu, weights.shape, needed, size, first.kv_bits)

        def batch(p: Point) -> tuple[Any, ...]:
            return p.weights, p.batch, p.tokens

        for _, of_batch in groupby(points, batch):
            if not self.over:
                self._batch(weights, fused, pool, list(of_batch))
                self._free()
        del pool
        self._free()

    def _batch(self, weights: Weights, fused: list[Any], pool: Pool, points: list[Point]) -> None:
        """Points of one batch: one state, and each step and mode made once for all contexts."""
        first = points[0]
        most = max(p.context for p in points)
        text = -(-(most + ROOM) // 256) * 256
        state = DecoderState(
            self.gpu, weights.shape, first.batch, first.tokens, first.page_tokens,
            text_size=text, kv_bits=first.kv_bits, pool=pool,
        )  # fmt: skip
        steps: dict[tuple[Any, ...], Step] = {}
        modes: dict[tuple[Any, ...], Mode] = {}
        broken = set[tuple[Any, ...]]()
        for context, of_context in groupby(points, lambda p: p.context):
            if self.over:
                break
            state.fill(
                [context] * first.batch, [1 << 20] * first.batch, np.random.default_rng(context)
            )
            saved, truth = state.save(), dict[tuple[Any, ...], Any]()
            line = []
            for point in of_context:
                key = (point.kernels, point.budget_tokens)
                if (*key, point.mode) in broken:
                    continue
                try:
                    if point.kernels == "torch":
                        seconds = self._torch(weights, point)
                        self._write(point, seconds, None, {})
                    else:
                        if key not in steps:
                            steps[key] = self._step(weights, fused, state, point)
                        if (*key, point.mode) not in modes:
                            modes[*key, point.mode] = make_mode(steps[key], point.mode)
                        mode = modes[*key, point.mode]
                        state.load(saved)
                        seconds = _timed(mode)
                        extra = self._look(steps[key], point, truth, len(seconds))
                        if point.mode == "graph" and _is_staged(point):
                            state.load(saved)
                            extra["stages"] = stage_seconds(self.gpu, steps[key])
                        self._write(point, seconds, mode, extra)
                except Exception as error:
                    broken.add((*key, point.mode))
                    self.failed += 1
                    print(f"{point}: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
                    if "CUDA" in type(error).__name__:  # nothing works on this device any more
                        os._exit(3)
                    continue
                budget = "*" if point.budget_tokens else ""
                line.append(
                    f"{point.kernels[0]}{budget} {point.mode} {np.median(seconds) * 1e6:.0f}"
                )
            print(
                f"{first.model} {first.weights} {first.kv} {first.batch}x{first.tokens} "
                f"{context}: {', '.join(line)}",
                flush=True,
            )
        for mode in modes.values():
            mode.close()

    def _step(self, weights: Weights, fused: list[Any], state: DecoderState, point: Point) -> Step:
        budget = point.budget_tokens // point.page_tokens
        if point.kernels == "library":
            return LibraryStep(
                self.gpu, weights, state, weight_bits=point.weight_bits, budget_pages=budget
            )
        from ..fused_step.launch import FusedStep, Model

        if not fused:
            fused.append(Model(self.gpu, weights))
        step: Step = FusedStep(self.gpu, fused[0], state, budget_pages=budget)
        return step

    def _torch(self, weights: Weights, point: Point) -> list[float]:
        step = TorchStep(weights, point.batch, point.context, point.tokens)
        mode = TorchMode(step, graph=point.mode == "graph")
        seconds = _timed(mode)
        mode.close()
        del step, mode
        self._free()
        return seconds

    def _look(
        self, step: Step, point: Point, truth: dict[tuple[Any, ...], Any], samples: int
    ) -> dict[str, Any]:
        """Whether logits are finite, pages all there, and tokens those of the other modes."""
        logits = getattr(step, "logits", None)
        if logits is not None and logits.dtype == np.uint16:
            exponent = (logits >> np.uint16(7)) & np.uint16(0xFF)
            if bool((exponent == 0xFF).any()):
                raise ValueError("logits are not finite")
        slots = step.state.slots
        if not np.array_equal(slots.all_pages(), np.arange(slots.pages)):
            raise ValueError("pages are lost")
        steps = WARM + SKIPPED + min(samples, FEWEST)
        text = step.state.text[:, point.context + 1 : point.context + 1 + steps].get()
        first = truth.setdefault((point.kernels, point.budget_tokens), text)
        return {"same_tokens": bool(np.array_equal(first, text))}

    def _write(
        self, point: Point, seconds: list[float], mode: Mode | None, extra: dict[str, Any]
    ) -> None:
        record = {
            "kind": "step",
            **point.record(),
            "seconds": [round(one, 9) for one in seconds],
            "nodes": getattr(mode, "nodes", None),
            "barriers": getattr(mode, "barriers", None),
            "stages": None,
            **extra,
            "sha": self.sha,
        }
        with self.path.open("a") as file:
            file.write(json.dumps(record) + "\n")
        self.count += 1

    def _free(self) -> None:
        gc.collect()
        self.gpu.xp.get_default_memory_pool().free_all_blocks()
        if "torch" in sys.modules:
            sys.modules["torch"].cuda.empty_cache()


def _timed(mode: Any) -> list[float]:
    """Seconds of each step after warm-up."""
    usual = float(np.median(mode.run(WARM)[SKIPPED:]))
    samples = int(np.clip(SPAN_S / usual, FEWEST, SAMPLES))
    return [float(one) for one in mode.run(SKIPPED + samples)[SKIPPED:]]


def _is_staged(point: Point) -> bool:
    return (
        point.tokens == 1
        and point.batch in STAGED["batches"]
        and point.context in STAGED["contexts"]
    )


def header(gpu: Gpu, sha: str | None) -> dict[str, Any]:
    """The first line of a file."""
    facts = machine.facts(gpu)
    return {
        "kind": "header",
        "device": facts["name"],
        "driver": facts["driver"],
        "commit": sha,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "libraries": facts["packages"],
        "facts": facts,
    }


def on_file(path: Path) -> set[Point]:
    """Points that *path* has."""
    if not path.exists():
        return set()
    records = [json.loads(line) for line in path.read_text().splitlines()]
    return {Point.of(record) for record in records if record["kind"] == "step"}


def order(point: Point) -> tuple[Any, ...]:
    """What points share changes seldom: model, pool, batch, context, then kernels and modes."""
    return (
        point.model, point.kv, point.page_tokens, point.weights, point.tokens, point.batch,
        point.context, KERNELS.index(point.kernels), point.budget_tokens, MODES.index(point.mode),
    )  # fmt: skip


def chosen(args: argparse.Namespace) -> Iterable[Point]:
    """Points of the grid that the options name."""
    for point in grid():
        wanted = (
            (args.model, point.model), (args.modes, point.mode), (args.kernels, point.kernels),
            (args.batches, point.batch), (args.contexts, point.context), (args.kv, point.kv),
            (args.weights, point.weights), (args.tokens, point.tokens),
            (args.budget_tokens, point.budget_tokens),
        )  # fmt: skip
        if all(not names or str(value) in names for names, value in wanted):
            yield point


def main(words: Sequence[str] | None = None) -> int:
    """Runs the command line; 1 if a point failed."""
    parser = argparse.ArgumentParser(prog="kernels.decoder.bench", description=__doc__)
    parser.add_argument("--samples", type=Path, required=True)
    for name in ("model", "modes", "kernels", "batches", "contexts", "weights", "kv", "tokens"):
        parser.add_argument(f"--{name}", nargs="+")
    parser.add_argument("--budget-tokens", nargs="+", help="0 is dense")
    parser.add_argument("--budget", type=float, default=600.0, help="seconds")
    parser.add_argument("--commit", help="of the code; default: asked of git")
    args = parser.parse_args(words)
    end = time.monotonic() + args.budget
    gpu = Gpu()
    sha = args.commit or machine.commit(Path(__file__).parents[2])
    done = on_file(args.samples)
    if not args.samples.exists():
        args.samples.write_text(json.dumps(header(gpu, sha)) + "\n")
    todo = sorted((point for point in chosen(args) if point not in done), key=order)
    bench = Bench(gpu, args.samples, sha, end)
    bench.run(todo)
    print(f"{bench.count} of {len(todo)} points, {len(done)} were on file")
    return 1 if bench.failed else 0


if __name__ == "__main__":
    sys.exit(main())
