"""Accounts, timelines and the report of whole decode steps, from made-up records."""

from __future__ import annotations

import gzip
import json
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from kernels.__main__ import main
from kernels.checking import CheckError
from kernels.decoder.account import Ceiling, account, read_ceiling, stage_bytes
from kernels.decoder.account_text import plain, text
from kernels.decoder.evidence import HARM, agreements, comparisons, soaked, verdict
from kernels.decoder.shape import SHAPES
from kernels.decoder.soak import SoakError
from kernels.decoder.timeline import (
    ENDING,
    STAGES,
    faults,
    losses,
    read,
    spans,
    stage_seconds,
    trace,
    write,
)
from kernels.fit.samples import SamplesError
from kernels.report.decoder_document import build
from kernels.report.decoder_goals import goal_table, goals
from kernels.report.decoder_lost import FLOOR, parts, shown
from kernels.report.decoder_make import pictures
from kernels.report.decoder_steps import RESIDENT, Place, Rung, read_steps
from kernels.report.style import save

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

READ = 4.6e12
CEILING = Ceiling(READ, "made up", {"graph_node_s": 5e-7, "graph_launch_s": 6e-6,
                                    "host_copyback_s": 4e-6, "grid_barrier_s": 1e-6})  # fmt: skip
HEADER = {"kind": "header", "device": "Made-up GPU", "driver": "1.2", "commit": "abc",
          "date": "2026-11-21T08:00:00Z", "libraries": {"numpy": "2"}}  # fmt: skip
LOOPS = {
    ("eager", "torch"): (0.7, 3500e-6), ("graph", "torch"): (0.6, 300e-6),
    ("host-python", "library"): (0.75, 2200e-6), ("host-c", "library"): (0.75, 420e-6),
    ("graph", "library"): (0.75, 210e-6), ("graph", "fused"): (0.86, 120e-6),
    ("control", "fused"): (0.86, 110e-6), ("resident", "fused"): (0.88, 60e-6),
}  # fmt: skip
"""Share of the read ceiling and seconds beside it, of a made-up rung on the 1B shape."""


# ------------------------------------------------------------------------------ made-up records
def step(mode: str, kernels: str, batch: int, context: int, **other: Any) -> dict[str, Any]:
    """One made-up record of a step."""
    record = {
        "kind": "step", "model": "1b", "weights": "bf16", "kv": "bf16", "kernels": kernels,
        "mode": mode, "batch": batch, "tokens": 1, "context": context, "budget_tokens": 0,
        "page_tokens": 16, "nodes": 98 if mode == "graph" else None,
        "barriers": 82 if mode == "resident" else None, "stages": None, "sha": "abc", **other,
    }  # fmt: skip
    share, fixed = LOOPS[mode, kernels]
    fixed *= SHAPES[record["model"]].layers / 16
    moved = sum(stage_bytes(record).values())
    slow = 1.0 + (0.004 * batch if mode == "resident" else 0.0)
    wall = slow * moved / (share * READ) + fixed
    rng = np.random.default_rng([batch, context, len(mode), record["budget_tokens"]])
    record["seconds"] = (wall * (1.0 + 0.004 * np.abs(rng.normal(size=30)))).tolist()
    if record["stages"] is None and kernels == "fused" and mode in ("resident", "graph"):
        record["stages"] = stages(record, mode == "resident")
    return record


def stages(record: dict[str, Any], waits: bool) -> dict[str, float]:
    """Stage times that leave a little of the step unexplained."""
    found = {}
    for name in (*STAGES, *ENDING[: 1 if waits else 2]):
        least = stage_bytes(record).get(name, 0.0) / READ
        found[name] = {"attend": 3.0e-5, "commit": 2e-6, "head": 4e-6}.get(name, 0.0) + 1.03 * least
        if name == "out" and waits:
            found[name] *= 0.7
        if waits:
            found[name + "_wait"], found[name + "_tail"] = 2e-6, 1e-6 + 0.02 * least
    return found


def made(batches: tuple[int, ...] = (1, 2, 8, 16, 64), contexts: tuple[int, ...] = (1024, 8192),
         models: tuple[str, ...] = ("1b", "8b")) -> Iterator[dict[str, Any]]:  # fmt: skip
    """Lines of a records file."""
    yield HEADER
    for model in models:
        for mode, kernels in LOOPS:
            if model == "8b" and kernels == "fused":
                continue
            for batch in batches:
                for context in contexts:
                    for budget in (0, 2048) if context > 2048 and kernels != "torch" else (0,):
                        if mode == "resident" and batch > 16:
                            continue
                        yield step(mode, kernels, batch, context, model=model,
                                   budget_tokens=budget)  # fmt: skip
    yield step("graph", "library", 1, 1024, weights="w4a16")
    yield step("graph", "library", 1, 1024, kv="int8", tokens=4)
    yield {"kind": "soak", "mode": "resident", "model": "1b", "steps": 10_000, "hangs": 0,
           "lost_tokens": 0, "leaked_pages": 0}  # fmt: skip
    yield {"kind": "agreement", "steps": 256, "loops": "graph, resident", "equal": True}
    yield {"kind": "odd", "value": 1}


def predictions(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Made-up predictions, two per cent off; every second one held out."""
    steps = [record for record in records if record["kind"] == "step"]
    return [
        {name: one[name] for name in ("model", "weights", "kv", "kernels", "mode", "batch",
                                      "tokens", "context", "budget_tokens")}
        | {"predicted_s": float(np.median(one["seconds"])) * (1.02 if i % 3 else 0.97),
           "held_out": i % 2 == 0}
        for i, one in enumerate(steps)
    ]  # fmt: skip


def made_stamps(workers: int = 132, layers: int = 16, seed: int = 3) -> np.ndarray[Any, Any]:
    """int64 nanoseconds of a made-up resident step; one worker commits, some do not attend."""
    rng = np.random.default_rng(seed)
    names = [*STAGES * layers, *ENDING]
    typical = {"qkv": 3e3, "attend": 4e3, "out": 2.2e3, "gate_up": 1.5e4, "down": 8e3,
               "head": 1.1e5, "commit": 1.5e3}  # fmt: skip
    found = np.zeros((workers, 2 * len(names)), np.int64)
    now = 5_000_000_000_000
    for index, name in enumerate(names):
        begin = now + 700 + rng.integers(0, 120, workers)
        end = begin + (typical[name] * (1 + 0.03 * rng.standard_normal(workers))).astype(np.int64)
        if name == "attend":
            end[64:] = begin[64:] + 60
        found[:, 2 * index], found[:, 2 * index + 1] = begin, end
        if name == "commit":
            found[1:, 2 * index :] = 0
        now = found[:, 2 * index + 1].max()
    return found


def written(path: Path, lines: Any) -> Path:
    """*lines* as JSON lines."""
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


@pytest.fixture(scope="module")
def records() -> list[dict[str, Any]]:
    """Made-up records of a small grid."""
    return list(made())


@pytest.fixture(scope="module")
def file(records: list[dict[str, Any]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Them as a file."""
    return written(tmp_path_factory.mktemp("steps") / "steps.jsonl", records)


@pytest.fixture(scope="module")
def profile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A profile with a read ceiling."""
    path = tmp_path_factory.mktemp("profile") / "p.json"
    constant = {"value": READ, "unit": "bytes/s", "kind": "measured"}
    path.write_text(json.dumps({"name": "toy", "constants": {"hbm_read_bytes_per_s": constant}}))
    return path


# ------------------------------------------------------------------------------ the account
def test_an_account_divides_the_wall_time_without_a_rest() -> None:
    found = account(step("resident", "fused", 1, 1024), CEILING)
    assert found.rest is not None
    assert found.busy + found.controlled + found.rest == pytest.approx(found.wall)
    assert found.floor == pytest.approx(found.bytes / READ)
    assert [what for what, _, kind in found.control if kind == "measured"] == ["barriers (82)"]
    words = text(found)
    assert "R2, resident kernel: batch 1, 1 new token a request, context 1,024, dense" in words
    assert "\nnot accounted  " in words
    assert words.endswith("streamed ahead while SMs waited.")  # the made-up `out` is that fast
    assert json.loads(json.dumps(plain(found)))["account"]["not_accounted_s"] == found.rest


def test_bytes_by_stage_are_those_of_the_whole_step() -> None:
    shape = SHAPES["1b"]
    for weights, bits in (("bf16", 16), ("w4a16", 4)):
        record = step("graph", "library", 8, 8192, weights=weights)
        whole = shape.bytes_streamed(bits) + shape.kv_bytes(8 * 8192)
        assert sum(stage_bytes(record).values()) == pytest.approx(whole, rel=1e-9)
    dense = stage_bytes(step("graph", "library", 2, 8192))
    sparse = stage_bytes(step("graph", "library", 2, 8192, budget_tokens=2048))
    assert sparse["attend"] == dense["attend"] / 4
    assert sparse["score"] == dense["attend"] / 16  # two bounds for a page of 16 keys and values


def test_a_step_without_stages_says_so() -> None:
    found = account(step("host-c", "library", 1, 1024), CEILING)
    assert found.rest is None
    assert text(found).endswith("no stage was timed")


def test_a_graph_is_charged_what_the_profile_says_of_launch_and_copy() -> None:
    costs = {"host_c_graph_launch_s": 6e-6, "host_c_copyback_s": 1e-5}
    found = account(step("graph", "fused", 1, 1024), Ceiling(READ, "", costs))
    assert found.controlled == pytest.approx(1.6e-5)
    assert {kind for *_, kind in found.control} == {"estimated"}


def test_a_host_shows_the_submission_that_work_does_not_hide() -> None:
    costs = {"host_python_submit_s": 1e-5, "host_sync_s": 5e-6, "host_copyback_s": 4e-6}
    record = step("host-python", "library", 1, 1024, nodes=100, stages={"qkv": 6e-4})
    ceiling = Ceiling(READ, "", costs)
    slow, fast = (account({**record, "submit_s": s}, ceiling) for s in (1e-3, 1e-4))
    assert slow.control[0] == ("submission of 100, not hidden", pytest.approx(4e-4), "measured")
    assert fast.control[0][1] == pytest.approx(1e-6)
    guessed = account(record, ceiling)
    assert guessed.control[0][1:] == (pytest.approx(4e-4), "estimated")


@pytest.mark.parametrize("seconds", [[], [1e-3, -1.0]])
def test_a_step_needs_wall_times(seconds: list[float]) -> None:
    record = step("graph", "library", 1, 1024)
    record["seconds"] = seconds
    with pytest.raises(ValueError, match="wall seconds"):
        account(record, CEILING)


def test_the_shipped_profile_gives_a_ceiling() -> None:
    from kernels.decoder.command import PROFILE

    assert 4e12 < read_ceiling(PROFILE).bytes_per_s < 4.8e12


# ------------------------------------------------------------------------------ the timeline
def test_waits_work_and_tails_are_the_whole_step() -> None:
    whole = spans(made_stamps())
    assert whole.layers == 16
    assert sum(map(sum, losses(whole))) == pytest.approx(whole.seconds)
    times = stage_seconds(whole)
    assert sum(times.values()) == pytest.approx(whole.seconds)
    assert times["gate_up"] == pytest.approx(16 * 15e-6, rel=0.02)
    assert times["attend_tail"] > 16 * 1.5e-6  # half of the workers do not attend


def test_a_timeline_is_a_trace_of_events(tmp_path: Path) -> None:
    whole = spans(made_stamps())
    document = trace(whole, {"batch": 1}, workers=(0, 5, 131))
    assert faults(document) == []
    for name in ("t.json", "t.json.gz"):
        write(document, tmp_path / name)
        again = read(tmp_path / name)
        assert again == json.loads(json.dumps(document))
    tracks = {(e["pid"], e["tid"]) for e in again["traceEvents"] if e["ph"] == "X"}
    assert tracks == {(0, 0), (0, 5), (0, 131), (1, 0)}
    begun = [e for e in again["traceEvents"] if e["ph"] == "X" and (e["pid"], e["tid"]) == (0, 5)]
    assert [e["name"] for e in begun] == [*STAGES * 16, "head"]  # the fifth does not commit
    assert begun[5]["args"] == {"layer": 1}


def test_a_wrong_trace_is_told() -> None:
    event = {"ph": "X", "name": "a", "ts": 0.0, "dur": 5.0, "pid": 0, "tid": 0}
    assert faults({"traceEvents": [event, {**event, "ts": 5.0}]}) == []
    assert "not over" in faults({"traceEvents": [event, {**event, "ts": 4.0}]})[0]
    assert faults({"traceEvents": [{**event, "dur": -1.0}]})
    assert faults({"traceEvents": [{**event, "dur": None}]})
    assert faults({"traceEvents": [{"ph": "Z"}]})
    assert faults([]) == ["no list traceEvents"]


def test_clocks_of_their_own_are_laid_over_each_other() -> None:
    stamps, rng = made_stamps(), np.random.default_rng(7)
    offset = rng.integers(0, 10**12, (len(stamps), 1))
    rate = 1.0 + 5e-3 * rng.standard_normal((len(stamps), 1))
    ticks = ((stamps - stamps[0, 0]) * rate).astype(np.int64) + offset + 10**9
    one, other = spans(stamps), spans(np.where(stamps > 0, ticks, 0), own_clocks=True)
    assert other.seconds == pytest.approx(one.seconds, rel=2e-3)
    for name, seconds in stage_seconds(one).items():
        assert stage_seconds(other)[name] == pytest.approx(seconds, abs=2.5e-6), name


def test_stages_of_a_sparse_layer_and_a_step_without_commit() -> None:
    stages = ("qkv", "score", "select", "attend", "out", "gate_up", "down")
    events = 2 * (2 * len(stages) + 1)
    stamps = np.cumsum(np.full((4, events), 1000), axis=1)
    whole = spans(stamps, stages)
    assert whole.names == [*stages, *stages, "head"]
    assert whole.layer(7) == 1
    assert whole.layer(14) is None


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda stamps: stamps[:, :-4], "expected"),
        (lambda stamps: stamps[0], "expected"),
        (lambda stamps: np.where(np.arange(stamps.shape[1]) == 9, 0, stamps), "never ended"),
        (lambda stamps: stamps[:, ::-1], "before it began"),
    ],
)
def test_stamps_that_cannot_be(change: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        spans(change(made_stamps(8, 2)))


# ------------------------------------------------------------------------------ the report
def test_rungs_places_and_winners(file: Path) -> None:
    steps = read_steps([file], CEILING)
    place = steps.ladder_place("1b")
    assert place == Place("1b", "bf16", "bf16", 1, 16, 1, 1024, 0)
    assert [rung.kernels for rung in steps.rungs([place])][:2] == ["torch", "torch"]
    assert steps.rungs([place])[-1] == RESIDENT
    assert steps.winner(place)[0] == RESIDENT  # type: ignore[index]
    assert len(steps.places("1b", sparse=True)) == 5
    variants = {place.variant for place in steps.cells if not place.plain}
    assert variants == {"w4a16 weights", "int8 KV, 4 new tokens"}


def test_a_step_measured_again_replaces_the_first(tmp_path: Path) -> None:
    one, other = (step("graph", "fused", 1, 1024) for _ in range(2))
    other["seconds"] = [1.1 * second for second in one["seconds"]]
    files = [written(tmp_path / f"{i}.jsonl", [record]) for i, record in enumerate((one, other))]
    steps = read_steps(files, CEILING)
    (mine,) = steps.cells.values()
    assert mine[Rung("graph", "fused")].wall == pytest.approx(np.median(other["seconds"]))
    assert steps.again[0][2] == pytest.approx(0.1)


def test_targets_met_missed_and_not_measured(file: Path, tmp_path: Path) -> None:
    found = {goal.what: goal.verdict for goal in goals(read_steps([file], CEILING))}
    assert [found[w] for w in found if "R2" in w] == ["met", "missed"]
    assert [found[w] for w in found if "soak" in w or "tokens over" in w] == ["met", "met"]
    bare = goals(read_steps([written(tmp_path / "a", [step("graph", "torch", 1, 1024)])], CEILING))
    assert {goal.verdict for goal in bare} == {"not measured"}
    assert sum("not measured" in line for line in goal_table(bare)) == len(bare)


@pytest.mark.parametrize("fault", [{"steps": 9000}, {"hangs": 1}, {"leaked_pages": None}])
def test_a_soak_that_ended_early_or_lost_something_is_missed(
    fault: dict[str, Any], tmp_path: Path
) -> None:
    soak = {"kind": "soak", "mode": "resident", "steps": 10_000, "hangs": 0, "lost_tokens": 0,
            "leaked_pages": 0, **fault}  # fmt: skip
    steps = read_steps([written(tmp_path / "s", [step("graph", "torch", 1, 1024), soak])], CEILING)
    (goal,) = (goal for goal in goals(steps) if "soak" in goal.what)
    assert goal.verdict == "missed"


def test_lost_time_adds_up(file: Path) -> None:
    steps = read_steps([file], CEILING)
    for mine in steps.cells.values():
        for cell in mine.values():
            found = parts(cell)
            if found is not None:
                assert sum(found.values()) == pytest.approx(cell.wall)
                assert sum(shown(found).values()) == pytest.approx(cell.wall)
                assert found[FLOOR] == cell.floor


def test_predictions_are_judged_on_what_was_held_out(
    records: list[dict[str, Any]], file: Path, tmp_path: Path
) -> None:
    (tmp_path / "p.json").write_text(json.dumps({"rows": predictions(records)}))
    steps = read_steps([file], CEILING, tmp_path / "p.json")
    assert len(steps.errors()) == sum(record["kind"] == "step" for record in records)
    median, p90 = (goal for goal in goals(steps) if "simulated" in goal.what)
    assert (median.value, p90.value) == (pytest.approx(2.0), pytest.approx(3.0))
    train = [{**row, "train": True} for row in predictions(records)]
    for row in train:
        del row["held_out"]
    (tmp_path / "p.json").write_text(json.dumps(train))
    fitted = read_steps([file], CEILING, tmp_path / "p.json")
    assert {one.held for one in fitted.errors()} == {False}
    assert [g.verdict for g in goals(fitted) if "simulated" in g.what] == ["not measured"] * 2


@pytest.mark.slow
def test_the_report_is_the_same_bytes_again(
    records: list[dict[str, Any]], profile: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    few = [r for r in records if r.get("model") != "8b" and not r.get("budget_tokens")]
    small, guesses = written(tmp_path / "few.jsonl", few), tmp_path / "p.json"
    guesses.write_text(json.dumps(predictions(few)))
    write(trace(spans(made_stamps(12, 4))), tmp_path / "t.json")
    out = tmp_path / "out"
    words = f"x report-decoder --steps {small} --profile {profile} --out {out} --predicted "
    words += f"{guesses} --timeline {tmp_path / 't.json'}"
    monkeypatch.setattr(sys, "argv", words.split())
    assert main() == 0
    names = sorted(path.name for path in out.iterdir())
    assert names == ["README.md", "batch-1b.png", "ladder.png", "lost-1b.png", "map-1b.png",
                     "predicted.png", "timeline.json.gz", "timeline.png"]  # fmt: skip
    document = (out / "README.md").read_text()
    assert "**Of 8 targets" in document
    for name in names[1:]:
        assert f"]({name})" in document
    assert "ladder.png" in capsys.readouterr().out
    steps = read_steps([small], read_ceiling(profile), guesses)
    timeline = json.loads((tmp_path / "t.json").read_text())
    assert build(steps, timeline, set(names)) == document
    name, size, draw = pictures(steps, timeline)[0]
    save(tmp_path / "again.png", size, draw)
    assert (tmp_path / "again.png").read_bytes() == (out / f"{name}.png").read_bytes()


def test_pictures_only_of_what_there_is(tmp_path: Path) -> None:
    lines = [step("graph", "torch", 1, 1024), step("graph", "library", 1, 1024)]
    steps = read_steps([written(tmp_path / "s", lines)], CEILING)
    assert [name for name, *_ in pictures(steps, None)] == ["ladder", "map-1b"]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ({"kind": "step"}, ":1: no record of a step: field"),
        ({**step("graph", "torch", 1, 1024), "model": "9b"}, "model '9b'"),
        ({**step("graph", "torch", 1, 1024), "seconds": []}, "wall seconds"),
        (HEADER, "no measured steps"),
    ],
)
def test_bad_records_are_one_line(line: dict[str, Any], words: str, tmp_path: Path) -> None:
    with pytest.raises(SamplesError, match=words) as caught:
        read_steps([written(tmp_path / "s.jsonl", [line])], CEILING)
    assert "\n" not in str(caught.value)


def test_packed_records_are_read(tmp_path: Path) -> None:
    path = tmp_path / "s.jsonl.gz"
    path.write_bytes(gzip.compress(json.dumps(step("graph", "torch", 1, 1024)).encode()))
    assert len(read_steps([path], CEILING).cells) == 1


# ------------------------------------------------------------------------------ the command
@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("--mode resident --kernels library", "--kernels fused"),
        ("--mode graph --kernels library --batch 0", "--batch 0"),
        ("--mode graph --kernels library --budget-tokens 4096", "fewer than the context"),
        ("--mode graph --kernels fused --batch 17", "more rows"),
        ("--mode graph --kernels fused --kv int8", "bf16 KV only"),
        ("--mode graph --kernels fused --timeline t.json", "--mode resident"),
        ("--mode graph --kernels library --profile no-such", "no-such"),
    ],
)
def test_what_cannot_be_run_is_one_line(
    words: str, told: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["x", "decode", *words.split()])
    assert main() == 2
    captured = capsys.readouterr().err
    assert told in captured
    assert captured.count("\n") == 1


def test_without_a_gpu_decode_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "cupy", None)
    monkeypatch.setattr(sys, "argv", ["x", "decode", "--mode", "graph", "--kernels", "library"])
    assert main() == 2
    assert capsys.readouterr().err.startswith("decode needs an NVIDIA GPU")


def test_constants_of_the_loops_are_shown(tmp_path: Path) -> None:
    line = {"kind": "constant", "name": "exit", "model": "1b", "kernels": "fused", "batch": 1,
            "mode": "resident", "context": 1024, "seconds": [1e-6, 2e-6, 3e-6]}  # fmt: skip
    file = written(tmp_path / "s", [step("graph", "torch", 1, 1024), line])
    loop = {"kind": "fitted", "parameters": {"around_s": 8e-6, "ring_bytes": 2.7e7}, "note": "n"}
    steps = read_steps([file], Ceiling(READ, "", {}, {"resident/fused": loop}))
    document = build(steps, None, set())
    assert (
        "| `exit` | R2 resident kernel, fused | 1B | 1 | 1k | 2.00 | 1.20 to 2.80 | 3 |" in document
    )
    assert "| R2 resident kernel, fused | fitted | around 8 us, ring_bytes 27 MB | n |" in document


# ------------------------------------------------------------------------------ the evidence
def test_comparisons_and_soaks_become_records() -> None:
    def check(folder: str, case: dict[str, Any]) -> float:
        if case["op"] == "library":
            raise CheckError("token 3 of row 0")
        return 0.0

    found = list(agreements(check))
    assert [record["equal"] for record in found] == [True, True, True, False]
    assert {record["steps"] for record in found} == {256}
    assert found[-1]["why"] == "token 3 of row 0"
    assert verdict("9 of 200 tokens are ties") == {"equal": True, "ties": 9, "of": 200}
    good = soaked(lambda given: f"{given.steps} steps", "resident", 10_000)
    assert (good["hangs"], good["lost_tokens"], good["leaked_pages"]) == (0, 0, 0)
    assert good["said"] == "10000 steps"


@pytest.mark.parametrize(
    ("words", "harm"),
    [
        ("nothing for 5.0 s after step 7", "hangs"),
        ("399 pages of 400, lost [3]", "leaked_pages"),
        ("request 4: 11 tokens of 12", "lost_tokens"),
    ],
)
def test_a_soak_that_fails_says_what_was_lost(words: str, harm: str) -> None:
    def soak(_: Any) -> str:
        raise SoakError(words)

    record = soaked(soak, "resident", 10_000)
    assert {name for name in HARM if record[name]} == {harm}


def test_every_comparison_is_a_case_that_its_check_takes() -> None:
    from kernels.decoder import check as decoder_check
    from kernels.fused_step import check as fused_check

    for _, folder, case in comparisons():
        module = {"decoder": decoder_check, "fused_step": fused_check}[folder]
        like = [one for one in module.cases(False) if one["op"] == case["op"]]
        assert any(set(one) == set(case) for one in like), case
