"""Predictions judged: what is packed of a run, errors and bars, ranking, noise, the page."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bench.blind_ablate import (
    HELD,
    KERNELS,
    KINDS,
    LATE,
    NOISE,
    PADDING,
    TURNS,
    WHOLE,
    lines,
    promised,
    variants,
)
from bench.blind_judge import (
    BARS,
    PROMISED,
    Measured,
    ablation,
    errors,
    noise,
    ranking,
    residence,
    runs,
    seen_before,
)
from bench.blind_pack import pack, pack_all
from bench.blind_page import page
from bench.blind_predict import predicted
from bench.blind_requests import served, waits
from bench.blind_rounds import ROUNDS, Round
from bench.blind_scenario import METRICS
from bench.blind_steps import rows_of
from bench.blind_words import notes_in
from sim.validation.served import Served

FIGURES = dict.fromkeys(METRICS, 100.0)
FIRST = ROUNDS[1]


def cell(name: str, load: float, **predicted: float) -> dict[str, Any]:
    mode, _, scale = name.rpartition("-")
    loop, _, kernels = mode.rpartition("-")
    return {
        "cell": name, "mode": loop, "kernels": kernels, "rate_scale": float(scale), "load": load,
        "requests_per_s": 10.0, "profile_hash": "0", "extrapolated": [],
        "predicted": FIGURES | predicted,
    }  # fmt: skip


def run(name: str, number: int = 1, folder: Path | None = None, **figures: float) -> Measured:
    return Measured(name, number, FIGURES | figures, folder)


# ---------------------------------------------------------------- errors and verdicts
def test_signed_errors_and_bars_by_hand() -> None:
    cells = [cell("graph-library-6", 0.5, mean_tpot_ms=96.0, p99_ttft_ms=109.0)]
    (row,) = errors(cells, [run("graph-library-6", median_ttft_ms=80.0)])
    assert row["errors"]["mean_tpot_ms"] == pytest.approx(-0.04)
    assert row["errors"]["median_ttft_ms"] == pytest.approx(0.25)
    assert row["missed"] == ["mean_tpot_ms", "median_ttft_ms"]  # 9 % of TTFT p99 is within 10


def test_no_promise_above_its_load() -> None:
    cells = [cell("graph-library-6", 0.802, mean_tpot_ms=50.0), cell("graph-library-9", 0.95)]
    found = errors(cells, [run("graph-library-9", mean_tpot_ms=1.0), run("graph-library-6")])
    assert [(row["cell"], row["promised"]) for row in found] == [
        ("graph-library-6", True), ("graph-library-9", False)
    ]  # fmt: skip
    assert [row["missed"] for row in found] == [["mean_tpot_ms"], []]


def test_noise_is_how_far_runs_of_a_cell_differ() -> None:
    found = noise([run("a-b-1"), run("a-b-1", 2, p99_itl_ms=110.0), run("c-d-1")])
    assert list(found) == ["a-b-1"]
    assert found["a-b-1"]["p99_itl_ms"] == pytest.approx(0.1)
    assert found["a-b-1"]["mean_tpot_ms"] == 0.0


def test_ranking_right_wrong_and_tied() -> None:
    cells = [
        cell("graph-library-6", 0.5, output_throughput=110.0, median_ttft_ms=90.0, p90_ttft_ms=90.0)
        , cell("host-c-library-6", 0.5),
    ]  # fmt: skip
    measured = [
        run("graph-library-6", output_throughput=120.0, median_ttft_ms=101.0, p90_ttft_ms=130.0),
        run("host-c-library-6"),
    ]
    floor = {"graph-library": dict.fromkeys(BARS, 0.02), "host-python-library":
             dict.fromkeys(BARS, 0.9)}  # fmt: skip
    found = {row["metric"]: row for row in ranking(FIRST, cells, measured, floor)}
    assert found["output_throughput"]["verdict"] == "right"
    assert found["output_throughput"]["measured"] == ["graph", "host-c"]  # more is better
    assert found["median_ttft_ms"]["verdict"] == "tie"
    assert found["p90_ttft_ms"]["verdict"] == "wrong"


# ---------------------------------------------------------------- packing
STEPS: list[dict[str, Any]] = [
    {"start_s": 5.0, "duration_s": 0.01, "commit_s": 5.01, "decode_requests": 0,
     "prefill_tokens": 7, "decode_ids": [], "chunks": [[0, 0, 7]]},
    {"start_s": 5.01, "duration_s": 0.002, "commit_s": 5.012, "decode_requests": 1,
     "prefill_tokens": 0, "decode_ids": [0], "turn": "entered"},
    {"start_s": 5.012, "duration_s": 0.001, "commit_s": 5.013, "decode_requests": 1,
     "prefill_tokens": 0, "decode_ids": [0], "late": True},
]  # fmt: skip


@pytest.fixture
def packed(tmp_path: Path) -> Path:
    source = tmp_path / "graph-library-6.6-again"
    source.mkdir()
    head = {"kind": "steps", "options": {"out": "/somewhere", "seed": 1}}
    text = "\n".join(json.dumps(row) for row in (head, *STEPS))
    (source / "steps.jsonl.gz").write_bytes(gzip.compress(text.encode()))
    summary = FIGURES | {"completed": 1, "run": {"mode": "graph", "cubins": {"a": "b"}}}
    (source / "summary.json").write_text(json.dumps(summary))
    row = {"request_id": 0, "arrival_s": 4.99, "prompt_tokens": 7, "output_tokens": 3,
           "admitted_s": 5.0, "first_token_s": 5.01, "finished_s": 5.013}  # fmt: skip
    pq.write_table(pa.Table.from_pylist([row]), source / "requests.parquet")
    out = tmp_path / "serve" / "measured" / source.name
    pack(source, out, METRICS)
    return out


def test_nothing_of_the_trace_is_packed(packed: Path) -> None:
    own = waits(packed)
    assert list(own) == ["number", "admitted_ms", "first_token_ms", "finished_ms"]
    assert own["first_token_ms"].tolist() == pytest.approx([20.0])
    text = gzip.decompress((packed / "steps.csv.gz").read_bytes())
    assert b"ids" not in text
    assert b"chunks" not in text
    assert "cubins" not in json.loads((packed / "run.json").read_text())["run"]


def test_a_packed_run_is_the_run_again(packed: Path) -> None:
    one = np.array([1.0])
    told = Served("told", ["0"], 4.99 * one, 7 * one, 3 * one, 5 * one, 6 * one, gaps=[one])
    real = served(packed, told)
    assert real.ttft.tolist() == pytest.approx([0.02])
    assert real.gaps[0].tolist() == pytest.approx([0.002, 0.001])


def test_runs_are_numbered_within_their_cell(packed: Path) -> None:
    serve = packed.parent.parent
    line = {"cell": "graph-library-6.6", "run": 1, "printed": [1.0]}
    printed = {"columns": ["output_throughput"], "runs": [line]}
    (serve / "printed.json").write_text(json.dumps(printed))
    found = [(one.cell, one.number, one.kind) for one in runs(serve)]
    assert found == [("graph-library-6.6", 1, "printed"), ("graph-library-6.6", 2, "recorded")]


def test_steps_come_back_as_they_were_packed(packed: Path) -> None:
    found = rows_of(packed)
    assert len(found) == len(STEPS)
    for step, told in zip(STEPS, found, strict=True):
        for name in ("start_s", "duration_s", "commit_s"):
            assert told[name] == pytest.approx(step[name], abs=1e-7)
        assert told["decode_requests"] == step["decode_requests"]
        assert told["turn"] == step.get("turn", "")
        assert told["late"] is step.get("late", False)


def test_what_a_residence_costs(packed: Path) -> None:
    found = residence(packed)
    assert found == {"entered": 1, "late": 1, "late_ms": 1.0, "entering_ms": pytest.approx(1.0)}


def test_a_log_to_calibrate_on_names_nobody(tmp_path: Path) -> None:
    run_ = tmp_path / "1b-graph-library"
    run_.mkdir()
    head = {"kind": "steps", "options": ["out=/somewhere", "seed=1"]}
    text = "\n".join(json.dumps(row) for row in (head, *STEPS))
    (run_ / "steps.jsonl.gz").write_bytes(gzip.compress(text.encode()))
    pack_all([run_], tmp_path, METRICS, calibrate=True)
    kept = gzip.decompress((tmp_path / "fitted" / "1b-graph-library.jsonl.gz").read_bytes())
    assert b"ids" not in kept
    assert b"somewhere" not in kept


# ---------------------------------------------------------------- ablation, page
def of_cell(chosen: Round, engine: str, folder: Path) -> dict[str, dict[str, Any]]:
    """By variant the scenario of a cell of *engine*, written to *folder*."""
    one = {"engine": engine, "window": next(iter(chosen.windows)), "rate_scale": 2.0}
    return dict(variants(chosen, one, folder, folder))


def profile_of(data: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(Path(data["hardware"]["profile"]).read_text())
    return found


@pytest.mark.parametrize("number", ROUNDS)
def test_a_removed_part_is_gone_and_nothing_else(tmp_path: Path, number: int) -> None:
    chosen = ROUNDS[number]
    found = of_cell(chosen, f"{'1b-' * (number > 1)}graph-fused", tmp_path)
    whole = profile_of(found[WHOLE])
    lesser = profile_of(found["KV read"])
    changed = 0
    for kind in ("decode", "mixed"):
        for before, after in zip(whole["form"][kind], lesser["form"][kind], strict=True):
            for one, other in zip(before, after, strict=True):
                gone = one["term"] == "context"
                assert other == (one | {"value": 0.0} if gone else one)
                changed += gone
    assert changed
    assert found[PADDING]["loop"]["captured_batches"] == list(range(1, 17))
    assert found[NOISE]["hardware"]["step_noise"] == "none"
    assert found[KERNELS]["loop"]["mode"] == "graph"
    assert found[WHOLE]["loop"]["mode"] == "engine"
    assert LATE not in found


def test_what_only_newer_profiles_have_is_removed_from_them(tmp_path: Path) -> None:
    found = of_cell(ROUNDS[2], "1b-resident-fused", tmp_path)
    whole = profile_of(found[WHOLE])
    assert whole["form"]["held"]
    assert whole["form"] != (bare := profile_of(found[TURNS])["form"])
    assert bare["turns"] == {}
    assert profile_of(found[HELD])["form"]["held"] is False
    assert "kinds" not in profile_of(found[KINDS])["ratios"]
    assert found[WHOLE]["schedule"]["freed_late"] is True
    assert found[LATE]["schedule"] == {"order": "prefill_alone"}
    assert {TURNS, HELD, KINDS}.isdisjoint(of_cell(FIRST, "resident-fused", tmp_path))
    sparse = of_cell(ROUNDS[2], "1b-graph-library-sparse", tmp_path)[KERNELS]["sparse"]
    assert sum(sparse[f"{name}_tokens"] for name in ("top_k", "sink", "recent")) == 512


def test_promised_cells_are_ablated_once_each() -> None:
    found = [one["cell"] for one in promised(ROUNDS[2])]
    loads = {one["cell"]: one["load"] for one in predicted(ROUNDS[2])}
    assert len(set(found)) == len(found) < len(loads)
    assert all((round(load, 2) <= PROMISED) == (name in found) for name, load in loads.items())


def test_a_part_of_some_cells_stands_below_their_own_errors() -> None:
    known = {name: {"load": load} for name, load in (("a", 0.5), ("b", 0.8), ("c", 0.9))}
    measured = [run("a"), run("b"), run("b", 2), run("c")]
    told = {
        "whole": dict.fromkeys("abc", 101.0),
        "one": {"b": 150.0},
        "all": {"a": 80.0, "b": 99.0},
    }
    figures = {
        name: {key: dict.fromkeys(BARS, value) for key, value in cells.items()}
        for name, cells in told.items()
    }
    found = {name: row["mean_tpot_ms"] for name, row in ablation(figures, measured, known).items()}
    assert list(found) == ["whole", "all", "whole, 2 runs", "one"]
    assert found["all"] == pytest.approx([0.01, 0.2])
    assert found["whole, 2 runs"] == pytest.approx([0.01, 0.01])
    assert found["one"] == pytest.approx([0.5, 0.5])
    assert ablation(figures, [], known) == ablation({}, measured, known) == {}


def test_tables_are_written_a_row_a_line() -> None:
    tables: dict[str, dict[str, Any]] = {
        "a": {"x": {"one": 1.5}, "y": {}},
        "b": {"x": {"one": None}},
    }
    text = lines(tables)
    assert json.loads(text) == tables
    assert text.splitlines()[2] == '  "x": {"one": 1.5},'


def results(cells: list[dict[str, Any]], measured: list[Measured], **more: Any) -> dict[str, Any]:
    one = {"gpu": "a", "date": "2026-11-21T18:00:00+00:00", "commit": "c"}
    return {
        "round": 1, "late": [], "not_run": [], "terms": [], "fitted": {"1b-graph-library": one},
        "measured_on": {}, "cells": cells, "noise": noise(measured),
        "rows": errors(cells, measured), "forced": {}, "residence": {}, "ablation": {},
        "engines": {one["cell"]: FIRST.engine_of(one).name for one in cells},
        "requests": {one["cell"]: 600 for one in cells},
        "ranking": ranking(FIRST, cells, measured, {}),
        "replayed": [{"run": "r", "mode": "graph", "kernels": "library", "gpu": "a", "steps": 5,
                      "alike": 4, "difference": "step 5"}, {"run": "s", "refused": "drafts"}],
    } | more  # fmt: skip


@pytest.fixture
def judged() -> dict[str, Any]:
    cells = [cell("graph-library-6", 0.5), cell("host-c-library-6", 0.5)]
    measured = [run("graph-library-6"), run("host-c-library-6", median_ttft_ms=80.0),
                run("host-c-library-6", 2)]  # fmt: skip
    return results(cells, measured)


def test_the_page_names_typical_and_worst(judged: dict[str, Any]) -> None:
    text = page(judged, [], {})
    said = " ".join(text.split())
    assert "17 of 18 figures of 3 runs" in said
    assert "1 of 2 cells have all six" in said
    assert "TTFT p50 +25.0 % (host-c-library-6)" in said
    assert "4 of 5 steps" in said
    assert "1 more are of a kind" in said
    assert "**+25.0**" in text
    assert "Beside the rounds before" not in text
    assert max(map(len, text.split("|", 1)[0].splitlines())) <= 100


def test_a_prediction_made_after_its_run_is_not_blind(judged: dict[str, Any]) -> None:
    assert "Not blind" not in page(judged, [], {})
    text = " ".join(page(judged | {"late": ["r"]}, [], {}).split())
    assert "**Not blind: predicted after the run: r.**" in text


def test_a_run_is_held_against_the_time_of_its_own_cell(packed: Path) -> None:
    head = {"device": "a", "date": "2026-11-21T18:00:00+00:00", "commit": "c"}
    (packed / "run.json").write_text(json.dumps({"run": head}))
    for minute, late in (("18:01", [packed.name]), ("17:59", [])):
        assert seen_before({packed: {"made": f"2026-11-21T{minute}:00+00:00"}}) == late


def test_times_of_predictions_are_said(judged: dict[str, Any]) -> None:
    times = ("2026-11-21T17:00:05+00:00", "2026-11-21T17:30:00+00:00")
    cells = [cell | {"made": at} for cell, at in zip(judged["cells"], times, strict=True)]
    text = " ".join(page(judged | {"cells": cells}, [], {}).split())
    said = "predicted 2026-11-21 17:00 (1 cell) and 2026-11-21 17:30 (1 cell); measured"
    assert said in text


def test_terms_of_a_kernel_profile_are_said_not_to_be_blind(judged: dict[str, Any]) -> None:
    steps = {"median": 0.01, "p90": 0.05, "signed_median": 0.0}
    row = {"without": "padding", "decode only": steps, "with prefill": steps, "runs": 3, "cells": 2}
    text = page(judged | {"terms": [row | {metric: [0.02, 0.03] for metric in BARS}]}, [], {})
    assert "## A kernel profile in the engine (not blind)" in text
    assert "| padding | 1.0, 5.0 | 1.0, 5.0 | 2.0, 3.0 |" in text


def test_notes_stand_where_they_belong(judged: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "notes.md").write_text("## Noise floor\n\nWarm GPUs.\n\n## Not done\n\nMuch.\n")
    text = page(judged, [], notes_in(tmp_path / "notes.md"))
    assert text.index("## Noise floor") < text.index("Warm GPUs.") < text.index("## Ranking")
    assert text.index("## Beside others") < text.index("## Not done\n\nMuch.")
    assert text.index("Much.") < text.index("## Made again")
    assert notes_in(tmp_path / "none.md") == {}


def test_rounds_stand_beside_one_another(judged: dict[str, Any]) -> None:
    text = page(judged | {"round": 2}, [judged], {})
    assert "| [1](round-1/README.md) | 3 | 17 of 18 (94.4 %) | 1 of 2 |" in text
    assert "\n| 2 | 3 | 17 of 18 (94.4 %) | 1 of 2 |" in text


def test_the_committed_runs_are_judged() -> None:
    cells = predicted(FIRST)
    found = errors(cells, runs(FIRST.folder))
    assert {row["cell"] for row in found} == {cell["cell"] for cell in cells}
    assert len(found) == 19
    assert max(abs(row["errors"]["output_throughput"]) for row in found) < 0.01
