"""Predictions before they are measured: traffic, rates, the script that runs the engine."""

from __future__ import annotations

import csv
import gzip
import json
import os
import shutil
import subprocess
import sys
import tarfile
import time
from datetime import datetime, timedelta
from types import SimpleNamespace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from bench import blind_rounds
from bench.blind_predict import RATE_STEP, Predictor, document, predict
from bench.blind_rounds import AGAIN, CONTEXT, FUSED, ROUNDS, SPARSE, Engine, Round, Wanted
from bench.blind_runner import Run, Worker, cores
from bench.blind_scenario import cell_scenario, planned
from bench.blind_script import calibration, measurements, script
from bench.blind_steps import packed
from bench.blind_traffic import FROM, TO, count, cut, ramp_of, ramps, rising, seconds, span
from bench.blind_twice import biases, section

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

SECOND = ROUNDS[2]
NEW = "1b-graph-library"


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    """Requests every half second for an hour, in bursts of two."""
    path, begin = tmp_path / "azure.csv", datetime(2023, 11, 16, 18, 0)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("TIMESTAMP", "ContextTokens", "GeneratedTokens"))
        for i in range(14_400):
            at = begin + timedelta(seconds=i // 2 * 0.5 + 0.001 * (i % 2))
            writer.writerow((at.isoformat(" ", "microseconds") + "0", 100 + i, 7))
    return path


# ---------------------------------------------------------------- traffic
def test_windows_begin_where_they_are_to_and_are_the_traces_rows(
    trace: Path, tmp_path: Path
) -> None:
    cut(trace, SECOND, tmp_path / "w")
    lines = trace.read_text().splitlines()
    found = (tmp_path / "w" / "window-A.csv").read_text().splitlines()
    assert found == [lines[0], *lines[4801:5801]]  # 4 requests a second, from 1,200 s on
    assert span(tmp_path / "w" / "window-A.csv", 600) == pytest.approx(299 * 0.5 + 0.001)


def test_the_rate_of_a_ramp_rises_steadily_from_a_fifth_to_more_than_capacity() -> None:
    times = np.arange(2000.0)
    found = rising(times, 50.0)
    gaps = np.diff(found)
    assert 1.0 / gaps[0] == pytest.approx(FROM * 50.0, rel=0.01)
    assert 1.0 / gaps[-1] == pytest.approx(TO * 50.0, rel=0.01)
    rates = np.log(1.0 / gaps)
    middle = 0.5 * (found[1:] + found[:-1])
    slope, start = np.polyfit(middle, rates, 1)
    assert np.abs(start + slope * middle - rates).max() < 0.01


def test_a_ramp_keeps_the_traces_bursts() -> None:
    times = np.repeat(np.arange(500.0), 2)
    gaps = np.diff(rising(times, 50.0))
    assert gaps[::2].max() < 1e-12
    assert gaps[1::2].min() > 0.01


def test_every_engine_has_a_ramp_as_long_as_it_is_to_be(trace: Path, tmp_path: Path) -> None:
    ramps(trace, SECOND, tmp_path)
    for engine in SECOND.engines.values():
        with (tmp_path / ramp_of(engine)).open(newline="") as file:
            rows = list(csv.DictReader(file))
        assert len(rows) == count(engine)
        assert float(rows[0]["arrival_s"]) == 0.0
        assert float(rows[-1]["arrival_s"]) == pytest.approx(seconds(engine), rel=0.02)
        assert [int(row["prompt_tokens"]) for row in rows[:3]] == [100, 101, 102]


# ---------------------------------------------------------------- cells
class Known(Predictor):
    """Capacities by name, at a request a second as recorded."""

    def capacity(self, engine: str, window: str) -> float:
        return {"1b-resident-fused": 40.0, "1b-graph-fused": 38.0}.get(engine, 50.0)

    def native(self, engine: str, window: str) -> float:
        return 1.0

    def there(self, engine: str) -> bool:
        return engine != "1b-control-fused"


def test_rates_follow_from_loads_of_the_slowest(tmp_path: Path) -> None:
    known = Known(SECOND, tmp_path)
    own = known.cell(Wanted(FUSED[0], "A", 0.61))
    assert own["cell"] == "1b-resident-fused-A-24.4"
    assert own["load"] == pytest.approx(0.61)
    shared = known.cell(Wanted(FUSED[0], "A", 0.8, FUSED))
    assert shared["rate_scale"] == pytest.approx(
        0.8 * 38.0
    )  # the one that is not there is not asked
    assert shared["load"] == pytest.approx(0.76)
    assert known.rate(Wanted(FUSED[0], "A", 0.3, rate=6.6)) == 6.6
    odd = known.cell(Wanted(SPARSE, "A", 0.7999))
    assert odd["load"] <= 0.7999
    assert odd["rate_scale"] / RATE_STEP == pytest.approx(round(odd["rate_scale"] / RATE_STEP))


def test_predictions_are_means_over_seeds_and_name_what_they_come_from(
    trace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    profile = ROUNDS[1].profile("graph-library")
    log = ROUNDS[1].folder / "fitted" / "1b-graph-library.jsonl.gz"
    monkeypatch.setattr(blind_rounds, "SERVE", tmp_path)
    engine = Engine(NEW, "1b", "graph", "library", 64, requests=30)
    other = Engine("absent", "1b", "host-c", "library", 64, requests=40)
    wanted = (Wanted(NEW, "A", 0.1), Wanted("absent", "A", 0.1), Wanted(NEW, "A", 0.1, again=True),
              Wanted(NEW, "A", 0.1))  # fmt: skip
    windows = {"A": ("window-A.csv", 1200.0)}
    chosen = Round(9, {NEW: engine, "absent": other}, windows, wanted, CONTEXT, (1, 2))
    (chosen.folder / "fitted").mkdir(parents=True)
    shutil.copy(profile, chosen.profile(NEW))
    shutil.copy(log, chosen.folder / "fitted" / f"{NEW}.jsonl.gz")
    cut(trace, chosen, tmp_path)
    predict(chosen, tmp_path, chosen.folder / "predictions.json", jobs=1)
    found = document(chosen)
    (one,) = found["cells"]
    assert found["runs"] == [one["cell"], one["cell"] + AGAIN]
    assert found["fitted"][NEW]["gpu"] == "accc1fc8"
    assert one["load"] <= 0.1
    assert one["requests_per_s"] == pytest.approx(one["rate_scale"] * 30 / 7.001)
    ends = [figures["p99_ttft_ms"] for figures in one["by_seed"]]
    assert ends[0] != ends[1]
    assert one["predicted"]["p99_ttft_ms"] == pytest.approx(np.mean(ends))
    said = capsys.readouterr().err
    assert "no profile of absent: left out" in said
    assert "at a load of 0.1 is there already" in said


def test_what_is_wanted_is_there() -> None:
    for chosen in ROUNDS.values():
        seen = set()
        for one in chosen.wanted:
            assert {one.engine, *one.of} <= set(chosen.engines)
            assert one.window in chosen.windows
            place = one.engine, one.window, one.load, one.of, one.rate
            assert one.again == (place in seen), one  # what is run again was run before
            seen.add(place)


def test_scenarios_are_the_engines_settings(tmp_path: Path) -> None:
    def of(chosen: Round, engine: str, **more: str) -> dict[str, object]:
        cell = {"engine": engine, "rate_scale": 2.0, **more}
        return cell_scenario(chosen, cell, tmp_path)

    drafts = of(SECOND, "1b-resident-fused-drafts", window="A")
    assert drafts["speculation"] == {"draft": "ngram", "width": 3, "acceptance": 0.7}
    assert drafts["schedule"] == {"order": "prefill_alone", "freed_late": True}
    assert drafts["seed"] == 1
    assert drafts["trace"]["requests"] == 600
    assert drafts["trace"]["clip_prompt"] == {"to": CONTEXT}
    assert drafts["kv"]["hbm_blocks"] == 4 * 512
    large = of(SECOND, "8b-graph-library", window="B")
    assert large["schedule"] == {"order": "decode_first"}
    assert large["model"]["preset"] == "llama-3.1-8b"
    assert large["trace"]["file"].endswith("window-B.csv")
    old = of(ROUNDS[1], "graph-library")
    assert "seed" not in old
    assert "requests" not in old["trace"]
    head = {"model": "1b", "mode": "graph", "kernels": "library", "max_batch": 16,
            "options": ["tokens=4", "seed=1"]}  # fmt: skip
    assert planned(head)["speculation"]["width"] == 3


# ---------------------------------------------------------------- the script
ENGINE = """
import os, pathlib, sys, time
given = dict(zip(sys.argv[1::2], sys.argv[2::2]))
if given["--mode"] == "slow":
    time.sleep(60)
if given["--mode"] == "bad":
    print("no such mode")
    sys.exit(3)
out = pathlib.Path(given["--out"])
out.mkdir(parents=True)
(out / "steps.jsonl.gz").write_bytes(b"s" * int(given.get("--size", 9)))
(out / "tokens.parquet").write_bytes(b"t")
print("served on", os.environ["CUDA_VISIBLE_DEVICES"], "of", given["--commit"])
"""


def ran(
    folder: Path, lines: list[tuple[float, str, str]], limit: float, *more: str, gpus: str = "0,1"
) -> tuple[str, int]:
    """What the script of *lines* prints, and its return code; runs come back in folder/out."""
    (folder / "engine.py").write_text(ENGINE)
    (folder / "run.sh").write_text(script("Some", lines))
    engine = f"{sys.executable} {folder / 'engine.py'}"
    environment = os.environ | {"ENGINE": engine, "GPUS": gpus, "OUT": str(folder / "out")}
    words = ["bash", str(folder / "run.sh"), "abc", str(limit), *more]
    found = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=60)
    assert not found.stderr
    return found.stdout, found.returncode


def names(tar: Path) -> list[str]:
    with tarfile.open(tar) as found:
        return [name for name in found.getnames() if "/" not in name]


def test_what_time_does_not_allow_is_left_out_and_said(tmp_path: Path) -> None:
    lines = [(1.0, "first", "--mode x"), (90.0, "long", "--mode x"), (1.0, "last", "--mode x")]
    text, rc = ran(tmp_path, lines, 30.0, gpus="3")
    assert rc == 0
    assert "left out: long: needs 90 s, " in text
    assert "served on 3 of abc" in text
    assert "2 done, 0 FAILED, 1 left out" in text
    assert names(tmp_path / "out" / "runs-3-1.tar") == ["first", "last"]
    with tarfile.open(tmp_path / "out" / "runs-3-1.tar") as tar:
        assert "first/tokens.parquet" not in tar.getnames()
    assert "first, GPU 3, rc 0" in (tmp_path / "out" / "log.txt").read_text()


def test_both_gpus_take_runs_from_one_queue_and_failures_are_said(tmp_path: Path) -> None:
    lines = [(1.0, "faulty", "--mode bad"), *((1.0, f"run-{i}", "--mode x") for i in range(4))]
    done = tmp_path / "done"
    done.write_text("run-1\n")
    text, rc = ran(tmp_path, lines, 30.0, str(done))
    assert rc == 1
    assert "done before: run-1" in text
    assert "FAILED: faulty on GPU" in text
    assert "no such mode" in text
    assert "3 done, 1 FAILED, 0 left out" in text
    kept = [name for tar in (tmp_path / "out").glob("*.tar") for name in names(tar)]
    assert sorted(kept) == ["run-0", "run-2", "run-3"]


def test_an_engine_that_hangs_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "engine.py").write_text(ENGINE)
    monkeypatch.setenv("ENGINE", f"{sys.executable} {tmp_path / 'engine.py'}")
    run = Run(1.0, "hangs", "--mode slow")
    begin = time.monotonic()
    code, _ = Worker("0", cores(1)[0], "abc", tmp_path).serve(run, tmp_path / "hangs", 0.5)
    assert code == 124
    assert time.monotonic() - begin < 20.0


@pytest.mark.parametrize(
    ("there", "two"),
    [(range(8), ["0,1,4,5", "2,3,6,7"]), ((3, 5, 7, 9, 11), ["3,7", "5,9"]), ((4, 6), ["4", "6"]),
     ((2,), ["2", "2"])],
)  # fmt: skip
def test_each_gpu_has_cores_of_its_own(
    monkeypatch: pytest.MonkeyPatch, there: Iterable[int], two: list[str]
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(there))
    assert cores(2) == two


def test_a_full_tar_is_followed_by_another(tmp_path: Path) -> None:
    lines = [(1.0, f"run-{i}", "--mode x --size 6000000") for i in range(3)]
    text, _ = ran(tmp_path, lines, 30.0, gpus="0")
    assert names(tmp_path / "out" / "runs-0-1.tar") == ["run-0", "run-1"]
    assert names(tmp_path / "out" / "runs-0-2.tar") == ["run-2"]
    assert "runs-0-2.tar 6.0 MB" in text


def test_the_engines_options() -> None:
    found = {name: (need, options) for need, name, options in calibration(SECOND)}
    assert list(found) == list(SECOND.engines)
    need, options = found["1b-graph-library-sparse"]
    assert need == pytest.approx(40.0)
    assert "--trace ramp-1b-graph-library-sparse.csv" in options
    assert options.endswith("--kernels library --max-batch 64 --budget-tokens 512")
    cell = {"cell": f"{NEW}-B-7.5", "engine": NEW, "window": "B", "rate_scale": 7.5,
            "duration_s": 20.0}  # fmt: skip
    lines = list(measurements(SECOND, [cell], [cell["cell"], cell["cell"] + AGAIN]))
    assert [name for _, name, _ in lines] == [cell["cell"], cell["cell"] + AGAIN]
    assert lines[0][2] == lines[1][2]
    assert "--trace window-B.csv --requests 1000 --clip-prompt 8192 --rate-scale 7.5" in lines[0][2]


# ---------------------------------------------------------------- two processes of one mode
def test_a_second_log_tells_what_another_process_would_have_made() -> None:
    runs = {"1b-graph-library-A-2": [
        {"decode only": 0.031, "with prefill": 0.02}, {"decode only": -0.004, "with prefill": 0.0},
    ]}  # fmt: skip
    *_, row = section({"1b-graph-library": {"logs": [], "runs": runs}})
    assert row == "| 1b-graph-library-A-2 | +3.1 % | -0.4 % | +2.0 % | +0.0 % |"
    assert section({}) == []


@pytest.mark.parametrize(("factor", "bias"), [(1.0, 0.0), (0.8, 0.25)])
def test_the_bias_of_a_profile_is_of_predicted_over_measured(
    tmp_path: Path, factor: float, bias: float
) -> None:
    steps = [
        {"start_s": 0.01 * i, "duration_s": factor * 1e-3 * (1 + i % 3), "commit_s": 1.0,
         "decode_requests": 0 if i % 4 == 0 else 1 + i % 3, "decode_tokens": 1 + i % 3,
         "padded_requests": 1 + i % 3, "prefill_requests": int(i % 4 == 0),
         "prefill_tokens": 100 * (i % 4 == 0), "context_tokens": 10}
        for i in range(40)
    ]  # fmt: skip
    run = tmp_path / "run"
    run.mkdir()
    log = tmp_path / "steps.jsonl.gz"
    text = "\n".join(json.dumps(row) for row in ({"kind": "steps"}, *steps))
    log.write_bytes(gzip.compress(text.encode()))
    (run / "steps.csv.gz").write_bytes(gzip.compress(packed(log).encode()))
    truth = SimpleNamespace(
        seconds=lambda load: np.array([1e-3 * (1 + i % 3) for i in range(len(load.context))])
    )
    found = biases(truth, run)
    assert found == {
        "decode only": pytest.approx(bias), "with prefill": pytest.approx(bias),
    }  # fmt: skip
