"""Formats with sessions: small files of each by hand, and hostile ones."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from session_files import DRAWN, FORK, load, put, shape, told

from sim.errors import InputError
from sim.trace.chunk import Tally
from sim.trace.ragged import Ragged
from sim.trace.read import read
from sim.trace.turns import Replay

if TYPE_CHECKING:
    from pathlib import Path

SESSIONS = "mooncake-sessions"
DELTA = "mooncake-delta"
AGENTIC = "agentic-mooncake"
APPLIED = "applied-compute"
ALL = (SESSIONS, DELTA, AGENTIC, APPLIED, "weka")


# -- Mooncake with sessions ------------------------------------------------------------------------


def row(session: object = None, prompt: int = 600, output: int = 5, **more: Any) -> dict[str, Any]:
    there = {} if session is None else {"session_id": session}
    return {**there, "input_length": prompt, "output_length": output, **more}


def test_rows_of_a_session_wait_and_rows_without_are_a_stream(tmp_path: Path) -> None:
    path = put(
        tmp_path,
        row("a", 600, timestamp=1000, hash_ids=[0, 1]),
        row(None, 700, timestamp=1500, hash_ids=[0, 2]),
        row("a", 1300, timestamp=9000, delay=250, hash_ids=[0, 1, 3]),
        row(None, 100, timestamp=4000, hash_ids=[4]),
        row("a", 1400, delay_ms=1500.0, hash_ids=[0, 1, 5]),
        row(7, 800, timestamp=2000, hash_ids=[6, 7]),
    )
    chunk = load(path, SESSIONS)
    assert shape(chunk) == [
        (0.0, 600, 5, "a", (), 0.0),
        (0.25, 1300, 5, "a", (0,), 0.25),
        (0.5, 700, 5, "", (), 0.0),
        (1.0, 800, 5, "7", (), 0.0),
        (1.75, 1400, 5, "a", (1,), 1.5),
        (3.0, 100, 5, "", (), 0.0),
    ]
    assert chunk.links is not None
    assert chunk.links.recorded_s.tolist()[:4] == [0.0, 8.0, 0.5, 1.0]
    assert np.isnan(chunk.links.recorded_s[4])
    ids = [(0, 1), (0, 1, 3), (0, 2), (6, 7), (0, 1, 5), (4,)]
    assert chunk.block_ids == Ragged.of(ids)


def test_aliases_are_the_same_and_other_keys_are_told_of(tmp_path: Path) -> None:
    names = {"input_tokens": 600, "output_tokens": 5, "session_id": "a"}
    tally = Tally()
    chunk = load(
        put(
            tmp_path,
            {**names, "created_time": 0, "priority": 3, "request_id": "x"},
            {**names, "timestamp": None, "delay": 40, "output_token_ids": [1, 2, 3, 4, 5]},
        ),
        SESSIONS,
        tally=tally,
    )
    assert shape(chunk)[1] == (0.04, 600, 5, "a", (0,), 0.04)
    names = ("priority", "request_id", "output_token_ids")
    assert {f"key not read: '{name}'" for name in names} <= set(tally.notes)
    both = put(tmp_path, row("a", timestamp=0, created_time=1))
    assert "timestamp, created_time: two values" in told(both, SESSIONS)


def test_how_sessions_are_replayed_can_be_said(tmp_path: Path) -> None:
    path = put(tmp_path, row("a", timestamp=0), row("a", timestamp=3000, delay=1000))
    for how, arrival, after in (("closed", 1.0, (0,)), ("auto", 1.0, (0,)), ("open", 3.0, ())):
        last = shape(load(path, SESSIONS, replay=Replay(how)))[1]  # type: ignore[arg-type]
        assert (last[0], last[4]) == (arrival, after)
    times_only = put(tmp_path, row("a", timestamp=0), row("a", timestamp=3000))
    assert shape(load(times_only, SESSIONS))[1][4] == ()
    assert shape(load(times_only, SESSIONS, replay=Replay("closed")))[1][4:] == ((0,), 3.0)


def test_a_shared_prefix_that_the_format_does_not_know_is_told_of(tmp_path: Path) -> None:
    tally = Tally()
    path = put(tmp_path, row("a", timestamp=0))
    load(path, SESSIONS, replay=Replay(shared_prefix=True), tally=tally)
    assert any("shared prefix is not used" in note for note in tally.notes)


def test_a_session_without_a_time_starts_at_the_stated_rate(tmp_path: Path) -> None:
    path = put(tmp_path, row("a"), row("a", delay=500), row("b"))
    assert "--session-rate" in told(path, SESSIONS)
    assert [x[0] for x in shape(load(path, SESSIONS, replay=DRAWN))] == [0.0, 0.5, 100.0]


def test_a_row_without_a_length_is_as_long_as_its_blocks(tmp_path: Path) -> None:
    path = put(
        tmp_path, {"session_id": "a", "timestamp": 0, "output_length": 1, "hash_ids": [1, 2]}
    )
    assert load(path, SESSIONS).prompt_tokens.tolist() == [1024]
    assert load(path, SESSIONS, block_tokens=64).prompt_tokens.tolist() == [128]


def test_bad_rows_of_sessions_are_told_of_by_line(tmp_path: Path) -> None:
    first = row("a", timestamp=0)
    cases = {
        "delay: 5 ms on the first turn": row("b", timestamp=0, delay=5),
        "output_length: not there": {"session_id": "b", "timestamp": 0, "input_length": 1},
        "input_length: not there": {"session_id": "b", "timestamp": 0, "output_length": 1},
        "timestamp: not there": row(),
        "output_length: 0 tokens": row("a", output=0, delay=1),
        "delay: -1 is negative": row("a", delay=-1),
        "is above 1,000,000,000 s": row("a", delay=2e12),
        "session_id: a list is not": row(["a"], timestamp=0),
        "hash_ids: 'x' is not a whole": row("a", delay=1, hash_ids=["x"]),
        "a list is no JSON object": [1],
        "not JSON": '{"session_id": "a"\n',
        "NaN is no JSON number": '{"timestamp": NaN}\n',
        "nested too deeply": "[" * 100_000 + "\n",
    }
    for text, bad in cases.items():
        found = told(put(tmp_path, first, bad), SESSIONS)
        assert text in found
        assert "trace.jsonl:2" in found
    late = put(tmp_path, row("b"), row("b", timestamp=5))
    assert "the first turn of session 'b' has none" in told(late, SESSIONS, replay=DRAWN)


def test_a_skipped_turn_leaves_its_session_whole(tmp_path: Path) -> None:
    path = put(
        tmp_path, row("a", timestamp=0), row("a", output=0, delay=100), row("a", 900, delay=50)
    )
    tally = Tally()
    found = shape(load(path, SESSIONS, bad_rows="skip", tally=tally))
    assert [x[4:] for x in found] == [((), 0.0), ((0,), pytest.approx(0.15))]
    assert tally.reasons == {"zero output tokens": 1}
    assert tally.examples == [
        f"{path}:2: output_length: 0 tokens, a failed request; delete the line"
    ]


# -- Mooncake delta --------------------------------------------------------------------------------


def test_delta_rows_grow_to_whole_prompts(tmp_path: Path) -> None:
    path = put(
        tmp_path,
        row("a", 130, 40, timestamp=0, hash_ids=[50, 60, 70]),
        row("b", 64, 1, timestamp=10, hash_ids=[50]),
        row("a", 20, 6, delay=1000, hash_ids=[80]),
        row("a", 1, 1, delay=0, hash_ids=[80]),
        row("b", 64, 1, delay=9000, hash_ids=[60]),
    )
    chunk = load(path, DELTA, block_tokens=64)
    # 130, then + 40 + 20, then + 6 + 1; blocks that an answer is in are the session's own
    assert [x[:4] for x in shape(chunk)] == [
        (0.0, 130, 40, "a"), (0.01, 64, 1, "b"), (1.0, 190, 6, "a"), (1.0, 197, 1, "a"),
        (9.01, 129, 1, "b"),
    ]  # fmt: skip
    assert chunk.block_ids == Ragged.of([(0, 1, 2), (0,), (0, 1, 3), (0, 1, 4, 5), (0, 6, 7)])


def test_delta_blocks_that_are_full_stay_when_the_prompt_grows(tmp_path: Path) -> None:
    turns = [row("a", 10, 60, delay=1, hash_ids=[1]) for _ in range(4)]
    path = put(tmp_path, row("a", 10, 60, timestamp=0, hash_ids=[1]), *turns)
    chunk = load(path, DELTA, block_tokens=16)
    rows = list(chunk.block_ids or ())
    for earlier, later, tokens in zip(rows, rows[1:], chunk.prompt_tokens.tolist(), strict=False):
        full = tokens // 16
        assert later[:full] == earlier[:full]
        assert not set(later[full:]) & set(earlier)
    assert chunk.prompt_tokens.tolist() == [10, 80, 150, 220, 290]


def test_delta_needs_the_block_size_and_every_turn(tmp_path: Path) -> None:
    path = put(tmp_path, row("a", 130, timestamp=0, hash_ids=[1, 2, 3]))
    assert "3 ids for 130 tokens do not fit blocks of 512" in told(path, DELTA)
    assert "--block-tokens" in told(path, DELTA)
    bad = put(
        tmp_path, row("a", 130, timestamp=0), row("a", -3, delay=1), row("a", 9, delay=1),
        row(None, 0, timestamp=4), row(None, 9, timestamp=5),
    )  # fmt: skip
    tally = Tally()
    assert load(bad, DELTA, bad_rows="skip", tally=tally).prompt_tokens.tolist() == [130, 9]
    assert tally.reasons == {
        "negative tokens": 1, "turn before left out": 1, "zero prompt tokens": 1,
    }  # fmt: skip


def test_a_failed_delta_turn_adds_its_input_only(tmp_path: Path) -> None:
    path = put(
        tmp_path, row("a", 100, 7, timestamp=0), row("a", 10, 0, delay=1), row("a", 1, 1, delay=1)
    )
    chunk = load(path, DELTA, bad_rows="skip")
    assert chunk.prompt_tokens.tolist() == [100, 118]
    assert chunk.block_ids is None


# -- agentic Mooncake ------------------------------------------------------------------------------


def test_agentic_version_1(tmp_path: Path) -> None:
    path = put(
        tmp_path,
        {**row("s", 300), "request_id": "end", "wait_for": ["b", "c"], "delay": 10,
         "tool_wait_ms": 500, "prefix_reset": True},
        {**row("s", 100), "request_id": "a", "timestamp": 2000, "branches": ["b", "c"]},
        {**row("t", 200), "request_id": "b", "wait_for": ["a"], "timestamp": 1},
        {**row(None, 201), "request_id": "c", "wait_for": ["a", "a"], "delay_ms": 3000},
    )  # fmt: skip
    tally = Tally()
    assert shape(load(path, AGENTIC, tally=tally)) == [
        (0.0, 100, 5, "s", (), 0.0),
        (0.0, 200, 5, "t", (0,), 0.0),
        (3.0, 201, 5, "", (0,), 3.0),
        (3.51, 300, 5, "s", (1, 2), 0.51),
    ]
    assert {"key not read: 'prefix_reset'", "key not read: 'branches'"} <= set(tally.notes)


HEADER = {
    "schema": "dynamo.agentic_mooncake", "version": 2, "block_size": 64, "hash_id_scope": "local",
    "source": {"format": "mine", "digest": "0"},
}  # fmt: skip


def node(name: str, play: str, prompt: int, at_ms: float, *waits: Any, **more: Any) -> Any:
    dependencies = [
        {"request_id": key, "trigger": trigger, "delay_ms": delay, "relation": "sequence"}
        for key, trigger, delay in waits
    ]
    return {
        "request_id": name, "play_id": play, "session_id": f"{play}-{name}", "model": "m",
        "input_length": prompt, "output_length": 2, "not_before_ms": at_ms,
        "dependencies": dependencies, **more,
    }  # fmt: skip


def test_agentic_version_2(tmp_path: Path) -> None:
    path = put(
        tmp_path,
        HEADER,
        node("p1", "p", 100, 500.0, hash_ids=[9, 8]),
        node("p2", "p", 129, 0.0, ("p1", "completion", 250.0), hash_ids=[9, 8, 7]),
        node("p3", "p", 64, 4500.0, ("p2", "completion", 1.0), hash_ids=[9]),
        node("p4", "p", 65, 0.0, ("p2", "dispatch", 100.0), hash_ids=[9, 1]),
        node("q1", "q", 128, 700.0, hash_ids=[9, 8]),
    )
    tally = Tally()
    chunk = load(path, AGENTIC, tally=tally)
    assert shape(chunk) == [
        (0.0, 100, 2, "p", (), 0.0),
        (pytest.approx(0.2), 128, 2, "q", (), 0.0),
        (0.25, 129, 2, "p", (0,), 0.25),
        (0.35, 65, 2, "p", (0,), 0.35),
        (4.0, 64, 2, "p", (2,), 0.001),
    ]
    assert chunk.block_ids == Ragged.of([(0, 1), (4, 5), (0, 1, 2), (0, 3), (0,)])
    assert tally.block_tokens == 64


def test_plays_of_version_2_can_be_spread(tmp_path: Path) -> None:
    path = put(tmp_path, HEADER, *(node(f"{p}1", p, 64, 0.0, hash_ids=[1]) for p in "pqr"))
    tally = Tally()
    assert [x[0] for x in shape(load(path, AGENTIC, tally=tally))] == [0.0, 0.0, 0.0]
    assert any("all 3 plays begin at the same time" in note for note in tally.notes)
    spread = load(path, AGENTIC, replay=DRAWN)
    assert spread.arrival_s.tolist() == [0.0, 100.0, 200.0]
    assert list(spread.block_ids or ()) == [(0,), (1,), (2,)]
    one = {**HEADER, "hash_id_scope": "global"}
    path = put(tmp_path, one, *(node(f"{p}1", p, 64, 0.0, hash_ids=[1]) for p in "pqr"))
    assert list(load(path, AGENTIC).block_ids or ()) == [(0,), (0,), (0,)]


def test_bad_agentic_files_are_told_of(tmp_path: Path) -> None:
    good = {**row("s", timestamp=0), "request_id": "a"}
    rows = {
        "'b' waits for itself": {**row("s"), "request_id": "b", "wait_for": ["b"]},
        "waits for 'x', which no request": {**row("s"), "request_id": "b", "wait_for": ["x"]},
        "'a' is the name of line 1": good,
        "request_id: not there": row("s"),
        "wait_for: 'a' is no list": {**row("s"), "request_id": "b", "wait_for": "a"},
        "tool_wait_ms: -1 is negative": {**row("s"), "request_id": "b", "tool_wait_ms": -1},
    }
    for text, bad in rows.items():
        assert text in told(put(tmp_path, good, bad), AGENTIC)
    headers = {
        "version 3 is not known": {**HEADER, "version": 3},
        "schema: 'x' version": {**HEADER, "schema": "x"},
        "block_size: 0 is no size": {**HEADER, "block_size": 0},
        "hash_id_scope: None is not known": {**HEADER, "hash_id_scope": None},
    }
    for text, bad in headers.items():
        assert text in told(put(tmp_path, bad, node("a", "p", 1, 0.0)), AGENTIC)
    size = put(tmp_path, HEADER, node("a", "p", 1, 0.0))
    assert "64 in the file, but 16 is stated" in told(size, AGENTIC, block_tokens=16)
    nodes = {
        "play_id: not there": {**node("a", "p", 1, 0.0), "play_id": None},
        "not_before_ms: not there": {"request_id": "a", "play_id": "p"},
        "trigger: 'later' is not known": node("a", "p", 1, 0.0, ("b", "later", 1)),
        "dependencies: 3 is no list": {**node("a", "p", 1, 0.0), "dependencies": 3},
        "dependencies: 3 is no object": {**node("a", "p", 1, 0.0), "dependencies": [3]},
    }
    for text, bad in nodes.items():
        assert text in told(put(tmp_path, HEADER, bad), AGENTIC)
    assert "no requests in the file" in told(put(tmp_path, HEADER), AGENTIC)


# -- Applied Compute -------------------------------------------------------------------------------

TASK = {
    "num_turns": 2, "input_prompt_length": 100, "assistant_response_length": [20, 30],
    "tool_call_output_length": [8, 0], "tool_call_latency": [1.5, 0.25],
    "final_assistant_response_length": 40,
}  # fmt: skip


def test_applied_compute_sessions_grow(tmp_path: Path) -> None:
    tally = Tally()
    path = put(tmp_path, TASK, {**TASK, "input_prompt_length": 65, "more": 1})
    chunk = load(path, APPLIED, replay=DRAWN, tally=tally)
    assert shape(chunk) == [
        (0.0, 100, 20, "session-1", (), 0.0),
        (1.5, 128, 30, "session-1", (0,), 1.5),
        (1.75, 158, 40, "session-1", (1,), 0.25),
        (100.0, 65, 20, "session-2", (), 0.0),
        (101.5, 93, 30, "session-2", (3,), 1.5),
        (101.75, 123, 40, "session-2", (4,), 0.25),
    ]
    assert chunk.block_ids == Ragged.of([(0,), (0, 1), (0, 1), (2,), (2,), (2,)])
    assert (tally.block_tokens, tally.last_block) == (64, "full")
    assert "key not read: 'more'" in tally.notes
    small = load(path, APPLIED, replay=DRAWN, block_tokens=32)
    assert list(small.block_ids or ())[:2] == [(0, 1, 2), (0, 1, 2, 3)]
    assert "no recorded time" in told(path, APPLIED, replay=Replay("open", rate_per_s=1.0))


def test_bad_applied_compute_lines_are_told_of(tmp_path: Path) -> None:
    cases = {
        "num_turns: not there": {},
        "num_turns: -1 is no number": {**TASK, "num_turns": -1},
        "tool_call_latency: 1 values, but num_turns is 2": {**TASK, "tool_call_latency": [1]},
        "assistant_response_length: 0 tokens": {**TASK, "assistant_response_length": [0, 1]},
        "tool_call_latency: -1 is negative": {**TASK, "tool_call_latency": [-1, 1]},
        "the whole prompt: 10000100 is above": {
            **TASK,
            "tool_call_output_length": [9_999_980, 0],
        },
    }
    for text, bad in cases.items():
        assert text in told(put(tmp_path, bad), APPLIED, replay=DRAWN)


# -- hostile files ---------------------------------------------------------------------------------

VALUES = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers(-(2**70), 2**70) | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=4,
)
GOOD: dict[str, list[Any]] = {
    SESSIONS: [row("a", timestamp=0, hash_ids=[1, 2]), row("a", delay=5, hash_ids=[1, 2])],
    DELTA: [row("a", timestamp=0, hash_ids=[1, 2]), row("a", 10, delay=5, hash_ids=[3])],
    AGENTIC: [HEADER, node("p1", "p", 64, 0.0), node("p2", "p", 64, 0.0, ("p1", "dispatch", 3))],
    APPLIED: [TASK],
    "weka": [FORK],
}


def paths_into(value: Any, way: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The ways to all values inside of *value*."""
    inner = value.items() if isinstance(value, dict) else enumerate(value)
    found = [way] if way else []
    if isinstance(value, dict | list):
        for key, item in inner:
            found += (
                paths_into(item, (*way, key)) if isinstance(item, dict | list) else [(*way, key)]
            )
    return found


def changed(value: Any, way: tuple[Any, ...], to: Any) -> Any:
    if not way:
        return to
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[way[0]] = changed(value[way[0]], way[1:], to)
    return copy


@pytest.mark.parametrize("format", ALL)
@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_any_value_anywhere_ends_in_requests_or_in_one_clear_error(
    tmp_path_factory: pytest.TempPathFactory, format: str, data: st.DataObject
) -> None:
    rows = GOOD[format]
    way = data.draw(st.sampled_from(paths_into(rows)))
    bad = changed(rows, way, data.draw(VALUES))
    path = tmp_path_factory.getbasetemp() / f"{format}.jsonl"
    path.write_text("".join(json.dumps(one) + "\n" for one in bad))
    for bad_rows in ("error", "skip"):
        lines: list[str] = []
        try:
            for chunk in read(path, format, bad_rows=bad_rows, replay=Replay(rate_per_s=1.0)):
                assert np.isfinite(chunk.arrival_s).all()
                assert (np.diff(chunk.arrival_s) >= 0).all()
                assert min(chunk.prompt_tokens.min(), chunk.output_tokens.min()) >= 1
        except InputError as error:
            lines = error.lines
        assert all(len(line) < 600 and line.isprintable() for line in lines)


@pytest.mark.parametrize("format", ALL)
def test_files_that_are_no_trace_end_in_one_line(tmp_path: Path, format: str) -> None:
    for text in ("\n \n", "null\n", "[]\n", "{}\n", "{" * 50_000 + "\n", "\0\n", "1" * 6000 + "\n"):
        path = put(tmp_path, text)
        assert len(told(path, format, replay=DRAWN).splitlines()) == 1
    path = tmp_path / "latin"
    path.write_bytes(b'{"id": "\xff"}\n')
    assert "not UTF-8" in told(path, format, replay=DRAWN)
