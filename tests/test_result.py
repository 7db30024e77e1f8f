"""A run's folder is complete or not there, and its bytes depend on the scenario alone."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
from toy import hbm, read_run, toy_scenario

from sim.errors import InputError
from sim.result import new_folder, read_json, write_json
from sim.simulate import run

FILES = ["environment.json", "iterations.parquet", "requests.parquet", "scenario.json"]
FILES += ["summary.json", "trace.json"]
SYNTHETIC = {
    "source": "synthetic", "requests": 60, "rate": "40 /s", "prompt_tokens": {"exponential": 30},
    "output_tokens": {"exponential": 12},
}  # fmt: skip


def busy(folder: Path, **sections):
    """A crowded toy with preemptions."""
    given = {"trace": SYNTHETIC, "hardware": {"hbm": hbm(30, 8)}, "kv": {"block_tokens": 8}}
    return toy_scenario(folder, **(given | sections))


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def ran(folder: Path, scenario, engine: str = "leap") -> dict[str, bytes]:
    """The files of a run into *folder*, without those that hold wall-clock facts."""
    folder.mkdir()
    run(scenario, folder, engine)
    found = files(folder)
    assert sorted(found) == FILES
    del found["environment.json"]
    return found


# ---------------------------------------------------------------- the same bytes
def test_same_scenario_same_bytes(tmp_path: Path) -> None:
    scenario = busy(tmp_path, seed=4)
    first, second = ran(tmp_path / "a", scenario), ran(tmp_path / "b", scenario)
    assert first == second
    assert json.loads(first["summary.json"])["kv_preemptions"] > 0


@pytest.mark.parametrize("mode", ["host", "graph", "resident"])
def test_step_writes_the_bytes_of_leap(tmp_path: Path, mode: str) -> None:
    scenario = busy(tmp_path, loop={"mode": mode, "max_batch": 5, "token_budget": 40})
    assert ran(tmp_path / "leap", scenario) == ran(tmp_path / "step", scenario, "step")


def test_another_seed_other_bytes(tmp_path: Path) -> None:
    first = ran(tmp_path / "a", busy(tmp_path, seed=1))
    second = ran(tmp_path / "b", busy(tmp_path, seed=2))
    assert [name for name in first if first[name] == second[name]] == []


# ---------------------------------------------------------------- what a folder holds
def test_files_fit_each_other(tmp_path: Path) -> None:
    scenario = busy(tmp_path)
    ran(tmp_path / "run", scenario)
    folder = tmp_path / "run"
    resolved, summary = read_json(folder / "scenario.json"), read_json(folder / "summary.json")
    assert resolved["hash"] == summary["scenario_hash"] == scenario.hash
    assert resolved["profile"]["hash"] == summary["cost_profile_hash"]
    assert summary["kind"] == "simulated"
    found = read_run(folder)
    assert len(found.requests) == summary["requests_in"] == 60
    assert len(found.iterations) == summary["loop_iterations"]
    assert found.iterations.duration_s.sum() == pytest.approx(summary["loop_time_s"])
    environment = read_json(folder / "environment.json")
    assert environment["wall_s"] > 0
    assert "date" not in summary


def test_columns_of_the_tables(tmp_path: Path) -> None:
    ran(tmp_path / "run", busy(tmp_path))
    requests = pd.read_parquet(tmp_path / "run" / "requests.parquet")
    assert list(requests) == [
        "request_id", "arrival_s", "prompt_tokens", "output_tokens", "status", "reason",
        "admitted_s", "first_token_s", "finished_s", "generated_tokens", "preemptions",
        "queue_ms", "ttft_ms", "tpot_ms", "e2el_ms", "session", "waited_for", "think_s",
    ]  # fmt: skip
    iterations = pd.read_parquet(tmp_path / "run" / "iterations.parquet")
    assert list(iterations) == [
        "start_s", "duration_s", "kind", "path", "decode_requests", "padded_requests",
        "prefill_requests", "prefill_tokens", "context_tokens", "output_tokens", "running",
        "waiting", "kv_blocks", "gpu_busy_s", "gap_s", "launches", "syncs", "tklqt_s",
    ]  # fmt: skip


def test_run_without_an_iteration_is_complete_all_the_same(tmp_path: Path) -> None:
    stopped = toy_scenario(tmp_path, [(0, 8, 4)], stop={"at": "1 ms"})
    found = ran(tmp_path / "run", stopped)
    assert "iterations.parquet" in found


def test_long_run_in_many_slices(tmp_path: Path) -> None:
    """More iterations than a slice holds: the tables are still whole and in order."""
    ran(tmp_path / "run", toy_scenario(tmp_path, [(0, 8, 99_000), (10**7, 8, 60_000)]))
    iterations = pd.read_parquet(tmp_path / "run" / "iterations.parquet")
    assert len(iterations) == 159_000
    assert iterations.start_s.is_monotonic_increasing
    assert iterations.context_tokens.iloc[-1] == 60_007


# ---------------------------------------------------------------- folders
def test_folder_appears_when_all_went_well(tmp_path: Path) -> None:
    with new_folder(tmp_path / "deep" / "run") as folder:
        (folder / "summary.json").write_text("{}")
        assert not (tmp_path / "deep" / "run").exists()
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["run"]


def test_failing_run_leaves_nothing_behind(tmp_path: Path) -> None:
    def fail() -> None:
        with new_folder(tmp_path / "run") as folder:
            (folder / "requests.parquet").write_text("half")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert list(tmp_path.iterdir()) == []


def test_folder_that_is_there_is_refused(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "kept").write_text("mine")
    for replace, said in ((False, "exists already"), (True, "is not just a run's folder")):
        with (
            pytest.raises(InputError, match=said),
            new_folder(tmp_path / "run", replace),
        ):
            raise AssertionError("not reached")
    assert (tmp_path / "run" / "kept").read_text() == "mine"


def test_failing_replacement_keeps_the_old_run(tmp_path: Path) -> None:
    with new_folder(tmp_path / "run") as folder:
        write_json(folder / "summary.json", {"old": 1})
    with pytest.raises(KeyboardInterrupt), new_folder(tmp_path / "run", replace=True) as folder:
        raise KeyboardInterrupt
    assert read_json(tmp_path / "run" / "summary.json") == {"old": 1}
    with new_folder(tmp_path / "run", replace=True) as folder:
        write_json(folder / "summary.json", {"new": 1})
    assert read_json(tmp_path / "run" / "summary.json") == {"new": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_json_holds_no_undefined_number(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "x.json", {"x": float("nan")})


# ---------------------------------------------------------------- replacing
def a_run(path: Path, text: str) -> None:
    path.mkdir(exist_ok=True)
    (path / "summary.json").write_text(text)


def test_replacing_by_another_way_to_the_same_folder(tmp_path: Path, monkeypatch) -> None:
    a_run(tmp_path / "run", "old")
    (tmp_path / "link").symlink_to(tmp_path / "run")
    for number, way in enumerate((Path("."), tmp_path / "link", tmp_path / "run/../run")):
        monkeypatch.chdir(tmp_path / "run")
        with new_folder(way, replace=True) as folder:
            (folder / "summary.json").write_text(str(number))
        assert (tmp_path / "run" / "summary.json").read_text() == str(number)
    assert (tmp_path / "link").is_symlink()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["link", "run"]


def test_what_is_not_ours_is_never_deleted(tmp_path: Path) -> None:
    a_run(tmp_path / "run", "old")
    (tmp_path / "run" / "thesis.txt").write_text("mine")
    with pytest.raises(InputError, match="stays"), new_folder(tmp_path / "run", replace=True):
        raise AssertionError("not reached")
    assert (tmp_path / "run" / "thesis.txt").read_text() == "mine"


def test_of_two_runs_into_one_folder_the_first_to_end_stays(tmp_path: Path) -> None:
    def both() -> None:
        with new_folder(tmp_path / "run") as late:
            (late / "summary.json").write_text("late")
            with new_folder(tmp_path / "run") as early:
                (early / "summary.json").write_text("early")

    with pytest.raises(InputError, match="exists already, since just now"):
        both()
    assert (tmp_path / "run" / "summary.json").read_text() == "early"
    assert [p.name for p in tmp_path.iterdir()] == ["run"]
