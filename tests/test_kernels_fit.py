"""The fit: forms equal to the simulator's, honest splits, known parameters that come back."""

from __future__ import annotations

import json
import sys
from contextlib import contextmanager
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kernels.__main__ import main
from kernels.bench_worker import plain
from kernels.fit import estimates, solve
from kernels.fit import kernel as kernel_fit
from kernels.fit.constants import REQUIRED
from kernels.fit.control import constants
from kernels.fit.forms import FORMS
from kernels.fit.judge import at_frontier, is_held_out, residuals
from kernels.fit.kernel import fitted
from kernels.fit.profile import REQUIRED as REQUIRED_KERNELS
from kernels.fit.profile import build, text
from kernels.fit.recipe import by_threshold
from kernels.fit.recipes import RECIPES
from kernels.fit.samples import Point, SamplesError, read
from kernels.fit.solve import fit, line, six
from sim.profile import build_form, load_profile
from sim.profile_check import CONSTANTS, KERNELS
from sim.profile_check import FORMS as PARAMETERS

SIZE = st.floats(1.0, 1e12)
COUNT = st.integers(1, 10**6).map(float)
OFFSET = st.integers(0, 2).map(float)
TIME, RATE = st.floats(1e-9, 1e-3), st.floats(1e6, 1e15)


def parameters(form):
    """Any physical parameters of *form*."""
    kinds = {"q": st.floats(1.0, 12.0), "kv_bytes": st.floats(0.25, 4.0)}
    kinds |= {"slots": st.floats(1.0, 1e4), "half_tokens": st.floats(0.0, 1e5)}
    kinds |= dict.fromkeys(("l2_bytes", "half_bytes"), st.floats(1e6, 1e9))

    def kind(key):
        name = key.removeprefix("gemv_").removeprefix("cached_")
        return kinds.get(name, RATE if name.endswith("_per_s") else TIME)

    return st.fixed_dictionaries({key: kind(key) for key in PARAMETERS[form]})


AXES = {
    "roofline": {"bytes": SIZE, "flops": SIZE},
    "roofline_gemv": {"bytes": SIZE, "flops": SIZE},
    "ramped_gemv": {"bytes": SIZE, "flops": SIZE, "inputs": COUNT},
    "split_kv": dict.fromkeys(("batch", "total_context", "heads", "kv_heads", "head_dim"), COUNT),
    "split_kv_columns": dict.fromkeys(
        ("batch", "total_context", "heads", "kv_heads", "head_dim"), COUNT
    ),
    "ramped_flops": dict.fromkeys(("heads", "head_dim", "chunk", "offset"), COUNT),
    "chunked_prefill": dict.fromkeys(("heads", "head_dim", "chunk"), COUNT) | {"offset": OFFSET},
    "linear_bytes": {"bytes": SIZE},
    "cached_bytes": {"bytes": SIZE},
    "stream_rows": {"bytes": SIZE, "rows": COUNT},
    "waves": {"rows": COUNT, "entries": COUNT},
}
SCALAR_NAMES = {"bytes": "bytes_moved"}


def test_both_sides_know_the_same_forms():
    assert FORMS.keys() == PARAMETERS.keys() == AXES.keys()


@pytest.mark.parametrize("form", FORMS)
@settings(max_examples=60, deadline=None, derandomize=True)
@given(data=st.data())
def test_forms_equal_the_simulators(form, data):
    p = data.draw(parameters(form))
    rows = data.draw(st.lists(st.fixed_dictionaries(AXES[form]), min_size=1, max_size=5))
    scalar = build_form(form, p)
    arrays = {name: np.array([row[name] for row in rows]) for name in AXES[form]}
    named = [{SCALAR_NAMES.get(name, name): v for name, v in row.items()} for row in rows]
    ours = [scalar.seconds(**row) for row in named]
    np.testing.assert_allclose(FORMS[form](p, arrays), ours, rtol=1e-12)


def test_required_names_are_those_of_the_loader():
    assert set(REQUIRED) == set(CONSTANTS)
    assert set(REQUIRED_KERNELS) == set(KERNELS)
    assert set(estimates.CONSTANTS) < set(CONSTANTS)


@pytest.mark.parametrize(
    ("form", "truth", "free"),
    [
        ("linear_bytes", {"t0_s": 2e-6, "bytes_per_s": 3e12}, ("t0_s", "bytes_per_s")),
        (
            "roofline",
            {"t0_s": 4e-6, "bytes_per_s": 4e12, "flops_per_s": 7e14, "q": 3.5},
            ("t0_s", "bytes_per_s", "flops_per_s", "q"),
        ),
        (
            "stream_rows",
            {"t0_s": 3e-6, "bytes_per_s": 4e12, "ramp_s": 2e-6, "row_s": 1e-8},
            ("t0_s", "bytes_per_s", "ramp_s", "row_s"),
        ),
    ],
)
def test_known_parameters_come_back_through_outliers(form, truth, free):
    rng = np.random.default_rng(3)
    axes = {"bytes": 10 ** rng.uniform(4, 9.5, 200), "flops": 10 ** rng.uniform(6, 12.5, 200)}
    axes["rows"] = np.floor(10 ** rng.uniform(0, 4, 200))
    clean = FORMS[form](truth, axes)
    noisy = clean * np.exp(rng.normal(0.0, 0.01, 200))
    noisy[::20] *= 1.6
    start = {key: value * rng.uniform(0.5, 2.0) for key, value in truth.items()}
    found = fit(form, start, free, axes, noisy, {"q": (1.0, 12.0)})
    error = np.abs(FORMS[form](found, axes) / clean - 1.0)
    assert np.median(error) < 0.01
    assert np.max(error) < 0.05


def test_a_fit_does_not_hang_on_its_start():
    rng = np.random.default_rng(4)
    axes = {"bytes": 10 ** rng.uniform(4, 9, 60)}
    seconds = 2e-6 + axes["bytes"] / 4e12
    for factor in (0.1, 1.0, 8.0):
        start = {"t0_s": 2e-6 * factor, "bytes_per_s": 4e12 / factor}
        found = fit("linear_bytes", start, ("t0_s", "bytes_per_s"), axes, seconds)
        assert found == {"t0_s": pytest.approx(2e-6), "bytes_per_s": pytest.approx(4e12)}


def test_a_line_by_hand():
    size = np.array([1e4, 1e6, 1e8])
    latency, rate = line(size, 5e-6 + size / 5e10)
    assert latency == pytest.approx(5e-6, rel=1e-4)
    assert rate == pytest.approx(5e10, rel=1e-4)
    assert six(1.23456789e-6) == 1.23457e-6


def test_residuals_by_hand():
    figures = residuals(np.array([1.1, 0.8, 1.0]), np.ones(3))
    rmsle = round(float(np.sqrt(np.mean(np.log([1.1, 0.8, 1.0]) ** 2))), 4)
    assert figures == {
        "n": 3, "median": 0.1, "p90": 0.18, "max": 0.2, "signed_median": 0.0, "rmsle": rmsle,
    }  # fmt: skip
    assert residuals(np.array([]), np.array([])) == {"n": 0}


def test_a_split_hangs_on_the_point_alone():
    points = [{"size": size, "kind": "a"} for size in range(2000)]
    held = [is_held_out("alpha", point) for point in points]
    assert held == [is_held_out("alpha", dict(reversed(point.items()))) for point in points]
    assert 0.17 < np.mean(held) < 0.23
    assert held != [is_held_out("beta", point) for point in points]


def test_the_frontier_is_the_largest_fifth():
    rng = np.random.default_rng(5)
    size = rng.integers(1, 100, 50).astype(float).tolist()
    points = [
        Point("alpha", {"i": i}, size[i], 0.0, (1e-6,), 0.0, {}, False, 0.1) for i in range(50)
    ]
    far = at_frontier(points, size)
    assert sum(far) == 10
    assert min(s for s, out in zip(size, far, strict=True) if out) >= max(
        s for s, out in zip(size, far, strict=True) if not out
    )


def test_labels_of_groups():
    label = by_threshold("m", 1, 16)
    found = [label({"m": m}) for m in (1, 2, 16, 17)]
    assert found == ["to 1", "above 1 to 16", "above 1 to 16", "above 16"]


# ---------------------------------------------------------------- from samples to a profile
def made_up(seed=0, noise=0.01):
    """A samples file's lines: the real grids with times of known parameters and noise."""
    rng = np.random.default_rng(seed)
    device = {"name": "NVIDIA H200", "sms": 132, "hbm_bytes": 150e9, "l2_bytes": 62914560}
    yield {"kind": "run", "device": device, "date": "2026-11-21T05:00:00Z", "commit": "abc"}
    for folder, points in GRIDS.items():
        for axes in points:
            recipe = next((r for r in RECIPES if r.folder == folder and r.where(axes)), None)
            point = Point(folder, axes, 1e6, 0.0, (1e-6,), 0.0, {}, False, 0.1)
            seconds, moved = 1e-3, float(axes.get("bytes", 1e6))
            if recipe is not None:
                inputs = recipe.inputs(point)
                row = {name: np.array([value]) for name, value in inputs.items()}
                seconds = float(FORMS[recipe.form](recipe.start, row)[0])
                moved = inputs.get("bytes", 1e6)
            drawn = rng.normal(0.0, noise)
            for again in (False, True) if rng.random() < 0.1 else (False,):
                times = seconds * np.exp(drawn + rng.normal(0.0, 1e-3, 3))
                yield {
                    "kind": "point", "kernel": folder, "point": axes, "again": again,
                    "bytes": moved, "flops": 0.0, "error": 0.0, "calls": 1, "took": 0.1,
                    "seconds": times.tolist(), "baselines": {"library": [2 * seconds]},
                }  # fmt: skip
    for folder, records in RECORDS.items():
        for again in (False, True):
            yield {
                "kind": "records", "kernel": folder, "measure": "measure_constants",
                "again": again, "records": records, "took": 1.0, "incomplete": "",
            }  # fmt: skip


GRIDS = {
    folder: [plain(point) for point in import_module(f"kernels.{folder}.bench").points()]
    for folder in sorted({recipe.folder for recipe in RECIPES} | {"streams"})
}
US = 1e-6
CONTROL = {
    "launch": {
        "python_submit": [4 * US], "python_stage_submit": [5 * US], "python_sync": [9 * US],
        "python_copy_sync": [13 * US],
        "c_submit_1": [2 * US], "c_submit_5": [10 * US], "c_sync_1": [7 * US],
        "c_copy_sync_1": [9 * US], "c_sync_3": [11 * US], "c_copy_sync_3": [13 * US],
        "graph_sync_3": [8.3 * US],
    },
    "nodes": [{"nodes": n, "synced_s": [6 * US + 1.1 * US * n] * 3} for n in (1, 10, 100, 1000)],
    "barrier": [
        {"kind": kind, "blocks": blocks, "threads": 256, "samples_s": [blocks / 132 * US]}
        for kind in ("counted", "spread")
        for blocks in (132, 264)
    ],
    "mailbox": {"c": [2 * US], "python": [3 * US]},
    "control": [
        {
            "slots": slots, "dedicated": dedicated, "sparse": False, "waiting": False,
            "samples_s": [4 * US + 0.01 * US * slots],
        }
        for slots in (1, 16, 256)
        for dedicated in (False, True)
    ],
    "leaving": {
        "asked_to_status": [8 * US], "asked_to_end": [20 * US],
        "launch_to_output": [90 * US], "c_launch_to_output": [80 * US],
    },
}  # fmt: skip
RECORDS = {
    "loop_control": [{"name": name, "data": data} for name, data in CONTROL.items()],
    "tier_copy": [
        {
            "name": "copy_engine", "direction": way, "calls": 1, "bytes": size,
            "seconds": [5e-6 + size / 5e10] * 3,
        }
        for way in ("h2d", "d2h")
        for size in (4096, 65536, 1 << 20, 1 << 26)
    ],
}  # fmt: skip


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """The samples file and the profile that the command makes of it."""
    folder = tmp_path_factory.mktemp("fit")
    file, out = folder / "s.jsonl", folder / "p.json"
    file.write_text("".join(json.dumps(entry) + "\n" for entry in made_up()))
    words = ["kernels", "bench", "--fit-only", "--samples", str(file), "--out", str(out)]
    with from_the_truth() as patch:
        patch.setattr(sys, "argv", words)
        assert main() == 0
    return file, out


@contextmanager
def from_the_truth():
    """Fits start at the made-up truth only and need few steps; from elsewhere they take long."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kernel_fit, "STARTS", 1)
        patch.setattr(solve, "MOST_STEPS", 20)
        yield patch


def test_constants_of_control_by_hand():
    found = {name: value for name, value, _, _ in constants(RECORDS["loop_control"])}
    expected = {
        "host_python_submit_s": 5.0, "host_c_submit_s": 2.0, "host_sync_s": 5.0,
        "host_c_sync_s": 5.0, "host_c_copyback_s": 2.0, "host_c_graph_launch_s": 5.0,
        "host_copyback_s": 4.0, "launch_latency_s": (5.0 - 1.1) / 2, "graph_launch_s": 6.0,
        "graph_node_s": 1.1, "grid_barrier_s": 1.0, "mailbox_round_trip_s": 2.0,
        "device_schedule_s": 1.0, "device_schedule_per_request_s": 0.01, "resident_exit_s": 8.0,
        "resident_relaunch_s": 80.0,
    }  # fmt: skip
    assert found == {name: pytest.approx(value * US) for name, value in expected.items()}


@pytest.mark.parametrize("part", CONTROL)
def test_control_records_that_lack_a_part_are_named(part):
    records = [record for record in RECORDS["loop_control"] if record["name"] != part]
    with pytest.raises(SamplesError, match="loop_control: records lack a part"):
        list(constants(records))


def test_the_simulator_loads_what_the_fit_writes(written):
    profile = load_profile(written[1])
    assert profile.name == "nvidia-h200"
    assert profile.commit == "abc"
    assert {recipe.name for recipe in RECIPES} <= set(profile.kernels)
    assert profile.constant("h2d_bytes_per_s") == pytest.approx(5e10, rel=1e-3)
    assert profile.kind("gemm.bf16") == "fitted"
    assert profile.kind("grid_barrier_s") == "measured"
    assert {"gemm.int8", "prefetch_ring_bytes"} <= set(profile.estimated())
    assert not {"gemm.fp8", "decode_attention.int8"} & set(profile.estimated())
    for kernel in (profile.elementwise(), profile.gemm("int4"), profile.decode_attention("int4")):
        assert kernel.t0_s > 0.0
    for entry in (*profile.constants.values(), *profile.kernels.values()):
        assert entry.source in profile.sources


@pytest.mark.parametrize("name", [recipe.name for recipe in RECIPES])
def test_predictions_come_back_within_the_noise(written, name):
    """One percent of noise on each point leaves little on points that no fit has seen."""
    found = json.loads(written[1].read_text())["kernels"][name]["residuals"]
    many = found["training"]["n"] >= 40
    for split in ("holdout", "left_out_shapes", "frontier") if many else ("holdout",):
        assert found[split]["n"] > 0, split
        assert found[split]["median"] < (0.02 if many else 0.04), split
        assert found[split]["p90"] < (0.06 if many else 0.12), split
    assert found["repeatability"].get("median", 0.0) < 0.005


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.name)
def test_every_kernel_has_points_held_out(recipe):
    points = [axes for axes in GRIDS[recipe.folder] if recipe.where(axes)]
    held = sum(is_held_out(recipe.folder, axes) for axes in points)
    assert max(1, 0.1 * len(points)) <= held <= max(3, 0.35 * len(points))


@pytest.mark.slow
def test_same_samples_same_bytes(written):
    samples = read(written[0])
    with from_the_truth():
        assert text(build(samples)) == written[1].read_text()


def test_a_second_run_is_set_beside_the_first(written):
    first = read(written[0])
    second = replace(first, points={
        key: replace(point, seconds=tuple(1.02 * s for s in point.seconds))
        for key, point in first.points.items()
    })  # fmt: skip
    recipe = next(recipe for recipe in RECIPES if recipe.name == "elementwise")
    found = fitted(recipe, first, second)["residuals"]
    assert found["second_run"]["median"] == pytest.approx(0.02, abs=1e-3)
    assert found["second_run_model"]["n"] == found["second_run"]["n"]


def test_too_little_is_said_in_one_line(written, tmp_path, capsys, monkeypatch):
    lines = written[0].read_text().splitlines(keepends=True)
    file = tmp_path / "s.jsonl"
    words = ["kernels", "bench", "--fit-only", "--samples", str(file)]
    monkeypatch.setattr(sys, "argv", [*words, "--out", str(tmp_path / "p.json")])
    for kept, said in (
        ([row for row in lines if '"streams"' not in row], "hbm_read_bytes_per_s"),
        (lines[1:], "holds no run"),
    ):
        file.write_text("".join(kept))
        assert main() == 2
        error = capsys.readouterr().err
        assert said in error
        assert error.count("\n") == 1
    assert not (tmp_path / "p.json").exists()


# ---------------------------------------------------------------- the shipped profile
ROOT = Path(__file__).parents[1]
SHIPPED = json.loads((ROOT / "sim" / "profiles" / "nvidia-h200.json").read_text())


@pytest.fixture(scope="module")
def rebuilt():
    """What the program makes of the committed samples."""
    data = ROOT / "calibration"
    runs = [read(data / f"h200-run{number}.jsonl.gz") for number in (1, 2)]
    return build(*runs, data / "torch.jsonl")


def test_shipped_profile_is_what_the_program_writes(rebuilt):
    """Parameters that say the same may differ between SciPy's versions, predictions may not."""
    from_steps = {"in_step", "loops"}  # of kernels.fit.decoder: tests/test_shipped_loops.py
    assert rebuilt.keys() == SHIPPED.keys() - from_steps
    assert rebuilt["kernels"].keys() == SHIPPED["kernels"].keys()
    for name, entry in rebuilt["constants"].items():
        assert entry["value"] == pytest.approx(SHIPPED["constants"][name]["value"], rel=1e-3)
    for name, entry in rebuilt["kernels"].items():
        shipped = SHIPPED["kernels"][name]
        assert (entry["form"], entry["domain"]) == (shipped["form"], shipped["domain"])
        for split in ("holdout", "training") if entry["residuals"] else ():
            ours, theirs = entry["residuals"][split], shipped["residuals"][split]
            assert ours["n"] == theirs["n"]
            assert ours["median"] == pytest.approx(theirs["median"], abs=0.003), name
            assert ours["p90"] == pytest.approx(theirs["p90"], abs=0.01), name


MISSES = {
    "elementwise": "all small stages in one form; norm, rope, silu_mul, add have their own",
    "elementwise.norm": "three points held out, one beyond the L2 cache",
    "elementwise.rope": "two points held out",
    "elementwise.sample": "one point held out",
    "elementwise.argmax": "two points held out",
    "gemm.bf16": "p90: the library's choices at 2048 and 4096 columns",
    "gemm.int4": "two tiles of tokens",
    "decode_attention.int4.page64": "few long requests against many short ones",
    "verify_commit.probabilities": "ten points",
}  # fmt: skip
"""Kernels that miss the bar of 5 % median and 12 % p90 on points held out, and why."""


def test_held_out_residuals_meet_the_bar_or_are_named():
    for name, entry in SHIPPED["kernels"].items():
        figures = entry["residuals"].get("holdout", {})
        good = figures.get("median", 1.0) <= 0.055 and figures.get("p90", 1.0) <= 0.12
        assert good or name in MISSES or entry["kind"] == "estimated", (name, figures)


CHANGED_BETWEEN_RUNS = {
    "decode_attention": "the second run's attention loaded its queries byte by byte",
    "verify_attention": "the same",
}


def test_a_second_machine_agrees():
    for name, entry in SHIPPED["kernels"].items():
        if entry["residuals"] and name.split(".")[0] not in CHANGED_BETWEEN_RUNS:
            assert entry["residuals"]["second_run"]["median"] < 0.01, name
