"""The seeds' benchmark modes: each one's knob changes what its name says, against its neighbour."""

from __future__ import annotations

import csv
import json
from typing import TYPE_CHECKING

import pyarrow.parquet as pq
import pytest

from sim.cli import main
from sim.seed_metrics import METRICS, metrics
from sim.seed_modes import FOLDER, MODES, points
from sim.sweeping import point_id, run_points

if TYPE_CHECKING:
    from pathlib import Path

REQUESTS = "trace.requests=60"
FEW = ("--set", "trace.requests=3")


class Ran:
    """All modes, played once."""

    def __init__(self, folder: Path) -> None:
        found = points([REQUESTS])
        run_points(found, folder, quiet=True)
        self.folders = {
            point.axes["mode"]: folder / "points" / point_id(point.scenario) for point in found
        }
        self.values = {mode: metrics(path) for mode, path in self.folders.items()}

    def both(self, metric: str, one: str, other: str) -> tuple[float, float]:
        return self.values[one][metric], self.values[other][metric]

    def requests(self, mode: str, *columns: str) -> list[list[int]]:
        table = pq.read_table(self.folders[mode] / "requests.parquet")
        return [table[column].to_pylist() for column in columns]


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    return Ran(tmp_path_factory.mktemp("seeds"))


# ---------------------------------------------------------------- like for like
def test_every_mode_is_a_scenario_of_its_own_and_says_its_knob() -> None:
    assert len({point.scenario.hash for point in points()}) == len(MODES) == 9
    files = {path.stem for path in FOLDER.glob("*.yaml")}
    assert files == {*MODES, "base"}
    for mode in MODES:
        header = (FOLDER / f"{mode}.yaml").read_text().partition("extends")[0]
        assert header.startswith("# Knob: "), mode
        assert "Must show" in header, mode


def test_all_modes_play_the_same_requests(ran: Ran) -> None:
    columns = ("request_id", "prompt_tokens", "output_tokens", "generated_tokens", "arrival_s")
    first = ran.requests("serial_decode", *columns)
    assert sum(first[3]) > 10_000
    for mode in MODES:
        assert ran.requests(mode, *columns) == first, mode


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("speculative_decode", "mega_kernel_sim"),
        ("mega_kernel_sim", "sparse_kv_megakernel"),
        ("block_speculative", "block_speculative_persistent_sim"),
        ("block_speculative", "block_speculative_host_orchestrated"),
    ],
)
def test_loop_and_pages_leave_every_draft_of_every_request_as_it_is(
    ran: Ran, one: str, other: str
) -> None:
    columns = ("drafts", "draft_tokens", "accepted_tokens")
    assert ran.requests(one, *columns) == ran.requests(other, *columns)


# ---------------------------------------------------------------- each one's knob
def test_serial_decode_drafts_nothing(ran: Ran) -> None:
    serial = ran.values["serial_decode"]
    assert serial["tokens_per_resident_loop"] == 1.0
    for metric in ("acceptance_rate", "draft_blocks", "rejected_tokens", "draft_kv_bytes"):
        assert serial[metric] is None


def test_speculative_decode_commits_more_a_step_and_takes_less_time_a_token(ran: Ran) -> None:
    pair = "speculative_decode", "serial_decode"
    more, one = ran.both("tokens_per_resident_loop", *pair)
    assert more > 1.8 * one
    fast, slow = ran.both("mean_tpot_ms", *pair)
    assert fast < 0.8 * slow
    of = ran.values["speculative_decode"]
    assert of["accepted_tokens_block"] + of["rejected_tokens"] == of["total_draft_tokens"]
    assert of["max_block_size"] <= 4


def test_acceptance_follows_from_the_rate_that_is_put_in(tmp_path: Path) -> None:
    found = [
        point
        for point in points([REQUESTS, "speculation.width={controller: fixed, max: 4}"])
        if point.axes["mode"] == "speculative_decode"
    ]
    run_points(found, tmp_path, quiet=True)
    of = metrics(tmp_path / "points" / point_id(found[0].scenario))
    rate = 0.7
    assert of["average_accepted_prefix_len"] == pytest.approx(
        rate + rate**2 + rate**3 + rate**4, rel=0.02
    )


def _stride_two(output_tokens: int) -> tuple[int, int]:
    """Drafts proposed and accepted where every second token is wrong behind it; ASBS from 4."""
    done, ema, width, proposed, accepted = 1, 0.8, 4, 0, 0
    while done < output_tokens:
        wide = min(width, output_tokens - done - 1)
        # The second token of a draft, at the latest, comes behind an even one.
        passed = min(wide, 1 if done % 2 else 2)
        if wide:
            ema = 0.2 * (passed / wide) + 0.8 * ema
            width = 4 if ema >= 0.8 else 2 if ema >= 0.5 else 1
        proposed, accepted = proposed + wide, accepted + passed
        done += passed + 1
    return proposed, accepted


def test_forced_rejection_is_exact(ran: Ran) -> None:
    lengths, proposed, accepted = ran.requests(
        "forced_rejection", "output_tokens", "draft_tokens", "accepted_tokens"
    )
    assert list(zip(proposed, accepted, strict=True)) == [_stride_two(n) for n in lengths]
    of = ran.values["forced_rejection"]
    assert of["acceptance_rate"] == sum(accepted) / sum(proposed)
    assert of["tokens_per_resident_loop"] == pytest.approx(2.0, abs=0.01)
    assert (
        of["tokens_per_resident_loop"]
        < ran.values["speculative_decode"]["tokens_per_resident_loop"]
    )


def test_kv_pressure_evicts_and_preempts_and_narrows(ran: Ran) -> None:
    pressed, free = ran.values["kv_pressure"], ran.values["speculative_decode"]
    assert pressed["eviction_count"] > 0 == free["eviction_count"]
    assert pressed["preemption_count"] > 0 == free["preemption_count"]
    assert pressed["evicted_kv_bytes"] > 0
    assert pressed["kv_hit_rate"] < free["kv_hit_rate"]
    assert pressed["live_kv_bytes"] < free["live_kv_bytes"]
    assert pressed["mean_ttft_ms"] > 2 * free["mean_ttft_ms"]
    assert pressed["mean_block_size"] < free["mean_block_size"]
    assert pressed["max_block_size"] < 4


@pytest.mark.parametrize(
    ("resident", "replayed"),
    [
        ("mega_kernel_sim", "speculative_decode"),
        ("block_speculative_persistent_sim", "block_speculative"),
    ],
)
def test_the_resident_loop_launches_nothing_inside_itself(
    ran: Ran, resident: str, replayed: str
) -> None:
    stays, again = ran.values[resident], ran.values[replayed]
    assert stays["launches_per_decode_iteration"] == 0.0 < again["launches_per_decode_iteration"]
    assert stays["syncs_per_decode_iteration"] == 0.0 < again["syncs_per_decode_iteration"]
    assert stays["host_synchronizations"] < again["host_synchronizations"] / 10
    assert stays["host_kernel_launches"] < again["host_kernel_launches"]
    assert stays["tokens_per_resident_loop"] == again["tokens_per_resident_loop"]


def test_sparse_kv_reads_less_and_says_what_it_saved(ran: Ran) -> None:
    sparse, dense = ran.values["sparse_kv_megakernel"], ran.values["mega_kernel_sim"]
    assert 0.3 < sparse["kv_sparsity_ratio"] < 1.0
    assert sparse["kv_blocks_selected"] < sparse["kv_blocks_total"]
    read, saved = sparse["estimated_kv_bytes_read"], sparse["estimated_kv_bytes_saved"]
    assert saved > 0
    # The same steps of the same requests: what is read and what is saved is what was there.
    assert read + saved == pytest.approx(dense["estimated_kv_bytes_read"], rel=1e-9)
    assert dense["kv_sparsity_ratio"] is None is dense["estimated_kv_bytes_saved"]


def test_blocks_are_drafted_at_once_and_are_as_wide_as_asked(ran: Ran) -> None:
    block, chain = ran.values["block_speculative"], ran.values["speculative_decode"]
    assert block["launches_per_decode_iteration"] == 1.0 < chain["launches_per_decode_iteration"]
    assert block["mean_block_size"] > 3.9 > chain["mean_block_size"]
    assert block["average_accepted_prefix_len"] == pytest.approx(
        1.0 + 0.88 + 0.88 * 0.76 + 0.88 * 0.76 * 0.64, rel=0.02
    )


def test_the_host_launches_every_kernel_of_a_block(ran: Ran) -> None:
    host, graph = ran.values["block_speculative_host_orchestrated"], ran.values["block_speculative"]
    # A kernel or more for each of the 32 layers, and those that draft, verify, commit and update.
    assert host["launches_per_decode_iteration"] >= 32 + 4
    assert host["syncs_per_decode_iteration"] == 1.0
    assert host["loop_gap_fraction"] > graph["loop_gap_fraction"]
    assert host["tokens_per_resident_loop"] == graph["tokens_per_resident_loop"]


# ---------------------------------------------------------------- what the numbers mean
def test_memory_is_looked_at_while_requests_hold_it(ran: Ran) -> None:
    for mode, of in ran.values.items():
        assert 0 < of["pinned_kv_bytes"] <= of["live_kv_bytes"], mode
        assert 0 < of["fragmentation_ratio"] < 0.1, mode


def test_ttft_counts_from_arrival_and_itl_per_commit(ran: Ran) -> None:
    for mode, folder in ran.folders.items():
        table = pq.read_table(folder / "requests.parquet")
        waited = [
            1e3 * (first - arrival)
            for first, arrival in zip(
                table["first_token_s"].to_pylist(), table["arrival_s"].to_pylist(), strict=True
            )
        ]
        of = ran.values[mode]
        assert of["mean_ttft_ms"] == pytest.approx(sum(waited) / len(waited)), mode
        assert of["p50_itl_ms"] <= of["p95_itl_ms"] <= of["p99_itl_ms"], mode
    assert ran.values["block_speculative"]["p50_itl_ms"] > (
        1.5 * ran.values["block_speculative"]["mean_tpot_ms"]
    )


# ---------------------------------------------------------------- the command
def _call(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(["seeds", *arguments])
    return int(ended.value.code or 0)


def test_the_command_prints_and_writes_and_resumes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "s"
    assert _call("--out", str(out), *FEW, "--explain") == 0
    said = capsys.readouterr().out
    for metric in METRICS:
        assert metric.name in said
        assert metric.meaning in said
    with (out / "metrics.csv").open() as file:
        rows = {row["mode"]: row for row in csv.DictReader(file)}
    assert tuple(rows) == MODES
    assert rows["serial_decode"]["acceptance_rate"] == ""
    assert float(rows["serial_decode"]["mean_tpot_ms"]) > 0
    manifest = json.loads((out / "study.json").read_text())
    assert [point["axes"]["mode"] for point in manifest["points"]] == list(MODES)
    written = {path: path.stat().st_mtime_ns for path in out.glob("points/*/summary.json")}
    assert len(written) == len(MODES)
    assert _call("--out", str(out), *FEW, "-q") == 0
    assert {path: path.stat().st_mtime_ns for path in out.glob("points/*/summary.json")} == written
    assert capsys.readouterr().out == f"{out}\n"


def test_an_override_of_a_section_goes_to_the_modes_that_have_it() -> None:
    wide = {p.axes["mode"]: p.scenario for p in points(["speculation.width.max=2"])}
    assert wide["serial_decode"].speculation is None
    assert wide["block_speculative"].speculation.most == 2


def test_modes_that_an_override_makes_alike_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _call("--out", str(tmp_path / "s"), *FEW, "--set", "loop.mode=graph", "-q") == 0
    assert "mega_kernel_sim is the same as speculative_decode" in capsys.readouterr().err


def test_bad_input_is_one_clear_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _call("--out", str(tmp_path / "s"), "--set", "trace.requests=none") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "trace.requests" in line
    assert not (tmp_path / "s").exists()
