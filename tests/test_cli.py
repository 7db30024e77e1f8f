"""Commands from the outside: exit codes, one line a finding, nothing half-written."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from toy import MODEL, write_profile, write_trace

from sim.cli import main

ROOT = Path(__file__).parent.parent
HEAVY = ("numpy", "pandas", "matplotlib", "pyarrow", "simpy", "scipy", "joblib")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder with a toy profile, a trace and a scenario."""
    monkeypatch.chdir(tmp_path)
    write_profile(tmp_path / "toy.json")
    write_trace(tmp_path / "trace.jsonl", [(0, 8, 4), (30, 8, 2)])
    scenario = {
        "trace": {"file": "trace.jsonl", "format": "mooncake"},
        "model": MODEL,
        "hardware": {"profile": "./toy.json"},
        "loop": {"max_batch": 4, "token_budget": 64},
    }
    (tmp_path / "tiny.yaml").write_text(json.dumps(scenario))
    study = scenario | {"sweep": {"loop.mode": ["host", "graph"], "trace.rate_scale": [1, 2]}}
    (tmp_path / "study.yaml").write_text(json.dumps(study))
    return tmp_path


@pytest.fixture
def call(here: Path, capsys: pytest.CaptureFixture[str]):
    """Runs a command and gives exit code, lines of output and lines of errors."""

    def command(*arguments: str) -> tuple[int, list[str], list[str]]:
        with pytest.raises(SystemExit) as ended:
            main(list(arguments))
        captured = capsys.readouterr()
        code = ended.value.code or 0
        return code, captured.out.splitlines(), captured.err.splitlines()

    return command


# ---------------------------------------------------------------- run
def test_run_writes_a_folder_and_says_where(call, here) -> None:
    assert call("run", "tiny.yaml", "--out", "r", "-q") == (0, ["r"], [])
    assert json.loads((here / "r" / "summary.json").read_text())["completed"] == 2
    resolved = json.loads((here / "r" / "scenario.json").read_text())
    assert resolved["name"] == "tiny"


def test_default_folder_is_named_by_scenario_and_hash(call, here) -> None:
    code, out, _ = call("run", "tiny.yaml", "-q")
    assert code == 0
    assert out[0].startswith("runs/tiny-")
    assert (here / out[0] / "summary.json").is_file()


def test_run_prints_a_table(call) -> None:
    code, out, err = call("run", "tiny.yaml", "--out", "r")
    assert code == 0
    assert err == []
    assert any("TTFT" in line for line in out)


def test_prefix_ids_and_skipped_rows_are_said(call, here) -> None:
    rows = [{"timestamp": 0, "input_length": 600, "output_length": 2, "hash_ids": [0, 1]}]
    rows.append(rows[0] | {"output_length": 0})
    (here / "trace.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")
    sets = ("--set", "trace.bad_rows=skip", "--set", "kv.prefix_cache=false")
    code, out, _ = call("run", "tiny.yaml", "--out", "r", *sets)
    assert code == 0
    assert "note: the trace's prefix ids are not used; every prompt is computed in full" in out
    assert "note: 1 bad rows of the trace were skipped" in out
    summary = json.loads((here / "r" / "summary.json").read_text())
    assert summary["trace_prefix_ids_unused"]
    assert summary["trace_rows_skipped"] == 1


def test_both_engines_write_the_same(call, here) -> None:
    for engine in ("leap", "step"):
        assert call("run", "tiny.yaml", "--out", engine, "--engine", engine, "-q")[0] == 0
    for name in ("requests.parquet", "iterations.parquet", "summary.json", "scenario.json"):
        assert (here / "leap" / name).read_bytes() == (here / "step" / name).read_bytes()


def test_set_overrides(call, here) -> None:
    assert call("run", "tiny.yaml", "--out", "r", "-q", "--set", "loop.mode=host")[0] == 0
    assert json.loads((here / "r" / "summary.json").read_text())["loop_mode"] == "host"


def test_existing_folder_is_refused_and_replaced_by_force(call, here) -> None:
    assert call("run", "tiny.yaml", "--out", "r", "-q")[0] == 0
    old = (here / "r" / "environment.json").stat().st_ino
    code, out, err = call("run", "tiny.yaml", "--out", "r", "-q")
    assert (code, out, len(err)) == (2, [], 1)
    assert err[0].startswith("r: exists already")
    assert (here / "r" / "environment.json").stat().st_ino == old
    assert call("run", "tiny.yaml", "--out", "r", "-q", "--force")[0] == 0
    assert (here / "r" / "environment.json").stat().st_ino != old


def test_force_does_not_replace_what_is_no_run(call, here) -> None:
    (here / "mine").mkdir()
    (here / "mine" / "thesis.txt").write_text("x")
    code, _, err = call("run", "tiny.yaml", "--out", "mine", "-q", "--force")
    assert code == 2
    assert "not just a run's folder" in err[0]
    assert (here / "mine" / "thesis.txt").read_text() == "x"


def test_bad_row_in_mid_run_leaves_nothing_half_written(call, here) -> None:
    good = '{"timestamp": 0, "input_length": 8, "output_length": 4}\n'
    many = "".join(good.replace("0,", f"{i},", 1) for i in range(20_000))
    (here / "trace.jsonl").write_text(many + '{"timestamp": 20001, "input_length": "many"}\n')
    before = sorted(here.iterdir())
    code, out, err = call("run", "tiny.yaml", "--out", "r", "-q")
    assert (code, out, len(err)) == (2, [], 1)
    assert "trace.jsonl:20001" in err[0]
    assert sorted(here.iterdir()) == before


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "the file is empty"),
        ("\n\n", "no requests in the file"),
        ('{"timestamp": 0}\n', "no requests in the file, 1 bad rows skipped"),
    ],
)
def test_trace_without_a_request_is_the_users_error(call, here, content, said) -> None:
    (here / "trace.jsonl").write_text(content)
    code, out, err = call("run", "tiny.yaml", "--out", "r", "-q", "--set", "trace.bad_rows=skip")
    assert (code, out, len(err)) == (2, [], 1)
    assert said in err[0]
    assert not (here / "r").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["run", "none.yaml"], "none.yaml"),
        (["run", "tiny.yaml", "--engine", "fast"], "choose leap or step"),
        (["run", "tiny.yaml", "--set", "loop.mode=warp"], "loop.mode"),
        (["run", "tiny.yaml", "--set", "trace.file=none.jsonl"], "no such file"),
        (["run", "tiny.yaml", "--set", "hardware.profile=none.json"], "No such file"),
        (["run", "tiny.yaml", "--set", "hardware.hbm.capacity=1 kB"], "no KV block beside"),
        (
            ["run", "tiny.yaml", "--set", "kv.dtype=int4"],
            "kv.dtype: profile toy has no kernel for int4; use bf16 or fp8 or int8",
        ),
        (["run", "tiny.yaml", "--out", "tiny.yaml"], "exists already"),
        (["run", "tiny.yaml", "--out", "toy.json/r"], "cannot be written"),
        (["run", "study.yaml"], "residentsim sweep"),
        (["run"], "Missing argument"),
        (["walk"], "No such command"),
    ],
)
def test_user_errors_end_with_2_and_write_nothing(call, here, arguments, said) -> None:
    before = sorted(here.rglob("*"))
    code, _, err = call(*arguments)
    assert code == 2
    assert said in "\n".join(err)
    assert [path for path in sorted(here.rglob("*")) if path.name != "runs"] == before


# ---------------------------------------------------------------- sweep
def test_sweep_compares_and_resumes(call, here) -> None:
    code, out, _ = call("sweep", "study.yaml", "--out", "s", "--no-plots")
    assert code == 0
    assert out[-1] == "s"
    stamps = {path: path.stat().st_mtime_ns for path in here.glob("s/points/*/*")}
    assert len(stamps) == 4 * 6
    assert call("sweep", "study.yaml", "--out", "s", "--no-plots", "-q") == (0, ["s"], [])
    assert stamps == {path: path.stat().st_mtime_ns for path in here.glob("s/points/*/*")}


def test_sweep_into_a_file_is_the_users_error(call) -> None:
    code, _, err = call("sweep", "study.yaml", "--out", "toy.json", "--no-plots", "-q")
    assert code == 2
    assert len(err) == 1


# ---------------------------------------------------------------- check
def test_check_says_valid(call) -> None:
    code, out, err = call("check", "tiny.yaml")
    assert (code, err) == (0, [])
    assert "1 point(s), valid" in out[0]
    assert "4 point(s), valid" in call("check", "study.yaml")[1][0]


def test_check_reports_every_error_at_its_place(call, here) -> None:
    (here / "bad.yaml").write_text(
        "trace: {source: azure-conv-like, requests: 0}\n"
        "model: llama-9\n"
        "loop:\n"
        "  mode: warp\n"
        "  max_bach: 3\n"
        "stop: {at: 5}\n"
    )
    code, out, err = call("check", "bad.yaml")
    assert (code, out) == (2, [])
    places = [":".join(line.split(":")[:2]) for line in err]
    assert places == ["bad.yaml:1", "bad.yaml:2", "bad.yaml:4", "bad.yaml:5", "bad.yaml:6"]


def test_check_warns_of_a_key_without_effect(call) -> None:
    code, _, err = call("check", "tiny.yaml", "--set", "loop.prefill_share=0.5")
    assert code == 0
    assert err == [
        "warning: loop.prefill_share: has no effect here; "
        "only with loop.mode: resident, prefill: partition"
    ]


def test_check_finds_what_a_run_would(call) -> None:
    for override in ("hardware.hbm.capacity=1 kB", "trace.file=none.jsonl"):
        assert call("check", "tiny.yaml", "--set", override)[0] == 2, override


def test_check_finds_that_the_profile_lacks_a_kernel(call) -> None:
    assert call("run", "tiny.yaml", "--set", "kv.dtype=int4", "-q")[0] == 2
    assert call("check", "tiny.yaml", "--set", "kv.dtype=int4")[0] == 2


# ---------------------------------------------------------------- imports
@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["run", "--help"]])
def test_help_imports_nothing_heavy(arguments: list[str]) -> None:
    program = (
        "import sys\n"
        "from sim.cli import main\n"
        "try:\n"
        f"    main({arguments!r})\n"
        "except SystemExit as end:\n"
        "    assert not end.code\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules])\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert ended.stdout.splitlines()[-1] == "[]"


def test_module_is_the_command(here: Path) -> None:
    arguments = ["run", str(here / "none.yaml")]
    ended = subprocess.run(
        [sys.executable, "-m", "sim", *arguments], cwd=ROOT, capture_output=True, text=True
    )
    assert ended.returncode == 2
    assert "Traceback" not in ended.stderr


# ---------------------------------------------------------------- late faults, long clocks, damage
def test_what_the_world_lacks_is_said_with_its_place_before_anything_runs(call, here) -> None:
    (here / "wide.yaml").write_text(
        "trace: {file: none.csv}\n"
        f"model: {json.dumps(MODEL)}\n"
        "hardware: {profile: ./toy.json}\n"
        "kv: {dtype: int4}\n"
        "sweep: {loop.mode: [host, graph]}\n"
    )
    code, _, err = call("sweep", "wide.yaml", "--out", "s", "-q")
    assert code == 2
    assert err[0].startswith("wide.yaml:1:15: trace.file: ")
    assert err[0].endswith("none.csv: no such file; check the path")
    assert err[1].startswith("wide.yaml:4:13: kv.dtype: profile toy has no kernel for int4; use ")
    assert len(err) == 2
    assert not (here / "s").exists()


def test_a_warning_says_how_many_points_it_is_about(call, here) -> None:
    code, _, err = call("check", "study.yaml", "--set", "loop.captured_batches=[1,4]")
    assert code == 0
    why = "only with loop.mode: graph, control or engine (2 of 4 points)"
    assert err == [f"warning: loop.captured_batches: has no effect here; {why}"]


def test_plots_without_iterations_are_refused_before_the_run(call, here) -> None:
    iterations = ["--set", "record.iterations=false"]
    assert call("run", "tiny.yaml", "--out", "r", "--plots", *iterations)[0] == 2
    assert call("sweep", "study.yaml", "--out", "s", *iterations)[0] == 2
    assert not (here / "r").exists()
    assert not (here / "s").exists()


def test_times_beyond_a_clock_s_resolution_are_refused(call, here) -> None:
    write_trace(here / "trace.jsonl", [(0, 8, 4), (5_000_000, 8, 2)])
    code, _, err = call("run", "tiny.yaml", "--out", "r", "-q", "--set", "trace.rate_scale=1e-6")
    assert code == 2
    assert "raise trace.rate_scale" in err[0]
    assert not (here / "r").exists()


def test_a_long_silence_costs_nothing(call, here) -> None:
    write_trace(here / "trace.jsonl", [(0, 8, 4), (900_000, 8, 2)])
    assert call("run", "tiny.yaml", "--out", "r", "-q", "--set", "trace.rate_scale=1e-5")[0] == 0
    summary = json.loads((here / "r" / "summary.json").read_text())
    assert summary["duration"] > 8e7
    assert summary["max_output_tokens_per_s"] == 4.0


def test_a_damaged_study_is_named(call, here) -> None:
    assert call("sweep", "study.yaml", "--out", "s", "-q", "--no-plots")[0] == 0
    point = next((here / "s" / "points").iterdir())
    (point / "summary.json").write_text("{}")
    code, _, err = call("sweep", "study.yaml", "--out", "s", "-q", "--no-plots")
    assert code == 2
    assert "is damaged; delete" in err[0]
    (point / "summary.json").unlink()
    code, _, err = call("sweep", "study.yaml", "--out", "s", "-q", "--no-plots")
    assert code == 2
    assert "delete this folder and sweep again" in err[0]
    for text in ('{"points": 5}', '{"points": [{"id": "../../etc", "axes": {}}]}'):
        (here / "s" / "study.json").write_text(text)
        code, _, err = call("plot", "s")
        assert code == 2
        assert "is damaged" in err[0]


def test_termination_leaves_nothing_half_written(here) -> None:
    write_trace(here / "trace.jsonl", [(i, 8, 400) for i in range(20_000)])
    command = [sys.executable, "-m", "sim", "run", "tiny.yaml", "--out", "r", "--engine", "step"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    child = subprocess.Popen(command, cwd=here, env=environment, stderr=subprocess.PIPE)
    before = time.monotonic()
    while not list(here.glob(".r.*")) and time.monotonic() < before + 30:
        time.sleep(0.02)
    child.send_signal(signal.SIGTERM)
    child.communicate(timeout=30)
    assert child.returncode == 128 + signal.SIGTERM
    assert not list(here.glob(".r.*"))
    assert not (here / "r").exists()


def test_an_unsorted_trace_is_refused_or_sorted(call, here) -> None:
    write_trace(here / "trace.jsonl", [(30, 8, 2), (0, 8, 4)])
    code, _, err = call("run", "tiny.yaml", "--out", "r", "-q")
    assert code == 2
    assert "trace.sort: true" in err[0]
    assert call("run", "tiny.yaml", "--out", "r", "-q", "--set", "trace.sort=true")[0] == 0
    assert json.loads((here / "r" / "summary.json").read_text())["completed"] == 2
