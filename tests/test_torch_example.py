"""The example's engine: its scheduler over a made-up model and clock, and its model where torch is.

The walk is that of docs/own-engine.md: fitted on one run, judged on another.
"""

from __future__ import annotations

import importlib.util
import json
import random
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from sim.cli import app
from sim.validation.served import read

FILE = Path(__file__).parent.parent / "examples" / "torch_engine.py"
MAPS = ["duration_s=ms", "decode_requests=n_dec", "context_tokens=ctx", "prefill_requests=n_pre",
        "prefill_tokens=chunk", "prefill_context_tokens=past"]  # fmt: skip
SCENARIO = """
trace: {file: asked.csv}
model: llama-3.2-1b
hardware: {profile: ./engine.json}
loop: {mode: engine, max_batch: 8, token_budget: 64}
kv: {hbm_blocks: 1024, block_tokens: 16, prefix_cache: false}
"""


class Clock:
    """Time that passes only when the model says so."""

    now = 0.0

    def perf_counter(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


class Model:
    """Steps that last as a formula says, with 1 % of noise, and *plan* seconds more for each shape
    of a chunk that is new."""

    def __init__(self, clock: Clock, seed: int, plan: float = 0.0) -> None:
        self.clock, self.random, self.plan = clock, random.Random(seed), plan
        self.met: set[tuple[int, int]] = set()

    def step(self, decoding: list[Any], chunks: list[Any]) -> list[int]:
        context, tokens = sum(r.length + 1 for r in decoding), sum(count for _, count in chunks)
        seconds = 4e-3 + 1e-4 * len(decoding) + 1e-6 * context + 1e-4 * tokens
        shapes = {(count, r.done) for r, count in chunks} - self.met
        self.met |= shapes
        seconds += self.plan * len(shapes)
        self.clock.now += seconds * self.random.lognormvariate(0, 0.01)
        return [1] * (len(decoding) + len(chunks))


@pytest.fixture
def engine() -> Any:
    spec = importlib.util.spec_from_file_location("torch_engine", FILE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["torch_engine"] = module  # where its dataclasses look themselves up
    spec.loader.exec_module(module)
    return module


def served(engine: Any, out: Path, rate: str, count: int, seed: int, plan: float = 0.0) -> None:
    engine.time = clock = Clock()
    requests = engine.made(rate, count, seed, 256)
    engine.write(out, requests, engine.serve(requests, Model(clock, seed, plan), 8, 64))


def invoke(*arguments: object) -> str:
    result = CliRunner().invoke(app, [str(one) for one in arguments])
    assert result.exit_code == 0, result.output or result.exception
    return result.output


@pytest.mark.parametrize(("plan", "rate"), [(0.0, "9"), (0.02, "6")])
def test_fitted_on_one_run_and_judged_on_another(
    engine: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, plan: float, rate: str
) -> None:
    monkeypatch.chdir(tmp_path)
    served(engine, tmp_path / "fit", "2:16", 160, 1, plan)
    served(engine, tmp_path / "judge", rate, 160, 2, plan)
    maps = [word for one in MAPS for word in ("--map", one)]
    invoke("profile", "fit", "fit/steps.json", *maps, "--out", "engine.json", "-q")
    said = invoke("trace", "requests", "judge/requests.jsonl", "--out", "asked.csv")
    assert "prompt_tokens = prompt_len" in said
    assert "160 requests in " in said
    (tmp_path / "engine.yaml").write_text(SCENARIO)
    invoke("run", "engine.yaml", "--out", "runs/engine")
    said = invoke("validate", "judge/requests.jsonl", "runs/engine", "--profile", "engine.json",
                  "--steps", "judge/steps.json", "--json", "v.json")  # fmt: skip
    assert "all within their bars" in said, said  # the steps' columns are those of the profile
    found = json.loads((tmp_path / "v.json").read_text())
    assert found["requests"] == 160
    assert abs(found["metrics"]["tpot_mean"]["error"]) < 0.01
    assert found["teacher_forced"]["all"]["median"] < 0.015


def test_what_the_engine_writes(engine: Any, tmp_path: Path) -> None:
    served(engine, tmp_path, "9", 60, 3)
    requests = engine.made("9", 60, 3, 256)
    found = read(tmp_path / "requests.jsonl")
    assert sorted(found.prompt.tolist()) == sorted(r.prompt for r in requests)
    assert found.output.sum() == sum(r.output for r in requests)
    steps = json.loads((tmp_path / "steps.json").read_text())
    assert sum(sum(step["chunk"]) for step in steps) == sum(r.prompt for r in requests)
    assert sum(step["n_dec"] for step in steps) == sum(r.output - 1 for r in requests)
    assert max(step["n_dec"] + sum(step["chunk"]) for step in steps) <= 64
    again = engine.read(tmp_path / "traffic.csv", 256)
    assert [(r.prompt, r.output) for r in again] == [(r.prompt, r.output) for r in requests]


def test_a_rate_that_rises(engine: Any) -> None:
    arrivals = [r.arrival for r in engine.made("2:20", 2200, 5, 256)]
    half = arrivals[-1] / 2
    assert arrivals[-1] == pytest.approx(200, rel=0.1)  # 2,200 at 11 a second on average
    early = sum(at < half for at in arrivals)
    assert early / (2200 - early) == pytest.approx(6.5 / 15.5, rel=0.15)


def test_the_model_computes_the_same_together_and_alone(engine: Any) -> None:
    torch = pytest.importorskip("torch", reason="the example's model needs PyTorch")
    torch.set_num_threads(1)

    def last(numbers: list[int], budget: int) -> dict[int, int]:
        model = engine.Decoder("tiny", "cpu", 4, 256)
        requests = [engine.Request(n, 0.0, 20 + 17 * n, 4 + n) for n in numbers]
        engine.serve(requests, model, 4, budget)
        return {request.id: request.last for request in requests}

    together = last(list(range(6)), 16)
    alone = {number: token for n in range(6) for number, token in last([n], 500).items()}
    assert together == alone
