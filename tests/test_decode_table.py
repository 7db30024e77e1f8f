"""Decode steps into a profile and back: split, fit, both statements of the model, the table."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import synthetic_steps as synthetic

from kernels.fit.decode_blocks import blocks
from kernels.fit.decode_model import seconds
from kernels.fit.decode_points import CELL, is_train, read_steps
from kernels.fit.decoder import leaving
from kernels.fit.decoder import main as fit_main
from kernels.fit.samples import SamplesError
from sim.cost import Cost
from sim.decode_step import MODES, DecodeShape, predict
from sim.models import PRESETS
from sim.profile import load_profile
from sim.scenario import Scenario

ROOT = Path(__file__).parent.parent
SHAPE = DecodeShape(PRESETS["llama-3.2-1b"], batch=4, context=8192)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """(steps file, bare profile, fitted profile)"""
    folder = tmp_path_factory.mktemp("decode")
    steps = synthetic.write(folder / "steps.jsonl")
    bare, out = folder / "bare.json", folder / "fitted.json"
    bare.write_text(json.dumps(synthetic.bare()))
    assert fitted(steps, bare, out) == 0
    return steps, bare, out


def fitted(steps, profile, out):
    files = {"steps": steps, "samples": synthetic.SAMPLES, "profile": profile, "out": out}
    return fit_main([word for name, file in files.items() for word in (f"--{name}", str(file))])


@pytest.fixture(scope="module")
def profile(made):
    return load_profile(made[2])


# ---------------------------------------------------------------- the split
def test_all_modes_of_a_cell_share_the_draw_and_times_have_no_say(made):
    found = read_steps(made[0])
    for point in found.points:
        assert point.train == is_train(dict(reversed(point.cell.items())))
    whole = [
        {**dict(zip(CELL, ("1b", "bf16", "bf16", 1, 1, 512, 0, 16), strict=True)), "batch": b,
         "context": c}
        for b in range(1, 65) for c in range(512, 8192, 512)
    ]  # fmt: skip
    assert 0.25 < sum(map(is_train, whole)) / len(whole) < 0.35


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ({"kind": "step"}, "field 'model'"),
        ({"model": "9b"}, "model: '9b' is unknown"),
        ({"seconds": []}, "seconds: no sample"),
        ({"seconds": ["1"]}, "is no time"),
        ({"batch": 1.5}, "batch: 1.5 is no count"),
    ],
)
def test_a_bad_step_is_named_by_its_line(made, tmp_path, line, what):
    good = json.loads(made[0].read_text().splitlines()[1])
    bad = line if "kind" in line else good | line
    path = tmp_path / "steps.jsonl"
    path.write_text(json.dumps(good) + "\n" + json.dumps(bad) + "\n\n")
    with pytest.raises(SamplesError, match=what) as caught:
        read_steps(path)
    assert f"{path}:2:" in str(caught.value)


# ---------------------------------------------------------------- the fit
def test_held_out_steps_of_a_known_world_come_back(made):
    entries = json.loads(made[2].read_text())["loops"]
    assert set(entries) == set(synthetic.NAMES)
    for entry in entries.values():
        held = entry["residuals"]["holdout"]
        assert held["n"] > entry["residuals"]["training"]["n"]
        assert held["median"] < 0.02
        assert held["p90"] < 0.05


@pytest.mark.slow
def test_the_same_steps_give_the_same_bytes(made, tmp_path):
    steps, _, out = made
    again = tmp_path / "again.json"
    fitted(steps, out, again)
    assert again.read_bytes() == out.read_bytes()  # what was fitted before is not built upon


def test_too_few_steps_are_one_line(made, tmp_path, capsys):
    steps, bare, _ = made
    few = tmp_path / "few.jsonl"
    few.write_text("\n".join(steps.read_text().splitlines()[:3]) + "\n")
    assert fitted(few, bare, tmp_path / "o.json") == 2
    assert "too few decode steps" in capsys.readouterr().err


def test_both_statements_of_the_model_are_the_same(made, profile):
    steps, _, out = made
    document = json.loads(out.read_text())
    gap = document["constants"]["graph_node_s"]["value"]
    for block in blocks(read_steps(steps).points):
        loop = document["loops"][block.first.loop]["parameters"]
        ours = seconds(block, {**document["kernels"], **document["in_step"]}, loop, gap)
        for point, value in zip(block.points, ours, strict=True):
            cell = point.cell
            shape = replace(
                SHAPE, batch=cell["batch"], context=point.context, kernels=point.kernels,
                budget=cell["budget_tokens"] or None,
            )  # fmt: skip
            assert predict(profile, shape, point.mode).seconds == pytest.approx(value, rel=1e-12)


# ---------------------------------------------------------------- the simulator
def scenario(**loop):
    trace = {"source": "azure-conv-like", "requests": 1}
    return Scenario.model_validate({"trace": trace, "model": "llama-3.2-1b", "loop": loop})


@pytest.mark.parametrize("kernels", ["library", "fused"])
@pytest.mark.parametrize("mode", MODES)
def test_a_scenario_costs_what_the_step_costs_and_its_scheduling(profile, mode, kernels):
    if (mode, kernels) == ("resident", "library"):
        return
    kind, _, host = mode.partition("-")
    cost = Cost(scenario(mode=kind, host=host or "python", kernels=kernels), profile)
    shape = replace(SHAPE, kernels=kernels)
    found = cost.decode(4).seconds(4 * 8193)
    schedule = 0.0
    if kind in ("host", "graph"):
        name = f"host_{host or 'python'}_schedule"
        schedule = profile.constant(f"{name}_s") + 4 * profile.constant(f"{name}_per_request_s")
    assert found == pytest.approx(predict(profile, shape, mode).seconds + schedule, rel=1e-12)
    assert not any(name.startswith("loops.") for name in cost.estimated())


@pytest.mark.parametrize("mode", ["host", "graph", "control", "resident"])
def test_measured_loops_give_arrays_the_same_bits(profile, mode):
    cost = Cost(scenario(mode=mode, kernels="fused"), profile)
    contexts = [1, 16, 999, 123_456, 10_000_000]
    for batch in (1, 7, 16, 40):
        decode = cost.decode(batch)
        array = decode.seconds_into(np.array(contexts, float)).tolist()
        assert array == [decode.seconds(context) for context in contexts]
        busy, _ = decode.account(np.array(contexts, float))
        assert (busy <= np.array(array)).all()


def test_more_requests_take_longer_beyond_what_was_measured_too(profile):
    for mode in ("graph", "resident"):
        cost = Cost(scenario(mode=mode, kernels="fused"), profile)
        times = [cost.decode(batch).seconds(batch * 1000) for batch in (8, 16, 17, 24, 64)]
        assert times == sorted(times)


def test_a_loop_is_left_as_it_was_seen_to_be_left(made, tmp_path):
    told = [
        {"kind": "constant", "mode": "control", "kernels": "library", "name": name,
         "seconds": [seconds, 2 * seconds, 3 * seconds]}
        for name, seconds in (("relaunch", 1e-5), ("exit", 1e-6), ("exit_to_idle", 2e-6))
    ]  # fmt: skip
    lines = tmp_path / "lines.jsonl"
    lines.write_text("".join(json.dumps(line) + "\n" for line in told))
    document = json.loads(made[2].read_text())
    assert leaving(read_steps(lines), "resident/fused") == {}
    document["loops"]["control/library"] |= leaving(read_steps(lines), "control/library")
    out = tmp_path / "left.json"
    out.write_text(json.dumps(document))
    seen = load_profile(out)
    cost = Cost(scenario(mode="control", kernels="library"), seen)
    assert cost.modes.relaunch == 2e-5
    assert cost.modes.exit == pytest.approx(6e-6)
    other = Cost(scenario(mode="resident", kernels="fused"), seen)
    assert other.modes.relaunch == seen.constant("resident_relaunch_s")


def test_a_profile_without_loops_answers_as_before_and_says_so(made):
    bare = load_profile(made[1])
    for mode in ("host", "graph", "control", "resident"):
        cost = Cost(scenario(mode=mode), bare)
        assert cost.decode(4).seconds(4 * 8193) > 1e-4
        name = "host-python" if mode == "host" else mode
        assert f"loops.{name}/fused" in cost.estimated()
        assert predict(bare, SHAPE, "host-c" if mode == "host" else mode).seconds > 1e-4


def test_more_rows_than_the_fused_kernels_take_are_estimated(profile):
    cost = Cost(scenario(mode="graph", kernels="fused"), profile)
    cost.decode(16)
    assert "loops.graph/fused" not in cost.estimated()
    cost.decode(17)
    assert "loops.graph/fused" in cost.estimated()


def test_a_step_beyond_what_was_measured_is_named(profile):
    cost = Cost(scenario(mode="graph", kernels="library", max_batch=256), profile)
    cost.decode(64)
    assert not [line for line in cost.extrapolated() if line.startswith("loops.")]
    cost.decode(128)
    assert "loops.graph/library: batch 128 outside 1 to 64" in cost.extrapolated()


@pytest.mark.parametrize(
    ("field", "value"), [("batch", 16), ("context", 32768), ("tokens", 4), ("budget", None)]
)
@pytest.mark.parametrize("mode", MODES)
def test_each_size_lengthens_the_step_in_every_mode(profile, mode, field, value):
    shape = replace(SHAPE, kernels="fused", batch=2, budget=2048)
    if field == "budget":  # below, selection costs more than it spares
        shape = replace(shape, batch=8, context=32768)
    longer = replace(shape, **{field: value})
    if field == "context":  # fused: what a sparse step attends to does not grow
        shape, longer = replace(shape, budget=None), replace(longer, budget=None)
    before, after = (predict(profile, s, mode).seconds for s in (shape, longer))
    assert after > before or (mode == "host-python" and after == before)  # submissions hide it


# ---------------------------------------------------------------- the table
def test_the_table_is_printed_and_written(made, tmp_path):
    steps, _, out = made
    rows = tmp_path / "rows.json"
    command = [sys.executable, "bench/decode_table.py", "--steps", str(steps)]
    command += ["--profile", str(out), "--out", str(rows), "--cells"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "resident/fused" in done.stdout
    document = json.loads(rows.read_text())
    assert document["tables"]["graph/library"]["blind"]["n"] > 0
    first = document["rows"][0]
    assert {"train", "measured_s", "predicted_s", "blind_s", "mode", "kernels"} <= set(first)


def test_a_missing_file_is_one_line():
    command = [sys.executable, "bench/decode_table.py", "--steps", "none.jsonl"]
    wrong = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert wrong.returncode == 2
    assert wrong.stderr.count("\n") == 1
