"""What a run writes about KV over several tiers, and the figures that are drawn from it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from sim import kv_words, tier_panels
from sim.clock import Clock
from sim.iteration_log import IterationLog
from sim.load import load
from sim.memory.link import LinkSpec, Row
from sim.memory.links import Leg, Links
from sim.memory.transfer_log import SLICE, TransferLog
from sim.parquet import ITERATIONS, REQUESTS
from sim.plots import draw
from sim.records import Records
from sim.request import Request, Status
from sim.request_log import RequestLog
from sim.result import read_summary
from sim.runs import read_study
from sim.simulate import run
from sim.study import load_study
from sim.study_table import print_study
from sim.sweeping import run_study
from sim.tables import facts

if TYPE_CHECKING:
    from pathlib import Path


def request(number: int, **fields: Any) -> Request:
    return Request(
        number, 0.0, 100, 5, Status.FINISHED, generated=5, admitted=0.5, first_token=1.0,
        last_token=2.0, finished=2.0, **fields,
    )  # fmt: skip


def requests_of(memory: bool, *rows: Request) -> dict[str, np.ndarray]:
    slices: list[dict[str, np.ndarray]] = []
    log = RequestLog(slices.append)
    log.memory = memory
    for row in rows:
        log.add(row)
    log.close([])
    return slices[0]


# ---------------------------------------------------------------- transfers
def row(number: int, link: str = "h2d", reason: str = "load") -> Row:
    return Row(number + 0.5, float(number), number + 1.0, link, 1000 * number, number, reason, 7)


def test_transfers_are_columns_in_slices(tmp_path: Path) -> None:
    records = Records(tmp_path, tiers=True)
    log = TransferLog(records.transfers)
    for number in range(SLICE + 3):
        log.add(row(number, "h2d" if number % 2 else "ssd_read", "load"))
    log.add(row(9, "d2h", "evict"))
    log.close()
    records.close()
    file = pq.ParquetFile(tmp_path / "transfers.parquet")
    assert file.num_row_groups == 2
    table = file.read().to_pandas()
    assert list(table.columns) == [
        "queued_s", "start_s", "end_s", "link", "bytes", "blocks", "reason", "request_id",
    ]  # fmt: skip
    assert len(table) == SLICE + 4
    last = table.iloc[-1]
    assert (last.queued_s, last.start_s, last.end_s) == (9.0, 9.5, 10.0)
    assert (last.link, last.bytes, last.blocks) == ("d2h", 9000, 9)
    assert (last.reason, last.request_id) == ("evict", 7)
    assert list(table.link[:4]) == ["ssd_read", "h2d", "ssd_read", "h2d"]


def test_transfers_are_written_only_where_there_are_tiers(tmp_path: Path) -> None:
    without = Records(tmp_path / "a", tiers=False)
    without.folder.mkdir()
    without.transfers({})
    without.close()
    assert not (tmp_path / "a" / "transfers.parquet").exists()
    (tmp_path / "b").mkdir()
    Records(tmp_path / "b", tiers=True).close()
    assert len(pq.read_table(tmp_path / "b" / "transfers.parquet")) == 0


def test_what_ends_after_the_run_is_unfinished() -> None:
    """Two transfers of 1 s one after the other, the first with a second leg; the end at 1.5 s."""
    clock, rows = Clock(), []
    specs = [LinkSpec(name, 0.0, 100.0, at_most=1) for name in ("h2d", "ssd_read")]
    links = Links(clock, specs, sink=rows.append, until=1.5)
    arrived: list[float] = []
    legs = [Leg("ssd_read", 100, 1), Leg("h2d", 100, 1), Leg("ssd_read", 100, 1)]
    links.chain(legs, "load", 1, lambda: arrived.append(clock.now))
    links.submit("ssd_read", 300, 3, "load", 2, lambda: arrived.append(clock.now))
    clock.run()
    assert arrived == [4.0, 5.0]
    assert [(row.link, row.end_s) for row in rows] == [("ssd_read", 1.0)]
    pcie, disk = links.use(1.5)
    assert (disk.transfers, disk.bytes, disk.busy_s, disk.last_end_s) == (1, 100, 1.5, 1.0)
    assert (disk.unfinished, disk.unfinished_bytes) == (1, 300)  # the third leg never began
    assert (pcie.transfers, pcie.busy_s, pcie.unfinished, pcie.unfinished_bytes) == (0, 0.5, 1, 100)


# ---------------------------------------------------------------- requests
def test_requests_say_where_their_prompts_were_found(tmp_path: Path) -> None:
    rows = [request(0, cached_hbm=32, cached_ssd=16, load_s=0.25), request(1)]
    records = Records(tmp_path)
    records.requests(requests_of(True, *rows))
    records.close()
    table = pq.read_table(tmp_path / "requests.parquet").to_pydict()
    assert table["cached_hbm_tokens"] == [32, 0]
    assert table["cached_dram_tokens"] == [0, 0]
    assert table["cached_ssd_tokens"] == [16, 0]
    assert table["cached_remote_tokens"] == [0, 0]
    assert table["load_ms"] == [250.0, 0.0]


def test_files_without_memory_are_as_ever(tmp_path: Path) -> None:
    records = Records(tmp_path)
    records.requests(requests_of(False, request(0)))
    records.close()
    assert pq.read_schema(tmp_path / "requests.parquet").names == REQUESTS.names
    assert pq.read_schema(tmp_path / "iterations.parquet").names == ITERATIONS.names


def test_iterations_are_left_out_if_not_asked_for(tmp_path: Path) -> None:
    records = Records(tmp_path, iterations=False)
    records.iterations({"start_s": np.zeros(1)})
    records.close()
    assert [path.name for path in tmp_path.iterdir()] == ["requests.parquet"]


# ---------------------------------------------------------------- iterations
def occupied(tiers: tuple[str, ...], told: list[tuple[float, ...]], starts: list[float]) -> Any:
    log = IterationLog(None, lambda columns: None)  # type: ignore[arg-type]
    log.tiers = tiers
    for row in told:
        log.occupancy(*row)
    columns = log._occupied(np.array(starts))
    return log, {name: values.tolist() for name, values in columns.items()}


def test_an_iteration_has_what_was_told_by_its_start() -> None:
    sums = [(0.0, 8, 0, 0, 0), (0.5, 8, 4, 0, 0), (0.75, 16, 4, 2, 1)]
    told = [(1.0, 1, 10, 100, 1000), (2.0, 0, 20, 200, 2000), (2.0, 2, 30, 300, 3000)]
    told = [(*row, *more) for row, more in zip(told, sums, strict=True)]
    log, columns = occupied(("dram", "ssd"), told, [0.5, 1.0, 1.9, 2.0, 5.0])
    assert columns == {
        "loading": [0, 1, 1, 2, 2],
        "hbm_cached_blocks": [0, 10, 10, 30, 30],
        "dram_bytes": [0, 100, 100, 300, 300],
        "ssd_bytes": [0, 1000, 1000, 3000, 3000],
        "kv_stalled_s": [0, 0, 0, 0.75, 0.75],
        "prefetched_units": [0, 8, 8, 16, 16],
        "prefetch_used_units": [0, 0, 0, 4, 4],
        "prefetch_late_units": [0, 0, 0, 2, 2],
        "prefetch_wasted_units": [0, 0, 0, 1, 1],
    }
    later = log._occupied(np.array([6.0, 7.0]))
    assert later["hbm_cached_blocks"].tolist() == [30, 30]
    assert len(log._held) == 1  # what is over is forgotten


def test_only_tiers_that_exist_have_a_column() -> None:
    _, columns = occupied((), [(1.0, 1, 10)], [2.0])
    assert columns == {"loading": [1], "hbm_cached_blocks": [10]}


# ---------------------------------------------------------------- figures
def test_a_link_is_busy_in_the_union_of_its_transfers() -> None:
    starts, ends = np.array([0.0, 1.0, 4.0, 3.5]), np.array([2.0, 1.5, 5.0, 3.75])
    busy = tier_panels._busy(starts, ends, np.array([0.0, 2.0, 4.0, 6.0]))
    assert busy.tolist() == pytest.approx([1.0, 0.125, 0.5])


def test_a_file_goes_on_as_it_has_begun(tmp_path: Path) -> None:
    records = Records(tmp_path)
    records.requests(requests_of(False, request(0)))
    records.requests(requests_of(True, request(1, cached_hbm=32)))
    records.close()
    assert pq.read_table(tmp_path / "requests.parquet").schema.names == REQUESTS.names


# ---------------------------------------------------------------- whole runs
AGENTS = """
trace:
  source: agent-like
  requests: 60
  rate: 0.5 /s
  clip_prompt: {to: 40000, keep: first}
model: llama-3.2-1b
hardware:
  hbm: {capacity: 8 GiB}
  dram: {capacity: 8 GiB}
  ssd: {capacity: 64 GiB}
kv: {write_back: eager, promotion: always, prefetch: session}
seed: 1
"""


@pytest.fixture(scope="module")
def agents(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("agents")
    (folder / "a.yaml").write_text(AGENTS)
    (folder / "run").mkdir()
    run(load(folder / "a.yaml"), folder / "run")
    return folder / "run"


def table(folder: Path, name: str) -> Any:
    return pq.read_table(folder / f"{name}.parquet").to_pandas()


def test_records_agree_with_the_summary(agents: Path) -> None:
    summary, transfers = read_summary(agents), table(agents, "transfers")
    requests, iterations = table(agents, "requests"), table(agents, "iterations")
    for link in ("h2d", "d2h", "ssd_read", "ssd_write"):
        of_link = transfers[transfers.link == link]
        assert of_link.bytes.sum() == summary[f"kv_{link}_bytes"] > 0
        assert len(of_link) == summary[f"kv_{link}_transfers"]
        assert of_link.end_s.is_monotonic_increasing
    assert (transfers.queued_s <= transfers.start_s).all()
    assert (transfers.start_s <= transfers.end_s).all()
    found = {tier: requests[f"cached_{tier}_tokens"].sum() for tier in tier_panels.TIERS}
    for tier, tokens in found.items():
        assert tokens == summary[f"kv_hit_tokens_{tier}"]
    assert sum(found.values()) > 0
    assert (sum(requests[f"cached_{tier}_tokens"] for tier in found) < requests.prompt_tokens).all()
    assert (requests.load_ms > 0).any()
    assert iterations.dram_bytes.max() <= summary["kv_dram_bytes_capacity"]
    assert iterations.ssd_bytes.max() <= summary["kv_ssd_bytes_capacity"]
    assert "remote_bytes" not in iterations
    assert (iterations.hbm_cached_blocks <= summary["kv_blocks_capacity"]).all()


def test_sums_over_time_end_as_the_summary_says(agents: Path) -> None:
    summary, iterations = read_summary(agents), table(agents, "iterations")
    ends = {
        "prefetched_units": "kv_prefetched_units",
        "prefetch_used_units": "kv_prefetched_units_used",
        "prefetch_late_units": "kv_prefetched_units_late",
        "prefetch_wasted_units": "kv_prefetched_units_wasted", "kv_stalled_s": "kv_stall_s",
    }  # fmt: skip
    for column, key in ends.items():
        sums = iterations[column]
        assert sums.is_monotonic_increasing, column
        assert sums.iloc[-1] <= summary[key], column
    assert iterations.kv_stalled_s.iloc[-1] == pytest.approx(summary["kv_stall_s"], rel=0.05)
    assert 0 < iterations.prefetch_used_units.iloc[-1] < iterations.prefetched_units.iloc[-1]


def test_what_a_stop_cuts_off_is_counted_apart(agents: Path, tmp_path: Path) -> None:
    """Halfway through a long transfer everything ends."""
    moved = table(agents, "transfers")
    later = moved[moved.start_s > moved.start_s.median()]
    longest = later.iloc[int((later.end_s - later.start_s).argmax())]
    stop = round((longest.start_s + longest.end_s) / 2, 6)
    (tmp_path / "a.yaml").write_text(AGENTS + f"stop: {{at: {stop} s}}\n")
    files = []
    for engine in ("leap", "step"):
        (tmp_path / engine).mkdir()
        summary = run(load(tmp_path / "a.yaml"), tmp_path / engine, engine)
        files.append((tmp_path / engine / "transfers.parquet").read_bytes())
    assert files[0] == files[1]
    rows = table(tmp_path / "leap", "transfers")
    assert rows.end_s.max() == summary["kv_transfers_end_s"] <= stop
    under_way = moved[(moved.queued_s <= stop) & (moved.end_s > stop)]
    assert summary["kv_transfers_unfinished"] == len(under_way) > 0
    assert summary["kv_bytes_unfinished"] == under_way.bytes.sum()
    for link in ("h2d", "d2h", "ssd_read", "ssd_write"):
        of_link = rows[rows.link == link]
        assert of_link.bytes.sum() == summary[f"kv_{link}_bytes"]
        assert len(of_link) == summary[f"kv_{link}_transfers"] > 0
        waited = (of_link.start_s - of_link.queued_s).sum()
        assert waited == pytest.approx(summary[f"kv_{link}_waited_s"])
        begun = moved[(moved.link == link) & (moved.start_s < stop)]
        busy = tier_panels._busy(
            begun.start_s.to_numpy(), begun.end_s.to_numpy(), np.array([0.0, stop])
        )
        assert summary[f"kv_{link}_busy_s"] == pytest.approx(busy[0] * stop)
    said = facts(summary)
    assert any(line.startswith("KV on its way at the end: ") for line in said)


def test_the_console_says_what_was_found_and_moved(agents: Path) -> None:
    said = facts(read_summary(agents))
    for start in ("prefixes found: ", "KV below HBM, peak: DRAM ", "KV moved: h2d ", "prefetched"):
        assert any(line.startswith(start) for line in said), start
    found = next(line for line in said if line.startswith("prefixes found"))
    assert "HBM" in found
    assert "tokens not computed" in found


def test_nothing_is_said_of_a_memory_that_is_not_there() -> None:
    assert kv_words.lines({"kv_preemptions": 3}) == []


def test_figures_of_a_run_with_tiers(agents: Path, tmp_path: Path) -> None:
    files = draw(agents, tmp_path / "one")
    tiers = [path for path in files if path.name.startswith("tiers-") and path.suffix == ".svg"]
    names = [path.stem.removeprefix("tiers-") for path in tiers]
    assert names == ["occupancy", "hits", "links", "moved", "waits", "prefetch"]
    svg = "".join(path.read_text() for path in tiers)
    for said in ("DRAM of 8 GiB", "SSD of 64 GiB", "HBM, in use", "ssd read", "from HBM",
                 "a request waits for KV", "the loop stands still for KV", "write back",
                 "moved over all links", "prefetched units of 64 tokens", "wasted"):  # fmt: skip
        assert said in svg


def test_a_study_of_sizes_draws_reuse_and_ttft(tmp_path: Path, capsys: Any) -> None:
    text = AGENTS.replace("requests: 60", "requests: 25")
    text += "sweep: {hardware.dram.capacity: [2 GiB, 4 GiB, 16 GiB], "
    text += "hardware.ssd: [null, {capacity: 64 GiB}]}\n"
    (tmp_path / "s.yaml").write_text(text)
    study = load_study(tmp_path / "s.yaml")
    run_study(study, tmp_path / "out", quiet=True)
    out = tmp_path / "figures"
    names = {path.name for path in draw(tmp_path / "out", out)}
    assert {"reuse.svg", "reuse.png", "along-p99_ttft_ms.svg", "tiers-hits-1.svg"} <= names
    for name, words in (
        ("reuse", ("prompt tokens (%)", "computed", "no ssd", "ssd 64 GiB")),
        ("along-kv_prefix_hit_rate", ("hardware.dram.capacity", "found (%)", "2 GiB", "no ssd")),
    ):
        svg = (out / f"{name}.svg").read_text()
        for said in words:
            assert said in svg
    results = read_study(tmp_path / "out")
    print_study([run.axes for run in results.runs], [run.summary for run in results.runs])
    assert "found %" in capsys.readouterr().out


def test_without_ids_and_tiers_nothing_is_added(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(
        "trace: {source: synthetic, requests: 20, rate: 9 /s, prompt_tokens: 99, "
        "output_tokens: 9}\nmodel: llama-3.2-1b\n"
    )
    (tmp_path / "run").mkdir()
    summary = run(load(tmp_path / "a.yaml"), tmp_path / "run")
    assert not (tmp_path / "run" / "transfers.parquet").exists()
    assert list(table(tmp_path / "run", "iterations")) == ITERATIONS.names
    assert list(table(tmp_path / "run", "requests")) == REQUESTS.names
    assert "kv_prefix_lookups" not in summary
    names = {path.name for path in draw(tmp_path / "run", tmp_path / "figures")}
    assert not any(name.startswith("tiers") for name in names)


def test_both_engines_write_the_same_records(agents: Path, tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(AGENTS)
    (tmp_path / "run").mkdir()
    run(load(tmp_path / "a.yaml"), tmp_path / "run", "step")
    for name in ("transfers", "iterations", "requests"):
        one, other = (folder / f"{name}.parquet" for folder in (agents, tmp_path / "run"))
        assert one.read_bytes() == other.read_bytes(), name
