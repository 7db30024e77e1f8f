"""The fitting program: known parameters come back, splits are honest, the file is its output."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from scipy import optimize

from sim.errors import InputError
from sim.fit import (
    chosen,
    column,
    fit,
    fit_kernel,
    frontier,
    is_plateau,
    judged,
    least_squares,
    predict,
    residuals,
    split,
)
from sim.fit_profile import _recipe, _rows, fit_profile, graph_line

ROOT = Path(__file__).parent.parent
DATA = ROOT / "calibration"
SHIPPED = ROOT / "sim" / "profiles" / "nvidia-h200.json"


@pytest.fixture(scope="module")
def rows():
    return _rows(DATA / "h200_public_refs.csv")


@pytest.fixture(scope="module")
def recipe():
    return _recipe(DATA / "recipe.json")


@pytest.fixture(scope="module")
def text():
    return fit_profile(DATA)


@pytest.fixture(scope="module")
def shipped():
    return json.loads(SHIPPED.read_text())


def like(rows, form, parameters):
    """The rows with times of the given parameters instead of the measured ones."""
    times = predict(form, parameters, rows) * 1e6
    return [{**row, "us": time} for row, time in zip(rows, times.tolist(), strict=True)]


def inside(entry, rows):
    """The rows that the recipe *entry* fits or holds out."""
    axis, (low, high) = next(iter(entry["where"].items()))
    return [row for row in chosen(entry, rows, entry["impl"]) if low <= row[axis] <= high]


@pytest.mark.parametrize("name", ["gemm.bf16", "gemm.int4", "decode_attention.fp8"])
def test_known_parameters_come_back(rows, recipe, name):
    entry = recipe["kernels"][name]
    truth = {key: entry["start"][key] * 1.3 for key in entry["free"]}
    mine = chosen(entry, rows, entry["impl"])
    found = fit(entry, like(mine, entry["form"], {**entry["start"], **truth}))
    for key, value in truth.items():
        assert found[key] == pytest.approx(value, rel=1e-4)


@pytest.mark.parametrize("name", ["gemm.bf16", "gemm.fp8", "decode_attention.bf16"])
def test_scipy_finds_the_same_minimum(rows, recipe, shipped, name):
    entry, kernel = recipe["kernels"][name], shipped["kernels"][name]
    fitted, _ = split(inside(entry, rows))
    measured = column(fitted, "us") * 1e-6

    def error(logs):
        free = dict(zip(entry["free"], np.exp(logs), strict=True))
        return np.log(predict(entry["form"], {**entry["start"], **free}, fitted) / measured)

    start = np.log([entry["start"][key] for key in entry["free"]])
    theirs = optimize.least_squares(error, start, xtol=1e-12, ftol=1e-12, gtol=1e-12)
    ours = [kernel["parameters"][key] for key in entry["free"]]
    np.testing.assert_allclose(ours, np.exp(theirs.x), rtol=1e-4)


def test_least_squares_on_a_line():
    x = np.array([1.0, 2.0, 5.0, 10.0])
    found = least_squares(lambda p: p[0] + x / p[1], 3.0 + x / 0.25, np.array([1.0, 1.0]))
    np.testing.assert_allclose(found, [3.0, 0.25], rtol=1e-8)


def test_splits_are_disjoint_and_ignore_the_order(rows, recipe):
    mine = chosen(recipe["kernels"]["gemm.bf16"], rows, "SGLang 0.5.14")
    for cut in (split, frontier):
        fitted, held = cut(mine)
        assert len(held) == round(0.2 * len(mine))
        assert len(fitted) + len(held) == len(mine)
        assert not {id(row) for row in fitted} & {id(row) for row in held}
        assert cut(mine[::-1]) == (fitted, held)
    fitted, held = frontier(mine)
    assert max(row["bytes"] for row in fitted) <= min(row["bytes"] for row in held)


def test_residuals_by_hand():
    figures = residuals(np.array([1.1, 0.8, 1.0]), np.ones(3))
    assert figures == {"n": 3, "median": 0.1, "p90": 0.18, "max": 0.2, "signed_median": 0.0}


def test_plateaus_and_block_scaled_rows_are_left_out(rows, recipe):
    entry = recipe["kernels"]["gemm.fp8"]
    mine = chosen(entry, rows, entry["impl"])
    key = (entry["op"], entry["dtype"], entry["impl"])
    assert mine == [row for row in rows if (row["op"], row["dtype"], row["impl"]) == key]
    flat = [{**row, "kernel": "flat", "us": 60.0} for row in mine]
    named = [{**row, "kernel": "fp8_block_linear"} for row in mine]
    assert is_plateau(flat)
    assert not is_plateau(mine)
    assert chosen(entry, [*flat, *named, *mine], entry["impl"]) == mine


def test_graph_line_by_hand():
    name = "graph_launch_sync"
    floors = [{"name": name, "nodes": n, "value": v} for n, v in ((400, 407), (1, 9), (100, 107))]
    node, launch = graph_line(floors)
    assert node == pytest.approx(1e-6)
    assert launch == pytest.approx(7e-6)


def test_committed_profile_is_what_the_program_writes(text, shipped):
    assert near(json.loads(text), shipped)


def near(one, other):
    """Equal but for the last digits of floats, which another machine may round otherwise."""
    if isinstance(one, dict):
        assert list(one) == list(other)
        return all(near(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(near, one, other))
    if isinstance(one, float):
        return one == pytest.approx(other, rel=1e-3)
    return bool(one == other)


def test_same_files_same_bytes(text):
    assert fit_profile(DATA) == text


def test_published_residuals_follow_from_the_data(rows, recipe, shipped):
    for name, entry in recipe["kernels"].items():
        kernel = shipped["kernels"][name]
        _, held = split(inside(entry, rows))
        assert judged(entry["form"], kernel["parameters"], held) == kernel["residuals"]["holdout"]


def test_fit_kernel_reports_what_lies_outside(rows, recipe):
    found = fit_kernel(recipe["kernels"]["gemm.fp8"], rows)
    assert found["domain"]["m"] == [1.0, 64.0]
    assert found["residuals"]["groups"]["outside the domain"]["n"] == 192


def test_steps_at_batch_one_within_five_percent(shipped):
    checks = {check["name"]: check for check in shipped["checks"]}
    assert len(checks) == 8
    for model in ("llama-1b", "llama-8b"):
        assert abs(checks[f"decode step {model} batch 1 context 1024"]["relative_error"]) < 0.05


def test_missing_and_broken_data_are_the_users(tmp_path):
    with pytest.raises(InputError, match=r"floors\.jsonl: No such file"):
        fit_profile(tmp_path)
    for name in ("torch.jsonl", "recipe.json", "h200_public_refs.csv"):
        (tmp_path / name).write_bytes((DATA / name).read_bytes())
    (tmp_path / "floors.jsonl").write_text('{"name": "l2"}\nnonsense\n')
    with pytest.raises(InputError, match=r"floors\.jsonl:2: not a JSON object"):
        fit_profile(tmp_path)
    (tmp_path / "floors.jsonl").write_text("")
    with pytest.raises(InputError, match="a row or field is missing"):
        fit_profile(tmp_path)
    (tmp_path / "h200_public_refs.csv").write_text("op,impl\ngemm,x\n")
    with pytest.raises(InputError, match=r"csv:2: not a row"):
        fit_profile(tmp_path)
