"""From Python: the same path as the command line, and its results as frames."""

from __future__ import annotations

import doctest
import filecmp
import gc
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import sim
import sim.api
from sim import Scenario, run, sweep
from sim.errors import InputError
from sim.load import load
from sim.stats import METRICS, Statistics, difference, estimate
from sim.stats.samples import latency, limits_of, rate, requests_of

SMALL: dict[str, Any] = {
    "trace": {"source": "synthetic", "requests": 300, "rate": "20 /s", "prompt_tokens": 64,
              "output_tokens": {"exponential": 20, "cap": 60}},
    "model": "llama-3.2-1b",
    "slo": {"ttft": "5 ms", "tpot": "20 ms"},
}  # fmt: skip


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "small.yaml"
    path.write_text(json.dumps(SMALL))
    return path


# ---------------------------------------------------------------- the package
@pytest.mark.parametrize("module", [sim, sim.api])
def test_the_examples_are_true(module: Any) -> None:
    outcome = doctest.testmod(module)
    assert outcome.attempted > 2
    assert outcome.failed == 0


def test_what_is_public_is_there_and_nothing_hides_it() -> None:
    assert set(sim.__all__) == {"Scenario", "__version__", "run", "sweep"}
    assert set(sim.__all__) <= set(dir(sim))
    for name in ("run", "sweep"):
        assert callable(getattr(sim, name))
        assert not (Path(sim.__file__).parent / f"{name}.py").exists()
        assert not (Path(sim.__file__).parent / name).exists()
    with pytest.raises(AttributeError, match="no attribute 'colour'"):
        _ = sim.colour


def test_importing_the_package_loads_nothing_heavy() -> None:
    code = """
import sys, sim
heavy = {"numpy", "pandas", "pyarrow", "pydantic", "matplotlib", "simpy", "joblib"}
assert not heavy & set(sys.modules), heavy & set(sys.modules)
from sim import run, sweep, Scenario
late = heavy - {"pydantic", "numpy", "simpy"}
assert not late & set(sys.modules), late & set(sys.modules)
import sim.stats, sim.runs
assert not late & set(sys.modules), late & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True)


# ---------------------------------------------------------------- one run
def test_a_run_is_that_of_the_command_line(file: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "sim", "run", str(file), "--out", str(tmp_path / "cli"), "-q"]
    subprocess.run([*command, "--set", "loop.mode=resident"], check=True, capture_output=True)
    result = run(file, {"loop.mode": "resident"}, out=tmp_path / "python")
    same = ["summary.json", "scenario.json", "trace.json", "requests.parquet", "iterations.parquet"]
    assert filecmp.cmpfiles(tmp_path / "cli", result.folder, same, shallow=False)[0] == same


def test_a_file_a_map_and_a_scenario_are_the_same_run(file: Path) -> None:
    texts = ["loop.max_batch=8", "name=other"][:1]
    of_file, of_map = run(file, texts), run(SMALL, {"loop.max_batch": 8})
    of_scenario = run(load(file, texts))
    hashes = {one.summary["scenario_hash"] for one in (of_file, of_map, of_scenario)}
    assert len(hashes) == 1
    assert isinstance(load(file), Scenario)
    assert run(file, engine="step").summary == run(file).summary


def test_frames_have_units_in_their_columns() -> None:
    result = run(SMALL)
    assert {"arrival_s", "ttft_ms", "status"} <= set(result.requests.columns)
    assert len(result.requests) == 300
    assert {"start_s", "duration_s", "gpu_busy_s"} <= set(result.iterations.columns)
    with pytest.raises(InputError, match="a run has it with tiers below HBM"):
        _ = result.transfers
    tiers = run(SMALL, {"hardware.dram.capacity": "1 GiB", "kv.write_back": "eager"})
    assert {"start_s", "link", "bytes"} <= set(tiers.transfers.columns)
    assert result.scenario["slo"]["ttft"] == 0.005
    page = result._repr_html_()
    assert "mean TTFT (ms)" in page
    assert "simulated" in page
    assert "300 of 300" in repr(result)


def test_a_temporary_folder_lasts_as_long_as_its_result(tmp_path: Path) -> None:
    result = run(SMALL)
    folder = result.folder
    assert folder.is_dir()
    del result
    gc.collect()
    assert not folder.exists()
    assert not folder.parent.exists()
    kept = run(SMALL, out=tmp_path / "kept").folder
    gc.collect()
    assert kept.is_dir()
    with pytest.raises(InputError, match="exists already"):
        run(SMALL, out=kept)
    assert run(SMALL, out=kept, force=True).folder == kept


def test_metrics_without_a_warm_up_are_those_of_the_summary() -> None:
    """What is worked out again from the requests is the summary's number to the last digit."""
    result = run(SMALL, {"loop.max_batch": 2})
    names = [
        name for name in result.summary
        if any(part in name for part in ("_ttft_", "_tpot_", "_e2el_", "_queue_"))
        and not name.startswith("std")
    ]  # fmt: skip
    rates = ["request_throughput", "request_goodput", "output_throughput", "total_token_throughput"]
    assert len(names) == 28
    assert 0 < result.summary["request_goodput"] < result.summary["request_throughput"]
    requests = requests_of(result.record)
    for name in names:
        metric = METRICS[name]
        assert result.estimate(name).value == result.summary[name]
        assert latency(requests.milliseconds(metric), metric) == result.summary[name], name
    for name in rates:
        weights = requests.weights(METRICS[name], limits_of(result.record))
        assert result.estimate(name).value == result.summary[name]
        assert rate(requests, weights) == result.summary[name], name
    assert result.estimate("mean_ttft_ms", warm_up="5 s").value != result.summary["mean_ttft_ms"]


def test_a_warm_up_of_a_real_run_is_what_pandas_says() -> None:
    result = run(SMALL, {"loop.max_batch": 2})
    late = result.requests[result.requests["arrival_s"] >= 5.0]
    rest = result.summary["duration"] - 5.0
    for name, value in {
        "mean_tpot_ms": late["tpot_ms"].mean(),
        "p99_ttft_ms": late["ttft_ms"].quantile(0.99),
        "median_queue_ms": late["queue_ms"].median(),
        "request_throughput": len(late) / rest,
        "output_throughput": late["output_tokens"].sum() / rest,
        "request_goodput": (late["ttft_ms"] <= 5).sum() / rest,
    }.items():
        assert result.estimate(name, warm_up="5 s").value == pytest.approx(value), name


@pytest.mark.parametrize(
    ("given", "sets", "said"),
    [
        (
            {"trace": SMALL["trace"], "modle": 1},
            (),
            r"scenario:9:1: modle: no such field; did you mean 'model'",
        ),
        (SMALL, {"loop.mode": "fast"}, r"^--set loop.mode=fast: loop.mode: .*host"),
        (SMALL, {"loop.max_batch": object()}, "values must be plain"),
        (SMALL, "loop.mode=host", "expected a list of texts"),
        (SMALL | {"extends": "base.yaml"}, (), "extends: only in a file"),
        (SMALL | {"sweep": {"loop.mode": ["host"]}}, (), "this file is a study"),
        ({"model": object()}, (), "not plain data"),
        ({}, (), "trace"),
        (5, (), "expected a file, a map of keys, or a Scenario"),
        ("nowhere.yaml", (), "nowhere.yaml: "),
    ],
)
def test_bad_input_is_an_input_error_as_in_a_file(given: Any, sets: Any, said: str) -> None:
    with pytest.raises(InputError, match=said):
        run(given, sets)


def test_other_arguments_are_checked(file: Path) -> None:
    with pytest.raises(InputError, match="choose leap or step"):
        run(file, engine="jump")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="not with a Scenario"):
        run(load(file), {"loop.mode": "host"})
    with pytest.raises(InputError, match="jobs 0: expected"):
        sweep(file, jobs=0)
    with pytest.raises(InputError, match="expected the file of a study"):
        sweep({"sweep": {}})  # type: ignore[arg-type]
    with pytest.raises(InputError, match="warm_up: 60 is no share below 1"):
        run(file).estimate("mean_ttft_ms", warm_up=60)


def test_a_key_without_effect_is_a_warning(file: Path) -> None:
    with pytest.warns(UserWarning, match=r"loop.prefill_share: has no effect here"):
        run(file, {"loop.prefill_share": 0.5})


# ---------------------------------------------------------------- studies
@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("api")
    text = json.dumps(SMALL | {"sweep": {"loop.mode": ["graph", "host", "resident"], "seeds": 3}})
    (folder / "study.yaml").write_text(text)
    return sweep(folder / "study.yaml", ["trace.requests=200"], out=folder / "out")


def test_a_sweep_is_frames(results: Any) -> None:
    frame = results.frame()
    assert len(frame) == 9
    assert frame["completed"].tolist() == [200] * 9
    assert list(frame.columns[:2]) == ["loop.mode", "replication"]
    estimates = results.estimates("p99_ttft_ms").set_index("loop.mode")
    mean = frame.groupby("loop.mode")["p99_ttft_ms"].mean()
    assert estimates["value"].to_dict() == pytest.approx(mean.to_dict())
    assert (estimates["unit"] == "ms").all()
    assert (estimates["low"] < estimates["value"]).all()
    table = results._repr_html_()
    assert table.count("<tr>") == 4
    assert "±" in table


def test_differences_of_a_sweep_are_in_words(results: Any) -> None:
    frame = results.differences(["mean_tpot_ms", "kv_blocks_capacity"])
    assert frame["loop.mode"].tolist() == ["host", "host", "resident", "resident"]
    assert frame["paired"].all()
    assert frame["verdict"].iloc[0].startswith("host is ")
    assert frame["verdict"].iloc[0].endswith("worse at mean TPOT")
    assert frame["verdict"].iloc[3] == "resident is the same as graph at kv blocks capacity"
    graph, host = results.cells[0], results.cells[1]
    assert difference(host, graph, "mean_tpot_ms", Statistics()).n == 3
    with pytest.raises(InputError, match="did you mean 'mean_tpot_ms'"):
        results.differences("mean_tpto_ms")
    with pytest.raises(InputError, match="did you mean 'mean_tpot_ms'"):
        results.estimates("mean_tpto_ms")


def test_a_sweep_goes_on_with_what_is_there(results: Any) -> None:
    folder = results.folder
    stamps = {path: path.stat().st_mtime_ns for path in (folder / "points").glob("*/summary.json")}
    sweep(folder.parent / "study.yaml", {"trace.requests": 200}, out=folder)
    again = {path: path.stat().st_mtime_ns for path in (folder / "points").glob("*/summary.json")}
    assert again == stamps


def test_what_is_not_random_is_one_run(tmp_path: Path) -> None:
    trace = {"source": "synthetic", "arrivals": "constant", "requests": 200, "rate": "20 /s",
             "prompt_tokens": 64, "output_tokens": 20}  # fmt: skip
    text = json.dumps(SMALL | {"trace": trace, "sweep": {"loop.mode": ["graph"], "seeds": 2}})
    (tmp_path / "study.yaml").write_text(text)
    (cell,) = sweep(tmp_path / "study.yaml", out=tmp_path / "out").cells
    found = estimate(cell, "mean_ttft_ms", Statistics())
    assert found.note.startswith("nothing is random: 2 seeds gave the same run")
    assert found.method == "batches"


def test_prices_and_power_come_with_the_study(tmp_path: Path) -> None:
    prices = {"currency": "EUR", "gpu_hour": {"nvidia-h200": 3.6}}
    text = json.dumps(SMALL | {"sweep": {"loop.mode": ["graph", "host"], "seeds": 2},
                               "prices": prices})  # fmt: skip
    (tmp_path / "study.yaml").write_text(text)
    results = sweep(tmp_path / "study.yaml", out=tmp_path / "out")
    frame = results.estimates("cost")
    duration = results.frame().groupby("loop.mode")["duration"].mean()
    assert frame["value"].tolist() == pytest.approx((duration * 3.6 / 3600).tolist())
    assert frame["unit"].tolist() == ["EUR", "EUR"]
    assert frame["n"].tolist() == [2, 2]
    nothing = results.estimates("energy_kwh")
    assert nothing["note"].str.contains("`power`").all()


def test_a_search_is_a_study_of_its_probes(tmp_path: Path) -> None:
    over = {"trace.rate_scale": {"from": 1, "to": 4}}
    search = {"over": over, "subject_to": {"p99_ttft": "1 s"}}
    (tmp_path / "study.yaml").write_text(json.dumps(SMALL | {"search": search}))
    results = sweep(tmp_path / "study.yaml", out=tmp_path / "out")
    assert (tmp_path / "out" / "probes.json").is_file()
    assert len(results.frame()) == len(results.runs) > 1
