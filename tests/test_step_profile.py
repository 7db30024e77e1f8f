"""Profiles of steps: exact times, what a file may hold, and what such a profile cannot say."""

from __future__ import annotations

import copy
import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from small_steps import document, step_scenario
from toy import TICK, play
from typer.testing import CliRunner

from sim.cli import app
from sim.errors import InputError
from sim.feasible import faults
from sim.fleet import hbm_blocks
from sim.profile import load_profile
from sim.step_profile import Ratios

if TYPE_CHECKING:
    from pathlib import Path


def ticks(values: Any) -> list[float]:
    return [float(value) / TICK for value in values]


# ---------------------------------------------------------------- what iterations take
@pytest.mark.parametrize("engine", ["leap", "step"])
def test_iterations_take_what_the_form_says(tmp_path: Path, engine: str) -> None:
    ran = play(step_scenario(tmp_path, [(0, 8, 3)]), engine)
    # 6 + 8/4 for the prompt; then 4 + 1/2 and a 64th for each of 9 and 10 tokens.
    assert ticks(ran.iterations.duration_s) == [8.0, 4.5 + 9 / 64, 4.5 + 10 / 64]
    assert ticks(ran.requests.finished_s) == [17 + 19 / 64]
    assert ran.iterations.path.tolist() == ["engine"] * 3
    assert ran.summary["loop_path_engine"] == 3
    assert ran.summary["loop_gap_s"] == 0.0  # nobody said what of it is the GPU's
    assert ran.summary["cost_extrapolated"] == []


def test_a_mixed_iteration_reads_and_computes(tmp_path: Path) -> None:
    ran = play(step_scenario(tmp_path, [(0, 8, 9), (9, 20, 1)]))
    row = ran.iterations[ran.iterations.kind == "mixed"].iloc[0]
    assert (row.decode_requests, row.prefill_tokens) == (1, 20)
    # Tokens computed: one decoded and twenty of the prompt.
    assert row.duration_s / TICK == 6 + 21 / 4 + row.context_tokens / 64


def test_the_larger_branch_counts(tmp_path: Path) -> None:
    decode = [[("step", 5)], [("step", 4), ("context", 2**-3)]]
    ran = play(step_scenario(tmp_path, [(0, 4, 8)], document(decode=decode)))
    assert ticks(ran.iterations.duration_s)[1:] == [
        max(5, 4 + context / 8) for context in range(5, 12)
    ]


def test_batches_are_padded_without_prefill(tmp_path: Path) -> None:
    requests = [(0, 1, 4), (0, 1, 4), (0, 1, 4)]
    decode = [[("decode_request", 1), ("tokens", 2)]]
    profile = document(decode=decode, captured=[1, 4])
    ran = play(step_scenario(tmp_path, requests, profile))
    assert ticks(ran.iterations.duration_s)[1:] == [12.0] * 3
    assert ran.iterations.padded_requests.tolist()[1:] == [4] * 3
    given = play(step_scenario(tmp_path, requests, profile, loop={"captured_batches": [1, 3]}))
    assert ticks(given.iterations.duration_s)[1:] == [9.0] * 3
    beyond = play(step_scenario(tmp_path, requests, document(decode=decode, captured=[1, 2])))
    assert ticks(beyond.iterations.duration_s)[1:] == [9.0] * 3


def test_pairs_of_single_prompts_are_exact(tmp_path: Path) -> None:
    profile = document(mixed=[[("prefill_pair", 1)]])
    ran = play(step_scenario(tmp_path, [(0, 2, 1), (0, 10, 1)], profile))
    assert ticks(ran.iterations.duration_s) == [2 * 1.0 + 10 * 5.0]


def test_gpu_seconds_and_the_gap(tmp_path: Path) -> None:
    profile = document()
    gpu = copy.deepcopy(profile["form"])
    gpu["decode"] = [[{"term": "step", "value": 3 * TICK, "unit": "s"}]]
    ran = play(step_scenario(tmp_path, [(0, 8, 3)], profile | {"gpu": gpu}))
    assert ticks(ran.iterations.gpu_busy_s) == [8.0, 3.0, 3.0]
    assert ticks(ran.iterations.gap_s) == [0.0, 1.5 + 9 / 64, 1.5 + 10 / 64]


def test_noise_has_the_logs_mean_and_can_be_left_out(tmp_path: Path) -> None:
    ratios = {"at": [0.0, 0.5, 0.5, 1.0], "values": [0.5, 0.5, 1.5, 1.5]}
    profile = document(decode=[[("step", 4)]], ratios=ratios)
    ran = play(step_scenario(tmp_path, [(0, 1, 2000)], profile))
    found = set(ticks(ran.iterations.duration_s[1:]))
    assert found == {2.0, 6.0}
    assert ran.iterations.duration_s[1:].mean() / TICK == pytest.approx(4.0, rel=0.05)
    quiet = step_scenario(tmp_path, [(0, 1, 50)], profile, hardware={"step_noise": "none"})
    assert set(ticks(play(quiet).iterations.duration_s[1:])) == {4.0}
    other = play(step_scenario(tmp_path, [(0, 1, 2000)], profile, seed=1))
    assert other.iterations.duration_s.tolist() != ran.iterations.duration_s.tolist()


def test_ratios_keep_mean_and_rare_slow_steps() -> None:
    rng = np.random.default_rng(1)
    ratios = np.exp(rng.normal(0.0, 0.02, 20_000))
    ratios[::500] *= 10.0
    kept = Ratios.of(ratios)
    drawn = kept.draw(rng.random(200_000))
    assert drawn.mean() == pytest.approx(ratios.mean(), rel=2e-3)
    assert np.median(drawn) == pytest.approx(1.0, abs=1e-3)
    assert (drawn > 5).mean() == pytest.approx(0.002, rel=0.2)


def test_a_run_outside_the_log_says_where(tmp_path: Path) -> None:
    domain = {"axes": [], "cells": [[1, 4, 0], [0, 0, 5]], "ranges": {
        "decode_requests": [0, 1], "context_tokens_each": [0, 8], "prefill_tokens": [0, 16],
    }}  # fmt: skip
    ran = play(step_scenario(tmp_path, [(0, 8, 3), (0, 8, 3)], document(domain=domain)))
    said = ran.summary["cost_extrapolated"]
    assert said[0].startswith("step log: ")
    assert any("decoding requests from 2, the log has up to 1" in line for line in said)


# ---------------------------------------------------------------- memory
def test_blocks_of_hbm_may_be_given(tmp_path: Path) -> None:
    requests = [(0, 32, 20), (0, 32, 20)]
    few = play(step_scenario(tmp_path, requests, kv={"hbm_blocks": 5}))
    assert few.summary["kv_blocks_capacity"] == 5
    assert few.summary["kv_preemptions"] > 0  # each grows from 2 to 4 blocks of 16 tokens
    many = play(step_scenario(tmp_path, requests, kv={"hbm_blocks": 8}))
    assert many.summary["kv_preemptions"] == 0
    scenario = step_scenario(tmp_path, requests, kv={"hbm_blocks": None})
    profile = load_profile(tmp_path / "small.json")
    with pytest.raises(InputError, match=r"kv\.hbm_blocks: missing"):
        hbm_blocks(scenario, profile)
    sized = step_scenario(
        tmp_path, requests, kv={"hbm_blocks": None}, hardware={"hbm": {"capacity": "1 GiB"}}
    )
    assert hbm_blocks(sized, profile) > 1000


# ---------------------------------------------------------------- what does not go together
@pytest.mark.parametrize(
    ("sections", "place", "said"),
    [
        ({"loop": {"mode": "graph"}}, ("loop", "mode"), "write loop.mode: engine"),
        ({"kv": {"hbm_blocks": None}}, ("kv",), "hbm_blocks: missing"),
        ({"hardware": {"dram": {"capacity": "1 GiB"}}}, ("hardware", "dram"), "says nothing"),
        ({"sparse": {"select": "topk", "top_k_tokens": 64, "sink_tokens": 16,
                     "recent_tokens": 16, "locality": 0.5}}, ("sparse",), "says nothing"),
    ],
)  # fmt: skip
def test_what_steps_cannot_say_is_refused(
    tmp_path: Path, sections: dict[str, Any], place: tuple[str, ...], said: str
) -> None:
    found = faults(step_scenario(tmp_path, [(0, 1, 1)], **sections))
    assert [where for where, _ in found] == [place]
    assert said in found[0][1]


def test_engine_mode_needs_a_profile_of_steps(tmp_path: Path) -> None:
    scenario = step_scenario(tmp_path, [(0, 1, 1)], hardware={"profile": "nvidia-h200"})
    assert any(where == ("loop", "mode") and "profile fit" in what
               for where, what in faults(scenario))  # fmt: skip


# ---------------------------------------------------------------- the file
def broken(path: str, value: Any) -> dict[str, Any]:
    """The document with *value* at a place with dots."""
    data = document()
    *way, last = path.split(".")
    node: Any = data
    for key in way:
        node = node[int(key) if key.isdigit() else key]
    node[int(last) if last.isdigit() else last] = value
    return data


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("schema", 2, "schema: 2; this version reads 1"),
        ("mode", "fast", "mode: 'fast'; use engine"),
        ("extra", 1, "'extra': no key of a profile of steps"),
        ("form.captured", [4, 2], "form.captured: not a list of ascending"),
        ("form.captured", [True], "form.captured: not a list of ascending"),
        ("form.grains", [1], "form.grains: not two whole numbers"),
        ("form.decode", [], "form.decode: not a list of branches"),
        ("form.decode.0", [], "form.decode[0]: not a list of terms"),
        ("form.decode.0.0.term", "magic", "form.decode[0][0]: "),
        ("form.decode.0.0.value", -1, "form.decode[0][0].value: -1 is no number"),
        ("form.decode.0.0.value", float("nan"), "form.decode[0][0].value: nan is no number"),
        ("form.mixed.0.1.to", 0, "form.mixed[0][1]: from and to"),
        ("form.context_of", "mine", "form.context_of: 'mine'"),
        ("domain.cells", [[1, 2]], "domain.cells: not a list"),
        ("domain.ranges.prefill_tokens", [2, 1], "domain.ranges.'prefill_tokens': [2, 1]"),
        ("ratios.values", [2.0, 1.0], "ratios.values: not a list of ascending"),
        ("form.held", 1, "form.held: 1; true or false"),
        ("form.turns", {"else": []}, "form.turns: not a table with decode and mixed"),
        ("form.turns", {"decode": 3}, "form.turns.decode: not a list of terms"),
        ("form.turns", {"mixed": [{"term": "context"}]}, "form.turns.mixed[0]: "),
        ("ratios.kinds", {"odd": {}}, "ratios.kinds: not a table with some of decode"),
        ("ratios.kinds", {"decode": {"at": [0, 1]}}, "ratios.kinds.decode.values: not a list"),
        ("ratios.at", [0.0, 0.9], "ratios.at: not from 0 to 1"),
        ("residuals", {"all": {"n": "x"}}, "residuals.'all': no numbers"),
        ("noise_floor", "low", "noise_floor: 'low' is no finite number"),
        ("notes", 3, "notes: not a list of texts"),
    ],
)
def test_one_line_for_what_is_wrong_in_a_file(
    tmp_path: Path, path: str, value: Any, said: str
) -> None:
    file = tmp_path / "bad.json"
    file.write_text(json.dumps(broken(path, value)))
    with pytest.raises(InputError) as caught:
        load_profile(file)
    assert any(line.startswith(f"{file}: {said}") for line in caught.value.lines), caught.value


def test_the_hash_is_of_the_content(tmp_path: Path) -> None:
    for name, indent in (("a", None), ("b", 2)):
        (tmp_path / f"{name}.json").write_text(json.dumps(document(), indent=indent))
    (tmp_path / "c.json").write_text(json.dumps(document(captured=[1])))
    a, b, c = (load_profile(tmp_path / f"{name}.json").hash for name in "abc")
    assert a == b != c


def test_show_prints_form_and_coverage(tmp_path: Path) -> None:
    (tmp_path / "small.json").write_text(json.dumps(document()))
    result = CliRunner().invoke(app, ["profile", "show", str(tmp_path / "small.json")])
    assert result.exit_code == 0, result.output
    for part in ("for loop.mode: engine", "us a context token read", "15.26", "cells of load"):
        assert part in result.output


def test_modes_cannot_be_compared_on_steps(tmp_path: Path) -> None:
    scenario = step_scenario(tmp_path, [(0, 1, 1)])
    assert scenario.loop.mode == "engine"
    path = tmp_path / "s.yaml"
    path.write_text(
        "trace: {file: trace.jsonl, format: mooncake}\nmodel: llama-3.1-8b\n"
        "hardware: {profile: ./small.json}\nloop: {mode: engine}\nkv: {hbm_blocks: 10}\n"
    )
    result = CliRunner().invoke(app, ["modes", str(path), "--out", str(tmp_path / "modes")])
    assert isinstance(result.exception, InputError)
    assert "whole steps" in str(result.exception)
