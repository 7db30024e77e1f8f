"""Measured against simulated: matching, errors, intervals, verdicts, the page."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from small_steps import document, step_scenario
from toy import TICK
from typer.testing import CliRunner

from sim.cli import app
from sim.errors import InputError
from sim.profile import load_profile
from sim.scenario import Scenario
from sim.simulate import run
from sim.step_cost import cost_of
from sim.step_log import from_dicts
from sim.trace.read import read as read_trace
from sim.validation import errors, served
from sim.validation.forced import forced
from sim.validation.matching import matched
from sim.validation.page import page
from sim.validation.scheduled import schedule_line
from sim.validation.traffic import traffic

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

RUNNER = CliRunner()
REQUESTS = [(0.0, 8, 4), (5.0, 12, 3), (40.0, 8, 6), (90.0, 20, 2)]


@pytest.fixture
def simulated(tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    folder.mkdir()
    run(step_scenario(tmp_path, REQUESTS), folder)
    return folder


def rows(folder: Path, stretch: float = 1.0) -> list[dict[str, Any]]:
    """The run's requests as another engine would log them, *stretch* times slower."""
    found = []
    for row in pq.read_table(folder / "requests.parquet").to_pylist():
        wait, length = (row[k] - row["arrival_s"] for k in ("first_token_s", "finished_s"))
        found.append({
            "arrival": row["arrival_s"], "prompt_len": row["prompt_tokens"],
            "output_len": row["output_tokens"],
            "first_token": row["arrival_s"] + stretch * wait,
            "finished": row["arrival_s"] + stretch * length,
        })  # fmt: skip
    return found


def write(path: Path, found: Sequence[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in found))
    return path


def validate(*arguments: object) -> Any:
    return RUNNER.invoke(app, ["validate", *map(str, arguments)])


# ---------------------------------------------------------------- errors
def test_a_run_agrees_with_itself(simulated: Path, tmp_path: Path) -> None:
    result = validate(simulated, simulated, "--json", tmp_path / "v.json")
    assert result.exit_code == 0, result.output
    assert "all within their bars" in result.output
    found = json.loads((tmp_path / "v.json").read_text())
    assert {row["error"] for row in found["metrics"].values()} == {0.0}
    assert set(found["ks"].values()) == {0.0}
    assert set(found["metrics"]) >= {"itl_p50", "itl_p99"}  # times of tokens from the steps


def test_signed_errors_by_hand(simulated: Path, tmp_path: Path) -> None:
    slower = write(tmp_path / "m.jsonl", rows(simulated, 1.25))
    result = validate(slower, simulated, "--json", tmp_path / "v.json")
    assert result.exit_code == 0, result.output
    found = json.loads((tmp_path / "v.json").read_text())["metrics"]
    for name in ("ttft_p50", "ttft_p99", "tpot_mean", "e2el_mean"):
        assert found[name]["error"] == pytest.approx(1 / 1.25 - 1)
        assert found[name]["low"] == pytest.approx(-0.2)  # alike for every request
        assert found[name]["high"] == pytest.approx(-0.2)
    assert found["ttft_p50"]["verdict"] == "outside"
    assert "outside its bar: " in result.output
    lenient = validate(slower, simulated, "--bars", "ttft_p50=25,ttft_p90=25,ttft_p99=25,"
                       "tpot_mean=25,throughput=25")  # fmt: skip
    assert "all within their bars" in lenient.output


def test_intervals_cover_the_truth_and_repeat() -> None:
    rng = np.random.default_rng(3)
    arrival = np.arange(400) * 1.0
    wait = rng.lognormal(0, 0.5, 400)

    def made(factor: np.ndarray) -> served.Served:
        ids = [str(i) for i in range(400)]
        first = arrival + wait * factor
        count = np.full(400, 5.0)
        return served.Served("x", ids, arrival, count, count, first, first + 1.0)

    real, told = made(np.ones(400)), made(rng.normal(1.03, 0.05, 400))
    a, b = (errors.compare(real, told, errors.BARS) for _ in range(2))
    assert a.document() == b.document()
    row = next(row for row in a.rows if row.metric == "ttft_p50")
    assert row.low is not None
    assert row.high is not None
    assert row.low < 0.03 < row.high
    assert row.high - row.low < 0.06  # paired: waits vary by half, the interval does not


def test_distance_of_distributions_by_hand() -> None:
    assert errors.distance(np.array([1.0, 2.0, 3.0, 4.0]), np.array([3.0, 4.0, 5.0, 6.0])) == 0.5
    assert errors.distance(np.array([1.0]), np.array([1.0, 1.0])) == 0.0


def test_a_second_run_is_the_noise_floor(simulated: Path, tmp_path: Path) -> None:
    first = write(tmp_path / "a.jsonl", rows(simulated))
    second = write(tmp_path / "b.jsonl", rows(simulated, 1.1))
    validate(first, simulated, "--repeat", second, "--json", tmp_path / "v.json")
    found = json.loads((tmp_path / "v.json").read_text())["metrics"]
    assert found["ttft_p50"]["noise"] == pytest.approx(0.1)
    assert found["ttft_p50"]["error"] == pytest.approx(0.0)


def test_metrics_of_several_simulations_are_means(simulated: Path, tmp_path: Path) -> None:
    measured = write(tmp_path / "a.jsonl", rows(simulated))
    other = tmp_path / "other"
    shutil.copytree(simulated, other)
    table = pq.read_table(other / "requests.parquet")
    arrival, first = (table[name].to_numpy() for name in ("arrival_s", "first_token_s"))
    later = pa.array(arrival + 1.2 * (first - arrival))
    at = table.column_names.index("first_token_s")
    pq.write_table(table.set_column(at, "first_token_s", later), other / "requests.parquet")
    validate(measured, simulated, "--also", other, "--json", tmp_path / "v.json")
    found = json.loads((tmp_path / "v.json").read_text())["metrics"]["ttft_p50"]
    assert found["error"] == pytest.approx(0.1)
    assert found["spread"] == pytest.approx(0.2)
    assert found["low"] <= 0.1 + 1e-9
    assert found["high"] >= 0.1 - 1e-9
    assert "seeds" in validate(measured, simulated, "--also", other).output
    assert "seeds" not in validate(measured, simulated).output


# ---------------------------------------------------------------- times of tokens
def test_times_of_tokens_from_lists_files_and_steps(simulated: Path, tmp_path: Path) -> None:
    of_steps = served.read(simulated)
    table = pq.read_table(simulated / "requests.parquet").to_pylist()
    times = [
        [row["first_token_s"], *(row["first_token_s"] + np.cumsum(gaps)).tolist()]
        for row, gaps in zip(table, of_steps.gaps, strict=True)
    ]
    assert [len(one) for one in times] == [output for *_, output in REQUESTS]
    lists = write(tmp_path / "m.jsonl", [
        {"arrival_ms": row["arrival_s"] * 1e3, "prompt_len": row["prompt_tokens"],
         "token_times_ms": [t * 1e3 for t in one]}
        for row, one in zip(table, times, strict=True)
    ])  # fmt: skip
    found = served.read(lists)
    assert found.output.tolist() == [4, 3, 6, 2]
    for a, b in zip(found.gaps, of_steps.gaps, strict=True):
        assert a == pytest.approx(b)
    folder = tmp_path / "measured"
    folder.mkdir()
    pq.write_table(pq.read_table(simulated / "requests.parquet"), folder / "requests.parquet")
    flat = [(row["request_id"], t) for row, one in zip(table, times, strict=True) for t in one]
    pq.write_table(
        pa.table({"request_id": [i for i, _ in flat], "time_s": [t for _, t in flat],
                  "tokens": [1] * len(flat)}), folder / "tokens.parquet",
    )  # fmt: skip
    for a, b in zip(served.read(folder).gaps, of_steps.gaps, strict=True):
        assert a == pytest.approx(b)
    assert np.concatenate(of_steps.gaps).min() > 4 * TICK


# ---------------------------------------------------------------- matching
def test_requests_match_by_order_id_or_lengths(simulated: Path, tmp_path: Path) -> None:
    told = served.read(simulated)
    named = [row | {"id": str(number)} for number, row in enumerate(rows(simulated))]
    named[0]["arrival"], named[1]["arrival"] = 0.02, 0.0  # in another order
    for row in named[:2]:
        row["first_token"], row["finished"] = 0.1, 0.2
    real, simulated_, said = matched(served.read(write(tmp_path / "a.jsonl", named)), told)
    assert said == []
    assert real.prompt.tolist() == simulated_.prompt.tolist()
    fewer = [{k: v for k, v in row.items() if k != "id"} for row in named[1:]]
    real, simulated_, said = matched(served.read(write(tmp_path / "b.jsonl", fewer)), told)
    assert len(real) == 3
    assert said == ["3 requests matched, of 3 measured and 4 simulated; the others are left out"]


def test_other_requests_are_refused_in_clear_words(simulated: Path, tmp_path: Path) -> None:
    other = rows(simulated)
    for row in other[1:]:
        row["prompt_len"] += 1
    result = validate(write(tmp_path / "m.jsonl", other), simulated)
    assert isinstance(result.exception, InputError)
    first, second = result.exception.lines
    assert "not the same requests: 4 finished measured, 4 finished simulated" in first
    assert "number 1, measured 13 prompt and 3 output tokens, simulated 12 and 3" in second


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"prompt_len": 1}, "no column for arrival_s; say which with --map arrival_s=NAME"),
        ({"arrival": 1, "output_len": 3, "finished": 2}, "no column for first_token_s"),
        ({"arrival": 1, "output_len": "x", "first_token": 1, "finished": 2}, "'x' is no number"),
        ({"arrival": 5, "output_len": 3, "first_token": 1, "finished": 2}, "before they arrive"),
    ],
)
def test_one_line_for_a_bad_file(tmp_path: Path, row: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said) as caught:
        served.read(write(tmp_path / "m.jsonl", [row]))
    assert len(caught.value.lines) == 1


def test_maps_units_and_durations_instead_of_times(tmp_path: Path) -> None:
    path = write(tmp_path / "m.jsonl", [
        {"sent": 1000, "n": 7, "ttft": 20, "e2e": 60, "completion_tokens": 5}
    ])  # fmt: skip
    found = served.read(path, ["prompt_tokens=n"], "ms")
    assert found.arrival.tolist() == [1.0]
    assert found.ttft.tolist() == [pytest.approx(0.02)]
    assert found.tpot.tolist() == [pytest.approx(0.01)]
    assert found.prompt.tolist() == [7]
    for arguments, said in (
        (["--bars", "speed=3"], "no metric 'speed'"), (["--bars", "ttft_p50=x"], "write name="),
        (["--unit", "h"], "--unit h: choose"),
    ):  # fmt: skip
        result = validate(path, tmp_path, *arguments)
        assert isinstance(result.exception, InputError)
        assert said in str(result.exception)


# ---------------------------------------------------------------- steps and page
def test_teacher_forced_steps_are_judged(simulated: Path, tmp_path: Path) -> None:
    steps = [
        row | {"duration_s": row["duration_s"] * 1.25}
        for row in pq.read_table(
            simulated / "iterations.parquet",
            columns=["duration_s", "decode_requests", "prefill_requests", "prefill_tokens",
                     "context_tokens"],
        ).to_pylist()
    ]  # fmt: skip
    log = write(tmp_path / "steps.jsonl", steps)
    result = validate(simulated, simulated, "--steps", log, "--profile", tmp_path / "small.json",
                      "--json", tmp_path / "v.json")  # fmt: skip
    assert result.exit_code == 0, result.output
    found = json.loads((tmp_path / "v.json").read_text())["teacher_forced"]
    assert found["all"]["signed_median"] == pytest.approx(-0.2, abs=0.02)
    assert "step_median" in result.output
    (tmp_path / "other.json").write_text(json.dumps(document(captured=[9])))
    wrong = validate(simulated, simulated, "--steps", log, "--profile", tmp_path / "other.json")
    assert "is not the profile that" in str(wrong.exception)
    none = validate(simulated, simulated)
    assert "no teacher-forced errors: " in none.output


def test_page_and_figures_are_whole_and_repeat(simulated: Path, tmp_path: Path) -> None:
    slower = write(tmp_path / "m.jsonl", rows(simulated, 1.25))
    result = validate(slower, simulated, "--html", tmp_path / "a.html", "--plots", tmp_path / "p")
    assert result.exit_code == 0, result.output
    assert sorted(path.name for path in (tmp_path / "p").iterdir()) == [
        "cdf.png", "cdf.svg", "scatter.png", "scatter.svg"
    ]  # fmt: skip
    text = (tmp_path / "a.html").read_text()
    assert text.count("<svg") == 2
    assert '<td class="outside">outside</td>' in text
    assert "http://" not in text.replace("http://www.w3.org", "").replace("http://purl.org", "") \
        .replace("http://creativecommons.org", "")  # fmt: skip
    real, told, _ = matched(served.read(slower), served.read(simulated))
    assert page(errors.compare(real, told, errors.BARS)) == text


# ---------------------------------------------------------------- steps and schedule
def test_steps_through_a_profile_of_kernels() -> None:
    scenario = Scenario.model_validate({
        "trace": {"source": "synthetic", "requests": 1, "rate": "1 /s", "prompt_tokens": 1,
                  "output_tokens": 1},
        "model": {"preset": "llama-3.2-1b"}, "loop": {"mode": "graph", "max_batch": 8},
    })  # fmt: skip
    cost = cost_of(scenario, load_profile("nvidia-h200"))
    row = {"start_s": 0.0, "duration_s": 1.0, "decode_requests": 2, "context_tokens": 300}
    more = {"start_s": 1.0, "prefill_requests": 1, "prefill_tokens": 64}
    _, real, told = forced(from_dicts([row, row | more]), cost)
    assert real.tolist() == [1.0, 1.0]
    assert told[0] == cost.decode(2, 2).seconds(300)
    assert told[1] > told[0]


def logged(path: Path, decodes: Sequence[list[int]]) -> None:
    """A step log of one prompt of 8 tokens, then of *decodes*, a millisecond each."""
    steps: list[dict[str, Any]] = [{"decode_ids": [], "chunks": [[0, 0, 8]]}]
    steps += [{"decode_ids": ids} for ids in decodes]
    text = "".join(
        json.dumps({"start_s": n / 1e3, "duration_s": 1e-3} | step) + "\n"
        for n, step in enumerate(steps)
    )
    path.write_text(text)


def test_the_schedule_of_a_log_that_says_who_took_part(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    run(step_scenario(tmp_path, REQUESTS[:1]), folder)
    log, profile = tmp_path / "steps.jsonl", str(tmp_path / "small.json")
    logged(log, [[0], [0], [0]])
    assert schedule_line(folder, folder, [log], profile) == "schedule: all 4 steps alike"
    logged(log, [[0], [], [0]])
    said = schedule_line(folder, folder, [log], profile)
    assert said is not None
    assert said.startswith("schedule: 2 steps alike, then step 3 at 0.002000 s: [0] were to decode")
    log.write_text('{"start_s": 0, "duration_s": 1, "decode_requests": 1}\n')
    assert schedule_line(folder, folder, [log], profile) is None  # names nobody


# ---------------------------------------------------------------- logs of others
def others() -> list[dict[str, Any]]:
    """Three requests; the second token comes 0.3 s after arrival, the others 0.1 s apart."""
    return [
        {"id": n, "arrival": float(n), "prompt_len": 10 + n,
         "tokens": [n + 0.3 + 0.1 * k for k in range(2 + n)]}
        for n in range(3)
    ]  # fmt: skip


def as_list(rows: list[dict[str, Any]]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def epochs() -> str:
    return as_list([
        {"rid": r["id"], "arrival_ns": int((1.7e9 + r["arrival"]) * 1e9), "prompt_len": 1,
         "token_times_ns": [int((1.7e9 + t) * 1e9) for t in r["tokens"]]} for r in others()
    ])  # fmt: skip


def of_transformers() -> str:
    return as_list([
        {"request_id": f"req_{r['id']}", "prompt_ids": [7] * r["prompt_len"],
         "generated_tokens": [9] * len(r["tokens"]), "created_time": 50 + r["arrival"],
         "lifespan": [50 + r["arrival"], 50 + r["tokens"][-1]],
         "timestamps": [50 + t for t in r["tokens"]], "error": None} for r in others()
    ])  # fmt: skip


def of_vllm() -> str:
    """Arrivals on the wall's clock, tokens on another one."""
    return as_list([
        {"request_id": str(r["id"]), "num_prompt_tokens": r["prompt_len"], "metrics": {
            "num_generation_tokens": len(r["tokens"]), "arrival_time": 1.7e9 + r["arrival"],
            "first_token_ts": 50 + r["tokens"][0], "last_token_ts": 50 + r["tokens"][-1],
            "first_token_latency": 0.3}} for r in others()
    ])  # fmt: skip


def of_vllm_bench() -> str:
    rows = others()
    return json.dumps({
        "backend": "vllm", "input_lens": [r["prompt_len"] for r in rows], "ttfts": [0.3] * 3,
        "output_lens": [len(r["tokens"]) for r in rows], "start_times": [9, 10, 11],
        "itls": [[0.1] * (len(r["tokens"]) - 1) for r in rows],
    })  # fmt: skip


@pytest.mark.parametrize(
    "text",
    [as_list(others()), epochs(), of_transformers(), of_vllm(), of_vllm_bench(),
     json.dumps({"steps": [{"a": 1}], "requests": others()}, indent=1)],
    ids=["tokens", "epochs", "transformers", "vllm", "vllm-bench", "beside-steps"],
)  # fmt: skip
def test_requests_as_other_engines_log_them(tmp_path: Path, text: str) -> None:
    path = tmp_path / "requests.json"
    path.write_text(text)
    found = served.read(path)
    assert found.ttft == pytest.approx([0.3] * 3, abs=1e-6)
    assert found.output.tolist() == [2, 3, 4]
    assert found.e2el == pytest.approx([0.4, 0.5, 0.6], abs=1e-6)
    if found.gaps:
        assert np.concatenate(found.gaps) == pytest.approx([0.1] * 6, abs=1e-6)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"tokens": [71, 5, 9]}, "request 0: 71, 5, 9, ... go back, so they are no times"),
        ({"arrival": 1.7e9}, "arrival lie -1.7e+09 s apart: two clocks or units; map an arrival"),
        ({"arrival": 9.0}, "3 requests have tokens before they arrive (arrival); check --map"),
    ],
)  # fmt: skip
def test_one_line_says_why_times_are_none(
    tmp_path: Path, change: dict[str, Any], said: str
) -> None:
    with pytest.raises(InputError) as caught:
        served.read(write(tmp_path / "m.jsonl", [row | change for row in others()]))
    assert len(caught.value.lines) == 1
    assert said in caught.value.lines[0]


def test_requests_without_times_or_end_are_left_out(tmp_path: Path) -> None:
    rows = [row | {"status": "finished"} for row in others()]
    rows += [rows[0] | {"tokens": None}, rows[1] | {"status": "FINISHED_ABORTED"}]
    path = write(tmp_path / "m.jsonl", rows)
    found = served.read(path)
    assert (len(found), found.unfinished) == (3, 2)
    asked, _, lost = traffic(path)
    assert (len(asked), lost) == (4, 1)  # what was aborted had its tokens computed, too


def test_traffic_of_a_run_is_a_trace(simulated: Path, tmp_path: Path) -> None:
    log = write(tmp_path / "m.jsonl", rows(simulated))
    result = RUNNER.invoke(app, ["trace", "requests", str(log), "--out", str(tmp_path / "t.csv")])
    assert result.exit_code == 0, result.output
    assert "4 requests in " in result.output
    (chunk,) = read_trace(tmp_path / "t.csv")
    table = pq.read_table(simulated / "requests.parquet").to_pylist()
    assert chunk.arrival_s == pytest.approx([row["arrival_s"] for row in table])
    assert chunk.prompt_tokens.tolist() == [row["prompt_tokens"] for row in table]
    assert chunk.output_tokens.tolist() == [row["output_tokens"] for row in table]


def test_units_that_differ_are_said(simulated: Path, tmp_path: Path) -> None:
    table = [
        {name: value * (1 if name.endswith("_len") else 1e3) for name, value in row.items()}
        for row in rows(simulated)
    ]
    path = write(tmp_path / "m.jsonl", table)
    assert "simulated times are 0.001 of the measured ones: is the unit" in \
        validate(path, simulated).output  # fmt: skip
    assert "all within their bars" in validate(path, simulated, "--unit", "ms").output
