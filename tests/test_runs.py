"""Folders of runs and studies, read back whole, part-way, old, and damaged."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path
from typing import Any

import pytest

from sim.errors import InputError
from sim.runs import read_run, read_study
from sim.study import load_study
from sim.sweeping import run_study

STUDY = """
# Does a resident loop pay?
trace: {source: azure-conv-like, requests: 30, rate_scale: 4.0}
model: llama-3.2-1b
sweep: {loop.mode: [graph, resident], trace.rate_scale: [2, 4], seeds: 2}
statistics: {warm_up: 1 s, baseline: {loop.mode: resident}, confidence: 0.9}
"""


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("study")
    (folder / "study.yaml").write_text(STUDY.lstrip())
    run_study(load_study(folder / "study.yaml"), folder / "out", quiet=True)
    return folder / "out"


@pytest.fixture
def study(whole: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    return Path(shutil.copytree(whole, tmp_path / "study"))


def manifest(folder: Path, **changes: Any) -> list[dict[str, Any]]:
    """The points in `study.json`, which gets the *changes*."""
    data = json.loads((folder / "study.json").read_text())
    data |= changes
    (folder / "study.json").write_text(json.dumps(data))
    points: list[dict[str, Any]] = data["points"]
    return points


def test_a_study_has_a_cell_a_point_with_its_replications(whole: Path) -> None:
    results = read_study(whole)
    assert (results.name, results.question) == ("study", "Does a resident loop pay?")
    assert results.axes == {"loop.mode": ["graph", "resident"], "trace.rate_scale": [2, 4]}
    assert [cell.axes["trace.rate_scale"] for cell in results.cells] == [2, 4, 2, 4]
    assert [[run.replication for run in cell.runs] for cell in results.cells] == [[0, 1]] * 4
    assert [run.summary["seed"] for run in results.cells[0].runs] == [0, 1]
    assert results.cells[0].runs[1].scenario["seed"] == 1
    assert results.cells[2].name == "resident, 2"
    assert (results.failures, results.missing) == ((), ())
    assert results.statistics.warm_up_s == 1.0
    assert results.statistics.baseline == {"loop.mode": "resident"}
    assert results.statistics.confidence == 0.9


def test_a_run_is_a_study_of_one_point(whole: Path) -> None:
    folder = sorted((whole / "points").iterdir())[0]
    run = read_run(folder)
    (cell,) = read_study(folder).cells
    assert cell.axes == {}
    assert cell.runs[0].summary == run.summary
    assert run.requests("ttft_ms")["ttft_ms"].mean() == pytest.approx(run.summary["mean_ttft_ms"])
    assert len(run.iterations("start_s")["start_s"]) == run.summary["loop_iterations"]


def test_an_older_study_without_replications_is_read(study: Path) -> None:
    points = [
        {"id": point["id"], "axes": point["axes"]}
        for point in manifest(study)
        if point["replication"] == 0
    ]
    (study / "study.json").write_text(json.dumps({"name": "old", "points": points}))
    results = read_study(study)
    assert results.axes == {"loop.mode": ["graph", "resident"], "trace.rate_scale": [2, 4]}
    assert [len(cell.runs) for cell in results.cells] == [1, 1, 1, 1]
    assert results.statistics.confidence == 0.95


def test_failed_and_missing_points_are_listed(study: Path) -> None:
    first, second, third, *_ = manifest(study)
    for point in (first, second):
        shutil.rmtree(study / "points" / point["id"])
    (study / "failures").mkdir(exist_ok=True)
    failure = {key: first[key] for key in ("id", "axes", "replication")}
    failure |= {"error": "ZeroDivisionError", "message": "division by zero", "attempts": 2}
    (study / "failures" / f"{first['id']}.json").write_text(json.dumps(failure))
    (study / "failures" / f"{third['id']}.json").write_text(json.dumps(failure))  # done since
    (study / "failures" / "0123-4567.json").write_text("of another study")
    results = read_study(study)
    assert [(one.id, one.error, one.attempts) for one in results.failures] == [
        (first["id"], "ZeroDivisionError", 2)
    ]
    assert results.missing == (second["id"],)
    assert len(results.cells) == 3


def test_a_study_of_nothing_but_failures_lists_them(study: Path) -> None:
    shutil.rmtree(study / "points")
    with pytest.raises(InputError, match="no point has run yet; run `residentsim sweep` first"):
        read_study(study)
    (study / "failures").mkdir(exist_ok=True)
    for point in manifest(study):
        text = json.dumps(point | {"error": "E", "message": "m"})
        (study / "failures" / f"{point['id']}.json").write_text(text)
    assert len(read_study(study).failures) == 8
    assert read_study(study).cells == ()


@pytest.mark.parametrize(
    "points",
    [5, [5], [{}], [{"id": "../../etc", "axes": {}}], [{"id": 5, "axes": {}}],
     [{"id": "ab-cd", "axes": 5}], [{"id": "ab-cd", "axes": {}, "replication": "x"}],
     [{"id": "ab-cd", "axes": {}, "replication": -1}], {"id": "ab-cd"}],
)  # fmt: skip
def test_a_damaged_manifest_is_one_clear_line(study: Path, points: object) -> None:
    manifest(study, points=points)
    with pytest.raises(InputError, match=r"study\.json: is damaged; run `residentsim sweep` again"):
        read_study(study)


@pytest.mark.parametrize("statistics", [5, {"warm_up": 60}, {"confidence": 2}, {"colour": 1}])
def test_damaged_settings_are_one_clear_line(study: Path, statistics: object) -> None:
    manifest(study, statistics=statistics)
    with pytest.raises(InputError, match=r"study\.json: is damaged"):
        read_study(study)


@pytest.mark.parametrize("content", ["", "[]", '{"loop_mode": "graph"}', "\x00", None])
def test_a_damaged_point_is_named(study: Path, content: str | None) -> None:
    name = manifest(study)[3]["id"]
    path = study / "points" / name / "summary.json"
    path.unlink()
    if content is not None:
        path.write_text(content)
    with pytest.raises(InputError, match=name) as caught:
        read_study(study)
    assert len(caught.value.lines) == 1


@pytest.mark.parametrize("number", ["NaN", '"8"', "null", "true"])
def test_a_summary_that_is_not_of_numbers_is_named(study: Path, number: str) -> None:
    path = study / "points" / manifest(study)[0]["id"] / "summary.json"
    summary = json.loads(path.read_text())
    summary["duration"] = "HERE"
    path.write_text(json.dumps(summary).replace('"HERE"', number))
    with pytest.raises(InputError, match=r"summary\.json: is damaged"):
        read_study(study)


def test_damaged_records_are_named_when_they_are_read(study: Path) -> None:
    run = read_study(study).runs[0]
    (run.folder / "requests.parquet").write_bytes(b"PAR1 but not really PAR1")
    with pytest.raises(InputError, match=r"requests\.parquet: is not a table of a run"):
        run.requests("ttft_ms")
    with pytest.raises(InputError, match=r"iterations\.parquet: is not a table of a run"):
        run.iterations("colour")
    (run.folder / "requests.parquet").unlink()
    with pytest.raises(InputError, match=r"requests\.parquet: no such file; run it again"):
        run.requests("ttft_ms")


def test_no_folder_at_all(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="neither a study's folder nor a run's"):
        read_study(tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"summary\.json: cannot be read"):
        read_run(tmp_path)


def test_five_hundred_points_are_read_at_once(whole: Path, tmp_path: Path) -> None:
    source = read_study(whole).runs[0].folder / "summary.json"
    points = []
    for number in range(500):
        name = f"{number:012x}-{'0' * 12}"
        (tmp_path / "points" / name).mkdir(parents=True)
        (tmp_path / "points" / name / "summary.json").hardlink_to(source)
        points.append({"id": name, "axes": {"loop.max_batch": number}, "replication": 0})
    (tmp_path / "study.json").write_text(json.dumps({"name": "many", "points": points}))
    begin = time.process_time()
    results = read_study(tmp_path)
    assert len(results.cells) == 500
    assert time.process_time() - begin < 2.0
