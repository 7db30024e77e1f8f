"""What is said before a sweep starts: its axes, its runs, and an estimate of the time."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from sim import pilot
from sim.cli import main
from sim.pilot import estimate, pilots
from sim.plan import about, plan, worded
from sim.study import load_study
from sim.sweeping import point_id

if TYPE_CHECKING:
    from sim.study import Study

LEAST = "trace: {source: azure-conv-like, requests: 60}\nmodel: llama-3.2-1b\nseed: 7\n"


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(pilot, "BUDGET_S", 0.05)


def study_of(rest: str) -> Study:
    """The study of a file of the least scenario and *rest*."""
    Path("a.yaml").write_text(f"{LEAST}{rest}\n")
    return load_study("a.yaml")


def recorded(study: Study, walls: list[float | None]) -> Path:
    """A folder in which the first runs of *study* are there and took these wall seconds."""
    for point, wall in zip(study.points, walls, strict=False):
        run = Path("out/points") / point_id(point.scenario)
        run.mkdir(parents=True)
        (run / "summary.json").write_text("{}")
        facts = {} if wall is None else {"wall_s": wall}
        (run / "environment.json").write_text(json.dumps(facts))
    return Path("out")


def test_a_plan_says_axes_points_seeds_and_filters() -> None:
    study = study_of("""\
sweep:
  variants: {graph: {}, on the device: {loop.mode: resident}}
  trace.rate_scale: {from: 1, to: 4, count: 3, scale: log}
  zip: [{loop.max_batch: [8, 8, 16], kv.dtype: [bf16, fp8, fp8]}]
  except: {variant: graph, trace.rate_scale: 4}
  seeds: 2""")
    lines = plan(study, Path("nowhere"), 2)
    assert lines[:5] == [
        "a: 15 points x 2 seeds = 30 runs (seeds 7 to 8, the same for every point); "
        "filters leave out 3 of 18",
        "  variant           graph, on the device",
        "  trace.rate_scale  1, 2, 4",
        "  loop.max_batch    8, 8, 16  (together)",
        "  kv.dtype          bf16, fp8, fp8  (with it)",
    ]
    assert len(lines) == 6
    assert lines[5].startswith(
        "  a few seconds on 2 workers (an estimate for free cores, from the first "
    )
    assert lines[5].endswith("of 30 runs)")


def test_many_values_are_cut_and_long_ones_wrapped() -> None:
    study = study_of("sweep: {seed: {from: 1, to: 40, step: 1}, moe: [null]}")
    assert plan(study, Path("nowhere"))[1:3] == [
        "  seed  1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, ... 28 more ..., 40",
        "  moe   null",
    ]
    assert worded({"a": [1, True, None], "b": {"c": "x"}}) == "{a: [1, true, null], b: {c: x}}"
    assert len(worded("x" * 1000)) == 200


def test_what_is_there_is_not_to_do_and_tells_the_time() -> None:
    study = study_of("sweep: {loop.mode: [host, graph], seed: {from: 1, to: 5, step: 1}}")
    folder = recorded(study, [100.0, 200.0, 300.0])
    lines = plan(study, folder, 2)
    assert lines[3] == "  3 there already, 7 to do"
    # host: the mean of the three; graph: what has the same seed, else the mean of all
    total = 2 * 200 + (100 + 200 + 300) + 2 * 200
    assert total == 1400
    assert lines[4] == "  about 12 min on 2 workers (an estimate, from the 3 that are there)"
    assert plan(study, folder)[4].startswith("  about 23 min on one worker (an estimate")


def test_nothing_to_do_takes_no_time() -> None:
    study = study_of("sweep: {seed: [1, 2]}")
    folder = recorded(study, [1.0, None])
    assert plan(study, folder)[2:] == ["  2 there already, 0 to do"]


def test_too_few_records_are_no_basis(monkeypatch: pytest.MonkeyPatch) -> None:
    study = study_of("sweep: {seed: [1, 2, 3, 4, 5]}")
    folder = recorded(study, [1000.0, None, None, None])
    assert "from the first requests of 1 of 1 runs" in plan(study, folder)[3]
    monkeypatch.setattr(pilot, "LARGEST_FILE", -1)
    assert plan(study, folder)[3].startswith("  no estimate of the time: ")


def test_the_longest_run_is_the_least_time() -> None:
    study = study_of("sweep: {seed: [1, 2, 3, 4, 5, 6]}")
    done = list(zip(study.points[:3], (10.0, 20.0, 300.0), strict=True))
    found = estimate(study.points[2:], done)
    assert found is not None
    assert found.longest_s == 300.0
    assert found.total_s == 300.0 + 3 * 110.0
    assert found.on(1) == 630.0
    assert found.on(2) == 315.0
    assert found.on(8) == 300.0


def test_pilots_see_the_values_of_the_axes_and_not_too_many_runs() -> None:
    study = study_of("sweep: {loop.mode: [host, graph, resident], trace.rate_scale: [1, 2, 4, 8]}")
    chosen = pilot._spread(study.points, 4)
    assert {point.axes["loop.mode"] for point in chosen} == {"host", "graph", "resident"}
    assert {point.axes["trace.rate_scale"] for point in chosen} == {1, 2, 4, 8}
    assert len(pilots(study.points)) <= pilot.MOST_PILOTS


def test_a_pilot_is_cut_off_and_goes_on_in_proportion() -> None:
    text = "stop: {at: 100000 s}\nsweep: {trace.requests: [30000, 60000]}"
    study = study_of(text)
    short, long = (pilot._begun(point.scenario, 0.15) for point in study.points)
    assert short is not None
    assert long is not None
    assert 1.2 < long / short < 3.5
    assert short > 1.0  # many times what it was played


def test_traces_of_unknown_length_or_size_are_not_begun() -> None:
    Path("t.csv").write_text("arrived_at,num_prefill_tokens,num_decode_tokens\n0,5,5\n1,5,5\n")
    Path("a.yaml").write_text("trace: {file: t.csv}\nmodel: llama-3.2-1b\n")
    assert estimate(load_study("a.yaml").points) is None
    assert estimate(load_study("a.yaml", ["trace.requests=2"]).points) is not None
    assert estimate(load_study("a.yaml", ["stop.at=9 s"]).points) is not None


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0.2, "a few seconds"), (5.5, "about 10 s"), (12, "about 10 s"), (44, "about 40 s"),
        (95, "about 2 min"),
        (250, "about 4 min"), (3000, "about 50 min"), (9000, "about 2.5 h"),
        (360000, "about 100 h"),
    ],
)  # fmt: skip
def test_no_more_digits_than_an_estimate_has(seconds: float, said: str) -> None:
    assert about(seconds) == said


def test_plan_on_the_command_line_starts_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    study_of("sweep: {loop.mode: [host, graph], seeds: 2}")
    with pytest.raises(SystemExit) as end:
        main(["sweep", "a.yaml", "--plan", "--out", "out"])
    assert end.value.code in (0, None)
    assert not Path("out").exists()
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == (
        "a: 2 points x 2 seeds = 4 runs (seeds 7 to 8, the same for every point)"
    )  # fmt: skip
    assert lines[1] == "  loop.mode  host, graph"
    assert "an estimate" in lines[2]


def test_check_counts_points_and_seeds(capsys: pytest.CaptureFixture[str]) -> None:
    study_of("sweep: {loop.mode: [host, graph], seeds: 3}")
    with pytest.raises(SystemExit):
        main(["check", "a.yaml"])
    assert "a.yaml: 2 point(s) x 3 seeds, valid; room for" in capsys.readouterr().out
