"""The attention loop of the kernels, predicted from the shipped profile."""

from __future__ import annotations

import statistics
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from sim.kernel_loop import MODES, LoopShape, predict, stage_seconds
from sim.profile import load_profile

ROOT = Path(__file__).parent.parent
SHAPE = LoopShape(batch=4, context=8192, budget=2048)


@pytest.fixture(scope="module")
def profile():
    return load_profile("nvidia-h200")


def test_a_sparse_step_has_five_stages_and_a_dense_one_three(profile):
    assert list(stage_seconds(profile, SHAPE)) == ["append", "score", "select", "attend", "verify"]
    dense = stage_seconds(profile, replace(SHAPE, budget=None))
    assert list(dense) == ["append", "attend", "verify"]
    assert dense["attend"] > stage_seconds(profile, SHAPE)["attend"]


def test_a_graph_is_the_sum_of_its_stages_a_launch_and_the_copy_back(profile):
    step = predict(profile, SHAPE, "graph")
    around = profile.constant("host_c_graph_launch_s") + profile.constant("host_c_copyback_s")
    assert step.seconds == pytest.approx(sum(step.stages.values()) + around)


@pytest.mark.parametrize(
    ("field", "value"),
    [("batch", 64), ("context", 131072), ("tokens", 8), ("vocabulary", 128256), ("budget", None)],
)
@pytest.mark.parametrize("mode", MODES)
def test_each_size_lengthens_the_step_in_every_mode(profile, mode, field, value):
    shape = replace(SHAPE, context=32768)
    before = predict(profile, shape, mode).seconds
    assert predict(profile, replace(shape, **{field: value}), mode).seconds > before


def test_predictions_stay_as_near_to_the_measured_table_as_stated():
    sys.path.insert(0, str(ROOT))
    try:
        from bench.loop_table import compare
    finally:
        sys.path.pop(0)
    rows = compare(ROOT / "calibration" / "h200-run1.jsonl.gz", "nvidia-h200")
    median = {
        mode: statistics.median(
            abs(row["predicted_s"] / row["measured_s"] - 1.0) for row in rows if row["mode"] == mode
        )
        for mode in MODES
    }
    assert median["graph"] < 0.04
    assert median["host-c"] < 0.04
    assert median["host-python"] < 0.05
    assert median["resident"] < 0.25  # its stages are slower inside the one kernel: not modelled


def test_the_table_is_printed_and_a_missing_file_is_one_line():
    command = [sys.executable, "bench/loop_table.py"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "131072 sparse" in done.stdout
    wrong = subprocess.run(
        [*command, "--samples", "none.jsonl"], cwd=ROOT, capture_output=True, text=True
    )
    assert wrong.returncode == 2
    assert wrong.stderr.count("\n") == 1
