"""Sessions in the figures of a trace: by hand, against a plain count, and in bounded memory."""

from __future__ import annotations

import json
from math import nan
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from sim.cli_trace import app
from sim.errors import InputError
from sim.trace.chunk import Chunk, Links
from sim.trace.look.prompts import Prompts
from sim.trace.look.sessions import Sessions
from sim.trace.ragged import Ragged

if TYPE_CHECKING:
    from pathlib import Path

Row = tuple[float, str, list[int], float, list[int]]  # time, session, after, delay, ids


def chunk_of(rows: list[Row], recorded: list[float] | None = None, block: int = 10) -> Chunk:
    times, names, after, delays, ids = (list(column) for column in zip(*rows, strict=True))
    recorded_s = np.full(len(rows), nan) if recorded is None else np.array(recorded)
    links = Links(names, Ragged.of(after), np.array(delays), recorded_s)
    prompts = np.array([max(1, block * len(row)) for row in ids], dtype=np.int64)
    ones = np.ones(len(rows), dtype=np.int64)
    return Chunk(np.array(times), prompts, ones, Ragged.of(ids), links)


def shape_of(chunk: Chunk, cuts: tuple[int, ...] = ()) -> dict[str, Any]:
    sessions = Sessions()
    for start, stop in zip((0, *cuts), (*cuts, len(chunk)), strict=True):
        if stop > start:
            sessions.add(chunk.part(start, stop), start)
    found = sessions.summary()
    assert found is not None
    return found


# a session of three turns with a fork and a join, one of two turns, and a request of its own
ROWS: list[Row] = [
    (0.0, "a", [], 0.0, [1, 2]),
    (1.0, "b", [], 0.0, [1, 9]),
    (2.0, "a", [0], 2.0, [1, 2, 3, 4]),
    (3.0, "a", [0], 3.0, [1, 2, 5]),
    (4.0, "", [], 0.0, [7]),
    (8.0, "a", [2, 3], 4.0, [1, 2, 3, 4, 6]),
    (10.0, "b", [1], 1.0, [1]),
]


@pytest.mark.parametrize("cuts", [(), (3,), (1, 2, 3, 4, 5, 6)])
def test_a_fork_and_a_join_by_hand(cuts: tuple[int, ...]) -> None:
    found = shape_of(chunk_of(ROWS), cuts)
    assert found["sessions"] == 2
    assert (found["requests_in_sessions"], found["requests_outside_sessions"]) == (6, 1)
    assert found["turns_per_session"]["max"] == 4
    assert found["turns_per_session"]["mean"] == 3.0
    assert found["one_turn_share"] == 0.0
    assert found["session_span_s"]["max"] == 9.0
    assert found["mean_concurrent_sessions"] == pytest.approx((8 + 9) / 10)
    assert found["peak_concurrent_sessions"] == 2
    # a: 2, 1, 5; b: 9
    assert found["gap_between_turns_s"]["mean"] == pytest.approx(17 / 4)
    assert found["waiting_share"] == pytest.approx(4 / 7)
    assert found["join_share"] == pytest.approx(1 / 7)
    assert found["fork_share"] == pytest.approx(1 / 7)
    assert found["delay_after_completion_s"]["mean"] == pytest.approx(10 / 4)
    # growth 20, 10, 10 of the joined turn against the longer one, and -10
    assert found["prompt_growth_tokens"]["mean"] == pytest.approx(40 / 3)
    assert found["prompt_shrinks_share"] == 0.25
    assert found["prompts_compared_share"] == 1.0
    extends = found["extends"]
    assert extends["blocks_share"] == pytest.approx((2 + 2 + 4 + 1) / (4 + 3 + 5 + 1))
    assert extends["whole_prompt_before_share"] == 1.0


def test_sessions_that_are_replayed_open_follow_their_turns() -> None:
    rows: list[Row] = [(at, name, [], 0.0, ids) for at, name, _, _, ids in ROWS]
    found = shape_of(chunk_of(rows), (2, 5))
    assert found["waiting_share"] == found["join_share"] == found["fork_share"] == 0.0
    assert found["delay_after_completion_s"] is None
    # the third turn of a is now compared with the second: 3 blocks for 4, 2 in common
    assert found["prompt_shrinks_share"] == 0.5
    assert found["extends"]["blocks_share"] == pytest.approx((2 + 2 + 2 + 1) / (4 + 3 + 5 + 1))


def test_recorded_times_go_before_earliest_ones() -> None:
    rows: list[Row] = [(0.0, "a", [], 0.0, [1]), (1.0, "a", [0], 1.0, [1, 2])]
    assert shape_of(chunk_of(rows))["session_span_s"]["max"] == 1.0
    found = shape_of(chunk_of(rows, [0.0, 31.0]))
    assert found["session_span_s"]["max"] == found["gap_between_turns_s"]["max"] == 31.0


def test_dependencies_without_sessions_have_a_shape_too() -> None:
    rows: list[Row] = [(0.0, "", [], 0.0, [1]), (1.0, "", [0], 1.0, [1, 2])]
    found = shape_of(chunk_of(rows))
    assert found["sessions"] == 0
    assert found["turns_per_session"] is None
    assert found["waiting_share"] == 0.5
    assert found["extends"]["blocks_share"] == 0.5


def test_links_of_nobody_have_no_shape() -> None:
    sessions = Sessions()
    sessions.add(chunk_of([(0.0, "", [], 0.0, [1])]), 0)
    assert sessions.summary() is None


@settings(deadline=None, max_examples=40)
@given(data=st.data())
def test_any_chunks_give_the_figures_of_a_plain_count(data: st.DataObject) -> None:
    count = data.draw(st.integers(1, 25))
    names = data.draw(st.lists(st.sampled_from("abc "), min_size=count, max_size=count))
    rows: list[Row] = []
    for at, name in enumerate(names):
        after = data.draw(st.lists(st.integers(0, at - 1), unique=True, max_size=2)) if at else []
        prefix = rows[data.draw(st.integers(0, at - 1))][4] if at else []
        kept = data.draw(st.integers(0, len(prefix)))
        new = data.draw(st.integers(0, 3))
        ids = [*prefix[:kept], *(1000 * (at + 1) + i for i in range(new))]
        rows.append((float(at), name.strip(), sorted(after), 1.0 if after else 0.0, ids))
    if not any(name.strip() for name in names) and not any(row[2] for row in rows):
        return
    cuts = tuple(sorted(data.draw(st.sets(st.integers(1, max(1, count - 1)), max_size=4))))
    found = shape_of(chunk_of(rows), tuple(cut for cut in cuts if cut < count))
    turns = [sum(row[1] == name for row in rows) for name in "abc"]
    assert found["sessions"] == sum(map(bool, turns))
    common = blocks = compared = 0
    last: dict[str, int] = {}
    for at, (_, name, after, _, ids) in enumerate(rows):
        before = after or ([last[name]] if name in last else [])
        if name:
            last[name] = at
        if not before:
            continue
        compared += 1
        alike = []
        for other in before:
            pairs = zip(ids, rows[other][4], strict=False)
            alike.append(next((i for i, (x, y) in enumerate(pairs) if x != y), None))
            if alike[-1] is None:
                alike[-1] = min(len(ids), len(rows[other][4]))
        common, blocks = common + max(filter(None, alike), default=0), blocks + len(ids)
    assert found["prompts_compared_share"] == (1.0 if compared else None)
    if blocks:
        assert found["extends"]["blocks_share"] == pytest.approx(common / blocks)


def test_prompts_are_kept_within_bounds() -> None:
    prompts = Prompts(most_rows=10, most_ids=40)
    rows: list[Row] = [(float(i), "a", [], 0.0, list(range(6))) for i in range(20)]
    whole = chunk_of(rows)
    nothing = np.zeros(0, dtype=np.int64)
    for start in range(0, 20, 4):
        prompts.add(whole.part(start, start + 4), start, nothing, nothing)
        assert len(prompts._positions) <= 6
        assert prompts._positions[-1] == start + 3
    # of the first request nothing is left, of the one before all
    found = prompts.add(whole.part(0, 1), 20, np.zeros(2, dtype=np.int64), np.array([0, 19]))
    assert found.common.tolist() == [6]


def test_what_cannot_be_compared_is_counted_out() -> None:
    sessions = Sessions()
    sessions._prompts = Prompts(most_rows=2, most_ids=100)
    rows: list[Row] = [(float(i), "ab"[i % 2], [], 0.0, [1, i]) for i in range(8)]
    whole = chunk_of(rows)
    for start in range(0, 8, 4):
        sessions.add(whole.part(start, start + 4), start)
    found = sessions.summary()
    assert found is not None
    assert found["prompts_compared_share"] == 1.0  # the two that are left are the ones needed
    sessions.add(chunk_of([(9.0, "a", [0], 1.0, [1])]), 8)
    found = sessions.summary()
    assert found is not None
    assert found["prompts_compared_share"] == pytest.approx(6 / 7)


def test_very_long_prompts_are_taken_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = shape_of(chunk_of(ROWS))
    monkeypatch.setattr("sim.trace.look.sessions.MOST_IDS", 4)
    assert shape_of(chunk_of(ROWS)) == expected


# the command --------------------------------------------------------------------------------


def run(*arguments: object) -> Any:
    return CliRunner().invoke(app, ["inspect", *(str(argument) for argument in arguments)])


@pytest.fixture
def chats(tmp_path: Path) -> Path:
    path = tmp_path / "t.jsonl"
    rows = []
    for chat in range(5):
        for turn in range(3):
            row: dict[str, Any] = {"session_id": f"c{chat}", "input_length": 512 * (turn + 1)}
            row |= {"output_length": 9, "hash_ids": [100 * chat + i for i in range(turn + 1)]}
            row |= {"timestamp": 1000 * chat} if turn == 0 else {"delay": 2500}
            rows.append(row)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_sessions_of_a_file(chats: Path) -> None:
    result = run(chats, "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)["sessions"]
    assert found["sessions"] == 5
    assert found["turns_per_session"]["p50"] == 3
    assert found["delay_after_completion_s"]["p50"] == 2.5
    assert found["waiting_share"] == pytest.approx(10 / 15)
    assert found["extends"]["blocks_share"] == pytest.approx(15 / 25)
    assert "between turns" in run(chats).stdout


@pytest.mark.parametrize("mode", ["opened", ""])
def test_unknown_ways_to_replay_are_refused(chats: Path, mode: str) -> None:
    result = run(chats, "--sessions", mode)
    assert isinstance(result.exception, InputError)
    assert "write one of auto, open, closed" in str(result.exception)


WEKA = {
    "id": "s", "models": ["m"], "block_size": 64, "hash_id_scope": "local", "tool_tokens": 0,
    "system_tokens": 0,
}  # fmt: skip


@pytest.fixture
def agents(tmp_path: Path) -> Path:
    path = tmp_path / "t.jsonl"
    lines = []
    for session in range(40):
        requests = []
        for turn in range(3):
            request = {"t": 10.0 * turn, "type": "n", "model": "m", "in": 128 * (turn + 1)}
            request |= {"out": 5, "hash_ids": list(range(1, 2 * turn + 3)), "api_time": 4.0}
            requests.append(request | {"think_time": 6.0 if turn else 0.0})
        lines.append(json.dumps(WEKA | {"id": f"s{session}", "requests": requests}) + "\n")
    path.write_text("".join(lines))
    return path


def test_a_default_rate_of_sessions_is_said(agents: Path) -> None:
    result = run(agents, "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found["format"] == "weka"
    assert found["sessions"]["sessions"] == 40
    (note,) = (note for note in found["notes"] if "--session-rate" in note)
    assert note.startswith("0.1 sessions a second is a default")
    assert found["duration_s"] == pytest.approx(400, rel=0.5)


def test_a_rate_of_sessions_changes_the_figures(agents: Path) -> None:
    found = json.loads(run(agents, "--json", "--session-rate", 10).stdout)
    assert not any("default" in note for note in found["notes"])
    assert found["duration_s"] < 60
    result = run(agents, "--session-rate", 0)
    assert isinstance(result.exception, InputError)
    assert "--session-rate" in str(result.exception)


def test_a_rate_without_effect_is_said(chats: Path, tmp_path: Path) -> None:
    assert not any("rate" in note for note in json.loads(run(chats, "--json").stdout)["notes"])
    notes = json.loads(run(chats, "--json", "--session-rate", 3).stdout)["notes"]
    assert any("the rate of sessions is not used" in note for note in notes)
    path = tmp_path / "t.csv"
    path.write_text("arrived_at,num_prefill_tokens,num_decode_tokens\n0,10,1\n")
    notes = json.loads(run(path, "--json", "--session-rate", 3).stdout)["notes"]
    assert notes == ["--session-rate has no effect: the file has no sessions without a start"]
