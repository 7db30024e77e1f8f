"""Timelines: valid by the format's rules, and every slice what the run recorded."""

from __future__ import annotations

import copy
import json
import shutil
from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from toy import TICK, toy_scenario
from trace_events import load, ns, validate

from sim.cli import main
from sim.errors import InputError
from sim.scenario import Scenario
from sim.simulate import run
from sim.timeline import write

if TYPE_CHECKING:
    from pathlib import Path

US = 1e6


def simulated(folder: Path, scenario: Scenario) -> Path:
    folder.mkdir()
    run(scenario, folder)
    return folder


def shipped(**sections: Any) -> Scenario:
    """A small run on the shipped profile."""
    data: dict[str, Any] = {
        "trace": {
            "source": "synthetic",
            "requests": 25,
            "rate": "10 /s",
            "prompt_tokens": 512,
            "output_tokens": 48,
        },
        "model": "llama-3.1-8b",
        "loop": {"mode": "graph", "max_batch": 16},
        "seed": 3,
    }
    for key, value in sections.items():
        merged = key == "loop"
        data[key] = data[key] | value if merged else value
    return Scenario.model_validate(data)


TIERS = {
    "trace": {"source": "agent-like", "requests": 20, "rate": "2 /s",
              "clip_prompt": {"to": 4000, "keep": "first"}},
    "hardware": {"hbm": {"capacity": "17.5 GB", "utilization": 1.0},
                 "dram": {"capacity": "4 GiB"}, "ssd": {"capacity": "1 TiB"}},
    "kv": {"write_back": "eager"},
}  # fmt: skip
RUNS: dict[str, dict[str, Any]] = {
    "host": {"loop": {"mode": "host"}},
    "graph": {},
    "control": {"loop": {"mode": "control"}},
    "resident": {"loop": {"mode": "resident"}},
    "partition": {"loop": {"mode": "resident", "prefill": "partition"}},
    "tiers": TIERS,
    "replicas": TIERS | {"replicas": {"count": 3, "tiers": "shared"}},
    "speculation": {"speculation": {"draft": "eagle", "width": 4, "acceptance": 0.65}},
    "controller": {
        "speculation": {"draft": "ngram", "width": {"controller": "asbs", "max": 6},
                        "acceptance": 0.5},
    },
    "sparse": {"sparse": {"select": "topk", "top_k_tokens": 512, "locality": 0.9}},
    "cut": {"stop": {"at": "1.2 s"}},
}  # fmt: skip


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with all `RUNS`, each made when it is first asked for."""
    return tmp_path_factory.mktemp("runs")


def folder_of(folders: Path, name: str) -> Path:
    path = folders / name
    return path if path.exists() else simulated(path, shipped(**RUNS[name]))


def events_of(folder: Path, **options: Any) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    path = folder.parent / f"{folder.name}.timeline.json"
    write(folder, path, **options)
    document = load(path)
    return validate(document), document["otherData"]


def of(events: list[dict[str, Any]], **wanted: Any) -> list[dict[str, Any]]:
    return [e for e in events if all(e.get(key) == value for key, value in wanted.items())]


# ---------------------------------------------------------------- a story
def test_two_requests_on_the_toy_gpu_are_drawn_to_the_nanosecond(tmp_path) -> None:
    """The second arrives at tick 100, when the loop has been idle; graph loop, 8 tokens each."""
    scenario = toy_scenario(tmp_path, [(0, 8, 3), (100, 8, 1)])
    events, about = events_of(simulated(tmp_path / "r", scenario), profile=tmp_path / "toy.json")
    tick = TICK * US
    rows = [(e["name"], e["ts"] / tick, e["dur"] / tick) for e in of(events, cat="iteration")]
    # Prefill as host loop: 20 ticks; decode iterations of a graph: 16.
    assert [(name, round(at, 6), round(long, 6)) for name, at, long in rows] == [
        ("prefill (host)", 0, 20), ("decode (graph)", 20, 16), ("decode (graph)", 36, 16),
        ("prefill (host)", 100, 20),
    ]  # fmt: skip
    idle = of(events, cat="idle")
    assert [(round(e["ts"] / tick, 6), round(e["dur"] / tick, 6)) for e in idle] == [(52, 48)]
    # Of a decode iteration: 9 GEMMs, attention of two layers, sampling, a launch and a copy back.
    inside = [e for e in events if 20 * tick <= e.get("ts", -1) < 36 * tick and e["ph"] == "X"]
    parts = {e["name"]: e["dur"] / tick for e in inside if e["cat"].endswith("computed")}
    assert {name: round(ticks, 5) for name, ticks in parts.items()} == {
        "gemm": 9, "attention": 4, "verify": 1, "launch": 1, "sync": 1,
    }  # fmt: skip
    spans = [
        (e["ph"], e["name"], round(e["ts"] / tick, 6)) for e in of(events, id2={"local": "0x0"})
    ]
    assert sorted(spans, key=lambda s: s[2]) == [
        ("b", "request", 0), ("b", "prefill", 0), ("e", "prefill", 20), ("b", "decode", 20),
        ("n", "first token", 20), ("e", "decode", 52), ("e", "request", 52),
    ]  # fmt: skip
    flows = [(e["ph"], e["id"], round(e["ts"] / tick, 6)) for e in events if e["ph"] in "stf"]
    assert sorted(flows, key=lambda f: (f[1], f[2])) == [
        ("s", 0, 0), ("t", 0, 0), ("f", 0, 36), ("s", 2, 100), ("f", 2, 100)
    ]  # fmt: skip
    running = [(round(e["ts"] / tick, 6), e["args"]) for e in of(events, ph="C", name="requests")]
    assert running == [(0, {"running": 1, "waiting": 0})]
    assert about["kind"] == "simulated"
    assert about["left_out"] == []


def test_a_profile_in_a_file_must_be_named_for_stages(tmp_path) -> None:
    folder = simulated(tmp_path / "r", toy_scenario(tmp_path, [(0, 8, 3)]))
    events, about = events_of(folder)
    assert about["left_out"] == ["no stages of iterations: its profile is a file; name it with "
                                 "--profile"]  # fmt: skip
    bases = {e["cat"].partition(",")[2] for e in of(events, ph="X")}
    assert bases == {"", "recorded"}


# ---------------------------------------------------------------- all kinds of runs
@pytest.mark.parametrize("name", RUNS)
def test_every_kind_of_run_makes_a_valid_file_in_which_parts_add_up(folders, name) -> None:
    folder = folder_of(folders, name)
    events, about = events_of(folder)
    recorded = pd.read_parquet(folder / "iterations.parquet")
    iterations = of(events, cat="iteration")
    assert len(iterations) == len(recorded)
    total = sum(ns(e["dur"]) for e in iterations)
    assert total == pytest.approx(recorded["duration_s"].sum() * 1e9, abs=2 * len(recorded))
    # What lies inside the iterations fills them without a rest.
    inside = [e for e in events if e["ph"] == "X" and "," in e["cat"]]
    assert sum(ns(e["dur"]) for e in inside) == total
    gpu = sum(ns(e["dur"]) for e in inside if e["cat"] == "gpu,recorded")
    prefill = recorded[recorded["kind"] != "decode"]
    # Where stages are not worked out, the GPU's time is the recorded one.
    unknown = {e["ts"] for e in inside if e["name"] == "GPU busy"}
    assert len(unknown) >= len(prefill)
    if not any("decode iterations" in line for line in about["left_out"]):
        busy = prefill["gpu_busy_s"].clip(upper=prefill["duration_s"]).sum() * 1e9
        assert gpu == pytest.approx(busy, abs=2 * len(prefill))
    requests = pd.read_parquet(folder / "requests.parquet")
    assert len(of(events, ph="b", name="request")) == len(requests)
    phases = Counter(e["name"] for e in events if e["ph"] == "b")
    assert phases["decode"] == ((requests.finished_s > requests.first_token_s).sum()
                                + (requests.first_token_s.notna()
                                   & requests.finished_s.isna()).sum())  # fmt: skip


@pytest.mark.parametrize("name", ["host", "graph", "resident", "speculation", "controller"])
def test_stages_of_every_decode_iteration_are_known(folders, name) -> None:
    _, about = events_of(folder_of(folders, name))
    assert about["left_out"] == []


def test_a_loop_that_leaves_for_prefill_shows_when_it_enters_and_leaves(folders) -> None:
    events, _ = events_of(folder_of(folders, "resident"))
    summary = json.loads((folder_of(folders, "resident") / "summary.json").read_text())
    enters = [e for e in of(events, name="enter") if e["ph"] == "X"]
    assert len(enters) == summary["loop_entries"]


def test_transfers_are_on_their_link_and_lead_to_the_iteration_that_needed_them(folders) -> None:
    folder = folder_of(folders, "tiers")
    events, _ = events_of(folder)
    rows = pd.read_parquet(folder / "transfers.parquet")
    drawn = of(events, cat="transfer", ph="X")
    assert sum(e["args"]["bytes"] for e in drawn) == rows["bytes"].sum()
    assert Counter(e["name"] for e in drawn) == Counter(rows["reason"])
    tracks = {
        (e["pid"], e["tid"]): e["args"]["name"].partition(" (")[0]
        for e in events if e["name"] == "thread_name"
    }  # fmt: skip
    links = Counter(tracks[e["pid"], e["tid"]] for e in drawn)
    assert links == Counter(rows["link"])
    loads = [e for e in drawn if e["name"] == "load"]
    arrows = [e for e in of(events, cat="transfer") if e["ph"] == "f"]
    assert len(loads) == len(arrows) > 0
    starts = {ns(e["ts"]): e for e in of(events, cat="iteration")}
    for arrow in arrows:
        assert ns(arrow["ts"]) in starts


def test_replicas_are_processes_and_their_own_links_have_tracks(folders) -> None:
    events, _ = events_of(folder_of(folders, "replicas"))
    names = [e["args"]["name"] for e in events if e["name"] in ("process_name", "thread_name")]
    assert {f"replica {n} (graph, simulated)" for n in range(3)} <= set(names)
    assert any(name.startswith("d2h of replica ") for name in names)
    assert any(name == "ssd_write" or name.startswith("ssd_write (") for name in names)


def test_counters_are_those_of_the_records(folders) -> None:
    folder = folder_of(folders, "tiers")
    events, _ = events_of(folder)
    rows = pd.read_parquet(folder / "iterations.parquet")
    for name, key, column in (
        ("requests", "waiting", "waiting"),
        ("KV blocks in HBM", "in_use", "kv_blocks"),
        ("KV below HBM (bytes)", "DRAM", "dram_bytes"),
    ):
        drawn = of(events, ph="C", name=name)
        assert max(e["args"][key] for e in drawn) == rows[column].max()
        assert drawn[-1]["args"][key] == rows[column].iloc[-1]


# ---------------------------------------------------------------- windows and sizes
def test_a_window_has_all_of_its_iterations_and_no_others(folders) -> None:
    folder = folder_of(folders, "graph")
    events, about = events_of(folder, begin=1.0, end=2.0)
    rows = pd.read_parquet(folder / "iterations.parquet")
    ends = rows["start_s"] + rows["duration_s"]
    inside = ((rows["start_s"] <= 2.0) & (ends >= 1.0)).sum()
    assert len(of(events, cat="iteration")) == inside < len(rows)
    assert (about["from_s"], about["to_s"]) == (1.0, 2.0)
    requests = of(events, ph="b", name="request")
    frame = pd.read_parquet(folder / "requests.parquet")
    assert len(requests) == ((frame.arrival_s <= 2.0) & (frame.finished_s >= 1.0)).sum()
    assert min(ns(e["ts"]) for e in requests) == 1_000_000_000
    assert max(ns(e["ts"]) for e in of(events, ph="e", name="request")) == 2_000_000_000
    marks = ((frame.arrival_s >= 1.0) & (frame.arrival_s <= 2.0)).sum()
    assert len(of(events, cat="mark")) == marks < len(requests)
    assert about["left_out"] == []


def test_a_large_run_is_shown_in_part_with_all_detail(folders) -> None:
    folder = folder_of(folders, "graph")
    path = folders / "part.json"
    written = write(folder, path, most=3000)
    events = validate(load(path))
    meant = [e for e in events if e["ph"] != "M"]
    assert 500 < len(meant) <= 3000
    assert len(written.notes) == 1
    assert "around the most requests at once" in written.notes[0]
    begin, end = written.window.begin, written.window.end
    rows = pd.read_parquet(folder / "iterations.parquet")
    ends = rows["start_s"] + rows["duration_s"]
    assert len(of(events, cat="iteration")) == ((rows["start_s"] <= end) & (ends >= begin)).sum()
    requests = pd.read_parquet(folder / "requests.parquet")
    there = [(requests.arrival_s <= t) & (requests.finished_s > t) for t in requests.arrival_s]
    busiest = requests.arrival_s[int(np.argmax([mask.sum() for mask in there]))]
    assert begin <= busiest <= end


def test_a_window_that_is_asked_for_loses_stages_first_and_then_its_end(folders) -> None:
    folder = folder_of(folders, "graph")
    whole = write(folder, folders / "w.json", begin=0.0)
    assert whole.window.stages
    bare = write(folder, folders / "b.json", begin=0.0, most=whole.events * 3 // 4)
    assert not bare.window.stages
    assert bare.window.end == whole.window.end
    assert "stages of iterations are left out" in bare.notes[0]
    events = validate(load(folders / "b.json"))
    assert {e["cat"] for e in of(events, ph="X")} <= {"iteration", "idle", "mark"}
    cut = write(folder, folders / "c.json", begin=0.0, most=1500)
    assert cut.window.end < whole.window.end
    assert "shown until" in cut.notes[0]
    assert len([e for e in validate(load(folders / "c.json")) if e["ph"] != "M"]) <= 1500


# ---------------------------------------------------------------- files
def test_the_same_run_gives_the_same_bytes_packed_or_not(folders, tmp_path) -> None:
    folder = folder_of(folders, "tiers")
    for name in ("a.json", "b.json", "a.json.gz", "b.json.gz"):
        write(folder, tmp_path / name, begin=0.0, end=12.0)
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()
    assert (tmp_path / "a.json.gz").read_bytes() == (tmp_path / "b.json.gz").read_bytes()
    assert load(tmp_path / "a.json") == load(tmp_path / "a.json.gz")


def test_another_profile_than_that_of_the_run_is_not_used(folders, tmp_path) -> None:
    folder = shutil.copytree(folder_of(folders, "graph"), tmp_path / "r")
    scenario = json.loads((folder / "scenario.json").read_text())
    scenario["profile"]["hash"] = "0" * 12
    (folder / "scenario.json").write_text(json.dumps(scenario))
    _, about = events_of(folder)
    assert "profile nvidia-h200 is not the one it was run with" in about["left_out"][0]


@pytest.mark.parametrize("scenario", ["{}", '{"hash": 3, "profile": 4}', '{"trace": []}'])
def test_a_scenario_that_cannot_be_read_costs_only_the_stages(folders, tmp_path, scenario) -> None:
    folder = shutil.copytree(folder_of(folders, "graph"), tmp_path / "r")
    (folder / "scenario.json").write_text(scenario)
    events, about = events_of(folder)
    assert about["left_out"][0].startswith("no stages of iterations:")
    assert of(events, cat="gpu,recorded")


def test_a_measured_run_is_drawn_from_the_columns_that_it_has(folders, tmp_path) -> None:
    folder = shutil.copytree(folder_of(folders, "graph"), tmp_path / "r")
    (folder / "summary.json").write_text(json.dumps({"kind": "measured", "loop_mode": "graph"}))
    (folder / "scenario.json").unlink()
    frame = pd.read_parquet(folder / "iterations.parquet")
    frame[["start_s", "duration_s", "decode_requests"]].to_parquet(folder / "iterations.parquet")
    events, about = events_of(folder)
    assert about["kind"] == "measured"
    names = [e["args"]["name"] for e in events if e["name"] == "process_name"]
    assert all("simulated" not in name for name in names)
    assert {e["name"] for e in of(events, cat="iteration")} == {"iteration"}
    assert not of(events, cat="gpu,computed")


def test_without_iterations_there_are_requests(folders, tmp_path) -> None:
    folder = shutil.copytree(folder_of(folders, "graph"), tmp_path / "r")
    (folder / "iterations.parquet").unlink()
    events, about = events_of(folder)
    assert "no iterations.parquet" in about["left_out"][0]
    assert len(of(events, ph="b", name="request")) == 25


# ---------------------------------------------------------------- hostile folders
def spoilt(folder: Path, table: str, change) -> None:
    frame = pd.read_parquet(folder / f"{table}.parquet")
    change(frame).to_parquet(folder / f"{table}.parquet")


@pytest.mark.parametrize(
    ("table", "change", "said"),
    [
        ("iterations", lambda f: f.assign(start_s=np.nan), "times in column start_s"),
        ("iterations", lambda f: f.assign(duration_s=-1.0), "times in column duration_s"),
        ("iterations", lambda f: f.assign(duration_s=1e300), "times in column duration_s"),
        ("iterations", lambda f: f.assign(start_s="soon"), "no numbers in column start_s"),
        ("iterations", lambda f: f.drop(columns="start_s"), "no column start_s"),
        ("requests", lambda f: f.assign(arrival_s=np.nan), "without an arrival"),
    ],
)
def test_damaged_tables_are_named(folders, tmp_path, table, change, said) -> None:
    folder = shutil.copytree(folder_of(folders, "graph"), tmp_path / "r")
    spoilt(folder, table, change)
    with pytest.raises(InputError, match=said) as raised:
        write(folder, tmp_path / "x.json")
    assert f"{table}.parquet" in str(raised.value)
    assert not (tmp_path / "x.json").exists()


def test_what_is_no_table_or_no_run_is_named(folders, tmp_path) -> None:
    folder = shutil.copytree(folder_of(folders, "graph"), tmp_path / "r")
    (folder / "iterations.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(InputError, match="is not a table of a run"):
        write(folder, tmp_path / "x.json")
    with pytest.raises(InputError, match="is not a run's folder"):
        write(tmp_path, tmp_path / "x.json")
    (tmp_path / "study.json").write_text("{}")
    with pytest.raises(InputError, match="is a study; name one of its runs"):
        write(tmp_path, tmp_path / "x.json")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--from", "soon"], "--from: "),
        (["--from", "10"], "has no unit"),
        (["--from", "1h"], "--from: 60 min is after the end of the run"),
        (["--from", "2s", "--to", "1s"], "--to: 1 s is not after --from, 2 s"),
        (["--out", "x.txt"], "neither FILE.json nor FILE.json.gz"),
        (["--out", "graph/summary.json"], "is a part of the run"),
        (["--out", "none/x.json"], "cannot be written"),
    ],
)
def test_errors_of_the_user_end_with_2(folders, capsys, monkeypatch, arguments, said) -> None:
    folder_of(folders, "graph")
    monkeypatch.chdir(folders)
    with pytest.raises(SystemExit) as ended:
        main(["timeline", "graph", *arguments])
    assert ended.value.code == 2
    error = capsys.readouterr().err.splitlines()
    assert len(error) == 1
    assert said in error[0]


def test_the_command_says_what_it_wrote(folders, capsys, monkeypatch) -> None:
    folder_of(folders, "graph")
    monkeypatch.chdir(folders)
    with pytest.raises(SystemExit) as ended:
        main(["timeline", "graph", "--from", "500ms", "--to", "1 s"])
    assert not ended.value.code
    said = capsys.readouterr()
    assert said.out.startswith("graph.json.gz: ")
    assert "0.5 s to 1 s" in said.out
    validate(load(folders / "graph.json.gz"))


# ---------------------------------------------------------------- anything goes in, validity out
_TIMES = st.lists(
    st.tuples(
        st.floats(0, 1e5, allow_subnormal=False), st.floats(0, 10, allow_subnormal=False)
    ), max_size=12,
)  # fmt: skip


@settings(max_examples=15, deadline=None, derandomize=True, phases=(Phase.generate,))
@given(_TIMES, _TIMES, _TIMES, st.text(max_size=8), st.integers(1000, 3000))
def test_any_records_give_a_valid_file(
    tmp_path_factory, iterations, requests, transfers, word, most
) -> None:
    folder = tmp_path_factory.mktemp("any")
    (folder / "summary.json").write_text(json.dumps({"kind": "measured", "loop_mode": word}))
    count = len(iterations)
    pd.DataFrame(
        {
            "start_s": [float(at) for at, _ in iterations],
            "duration_s": [float(long) for _, long in iterations],
            "kind": [word] * count, "gpu_busy_s": [1.0] * count, "running": range(count),
            "kv_blocks": [7] * count, "prefill_tokens": [n % 2 for n in range(count)],
        }
    ).to_parquet(folder / "iterations.parquet")  # fmt: skip
    ends = [at + long for at, long in requests]
    pd.DataFrame(
        {
            "request_id": range(len(requests)), "arrival_s": [float(at) for at, _ in requests],
            "admitted_s": [at if n % 3 else np.nan for n, (at, _) in enumerate(requests)],
            "first_token_s": [end if n % 2 else np.nan for n, end in enumerate(ends)],
            "finished_s": np.array(ends, float), "session": [word] * len(requests),
        }
    ).to_parquet(folder / "requests.parquet")  # fmt: skip
    pd.DataFrame(
        {
            "start_s": [float(at) for at, _ in transfers],
            "end_s": [float(at + long) for at, long in transfers], "link": [word] * len(transfers),
            "reason": ["load"] * len(transfers), "request_id": range(len(transfers)),
            "bytes": [1 << 40] * len(transfers),
        }
    ).to_parquet(folder / "transfers.parquet")  # fmt: skip
    written = write(folder, folder / "t.json", most=most)
    assert len(validate(load(folder / "t.json"))) == written.events


def test_the_validator_finds_what_is_wrong(folders) -> None:
    folder = folder_of(folders, "tiers")
    write(folder, folders / "v.json", begin=0.0, end=12.0)
    document = load(folders / "v.json")
    validate(document)

    def spoil(change) -> None:
        broken = copy.deepcopy(document)
        change(broken["traceEvents"])
        with pytest.raises(AssertionError):
            validate(broken)

    def first(events, **wanted):
        return next(e for e in events if all(e.get(k) == v for k, v in wanted.items()))

    spoil(lambda events: first(events, ph="X").update(ph="Y"))
    spoil(lambda events: first(events, ph="X").update(dur=-1.0))
    spoil(lambda events: first(events, cat="iteration").update(dur=1.5 * 16e3))
    spoil(lambda events: first(events, ph="X").pop("tid"))
    spoil(lambda events: events.remove(first(events, name="thread_name")))
    spoil(lambda events: events.remove(first(events, ph="e")))
    spoil(lambda events: events.remove(first(events, ph="f")))
    spoil(lambda events: first(events, ph="f", cat="request").update(ts=1e12))
    spoil(lambda events: first(events, ph="C")["args"].update(more=1))
