"""Runs on profiles of steps: both engines agree, and another engine's run is predicted."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from small_steps import document, step_scenario
from stepping_engine import Asked, Engine, Law, requests
from test_engines_agree import assert_same, check_conservation
from toy import play

from sim.scenario import Scenario
from sim.simulate import run
from sim.step_fit import fit_steps
from sim.step_log import from_dicts
from sim.step_profile import document as written
from sim.validation import errors, served
from sim.validation.matching import matched

if TYPE_CHECKING:
    from collections.abc import Sequence

GAPS = st.sampled_from([0, 0, 0, 1, 4.5, 20, 37, 100])
LENGTHS = st.one_of(st.integers(1, 8), st.integers(1, 40))
NOISE = {"at": [0.0, 0.4, 0.9, 1.0], "values": [0.5, 0.9, 1.2, 3.0]}
BRANCHES = st.sampled_from([
    [[("step", 4), ("decode_request", 0.5), ("context", 2**-6)]],
    [[("step", 9)], [("step", 4), ("tokens", 0.3, 0, 3), ("tokens", 1.1, 3), ("context", 0.07)]],
    [[("decode_request", 1.7)], [("context", 0.013), ("all_pair", 0.001)], [("step", 6.3)]],
])  # fmt: skip
MIXED = st.sampled_from([
    [[("step", 6), ("tokens", 0.25), ("context", 2**-6)]],
    [[("step", 8), ("prefill_request", 1.3)], [("prefill_pair", 0.01), ("tokens", 0.31),
                                               ("prefill_context", 0.003), ("prefill_step", 2)]],
])  # fmt: skip


@st.composite
def runs(draw: Any) -> tuple[list[tuple[float, int, int]], dict[str, Any], dict[str, Any]]:
    rows = draw(st.lists(st.tuples(GAPS, LENGTHS, LENGTHS), min_size=1, max_size=12))
    at = np.cumsum([gap for gap, _, _ in rows]).tolist()
    most = draw(st.integers(1, 5))
    profile = document(
        draw(BRANCHES), draw(MIXED), draw(st.sampled_from([[], [1, 2, 4], [3]])),
        ratios=NOISE if draw(st.booleans()) else {"at": [0, 1], "values": [1, 1]},
    )  # fmt: skip
    sections = {
        "loop": {"max_batch": most, "token_budget": most + draw(st.integers(0, 30))},
        "kv": {"hbm_blocks": draw(st.integers(6, 40)), "block_tokens": draw(st.integers(1, 16)),
               "prefix_cache": False},
        "stop": {"at": draw(st.sampled_from([None, "0.05 s", "0.2 s"]))},
        "seed": draw(st.integers(0, 3)),
    }  # fmt: skip
    return [(t, *lengths) for t, (_, *lengths) in zip(at, rows, strict=True)], profile, sections


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(runs())
def test_both_engines_write_the_same(chosen: Any) -> None:
    rows, profile, sections = chosen
    with tempfile.TemporaryDirectory() as folder:
        scenario = step_scenario(Path(folder), rows, profile, **sections)
        step, leap = play(scenario, "step"), play(scenario, "leap")
    assert_same(step, leap)
    check_conservation(leap)


# ---------------------------------------------------------------- another engine's run
def fitted(folder: Path, engine: Engine, asked: list[Asked]) -> Path:
    """A profile fitted to the steps of one run."""
    steps = [
        {k: v for k, v in step.items() if k not in ("gpu_s", "host_s")}
        for step in engine.serve(asked)
    ]
    path = folder / "engine.json"
    path.write_text(json.dumps(written(fit_steps(from_dicts(steps)), "engine", "engine", {})))
    return path


def compared(
    folder: Path, profile: Path, asked: Sequence[Asked], **sections: Any
) -> dict[str, float]:
    """Signed errors of a simulation of *asked*, which an engine has served."""
    trace = folder / "trace.jsonl"
    trace.write_text("".join(
        json.dumps({"timestamp": one.arrival * 1e3, "input_length": one.prompt,
                    "output_length": one.output}) + "\n"
        for one in asked
    ))  # fmt: skip
    measured = folder / "measured.jsonl"
    measured.write_text("".join(
        json.dumps({"arrival": one.arrival, "prompt_len": one.prompt, "token_times": one.times})
        + "\n"
        for one in asked
    ))  # fmt: skip
    data = {
        "model": "llama-3.1-8b", "hardware": {"profile": str(profile)},
        "loop": {"mode": "engine", "max_batch": 64, "token_budget": 512},
        "kv": {"hbm_blocks": 100_000, "prefix_cache": False},
        "trace": {"file": str(trace), "format": "mooncake"},
    }  # fmt: skip
    for key, value in sections.items():
        data[key] = data.get(key, {}) | value  # type: ignore[operator]
    out = Path(tempfile.mkdtemp(dir=folder))
    run(Scenario.model_validate(data), out)
    real, told, said = matched(served.read(measured), served.read(out))
    assert said == []
    found = errors.compare(real, told, errors.BARS)
    return {row.metric: row.error for row in found.rows}


def outside(found: dict[str, float]) -> list[str]:
    return [name for name, bar in errors.BARS.items() if abs(found.get(name, 0.0)) > bar / 100]


def test_another_rate_of_an_engine_is_predicted_within_the_bars(tmp_path: Path) -> None:
    profile = fitted(tmp_path, Engine(hiccups=0.001, warm=4), requests(200, 6.0, 1))
    asked = requests(350, 9.0, 2)
    Engine(seed=4).serve(asked)
    right = compared(tmp_path, profile, asked, hardware={"step_noise": "none"})
    assert outside(right) == []
    assert abs(right["tpot_mean"]) < 0.015
    wrong = compared(tmp_path, profile, asked, loop={"token_budget": 64},
                     hardware={"step_noise": "none"})  # fmt: skip
    assert abs(wrong["ttft_p90"]) > 5 * abs(right["ttft_p90"])
    assert "ttft_p90" in outside(wrong)


def test_an_order_that_is_not_the_engines_shows(tmp_path: Path) -> None:
    engine = Engine(prefill_first=True)
    profile = fitted(tmp_path, engine, requests(200, 6.0, 1))
    asked = requests(250, 9.0, 2)
    Engine(prefill_first=True, seed=5).serve(asked)
    right = compared(tmp_path, profile, asked, schedule={"order": "prefill_alone"})
    wrong = compared(tmp_path, profile, asked)
    assert outside(right) == []
    assert abs(wrong["itl_p99"]) > 3 * abs(right["itl_p99"])
    assert outside(wrong)


def test_hiccups_are_in_the_throughput_of_a_run(tmp_path: Path) -> None:
    profile = fitted(tmp_path, Engine(hiccups=0.01), requests(200, 6.0, 1))
    asked = requests(200, 9.0, 2)
    Engine(hiccups=0.01, seed=4).serve(asked)
    noisy = compared(tmp_path, profile, asked)
    quiet = compared(tmp_path, profile, asked, hardware={"step_noise": "none"})
    assert abs(noisy["tpot_mean"]) < 0.06  # how many there are is a matter of luck
    assert quiet["tpot_mean"] < noisy["tpot_mean"] - 0.04


@pytest.mark.parametrize("engine", ["leap", "step"])
def test_asynchronous_engines_run_on_their_pace(tmp_path: Path, engine: str) -> None:
    law = Law(hidden=True, host=3e-3)
    asked = requests(30, 6.0, 1)
    steps = Engine(law, noise=0.0).serve(asked)
    mean = float(np.mean([step["duration_s"] for step in steps]))
    long = [step | {"duration_s": step["duration_s"] * 1.8} for step in steps]
    found = fit_steps(from_dicts(long))
    profile = written(found, "engine", "engine", {})
    rows = [(one.arrival * 1024, one.prompt, one.output) for one in asked]
    ran = play(
        step_scenario(tmp_path, rows, profile, schedule={"asynchronous": True},
                      loop={"max_batch": 64, "token_budget": 512}), engine,
    )  # fmt: skip
    assert ran.iterations.duration_s.mean() == pytest.approx(mean, rel=0.03)
