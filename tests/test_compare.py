"""Comparisons: parts that add up, words for what cannot be compared, figures and files."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
from test_timeline import RUNS, folder_of, folders, shipped, simulated

from sim.cli import main
from sim.compare import compare
from sim.compare.clock import Clock
from sim.compare.console import _difference
from sim.compare.figures import draw, pictures
from sim.compare.keys import different, said
from sim.compare.loop import Change, Kind
from sim.compare.moved import Moved
from sim.compare.parts import MEANS
from sim.compare.words import times
from sim.errors import InputError
from sim.plots import svg_of
from sim.stats import METRICS

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["folders"]
SUMMARY = {
    "kind": "simulated", "loop_mode": "graph", "scenario_hash": "1", "duration": 8.0,
    "requests_in": 2, "completed": 2, "cost_profile": "toy", "cost_profile_status": "measured",
    "cost_profile_hash": "2", "cost_estimated": [], "cost_extrapolated": [],
}  # fmt: skip


def made(
    folder: Path,
    requests: list[tuple[float, float, float, float, int]],
    iterations: list[tuple[float, float, float, str]] | None,
    summary: dict[str, Any],
    **columns: list[float],
) -> Path:
    """A run of *requests* (arrival, admitted, first token, finished, output tokens) and
    *iterations* (start, duration, busy, kind)."""
    folder.mkdir()
    times = ["arrival_s", "admitted_s", "first_token_s", "finished_s"]
    frame = pd.DataFrame(requests, columns=[*times, "output_tokens"]).assign(
        request_id=range(len(requests)), prompt_tokens=8, status="finished", **columns
    )
    frame.to_parquet(folder / "requests.parquet")
    if iterations is not None:
        names = ["start_s", "duration_s", "gpu_busy_s", "kind"]
        pd.DataFrame(iterations, columns=names).to_parquet(folder / "iterations.parquet")
    arrival, _, first, last = (np.array([row[n] for row in requests]) for n in range(4))
    tokens = np.array([row[4] for row in requests])
    means = {
        "mean_ttft_ms": (first - arrival).mean() * 1e3,
        "p99_ttft_ms": np.percentile(first - arrival, 99) * 1e3,
        "mean_e2el_ms": (last - arrival).mean() * 1e3,
        "mean_tpot_ms": ((last - first) / (tokens - 1)).mean() * 1e3,
    }
    (folder / "summary.json").write_text(json.dumps(SUMMARY | means | summary))
    (folder / "scenario.json").write_text(json.dumps({"loop": {"mode": "graph"}, "seed": 0}))
    return folder


@pytest.fixture
def story(tmp_path: Path) -> tuple[Path, Path]:
    """Two requests, one after the other. In B the first is admitted half a second sooner, decodes
    with less gap, and waits for a prompt of another; the second loads its KV for 0.25 s."""
    a = made(
        tmp_path / "a",
        [(0, 1, 2, 4, 5), (4, 5, 6, 8, 3)],
        [(1, 1, 0.8, "prefill"), (2, 1, 0.5, "decode"), (3, 1, 0.5, "decode"),
         (5, 1, 0.8, "prefill"), (6, 2, 1.0, "decode")],
        {"request_throughput": 0.25},
    )  # fmt: skip
    b = made(
        tmp_path / "b",
        [(0, 0.5, 1.5, 3.5, 5), (4, 4, 5.25, 6.25, 3)],
        [(0.5, 1, 0.8, "prefill"), (1.5, 1, 0.75, "decode"), (2.75, 0.75, 0.5, "mixed"),
         (4.25, 0.75, 0.75, "prefill"), (5.25, 1, 1.0, "decode")],
        {"loop_mode": "graph", "duration": 6.25, "request_throughput": 0.32},
        load_ms=[0.0, 250.0],
    )  # fmt: skip
    return a, b


# ---------------------------------------------------------------- the hand-made story
def test_parts_of_the_means_by_hand(story) -> None:
    found = compare(*story)
    ms = {name: {p: (round(a * 1e3, 6), round(b * 1e3, 6)) for p, a, b in found.means(name)}
          for name in MEANS}  # fmt: skip
    assert ms["ttft"] == {
        "queue": (1000, 250), "load": (0, 125), "prefill_gpu": (800, 775),
        "prefill_gap": (200, 100), "prefill_rest": (0, 125),
    }  # fmt: skip
    # B's first decodes from 1.5 to 3.5: 0.75 busy, 0.25 gap, 0.25 without iteration, 0.75 mixed.
    assert {p: v for p, v in ms["e2el"].items() if p.startswith("decode")} == {
        "decode_gpu": (1000, 875), "decode_gap": (1000, 125), "decode_prompts": (0, 375),
        "decode_rest": (0, 125),
    }  # fmt: skip
    assert ms["tpot"] == {
        "decode_gpu": ((1.0 / 4 + 1.0 / 2) * 500, (0.75 / 4 + 1.0 / 2) * 500),
        "decode_gap": ((1.0 / 4 + 1.0 / 2) * 500, 0.25 / 4 * 500),
        "decode_prompts": (0, 0.75 / 4 * 500), "decode_rest": (0, 0.25 / 4 * 500),
    }  # fmt: skip
    assert ms["slow_ttft"]["queue"] == (1000, 500)  # B's slowest is the first: 1.5 s


def test_the_answer_names_the_largest_parts(story) -> None:
    found = compare(*story)
    assert found.says[0] == (
        "B's mean TPOT is 33 % lower (500 ms instead of 750 ms); -250 ms in the mean: -344 ms for"
        " gaps of the loop in decode iterations, +93.8 ms for iterations with prompts of others."
    )
    assert "-750 ms for waiting in the queue" in " ".join(found.says)
    assert found.says[-1] == (
        "Decode iterations are 25 % shorter (1.33 s -> 1.00 s): GPU 667 ms -> 875 ms,"
        " gap 667 ms -> 125 ms; there are 3 -> 2 of them."
    )


def test_the_loop_adds_up_to_the_run(story) -> None:
    found = compare(*story)
    a, b = found.a.loop, found.b.loop
    assert a is not None
    assert b is not None
    assert (a.decode.count, a.decode.total_s, a.prompts.total_s, a.rest_s) == (3, 4.0, 2.0, 2.0)
    assert (b.decode.count, b.prompts.count, b.rest_s, b.whole_s) == (2, 3, 1.75, 6.25)
    change = Change.of(a.decode, b.decode)
    assert sum((change.count_s, change.gpu_s, change.gap_s)) == pytest.approx(-2.0)


def test_what_a_change_of_number_and_of_length_have_in_common_is_shared() -> None:
    change = Change.of(Kind(10, 1.0, 0.5), Kind(20, 0.5, 0.5))
    assert change == Change(10 * 1.25, 15 * -0.5, 0.0)


def test_shares_of_an_interval_within_one_iteration() -> None:
    rows = {
        "start_s": np.array([1.0, 4.0]), "duration_s": np.array([2.0, 1.0]),
        "gpu_busy_s": np.array([1.5, 5.0]), "kind": np.array(["decode", "mixed"], object),
    }  # fmt: skip
    found = Clock(rows).shares(np.array([0.0, 1.5, 4.5]), np.array([10.0, 2.0, 4.5]))
    assert found.gpu.tolist() == [1.5, 0.375, 0]
    assert found.gap.tolist() == [0.5, 0.125, 0]
    assert found.prompts_gpu.tolist() == [1.0, 0, 0]  # no more busy than long
    assert found.rest.tolist() == [7.0, 0, 0]


# ---------------------------------------------------------------- real runs
@pytest.mark.parametrize("name", RUNS)
def test_parts_add_up_to_every_latency_and_difference(folders, name) -> None:
    found = compare(folder_of(folders, "tiers" if name == "replicas" else "graph"),
                    folder_of(folders, name))  # fmt: skip
    for side in found.both:
        requests = side.requests
        first = sum(requests.parts[p] for p in ("queue", "load", "prefill_gpu", "prefill_gap",
                                                "prefill_rest"))  # fmt: skip
        np.testing.assert_allclose(first, requests.ttft, atol=1e-9)
        np.testing.assert_allclose(sum(requests.parts.values()), requests.e2el, atol=1e-9)
        for key, column in (("ttft", "ttft"), ("tpot", "tpot"), ("e2el", "e2el")):
            mean = side.run.summary[f"mean_{column}_ms"] / 1e3
            assert sum(requests.mean(key).values()) == pytest.approx(mean, rel=1e-9)
        loop = side.loop
        assert loop is not None
        assert loop.decode.total_s + loop.prompts.total_s + loop.rest_s == pytest.approx(
            side.run.summary["duration"] * side.run.replicas
        )
    rows = {row.metric.name: row for row in found.metrics}
    for key, metric in (("ttft", "mean_ttft_ms"), ("tpot", "mean_tpot_ms")):
        apart = sum(b - a for _, a, b in found.means(key)) * 1e3
        assert apart == pytest.approx(rows[metric].b - rows[metric].a, abs=1e-6)


def test_faster_loops_are_said_to_be_better_with_their_gap(folders) -> None:
    found = compare(folder_of(folders, "host"), folder_of(folders, "resident"))
    assert [key.key for key in found.keys] == ["loop.mode"]
    assert found.paired
    rows = {row.metric.name: row for row in found.metrics}
    tpot = rows["mean_tpot_ms"]
    expected = "better" if tpot.b < tpot.a else "worse"
    assert tpot.verdict in (expected, "not distinguishable", "same")


def test_a_run_compared_with_itself_does_not_differ(folders) -> None:
    folder = folder_of(folders, "graph")
    found = compare(folder, folder)
    assert found.says == ["No latency and no throughput differs by more than 0.5 %."]
    assert found.notes[0] == "both ran the same scenario"
    assert found.keys == []
    assert all(row.verdict == "same" for row in found.metrics)


def test_pairing_by_request_tells_small_differences_from_chance(tmp_path) -> None:
    rng = np.random.default_rng(1)
    wide, noise = rng.uniform(0.1, 2.0, 400), rng.uniform(0.0, 0.002, 400)

    def rows(faster: float) -> list[tuple[float, float, float, float, int]]:
        less = faster * (1 + noise)
        return [
            (float(n), float(n), n + w - d, n + w - d + 1.0, 9)
            for n, (w, d) in enumerate(zip(wide, less, strict=True))
        ]

    counts = {"requests_in": 400, "completed": 400, "duration": 403.0}
    a, b = (made(tmp_path / name, rows(less), None, counts)
            for name, less in (("a", 0.0), ("b", 0.01)))  # fmt: skip
    found = compare(a, b)
    ttft = next(row for row in found.metrics if row.metric.name == "mean_ttft_ms")
    assert (ttft.verdict, ttft.method) == ("better", "requests")
    assert ttft.low is not None
    assert ttft.high is not None
    assert ttft.low < -0.01 / wide.mean() < ttft.high + 1e-4
    frame = pd.read_parquet(b / "requests.parquet")
    frame.assign(prompt_tokens=9).to_parquet(b / "requests.parquet")
    found = compare(a, b)
    assert not found.paired
    ttft = next(row for row in found.metrics if row.metric.name == "mean_ttft_ms")
    assert ttft.verdict == "not distinguishable"
    assert "nothing is paired" in " ".join(found.notes)


# ---------------------------------------------------------------- keys
def test_keys_come_with_their_units() -> None:
    a = shipped(hardware={"dram": {"capacity": "512 GiB"}}, slo={"ttft": "250 ms"}).resolved()
    b = shipped(
        hardware={"dram": {"capacity": "1.5 TB"}}, loop={"max_batch": 8},
        trace={"source": "synthetic", "requests": 25, "rate": "90 /min", "prompt_tokens": 512,
               "output_tokens": 48}, slo={"ttft": "2 s"},
    ).resolved()  # fmt: skip
    assert {tuple(key) for key in different(a, b)} == {
        ("trace.rate", "10 /s", "1.5 /s"),
        ("hardware.dram.capacity", "512 GiB", "1.5 TB"),
        ("loop.max_batch", "16", "8"),
        ("slo.ttft", "250 ms", "2 s"),
    }


def test_a_section_that_one_lacks_is_said_key_by_key() -> None:
    a, b = shipped().resolved(), shipped(**RUNS["speculation"]).resolved()
    rows = {key.key: (key.a, key.b) for key in different(a, b)}
    assert rows["speculation.draft.kind"] == ("-", "eagle")
    assert rows["speculation.acceptance.rate"] == ("-", "0.65")
    assert said("seed", None) == "null"


@pytest.mark.parametrize(
    ("pair", "expected"),
    [
        ((1.0, 2.0), ("1.00 s", "2.00 s")),
        ((1.0166, 1.0228), ("1.017 s", "1.023 s")),
        ((0.0, 4e-4), ("0 us", "400 us")),
        ((0.0, 0.0), ("0", "0")),
        ((-0.5, 12.0), ("-0.500 s", "12.0 s")),
    ],
)
def test_two_times_are_told_apart_in_one_unit(pair, expected) -> None:
    assert times(*pair) == expected


# ---------------------------------------------------------------- what does not fit together
def test_measured_against_simulated_and_other_requests_are_said(folders, tmp_path) -> None:
    folder = shutil.copytree(folder_of(folders, "graph"), tmp_path / "m")
    summary = json.loads((folder / "summary.json").read_text())
    (folder / "summary.json").write_text(json.dumps(summary | {"kind": "measured"}))
    (folder / "scenario.json").unlink()
    found = compare(folder, folder_of(folders, "tiers"))
    notes = " / ".join(found.notes)
    assert "A is measured, B is simulated" in notes
    assert "A was sent 25 requests, B 20" in notes
    assert "A has no scenario.json" in notes
    assert found.data()["a"]["kind"] == "measured"


def test_without_iterations_in_one_run_neither_is_divided(folders, tmp_path) -> None:
    folder = shutil.copytree(folder_of(folders, "graph"), tmp_path / "r")
    (folder / "iterations.parquet").unlink()
    found = compare(folder, folder_of(folders, "host"))
    assert [part for part, _, _ in found.means("e2el")] == ["queue", "prefill", "decode"]
    assert "prefill and decode are not divided" in " ".join(found.notes)
    assert found.data()["loop"] is None


def test_requests_that_did_not_finish_are_counted(folders) -> None:
    found = compare(folder_of(folders, "graph"), folder_of(folders, "cut"))
    assert any(note.startswith("B: ") and "did not finish" in note for note in found.notes)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda f: (f / "summary.json").unlink(), "is not a run's folder"),
        (lambda f: (f / "summary.json").write_text("[]"), "summary.json"),
        (lambda f: (f / "summary.json").write_text("{}"), "is damaged"),
        (lambda f: (f / "requests.parquet").unlink(), "no such file"),
        (lambda f: (f / "requests.parquet").write_bytes(b"no"), "is not a table"),
        (lambda f: (f / "iterations.parquet").write_bytes(b"no"), "is not a table"),
        (lambda f: (f / "scenario.json").write_text("{"), "is not JSON"),
        (lambda f: _assign(f, "requests", finished_s=-1.0), "times that no run can have"),
        (lambda f: _assign(f, "requests", admitted_s=np.nan), "times that no run can have"),
        (lambda f: _assign(f, "iterations", duration_s=np.inf), "times that no run can have"),
        (lambda f: (f / "study.json").write_text("{}"), "is a study; name two of its runs"),
    ],
)
def test_damaged_folders_end_with_2_and_one_line(folders, tmp_path, capsys, spoil, message) -> None:
    folder = shutil.copytree(folder_of(folders, "graph"), tmp_path / "r")
    spoil(folder)
    with pytest.raises(SystemExit) as ended:
        main(["compare", str(folder_of(folders, "host")), str(folder), "--json", "c.json"])
    assert ended.value.code == 2
    error = capsys.readouterr().err.splitlines()
    assert len(error) == 1
    assert message in error[0]


def _assign(folder: Path, table: str, **values: Any) -> None:
    path = folder / f"{table}.parquet"
    pd.read_parquet(path).assign(**values).to_parquet(path)


def test_a_run_in_which_nothing_finished_is_compared(folders, tmp_path) -> None:
    cut = simulated(tmp_path / "r", shipped(stop={"at": "20 ms"}))
    found = compare(folder_of(folders, "graph"), cut)
    assert found.means("ttft") == []
    json.dumps(found.data(), allow_nan=False)


# ---------------------------------------------------------------- studies
def study(folder: Path, runs: dict[str, Path]) -> Path:
    """A study over `loop.mode` of *runs*."""
    points = []
    for number, (mode, run) in enumerate(runs.items()):
        name = f"aa-{number}"
        shutil.copytree(run, folder / "points" / name)
        points.append({"id": name, "axes": {"loop.mode": mode}, "replication": 0})
    (folder / "study.json").write_text(json.dumps({"name": "s", "points": points}))
    return folder


def test_studies_are_matched_by_their_axes(folders, tmp_path, capsys) -> None:
    host, graph = folder_of(folders, "host"), folder_of(folders, "graph")
    a = study(tmp_path / "a", {"host": host, "graph": graph})
    b = study(tmp_path / "b", {"graph": graph, "host": graph, "resident": graph})
    with pytest.raises(SystemExit) as ended:
        main(["compare", str(a), str(b), "--json", str(tmp_path / "c.json")])
    assert not ended.value.code
    assert "1 point(s) of B have no counterpart" in capsys.readouterr().out
    cells = json.loads((tmp_path / "c.json").read_text())["cells"]
    assert [cell["axes"]["loop.mode"] for cell in cells] == ["host", "graph"]
    one, other = (json.loads((run / "summary.json").read_text()) for run in (host, graph))
    expected = other["mean_tpot_ms"] / one["mean_tpot_ms"] - 1
    assert cells[0]["metrics"]["mean_tpot_ms"]["relative"] == pytest.approx(expected)
    assert cells[1]["metrics"]["mean_tpot_ms"]["relative"] == 0
    apart = study(tmp_path / "c", {"control": graph})
    with pytest.raises(SystemExit) as ended:
        main(["compare", str(a), str(apart)])
    assert ended.value.code == 2
    assert "has no point with the same values" in capsys.readouterr().err


# ---------------------------------------------------------------- outputs
def test_the_command_prints_and_writes_the_same_again(folders, tmp_path, capsys) -> None:
    a, b = folder_of(folders, "graph"), folder_of(folders, "speculation")
    for name in ("1", "2"):
        with pytest.raises(SystemExit) as ended:
            main(["compare", str(a), str(b), "--json", str(tmp_path / f"{name}.json")])
        assert not ended.value.code
    printed = capsys.readouterr().out
    assert (tmp_path / "1.json").read_bytes() == (tmp_path / "2.json").read_bytes()
    for text in ("A: ", "speculation.width.max", "where the time went: mean TPOT", "the loop",
                 "(simulated, graph)"):  # fmt: skip
        assert text in printed
    data = json.loads((tmp_path / "1.json").read_text())
    parts = data["time"]["mean_e2el" if "mean_e2el" in data["time"] else "e2el"]
    metric = next(row for row in data["metrics"] if row["name"] == "mean_e2el_ms")
    apart = sum(part["difference_ms"] for part in parts)
    assert apart == pytest.approx(metric["b"] - metric["a"], abs=1e-6)


def test_figures_are_drawn_with_the_same_bytes(folders, tmp_path) -> None:
    found = compare(folder_of(folders, "graph"), folder_of(folders, "resident"))
    assert [path.name for path in draw(found, tmp_path / "1")] == [
        f"{name}.{kind}" for name in ("ttft_cdf", "tpot_cdf", "by_request", "time")
        for kind in ("svg", "png")
    ]  # fmt: skip
    bars = pictures(found)[-1]
    source = f"A: {found.a.name} (simulated), B: {found.b.name} (simulated)"
    again = svg_of(bars, source)
    assert (tmp_path / "1" / "time.svg").read_bytes() == again[0]
    assert (tmp_path / "1" / "time.png").read_bytes() == again[1]
    with pytest.raises(InputError, match="cannot be written"):
        draw(found, tmp_path / "1" / "time.svg")


def test_a_factor_has_its_interval_in_the_same_measure() -> None:
    metric = METRICS["mean_ttft_ms"]
    assert _difference(Moved(metric, 1.0, 13.3, 8.9, 15.7)) == "x 13.3 ± 3.4"
    assert _difference(Moved(metric, 1.0, 1.2, 0.1, 0.3)) == "+20 % ± 10"
