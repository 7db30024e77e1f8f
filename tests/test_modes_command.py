"""Iterations taken apart by stage, the map of modes, and the command that draws both."""

from __future__ import annotations

import csv
from typing import TYPE_CHECKING

import pytest
from typer.testing import CliRunner
from wide import H200, MODES, cost_of, drafting, scenario

from sim.cli import app, main
from sim.cost import Cost
from sim.mode_study import MODES as NAMES
from sim.mode_study import Loads, cells, in_mode, iterations
from sim.stage_account import ORCHESTRATION, PARTS, by_stage
from sim.steps import Load

if TYPE_CHECKING:
    from pathlib import Path

QWEN = "qwen3-30b-a3b"
TOPK = {"select": "topk", "dense_layers": 2, "shared_layers": 2}
WIDE = {
    "plain": {},
    "small": {"model": "llama-3.2-1b"},
    "sparse": {"sparse": TOPK},
    "model": {"speculation": drafting("llama-3.2-1b")},
    "overlap": {"speculation": drafting("mtp", overlap=True)},
    "medusa": {"speculation": drafting("medusa", rule="rejection")},
    "experts": {"model": QWEN, "moe": {"offload": {"resident": 0.5}}},
}


@pytest.mark.parametrize("kernels", ["fused", "library"])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kind", WIDE)
@pytest.mark.parametrize("batch", [1, 6, 64])
def test_parts_add_up_to_the_iteration_and_none_is_negative(kind, mode, kernels, batch) -> None:
    cost = cost_of(mode, kernels, **WIDE[kind])
    depth = 4 if "speculation" in WIDE[kind] else 0
    read = (batch * 2048, batch * 512, 0) if kind == "sparse" else ()
    load = Load(batch * (1 + depth), batch * 8192, depth, *read)
    parts = by_stage(cost, batch, load)
    whole = cost.decode(batch, load.rows, depth).seconds(load.context, *read)
    assert list(parts) == list(PARTS)
    assert sum(parts.values()) == pytest.approx(whole, rel=1e-9)
    assert min(parts.values()) >= -1e-12
    assert (parts["draft"] > 0) == ("speculation" in WIDE[kind])
    assert (parts["score"] > 0) == (parts["select"] > 0) == (kind == "sparse")
    assert (parts["fetch"] > 1e-9) == (kind == "experts")


def test_each_mode_waits_in_its_own_way() -> None:
    load = Load(1, 2048)
    parts = {
        (mode, host): by_stage(
            cost_of(mode, model="llama-3.2-1b", loop={"host": host}), 1, load
        )
        for mode in MODES for host in ("python", "c")
    }  # fmt: skip
    host = parts["host", "python"]
    assert host["launch"] > 0.15 * sum(host.values()) > host["gap"] > 0.0
    assert parts["host", "c"]["launch"] < 0.2 * host["launch"]
    assert parts["graph", "c"]["launch"] < 1e-5 < parts["graph", "c"]["gap"]
    assert parts["control", "c"]["sync"] == parts["resident", "c"]["sync"] == 0.0
    fused = by_stage(cost_of("resident", "fused", model="llama-3.2-1b"), 1, load)
    assert fused["barrier"] > 1e-4
    assert fused["gap"] == fused["launch"] == 0.0
    graph, library = parts["graph", "python"], parts["graph", "c"]
    work = [name for name in PARTS if name not in ORCHESTRATION]
    assert [graph[name] for name in work] == [library[name] for name in work]


def test_a_verification_reads_weights_once() -> None:
    one = by_stage(cost_of(), 4, Load(4, 8000))
    five = by_stage(cost_of(speculation=drafting("eagle")), 4, Load(20, 8016, 4))
    assert five["gemm"] < 1.1 * one["gemm"]
    assert five["draft"] > 0.2 * five["gemm"]


# ---------------------------------------------------------------- the map
def test_the_map_takes_the_same_load_in_every_mode() -> None:
    given = scenario(speculation=drafting("eagle", 3), sparse=TOPK)
    found = cells(given, H200, [1, 8], [1024, 65_536])
    assert [(cell.batch, cell.context) for cell in found] == [
        (1, 1024), (1, 65_536), (8, 1024), (8, 65_536)
    ]  # fmt: skip
    load = Loads(given, H200).of(8, 65_536)
    assert (load.rows, load.depth, load.context) == (32, 3, 8 * 65_536)
    assert 0 < load.attended < load.context
    assert load.pages > 0
    last = found[-1]
    for name in NAMES:
        cost = Cost(in_mode(given, name), H200)
        assert last.seconds[name] == cost.decode(8, 32, 3).seconds(
            load.context, load.attended, load.pages, load.fetched
        )
    ordered = sorted(last.seconds.values())
    assert last.seconds[last.best] == ordered[0]
    assert last.lead == pytest.approx(ordered[1] / ordered[0] - 1)


def test_cells_without_room_are_empty_and_measured_ones_marked() -> None:
    given = scenario()
    found = {(cell.batch, cell.context): cell for cell in cells(given, H200, [1, 256], [8192])}
    assert found[1, 8192].measured
    assert found[1, 8192].seconds
    assert not found[256, 8192].seconds  # 275 GB of KV
    assert not cells(given, H200, [32], [1024])[0].measured  # fused kernels take 16 rows


def test_at_batch_one_the_python_host_loses_to_all() -> None:
    splits = iterations(scenario(model="llama-3.2-1b"), H200, 1, 1024)
    times = {split.mode: split.seconds for split in splits}
    assert list(times) == list(NAMES)
    assert max(times, key=lambda mode: times[mode]) == "host, Python"
    assert times["resident"] < times["graph"] < times["host, C"]


# ---------------------------------------------------------------- the command
@pytest.fixture
def file(tmp_path) -> Path:
    path = tmp_path / "tiny.yaml"
    path.write_text(
        "trace: {source: azure-conv-like, requests: 1}\nmodel: llama-3.2-1b\n"
        "loop: {max_batch: 16}\nspeculation: {draft: eagle, width: 2, acceptance: 0.7}\n"
    )
    return path


def table(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text().splitlines()))


def test_figures_and_tables(file, tmp_path) -> None:
    out = tmp_path / "out"
    words = ["modes", str(file), "--out", str(out), "--batches", "4,1", "--contexts", "512,2048"]
    done = CliRunner().invoke(app, [*words, "--batch", "2", "--context", "1024"])
    assert done.exit_code == 0, done.output
    names = {f"{name}.{kind}" for name in ("iteration", "map") for kind in ("svg", "png", "csv")}
    assert {path.name for path in out.iterdir()} == names
    assert "Simulated" in (out / "map.svg").read_text()
    rows = table(out / "iteration.csv")
    assert [row["mode"] for row in rows] == list(NAMES)
    for row in rows:
        parts = sum(float(row[f"{part}_us"]) for part in PARTS)
        assert parts == pytest.approx(float(row["iteration_us"]), abs=0.01)
    cells = table(out / "map.csv")
    assert [(row["batch"], row["context_tokens"]) for row in cells] == [
        ("1", "512"), ("1", "2048"), ("4", "512"), ("4", "2048")
    ]  # fmt: skip
    first = (out / "iteration.svg").read_bytes()
    CliRunner().invoke(app, [*words, "--batch", "2", "--context", "1024"])
    assert (out / "iteration.svg").read_bytes() == first


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--batches", "1,x"], "whole numbers with commas"),
        (["--batches", "64"], "more requests than loop.max_batch (16)"),
        (["--batch", "17"], "more requests than loop.max_batch (16)"),
        (["--context", "200000"], "takes 131072 tokens"),
    ],
)
def test_bad_options_are_one_line(file, capsys, words, said) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["modes", str(file), *words])
    assert stopped.value.code == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert said in lines[0]
