"""An engine over a profile of kernels: its terms in ticks of the toy GPU, its fit, its file."""

from __future__ import annotations

import json
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from small_steps import document as of_steps
from test_engines_agree import assert_same, check_conservation
from toy import TICK, play, toy_scenario, write_profile
from typer.testing import CliRunner

from sim.cli import app
from sim.cost import Chunk
from sim.engine import Engine
from sim.engine_cost import EngineCost
from sim.engine_fit import Asked, fit_engine
from sim.errors import InputError
from sim.feasible import faults
from sim.forced_seconds import seconds_of
from sim.profile import load_profile
from sim.scenario import Scenario
from sim.step_log import from_dicts
from sim.step_ready import load_of

TERMS = {"step_s": 3, "decode_request_s": 1, "prefill_step_s": 5, "prefill_request_s": 2,
         "prefill_token_s": 0.25, "enter_s": 7}  # fmt: skip


def engine_file(
    folder: Path, terms: dict[str, float] | None = None, said: Any = None, **others: Any
) -> Path:
    """An engine over the toy GPU, its *terms* in ticks; covers everything, knows no noise.

    *said* replaces what the file says of its terms.
    """
    if not (folder / "toy.json").exists():
        write_profile(folder / "toy.json")
    learned = of_steps()
    data = {
        "schema": 1, "kind": "engine", "name": "small", "status": "fitted", "over": "toy.json",
        "over_hash": load_profile(folder / "toy.json").hash, "mode": "graph", "host": "python",
        "kernels": "fused", "captured": [], "prefill": {"pass": "joint", "kernels": "fused"},
        "terms": said or {
            name: {"value": ticks * TICK, "unit": "s"}
            for name, ticks in (TERMS if terms is None else terms).items()
        },
        **{key: learned[key] for key in ("log", "domain", "residuals", "noise_floor", "outliers",
                                         "ratios", "notes")},
    } | others  # fmt: skip
    path = folder / "engine.json"
    path.write_text(json.dumps(data))
    return path


def on(folder: Path, requests: Any = None, loop: Any = None, **others: Any) -> Scenario:
    path = engine_file(folder, **others)
    return toy_scenario(folder, requests, hardware={"profile": str(path)}, loop=loop or {})


def cost_on(folder: Path, loop: Any = None, **others: Any) -> EngineCost:
    scenario = on(folder, [(0, 1, 1)], loop, **others)
    return EngineCost(scenario, load_profile(scenario.hardware.profile))


def ticks(seconds: float) -> float:
    return seconds / TICK


def mixed(cost: EngineCost, batch: int, *chunks: int) -> float:
    return ticks(cost.mixed(batch, 10, [Chunk(n, 0) for n in chunks], batch + len(chunks)).seconds)


# ---------------------------------------------------------------- what the terms add
def test_terms_come_on_top_of_the_kernels(tmp_path: Path) -> None:
    cost = cost_on(tmp_path)
    assert ticks(cost.decode(2).seconds(10)) == 16 + 3 + 2 * 1
    # one pass: 24 for decode and prompts together, then a step's, two requests' and the prompts'
    assert mixed(cost, 2, 8, 4) == 24 + 3 + 2 + 5 + 2 * 2 + 12 * 0.25


def test_prompts_may_be_a_pass_of_their_own(tmp_path: Path) -> None:
    cost = cost_on(tmp_path, terms={}, prefill={"pass": "apart", "kernels": "fused"})
    # decode's 16, then 18 of the prompt's kernels
    assert mixed(cost, 2, 8) == 16 + 18
    # alone they wait for the first launch: 1/2 to submit it, 1/4 until it arrives
    assert mixed(cost, 0, 8) == 18 + 0.5 + 0.25


def test_a_slow_host_is_a_floor_for_prompts_and_not_a_term(tmp_path: Path) -> None:
    """12 launches of 10 ticks: the last begins after 110, arrives after 10 + 1/4, takes 1."""
    shape = {"pass": "apart", "kernels": "fused"}
    cost = cost_on(tmp_path, terms={"prefill_submit_s": 10}, prefill=shape)
    assert mixed(cost, 0, 8) == 110 + 10 + 0.25 + 1
    assert mixed(cost, 2, 8) == mixed(cost, 0, 8)  # decode is over long before
    quick = tmp_path / "quick"
    quick.mkdir()
    write_profile(quick / "toy.json", kernels={"gemm.bf16": {"t0_s": TICK / 4}})
    faster = cost_on(quick, terms={"prefill_submit_s": 10}, prefill=shape)
    assert mixed(faster, 0, 8) == mixed(cost, 0, 8)  # faster products are worth nothing here
    busy = cost_on(quick, terms={}, prefill=shape)
    assert mixed(busy, 2, 8) < mixed(cost_on(tmp_path, terms={}, prefill=shape), 2, 8)


def test_launches_of_decode_take_as_long_as_the_engine_s_host_needs(tmp_path: Path) -> None:
    loop = {"mode": "host"}
    usual = cost_on(tmp_path, loop, terms={}, mode="host").decode(1).seconds(1)
    slow = cost_on(tmp_path, loop, terms={"submit_s": 10}, mode="host").decode(1).seconds(1)
    assert ticks(usual) == 16
    assert ticks(slow) == 110 + 10 + 0.25 + 1 + 0.25 + 1  # then synchronise and copy back


@pytest.mark.parametrize("mode", ["host", "graph", "control", "resident"])
def test_batches_are_padded_to_the_engine_s_sizes_in_every_mode(tmp_path: Path, mode: str) -> None:
    cost = cost_on(tmp_path, {"mode": mode}, mode=mode, captured=[1, 4])
    assert [cost.decode(batch).padded for batch in (1, 2, 4)] == [1, 4, 4]
    per_request = cost.decode(4).seconds(9) - cost.decode(2).seconds(9)
    assert ticks(per_request) == pytest.approx(2)  # as large on the GPU, two requests more


def test_first_steps_behind_prompts_take_longer(tmp_path: Path) -> None:
    scenario = on(tmp_path, [(0, 4, 4)], terms={"enter_s": 7})
    steps = play(scenario).iterations["duration_s"] / TICK
    assert steps.tolist() == [20, 16 + 7, 16, 16]
    assert play(scenario, "step").iterations["duration_s"].tolist() == (steps * TICK).tolist()


@pytest.mark.parametrize(("mode", "decode"), [("control", 14.5), ("resident", 15)])
def test_loops_on_the_device_are_left_and_entered_at_the_engine_s_cost(
    tmp_path: Path, mode: str, decode: float
) -> None:
    terms = {"enter_s": 7.0, "leave_s": 11.0}
    scenario = on(tmp_path, [(0, 4, 3), (100, 4, 3)], {"mode": mode}, mode=mode, terms=terms)
    steps = play(scenario).iterations["duration_s"] / TICK
    first, last = steps[:3].tolist(), steps[3:].tolist()
    assert first[0] == last[0] == 20 + 11
    assert first[1] - first[2] == 7


def test_what_is_estimated_of_a_host_is_not_asked_for(tmp_path: Path) -> None:
    cost = cost_on(tmp_path)
    assert not [name for name in cost.modes.uses("graph", "exit") if "schedule" in name]
    assert [n for n in cost.apart().modes.uses("host", "exit") if n == "host_python_submit_s"]


LENGTHS = st.integers(1, 30)
NOISE = {"at": [0.0, 0.4, 0.9, 1.0], "values": [0.5, 0.9, 1.2, 3.0]}


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(st.tuples(st.sampled_from([0, 0, 4.5, 37, 100]), LENGTHS, LENGTHS), min_size=1,
             max_size=10),
    st.sampled_from(["host", "graph", "control", "resident"]),
    st.sampled_from(["apart", "joint"]), st.sampled_from([[], [1, 2, 4], [3]]), st.booleans(),
)  # fmt: skip
def test_both_engines_write_the_same(
    rows: Any, mode: str, passes: str, captured: list[int], noisy: bool
) -> None:
    at = np.cumsum([gap for gap, _, _ in rows]).tolist()
    requests = [(t, *lengths) for t, (_, *lengths) in zip(at, rows, strict=True)]
    with tempfile.TemporaryDirectory() as folder:
        scenario = on(
            Path(folder), requests, {"mode": mode, "token_budget": 24}, mode=mode,
            captured=captured, terms=TERMS | {"leave_s": 4, "prefill_submit_s": 2},
            prefill={"pass": passes, "kernels": "fused"},
            ratios=NOISE if noisy else {"at": [0, 1], "values": [1, 1]},
        )  # fmt: skip
        step, leap = play(scenario, "step"), play(scenario, "leap")
    assert_same(step, leap)
    check_conservation(leap)


# ---------------------------------------------------------------- the fit
KNOWN = {
    "step_s": 40e-6, "decode_request_s": 3e-6, "prefill_step_s": 600e-6, "prefill_token_s": 2e-7,
    "prefill_submit_s": 11e-6, "enter_s": 200e-6,
}  # fmt: skip


def real_scenario(**loop: Any) -> Scenario:
    """The 1B model in a graph loop on the shipped profile of kernels."""
    return Scenario.model_validate(
        {
            "trace": {"source": "synthetic", "requests": 1, "rate": "1 /s", "prompt_tokens": 1,
                      "output_tokens": 1},
            "model": {"preset": "llama-3.2-1b"}, "hardware": {"profile": "nvidia-h200"},
            "loop": {"mode": "graph", "kernels": "library", "max_batch": 64} | loop,
            "kv": {"prefix_cache": False},
        }
    )  # fmt: skip


def logged(engine: Engine, steps: int = 800, noise: float = 0.01) -> list[dict[str, Any]]:
    """Steps of *engine* over the shipped kernels, a tenth of them with prompts."""
    rng = np.random.default_rng(3)
    scenario = real_scenario()
    rows = []
    for number in range(steps):
        batch = int(rng.integers(1, 48))
        padded = next(size for size in engine.captured if size >= batch)
        row = {"decode_requests": batch, "decode_tokens": batch, "padded_requests": padded,
               "context_tokens": int(batch * rng.integers(50, 3000)), "prefill_requests": 0,
               "prefill_tokens": 0, "prefill_context_tokens": 0, "duration_s": 1.0}  # fmt: skip
        if number % 10 == 0:
            row |= {"prefill_requests": 1, "prefill_tokens": int(rng.integers(20, 2000))}
        rows.append(row)
    profile = replace(load_profile("nvidia-h200"), engine=engine)
    seconds = seconds_of(EngineCost(scenario, profile), load_of(from_dicts(rows)))
    behind = np.array([0.0] + [row["prefill_tokens"] > 0 for row in rows[:-1]])
    seconds = (seconds + behind * engine.term("enter_s")) * np.exp(rng.normal(0, noise, steps))
    starts = np.append(0.0, np.cumsum(seconds)[:-1])
    for row, start, one in zip(rows, starts.tolist(), seconds.tolist(), strict=True):
        row |= {"start_s": start, "duration_s": one}
    return rows


SIZES = (1, 2, 4, 8, 12, 16, 24, 32, 48, 64)


@pytest.mark.parametrize("apart", [True, False])
def test_a_known_engine_is_found_again(apart: bool) -> None:
    profile = load_profile("nvidia-h200")
    made = Engine("graph", "python", "library", profile.name, profile.hash, SIZES, apart,
                  terms=KNOWN)  # fmt: skip
    found = fit_engine(real_scenario(), profile, from_dicts(logged(made)), asked=Asked(apart))
    engine = found.engine
    assert engine.captured == tuple(size for size in SIZES if size <= 48)
    assert engine.apart == apart
    for name in ("step_s", "prefill_step_s", "enter_s"):
        assert engine.term(name) == pytest.approx(KNOWN[name], rel=0.2), name
    assert engine.term("decode_request_s") == pytest.approx(3e-6, rel=0.1)
    for region in ("decode only", "with prefill"):
        assert engine.residuals[region]["median"] < 0.012, region
        assert found.before[region]["median"] > 2 * engine.residuals[region]["median"]


def test_of_ways_that_fit_alike_the_one_that_leaves_most_to_the_kernels() -> None:
    profile = load_profile("nvidia-h200")
    made = Engine("graph", "python", "library", profile.name, profile.hash, SIZES, True,
                  terms=KNOWN)  # fmt: skip
    assert fit_engine(real_scenario(), profile, from_dicts(logged(made))).engine.apart


def test_a_step_may_leave_out_what_the_kernels_loop_had() -> None:
    profile = load_profile("nvidia-h200")
    made = Engine("graph", "python", "library", profile.name, profile.hash, SIZES,
                  terms={"step_s": -50e-6})  # fmt: skip
    found = fit_engine(real_scenario(), profile, from_dicts(logged(made)), asked=Asked(False))
    assert found.engine.term("step_s") == pytest.approx(-50e-6, rel=0.1)


def test_too_few_steps_are_refused() -> None:
    profile = load_profile("nvidia-h200")
    made = Engine("graph", "python", "library", profile.name, profile.hash, SIZES)
    with pytest.raises(InputError, match=r"usable steps|only decode"):
        fit_engine(real_scenario(), profile, from_dicts(logged(made, 31)))


# ---------------------------------------------------------------- files and the command
def run(*arguments: object) -> Any:
    return CliRunner().invoke(app, ["profile", *map(str, arguments)])


def test_the_command_writes_what_a_scenario_takes(tmp_path: Path) -> None:
    profile = load_profile("nvidia-h200")
    made = Engine("graph", "python", "library", profile.name, profile.hash, SIZES, True,
                  terms=KNOWN)  # fmt: skip
    log = tmp_path / "steps.jsonl"
    log.write_text("".join(json.dumps(row) + "\n" for row in logged(made)))
    scenario = tmp_path / "scenario.yaml"
    scenario.write_text(
        "trace: {source: synthetic, requests: 20, rate: 5 /s, prompt_tokens: 500,"
        " output_tokens: 20}\nmodel: {preset: llama-3.2-1b}\n"
        "loop: {mode: graph, kernels: library, max_batch: 64}\nkv: {prefix_cache: false}\n"
    )
    out = tmp_path / "engine.json"
    told = run("engine", log, "--scenario", scenario, "--out", out, "--prefill", "apart")
    assert told.exit_code == 0, told.output
    assert "us a decoding request" in told.output
    loaded = load_profile(out)
    assert loaded.engine is not None
    assert loaded.engine.over == "nvidia-h200"
    assert loaded.kernels == profile.kernels
    assert loaded.hash != profile.hash
    again = tmp_path / "again.json"
    run("engine", log, "--scenario", scenario, "--out", again, "--prefill", "apart", "-q")
    assert again.read_text() == out.read_text().replace('"name": "engine"', '"name": "again"')
    shown = run("show", out)
    assert "kernels alone, with prefill" in shown.output


def test_other_kernels_below_are_named(tmp_path: Path) -> None:
    scenario = on(tmp_path, [(0, 4, 4)])
    assert play(scenario).summary["cost_extrapolated"] == []
    before = load_profile(scenario.hardware.profile).hash
    write_profile(tmp_path / "toy.json", kernels={"gemm.bf16": {"t0_s": TICK / 2}})
    ran = play(scenario)
    assert "fitted over other kernels" in ran.summary["cost_extrapolated"][0]
    assert ran.summary["cost_profile_hash"] not in (before, None)
    # 8 products and the head in decode, each half a tick less
    assert (ran.iterations["duration_s"] / TICK)[2] == 16 - 9 / 2 + 3 + 1


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"mode": "engine"}, "mode: 'engine'; use host"),
        ({"captured": [4, 2]}, "captured: not a list of ascending"),
        ({"said": {"speed_s": {"value": 1}}}, "no term; one of step_s"),
        ({"said": {"enter_s": {"value": -1}}}, "-1 is no number of seconds >= 0"),
        ({"said": {"prefill_submit_s": {"value": 0}}}, "a launch takes some time"),
        ({"said": {"step_s": {"value": float("nan")}}}, "no number of seconds"),
        ({"prefill": {"pass": "beside", "kernels": "fused"}}, "prefill.pass: 'beside'"),
        ({"more": 1}, "no key of an engine"),
        ({"over": "nothing.json"}, "nothing.json"),
        ({"ratios": {"at": [0, 1]}}, "ratios.values"),
    ],
)  # fmt: skip
def test_a_damaged_file_is_named(tmp_path: Path, change: dict[str, Any], what: str) -> None:
    path = engine_file(tmp_path, **change)
    with pytest.raises(InputError) as found:
        load_profile(path)
    assert len(found.value.lines) == 1
    assert what in found.value.lines[0].replace('"', "'")


def test_an_engine_needs_kernels_below(tmp_path: Path) -> None:
    (tmp_path / "steps.json").write_text(json.dumps(of_steps()))
    with pytest.raises(InputError, match="small is no profile of kernels"):
        load_profile(engine_file(tmp_path, over="steps.json"))
    (tmp_path / "other.json").write_text(engine_file(tmp_path).read_text())
    with pytest.raises(InputError, match="no profile of kernels"):
        load_profile(engine_file(tmp_path, over="other.json"))


def test_other_loops_than_the_logged_one_are_refused(tmp_path: Path) -> None:
    path = str(engine_file(tmp_path))
    for loop, schedule, what in (
        ({"mode": "resident"}, {}, "logged in graph, fused kernels; write graph"),
        ({"kernels": "library"}, {}, "write fused"),
        ({}, {"asynchronous": True}, "lie between its steps"),
    ):
        scenario = toy_scenario(
            tmp_path, [(0, 1, 1)], hardware={"profile": path}, loop=loop, schedule=schedule,
            kv={"prefix_cache": False},
        )  # fmt: skip
        assert any(what in line for _, line in faults(scenario)), loop
    scenario = toy_scenario(tmp_path, [(0, 1, 1)], hardware={"profile": path})
    assert not faults(scenario)
