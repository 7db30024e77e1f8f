"""What `trace.json` and the console say of a run's trace, and the keys that say how to read it.

For each key of `trace` that is about reading a file: it changes what it should.
"""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest
from toy import MODEL, TICK, Ran, Turn, linked, play, toy_scenario, write_profile
from typer.testing import CliRunner

from sim.cli import app
from sim.errors import InputError
from sim.load import load
from sim.scenario import Scenario
from sim.trace.chunk import Tally
from sim.trace.names import FORMATS
from sim.trace.unlinked import unlinked
from sim.workload import chunks

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from sim.trace.chunk import Chunk

    Played = Callable[..., Ran]


def row(**keys: Any) -> dict[str, Any]:
    return {"input_length": 8, "output_length": 1} | keys


CHAT = [
    row(session_id="a", timestamp=0),
    row(session_id="a", timestamp=100, delay=10),
    row(session_id="b", timestamp=250, output_length=2),
    row(session_id="b", timestamp=500, delay=2 * TICK * 1e3),
]
AGENTS = [
    {
        "num_turns": 1, "input_prompt_length": 30, "assistant_response_length": [5],
        "tool_call_output_length": [20], "tool_call_latency": [0.1],
        "final_assistant_response_length": 4,
    }
    for _ in range(60)
]  # fmt: skip
"""Sessions without a start."""


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def scenario(tmp_path: Path) -> Callable[..., Scenario]:
    """A scenario of the toy that plays rows, with keys of `trace`."""

    def made(rows: list[dict[str, Any]], seed: int = 0, **keys: Any) -> Scenario:
        file = write(tmp_path / "rows.jsonl", rows)
        return toy_scenario(tmp_path, trace={"file": str(file), **keys}, seed=seed)

    return made


@pytest.fixture
def played(scenario: Callable[..., Scenario]) -> Played:
    return lambda rows, **keys: play(scenario(rows, **keys))


def parts(scenario: Scenario) -> tuple[list[Chunk], Tally]:
    tally = Tally()
    return list(chunks(scenario, tally)), tally


# ---------------------------------------------------------------- keys
def test_sessions(played: Played) -> None:
    closed, opened, auto = (
        played(CHAT, **({"sessions": how} if how else {})) for how in ("closed", "open", None)
    )
    ms = 1e-3 / TICK
    assert closed.ticks("arrival_s") == [0, 20 + 10 * ms, 250 * ms, 250 * ms + 36 + 2]
    assert opened.ticks("arrival_s") == [0, 100 * ms, 250 * ms, 500 * ms]
    assert auto.requests.equals(closed.requests)  # there are delays
    assert [ran.trace["replay"] for ran in (closed, opened)] == ["closed loop", "open loop"]
    assert [ran.trace["requests_that_wait"] for ran in (closed, opened)] == [2, 0]
    assert [ran.trace["sessions"] for ran in (closed, opened)] == [2, 2]
    assert opened.requests.session.tolist() == ["a", "a", "b", "b"]


def test_sessions_of_a_source(tmp_path: Path) -> None:
    trace = {"source": "agent-like", "requests": 60, "rate": "1 /s", "clip_prompt": {"to": 100}}
    ran = {
        how: play(toy_scenario(tmp_path, trace=trace | {"sessions": how}))
        for how in ("auto", "closed", "open")
    }
    assert ran["auto"].requests.equals(ran["closed"].requests)
    assert ran["closed"].trace["replay"] == "closed loop"
    assert ran["open"].trace["replay"] == "open loop"
    assert ran["open"].requests.arrival_s.is_monotonic_increasing
    assert ran["open"].requests.waited_for.max() == 0
    starts = {how: ran[how].requests.groupby("session").arrival_s.min() for how in ran}
    assert starts["open"].equals(starts["closed"])
    # the toy answers at once, where those recorded took seconds
    spans = {
        how: (one.requests.groupby("session").arrival_s.agg("max") - starts[how]).sum()
        for how, one in ran.items()
    }
    assert spans["open"] > spans["closed"] + 100


def test_other_sources_have_no_sessions(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"only with trace\.file or source: agent-like; remove it"):
        toy_scenario(
            tmp_path, trace={"source": "azure-conv-like", "requests": 6, "sessions": "open"}
        )


def test_unlinked_without_recorded_times_and_without_links() -> None:
    turns = linked([Turn(), Turn(30), Turn(after=(0, 1), delay=5)])
    tally = Tally()
    (chunk,) = unlinked(iter(turns), tally)
    assert (chunk.arrival_s / TICK).tolist() == [0, 30, 35]
    assert chunk.links is not None
    assert list(chunk.links.after) == [(), (), ()]
    (note,) = tally.notes
    assert note.endswith("1 requests that follow others in a session are sent at their earliest "
                         "times, as if answers took no time")  # fmt: skip
    plain = [replace(chunk, links=None)]
    (same,) = unlinked(iter(plain), tally)
    assert same is plain[0]


def test_format(played: Played) -> None:
    told = played(CHAT, format="mooncake-sessions")
    assert (told.trace["format"], told.trace["told_by"]) == ("mooncake-sessions", "trace.format")
    found = played(CHAT)
    assert found.trace["format"] == "mooncake-sessions"
    assert "session_id" in found.trace["told_by"]
    assert found.requests.equals(told.requests)
    plain = played(CHAT, format="mooncake")
    assert plain.requests.session.isna().all()
    assert plain.requests.arrival_s.tolist() == [0, 0.1, 0.25, 0.5]


@pytest.mark.parametrize("format", ["auto", *FORMATS])
def test_every_format_can_be_named(format: str) -> None:
    trace = {"file": "x", "format": format}
    assert Scenario.model_validate({"trace": trace, "model": MODEL}).trace.format == format


def test_a_format_that_is_none(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text("trace: {file: x, format: mooncake-session}\nmodel: llama-3-8b\n")
    with pytest.raises(InputError) as caught:
        load(file)
    (line,) = caught.value.lines
    assert line == (
        f"{file}:1:26: trace.format: expected one of auto, {', '.join(FORMATS)}, got "
        "'mooncake-session'; did you mean 'mooncake-sessions'?"
    )


def test_block_tokens(scenario: Callable[..., Scenario], played: Played) -> None:
    rows = [row(timestamp=0, input_length=600, hash_ids=list(range(10)))]
    assert played(rows, block_tokens=64).trace["block_tokens"] == 64
    thirteen = [row(timestamp=0, input_length=600, hash_ids=list(range(13)))]
    assert played(thirteen, block_tokens=48).trace["block_tokens"] == 48
    with pytest.raises(InputError, match="512"):
        play(scenario(rows, block_tokens=512))


def test_session_arrivals(scenario: Callable[..., Scenario], played: Played) -> None:
    with pytest.raises(InputError, match=r"trace\.session_arrivals"):
        play(scenario(AGENTS))
    starts = {
        name: first_turns(played(AGENTS, session_arrivals={"rate": "20 /s"} | keys, seed=seed))
        for name, keys, seed in (
            ("poisson", {}, 0),
            ("fast", {"rate": "200 /s"}, 0),
            ("other", {}, 1),
            ("constant", {"arrivals": "constant"}, 0),
            ("bursty", {"arrivals": "gamma", "burstiness": 0.1}, 0),
        )
    }
    assert starts["fast"] == pytest.approx([time / 10 for time in starts["poisson"]])
    assert starts["other"] != starts["poisson"]
    assert starts["constant"] == pytest.approx([i / 20 for i in range(60)])
    spread = {name: deviation(times) for name, times in starts.items()}
    assert spread["bursty"] > 1.5 * spread["poisson"] > 10 * spread["constant"]


def first_turns(ran: Ran) -> list[float]:
    assert ran.summary["trace_sessions"] == 60
    times: list[float] = ran.requests[ran.requests.waited_for == 0].arrival_s.tolist()
    return times


def deviation(times: list[float]) -> float:
    gaps = [after - before for before, after in pairwise(times)]
    mean = sum(gaps) / len(gaps)
    return float(sum((gap - mean) ** 2 for gap in gaps) ** 0.5)


WEKA = [
    {
        "id": name, "models": ["m"], "block_size": 64, "hash_id_scope": "local",
        "tool_tokens": 64, "system_tokens": 64,
        "requests": [
            {"t": 0, "type": "n", "model": "m", "in": 200, "out": 3, "hash_ids": [1, 2, 3]}
        ],
    }
    for name in ("one", "two")
]  # fmt: skip


def test_shared_prefix(scenario: Callable[..., Scenario]) -> None:
    common = {}
    for shared in (False, True):
        found, _ = parts(scenario(WEKA, session_arrivals={"rate": "1 /s"}, shared_prefix=shared))
        first, second = (set(ids) for chunk in found for ids in chunk.block_ids or ())
        common[shared] = len(first & second)
    assert common == {False: 0, True: 2}


def test_bad_rows(played: Played) -> None:
    bad = [row(timestamp=0), {"timestamp": 3}, row(timestamp=5, output_length=-1)]
    ran = played(bad, bad_rows="skip")
    assert ran.trace["rows"] == ran.trace["requests"] == 1
    assert ran.trace["rows_skipped"] == ran.summary["trace_rows_skipped"] == 2
    assert sum(ran.trace["rows_skipped_by_reason"].values()) == 2
    first, second = ran.trace["rows_skipped_first"]
    assert first.startswith("rows.jsonl:2: ")  # and not where the file lies
    assert second.startswith("rows.jsonl:3")


@pytest.mark.parametrize("key", ["block_tokens", "sessions", "session_arrivals", "shared_prefix"])
def test_keys_about_files_are_refused_without_one(key: str) -> None:
    value = {"block_tokens": 16, "sessions": "open", "shared_prefix": True}.get(key, {"rate": 1.0})
    trace = {"source": "azure-conv-like", "requests": 5, key: value}
    with pytest.raises(ValueError, match=f"{key}: only with trace.file"):
        Scenario.model_validate({"trace": trace, "model": MODEL}, context={"si": True})


def test_keys_about_sessions_that_have_no_effect_are_said(
    scenario: Callable[..., Scenario],
) -> None:
    given = {"sessions": "closed", "session_arrivals": {"rate": "1 /s"}, "shared_prefix": True}
    _, tally = parts(scenario([row(timestamp=0)], format="mooncake", **given))
    assert tally.notes[-3:] == [
        f"{key} has no effect: this mooncake file has no sessions" for key in given
    ]
    _, tally = parts(scenario([row(timestamp=0)], format="mooncake", sessions="auto"))
    assert not any("no effect" in note for note in tally.notes)
    starts = {"rate": "1 /s", "burstiness": 2.0}
    (line,) = scenario([], session_arrivals=starts).warnings()
    assert line.startswith("trace.session_arrivals.burstiness: has no effect here")


def test_keys_survive_the_resolved_scenario(scenario: Callable[..., Scenario]) -> None:
    keys = {
        "block_tokens": 16, "sessions": "open", "session_arrivals": {"rate": "3 /s"},
        "shared_prefix": True,
    }  # fmt: skip
    chosen = scenario(CHAT, **keys)
    data = chosen.resolved()
    again = Scenario.from_resolved(data).trace
    assert all(getattr(again, key) == getattr(chosen.trace, key) for key in keys)
    for key in keys:
        fewer = {name: value for name, value in keys.items() if name != key}
        assert scenario(CHAT, **fewer).hash != chosen.hash


# ---------------------------------------------------------------- the record
def test_rate_scale_leaves_think_times(played: Played) -> None:
    slow, fast = played(CHAT), played(CHAT, rate_scale=10.0)
    assert fast.requests.arrival_s[2] == pytest.approx(0.025)
    for ran in (slow, fast):
        rows = ran.requests.sort_values("arrival_s").groupby("session")
        for name, think in (("a", 0.01), ("b", 2 * TICK)):
            first, second = rows.get_group(name).itertuples()
            assert second.arrival_s == first.finished_s + think
    (change,) = fast.trace["changes"]
    assert (change["change"], change["parameters"]) == ("rate_scale", {"factor": 10.0})


def test_a_file_is_named_wherever_it_lies(tmp_path: Path) -> None:
    records = []
    for folder in (tmp_path / "a", tmp_path / "b"):
        folder.mkdir()
        file = write(folder / "rows.jsonl", CHAT)
        records.append(play(toy_scenario(folder, trace={"file": str(file)})).trace)
    assert records[0] == records[1]
    assert records[0]["file"].startswith("rows.jsonl#")
    assert records[0]["seed"] is None


def test_a_source_has_its_seed(tmp_path: Path) -> None:
    trace = {"source": "azure-conv-like", "requests": 4}
    ran = play(toy_scenario(tmp_path, trace=trace, seed=5))
    assert (ran.trace["source"], ran.trace["seed"]) == ("azure-conv-like", 5)
    assert (ran.trace["requests"], ran.trace["rows"]) == (4, None)


@pytest.fixture
def said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[str, str]]:
    """What a command says on stdout and stderr about rows in a file."""
    monkeypatch.chdir(tmp_path)
    write_profile(tmp_path / "toy.json")

    def call(command: str, rows: list[dict[str, Any]], *more: str, **keys: Any) -> tuple[str, str]:
        write(tmp_path / "rows.jsonl", rows)
        data = {
            "trace": {"file": "rows.jsonl"} | keys, "model": MODEL,
            "hardware": {"profile": "./toy.json"}, "loop": {"max_batch": 4, "token_budget": 64},
        } | ({"sweep": {"trace.rate_scale": [1, 2]}} if command == "sweep" else {})  # fmt: skip
        (tmp_path / "s.yaml").write_text(json.dumps(data))
        done = CliRunner().invoke(app, [command, "s.yaml", "--out", "out", *more])
        assert done.exit_code == 0, done.output
        return done.stdout, done.stderr

    return call


def test_a_run_says_what_it_played(said: Callable[..., tuple[str, str]]) -> None:
    out, err = said("run", [*CHAT, {"broken": 1}], bad_rows="skip")
    lines = out.splitlines()
    (trace,) = (line for line in lines if line.startswith("trace: "))
    assert trace.startswith("trace: rows.jsonl, read as mooncake-sessions (line 1 ")
    assert trace.endswith("; 2 sessions in closed loop, 2 of 4 requests wait for answers")
    (sessions,) = (line for line in lines if line.startswith("sessions: "))
    assert sessions.startswith("sessions: 2, each turn sent after the answers it waits for; from")
    assert "warning: trace: 1 rows skipped: 1 " in err
    assert "; the first: rows.jsonl:5: " in err


def test_a_study_of_sessions_shows_how_long_they_took(
    said: Callable[..., tuple[str, str]],
) -> None:
    assert "session" in said("sweep", CHAT, "--no-plots")[0]
    plain = [row(timestamp=0)]
    assert "session" not in said("sweep", plain, "--no-plots", "--out", "plain")[0]


def test_notes_of_the_reader_are_printed(said: Callable[..., tuple[str, str]]) -> None:
    rows = [row(timestamp=0, session_id="a", priority=3), row(delay=5, session_id="a")]
    _, err = said("run", rows, "--quiet")
    assert "note: trace: " in err
    assert "priority" in err
    _, err = said("sweep", rows, "--quiet", "--no-plots", "--out", "study")
    assert len([line for line in err.splitlines() if "priority" in line]) == 1


def test_a_study_says_how_many_points_a_note_is_about(
    said: Callable[..., tuple[str, str]], tmp_path: Path
) -> None:
    said("sweep", [row(timestamp=0)], "--quiet", "--no-plots", sessions="closed", format="mooncake")
    for record in tmp_path.glob("out/points/*/trace.json"):
        data = json.loads(record.read_text())
        data["notes"] = ["seen"] if not data["changes"] else []
        record.write_text(json.dumps(data))
    rows = [row(timestamp=0)]
    _, err = said("sweep", rows, "-q", "--no-plots", sessions="closed", format="mooncake")
    assert err.splitlines() == ["note: trace: seen (1 of 2 points)"]
