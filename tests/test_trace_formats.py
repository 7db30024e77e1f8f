"""Other publishers' formats: exact values in their shape, sessions, and what is left out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from sim.cli_trace import app
from sim.errors import InputError
from sim.trace.chunk import Chunk, Tally
from sim.trace.detect import detect, explain
from sim.trace.formats import chains, turns_of
from sim.trace.formats.burstgpt import turns as burstgpt_turns
from sim.trace.read import read
from sim.trace.rows import Findings
from sim.trace.turns import Replay, Turn

TRACES = Path(__file__).parents[1].parent / "shared" / "traces"
PART_1 = "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n"
PART_3 = (
    "Timestamp,Session ID,Elapsed time,Model,Request tokens,Response tokens,Total tokens,Log Type\n"
)
VIDUR = "arrived_at,num_prefill_tokens,num_decode_tokens"
SPLITWISE = (
    "request_id,request_type,application_id,arrival_timestamp,batch_size,prompt_size,token_size\n"
)


def need(path: Path) -> Path:
    if not path.exists():
        pytest.skip(f"{path.name} is not in {path.parent}")
    return path


def put(tmp_path: Path, text: str, name: str = "t") -> Path:
    path = tmp_path / name
    path.write_text(text)
    return path


def lines(*records: dict[str, Any]) -> str:
    return "".join(json.dumps(record) + "\n" for record in records)


def requests(path: Path, **options: Any) -> list[tuple[float, int, int]]:
    rows = []
    for chunk in read(path, **options):
        columns = (chunk.arrival_s, chunk.prompt_tokens, chunk.output_tokens)
        rows += list(zip(*(column.tolist() for column in columns), strict=True))
    return rows


def one(path: Path, **options: Any) -> Chunk:
    (chunk,) = read(path, **options)
    return chunk


def turns(format: str, path: Path, **replay: Any) -> list[Turn]:
    tally = Tally()
    findings = Findings(path, "error", tally)
    found = list(turns_of[format](path, findings, tally, Replay(**replay)))
    findings.check()
    return found


# Azure --------------------------------------------------------------------------------------


def test_azure_2025_says_that_images_are_not_read(tmp_path: Path) -> None:
    tally = Tally()
    text = "TIMESTAMP,NumImages,ContextTokens,GeneratedTokens\n2024-10-15T12:00:00.269Z,3,770,491\n"
    assert requests(put(tmp_path, text), tally=tally) == [(0.0, 770, 491)]
    assert [note.split()[0] for note in tally.notes] == ["NumImages"]


# BurstGPT -----------------------------------------------------------------------------------


def test_burstgpt_counts_from_its_first_row_and_keeps_failures_apart(tmp_path: Path) -> None:
    path = put(
        tmp_path,
        PART_1
        + "5,ChatGPT,472,18,490,Conversation log\n"
        + "45,ChatGPT,1087,0,1087,Conversation log\n"
        + "45,GPT-4,0,7,7,API log\n"
        + "118,GPT-4,417,276,693,API log\n",
    )
    assert explain(path) == (
        "burstgpt",
        "line 1 has the columns Timestamp, Request tokens, Response tokens",
    )
    for policy in ("error", "skip"):
        tally = Tally()
        chunk = one(path, bad_rows=policy, tally=tally)
        assert chunk.arrival_s.tolist() == [0.0, 113.0]
        assert chunk.prompt_tokens.tolist() == [472, 417]
        assert chunk.links is None
        assert (tally.rows, tally.skipped, tally.examples) == (2, 2, [])
        assert tally.reasons == {"failed request": 1, "no prompt tokens": 1}
        assert "columns not read: 'Model, Total tokens, Log Type'" in tally.notes


def test_burstgpt_failures_count_alike_on_the_careful_path(tmp_path: Path) -> None:
    rows = "".join(f"{i},GPT-4,{i % 5},{i % 7},9,API log\n" for i in range(60))
    fast, slow = Tally(), Tally()
    plain = requests(put(tmp_path, PART_1 + rows), tally=fast)
    quoted = PART_1 + rows.replace("GPT-4", '"GPT-4"')
    assert requests(put(tmp_path, quoted), tally=slow) == plain
    assert (slow.rows, slow.skipped, slow.reasons) == (fast.rows, fast.skipped, fast.reasons)
    assert fast.reasons == {"failed request": 9, "no prompt tokens": 10}
    assert len(requests(put(tmp_path, quoted), limit=12)) == 12


def test_burstgpt_still_refuses_bad_rows(tmp_path: Path) -> None:
    for cells in ("-1,5", "5,-1", "x,5", "5,1e9"):
        path = put(tmp_path, f"{PART_1}5,GPT-4,{cells},9,API log\n")
        with pytest.raises(InputError, match=r"t:2:\d+: Re"):
            requests(path)


BURST_SESSIONS = (
    PART_3
    + "19440110.0,one,43,GPT-4,906,446,1352,Conversation log\n"
    + "19440120.0,,2,ChatGPT,36,29,65,API log\n"
    + "19440200.0,one,8,GPT-4,1779,123,1902,Conversation log\n"
    + "19440203.5,one,1,GPT-4,1800,10,1810,Conversation log\n"
    + "19440210.0,two,3,ChatGPT,935,0,935,Conversation log\n"
    + "19440220.0,two,3,ChatGPT,940,12,952,Conversation log\n"
)


def test_burstgpt_part_3_has_sessions_as_recorded(tmp_path: Path) -> None:
    path, tally = put(tmp_path, BURST_SESSIONS), Tally()
    chunk = one(path, tally=tally)
    assert chunk.arrival_s.tolist() == [0.0, 10.0, 90.0, 93.5, 110.0]
    assert chunk.links is not None
    assert chunk.links.session == ["one", "", "one", "one", "two"]
    assert not len(chunk.links.after.values)
    assert tally.reasons == {"failed request": 1}


def test_burstgpt_part_3_closed_waits_for_the_answer(tmp_path: Path) -> None:
    chunk = one(put(tmp_path, BURST_SESSIONS), replay=Replay("closed"))
    assert chunk.links is not None
    after = dict(zip(chunk.prompt_tokens.tolist(), chunk.links.after, strict=True))
    delay = dict(zip(chunk.prompt_tokens.tolist(), chunk.links.delay_s.tolist(), strict=True))
    position = {prompt: i for i, prompt in enumerate(chunk.prompt_tokens.tolist())}
    assert after == {906: (), 36: (), 1779: (position[906],), 1800: (position[1779],), 940: ()}
    # 90 s less the 43 s of the answer; the next was sent 3.5 s into an answer of 8 s
    assert delay == {906: 0.0, 36: 0.0, 1779: 47.0, 1800: 0.0, 940: 0.0}


def test_burstgpt_sessions_need_no_elapsed_time(tmp_path: Path) -> None:
    head = "Timestamp,Session ID,Request tokens,Response tokens\n"
    path = put(tmp_path, head + "7,a,10,5\n5,a,20,5\n9,b,30,5\n")
    found = turns("burstgpt", path, sessions="closed")
    assert [turn.after for turn in found] == [(1,), (), ()]
    assert all(np.isnan(turn.delay_s) for turn in found)


def test_a_million_burstgpt_rows_do_not_take_minutes(tmp_path: Path) -> None:
    rows = "".join(
        f"{19440110 + i // 4}.0,session-{i // 5},{i % 60},GPT-4,{i % 900 + 1},{i % 400},9,API log\n"
        for i in range(20_000)
    )
    path, tally = put(tmp_path, PART_3 + rows), Tally()
    findings = Findings(path, "error", tally)
    found = list(burstgpt_turns(path, findings, tally, Replay()))
    assert len(found) + tally.reasons["failed request"] == 20_000
    assert found[6].session == "session-1"
    assert len({turn.session for turn in found}) == 4000


# Qwen-Bailian -------------------------------------------------------------------------------


def chat(own: int, parent: int, at: float, prompt: int, **changes: Any) -> dict[str, Any]:
    row = {
        "chat_id": own, "parent_chat_id": parent, "timestamp": at, "input_length": prompt,
        "output_length": 9, "type": "text", "turn": 1, "hash_ids": list(range(-(-prompt // 16))),
    }  # fmt: skip
    return row | changes


def test_bailian_chats_are_sessions_of_their_root(tmp_path: Path) -> None:
    text = lines(
        chat(55, -1, 1.5, 33),
        chat(60, -1, 2.0, 16),
        chat(159, 55, 61.114, 40, turn=2),
        chat(160, 55, 70.0, 48, turn=2),
        chat(200, 159, 80.0, 64, turn=3),
    )
    path, tally = put(tmp_path, text), Tally()
    assert detect(path) == "bailian"
    chunk = one(path, tally=tally)
    assert chunk.arrival_s.tolist() == pytest.approx([0.0, 0.5, 59.614, 68.5, 78.5])
    assert chunk.links is not None
    assert chunk.links.session == ["55", "60", "55", "55", "55"]
    assert chunk.block_ids is not None
    assert chunk.block_ids[0] == (0, 1, 2)
    assert tally.block_tokens == 16
    found = turns("bailian", path)
    assert [turn.after for turn in found] == [(), (), (55,), (55,), (159,)]
    assert all(np.isnan(turn.delay_s) for turn in found)


def test_bailian_parents_outside_the_file_and_images_are_said(tmp_path: Path) -> None:
    text = lines(
        chat(5, 2, 0.0, 20),
        chat(6, 5, 1.0, 40, type="image", hash_ids=[]),
        chat(7, -1, 2.0, 40),
    )
    path, tally = put(tmp_path, text), Tally()
    chunk = one(path, tally=tally)
    assert chunk.links is not None
    assert chunk.links.session == ["5", "5", "7"]
    assert chunk.block_ids is not None
    assert chunk.block_ids.lengths.tolist() == [2, 0, 3]
    assert "1 chats have no parent in the file, or a bad one: read as roots" in tally.notes
    assert "1 requests have no blocks (images): read without a prefix" in tally.notes
    assert {"key not read: 'type'", "key not read: 'turn'"} <= set(tally.notes)


@pytest.mark.parametrize(
    ("second", "expected"),
    [
        (chat(5, -1, 1.0, 20), "t:2: chat_id: 5 is there a second time"),
        (chat(6, 6, 1.0, 20), "t:2: parent_chat_id: chat 6 is not before chat 6"),
        (chat(-1, 5, 1.0, 20), "t:2: chat_id: -1 stands for no chat"),
        (chat(6, 5, 1.0, 20, chat_id="x"), "t:2: chat_id: 'x' is no chat"),
        (chat(6, 5, 1.0, 20, parent_chat_id=None), "t:2: parent_chat_id: None is no chat"),
        (chat(6, 5, -1.0, 20), "t:2: timestamp: -1.0 is negative"),
        (chat(6, 5, 1.0, 0), "t:2: input_length: 0 tokens"),
        (chat(6, 5, 1.0, 20, hash_ids=[1, -1]), "t:2: hash_ids: -1 is not in 0"),
        (chat(6, 5, 1.0, 20, hash_ids=[1, 2, 3]), "t:2: hash_ids: 3 ids for a prompt of 20 tokens"),
    ],
)
def test_bad_chats(tmp_path: Path, second: dict[str, Any], expected: str) -> None:
    path = put(tmp_path, lines(chat(5, -1, 0.0, 20), second))
    with pytest.raises(InputError) as caught:
        requests(path)
    assert expected in str(caught.value)
    tally = Tally()
    assert requests(path, bad_rows="skip", tally=tally) == [(0.0, 20, 9)]
    assert len(tally.examples) == 1
    assert expected in tally.examples[0]


def test_a_key_that_is_there_twice_is_a_bad_row(tmp_path: Path) -> None:
    text = lines(chat(5, -1, 0.0, 20)).replace('"turn": 1', '"input_length": 21')
    with pytest.raises(InputError, match="t:1: the key 'input_length' is there twice"):
        requests(put(tmp_path, text))


def test_chats_in_a_circle_are_bad_rows(tmp_path: Path) -> None:
    path = put(tmp_path, lines(chat(1, 2, 0.0, 20), chat(2, 1, 1.0, 20), chat(3, -1, 2.0, 20)))
    tally = Tally()
    assert len(requests(path, bad_rows="skip", tally=tally)) == 2
    assert tally.reasons == {"chat before its parent": 1}


# Splitwise-sim, LLMServingSim ---------------------------------------------------------------


def test_splitwise(tmp_path: Path) -> None:
    path = put(tmp_path, SPLITWISE + "0,2,0,1.5,1,374,44\n1,2,0,5.75,1,396,109\n")
    tally = Tally()
    assert requests(path, tally=tally) == [(0.0, 374, 44), (4.25, 396, 109)]
    assert tally.format == "splitwise"
    assert tally.notes == ["columns not read: 'request_id, application_id, batch_size'"]
    bad = put(tmp_path, SPLITWISE + "0,2,0,1.5,1,374,44\n1,1,0,5.75,1,396,109\n")
    with pytest.raises(InputError, match=r"t:3:3: request_type: '1' is not 2"):
        requests(bad)


def test_plain_requests(tmp_path: Path) -> None:
    text = "arrival_s,prompt_tokens,output_tokens,user\n0.5,374,44,a\n4.75,396,109,b\n"
    path, tally = put(tmp_path, text), Tally()
    assert requests(path, tally=tally) == [(0.0, 374, 44), (4.25, 396, 109)]
    assert tally.format == "requests"
    assert tally.notes == ["columns not read: 'user'"]


def test_llmservingsim_times_are_nanoseconds(tmp_path: Path) -> None:
    first = {"input_toks": 10, "output_toks": 70, "arrival_time_ns": 46926808}
    second = first | {"arrival_time_ns": 347938952, "input_tok_ids": [1, 2]}
    path, tally = put(tmp_path, lines(first, second)), Tally()
    assert requests(path, tally=tally) == [(0.0, 10, 70), (0.301012144, 10, 70)]
    assert tally.format == "llmservingsim"
    assert tally.notes == ["key not read: 'input_tok_ids'"]


# AIBrix -------------------------------------------------------------------------------------


def test_aibrix_has_several_requests_a_time_stamp(tmp_path: Path) -> None:
    first = {"prompt": "a", "prompt_length": 101, "output_length": 7, "session_id": 0}
    text = lines(
        {"timestamp": 500, "requests": [first, {"Prompt Length": 20, "Output Length": 3}]},
        {"timestamp": 2500, "requests": [first | {"prompt_length": 130}]},
        {"timestamp": 3000, "requests": []},
    )
    path, tally = put(tmp_path, text), Tally()
    chunk = one(path, tally=tally)
    assert tally.format == "aibrix"
    assert chunk.arrival_s.tolist() == [0.0, 0.0, 2.0]
    assert chunk.prompt_tokens.tolist() == [101, 20, 130]
    assert chunk.links is not None
    assert chunk.links.session == ["0", "", "0"]
    assert [turn.after for turn in turns("aibrix", path)] == [(), (), (0,)]
    assert tally.notes[0] == "key not read: 'prompt'"


@pytest.mark.parametrize(
    ("request_", "reason", "expected"),
    [
        ({"prompt_length": 5, "output_length": None}, "no output length", "output_length: not kno"),
        ({"prompt": "hello", "output_length": 5}, "no prompt length", "prompt_length: not known"),
        ({"Prompt Length": None, "Output Length": 5}, "no prompt length", "Prompt Length: not kn"),
        ({"prompt_length": "5", "output_length": 5}, "not a whole number", "prompt_length: '5' is"),
        ([1], "not an object", "requests: a list is no object"),
    ],
)
def test_bad_aibrix_requests(tmp_path: Path, request_: Any, reason: str, expected: str) -> None:
    good = {"prompt_length": 1, "output_length": 2}
    path = put(tmp_path, lines({"timestamp": 0, "requests": [request_, good]}))
    with pytest.raises(InputError, match=f"t:1: {expected}"):
        requests(path)
    tally = Tally()
    assert requests(path, bad_rows="skip", tally=tally) == [(0.0, 1, 2)]
    assert tally.reasons == {reason: 1}


# Vidur with sessions ------------------------------------------------------------------------


def test_vidur_sessions_and_blocks(tmp_path: Path) -> None:
    path = put(
        tmp_path,
        f"{VIDUR},session_id,block_hash_ids,session_turn_index\n"
        "1.0,1000,5,a,0|1,0\n2.0,600,5,b,7|8,0\n4.0,1030,6,a,0|1|2,1\n5.0,3,3,,,0\n",
    )
    tally = Tally()
    chunk = one(path, tally=tally)
    assert (tally.format, tally.block_tokens) == ("vidur", 512)
    assert chunk.arrival_s.tolist() == [0.0, 1.0, 3.0, 4.0]
    assert chunk.links is not None
    assert chunk.links.session == ["a", "b", "a", ""]
    assert chunk.block_ids is not None
    assert list(chunk.block_ids) == [(0, 1), (7, 8), (0, 1, 2), ()]
    assert [turn.after for turn in turns("vidur", path)] == [(), (), (0,), ()]


def test_vidur_turns_follow_their_index(tmp_path: Path) -> None:
    head = f"{VIDUR},session_id,session_turn_index\n"
    path = put(tmp_path, head + "3.0,9,5,a,2\n1.0,7,5,a,0\n3.0,8,5,a,1\n")
    assert [turn.after for turn in turns("vidur", path)] == [(2,), (), (1,)]
    late = put(tmp_path, head + "3.0,9,5,a,2\n1.0,7,5,a,0\n4.0,8,5,a,1\n")
    with pytest.raises(
        InputError, match=r"t:2: arrived_at: turn 2 of session 'a' is before turn 1"
    ):
        requests(late)


def test_vidur_without_these_columns_is_a_stream(tmp_path: Path) -> None:
    tally = Tally()
    chunk = one(put(tmp_path, VIDUR + ",session_turn_index\n0,5,5,1\n"), tally=tally)
    assert chunk.links is None
    assert tally.notes == ["columns not read: 'session_turn_index'"]


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        ("a,0|x,0", "t:2:11: block_hash_ids: 'x' is not a whole number"),
        ("a,0|-1,0", "t:2:11: block_hash_ids: an id of '0|-1'"),
        (f"a,{2**63},0", "block_hash_ids: an id of"),
        ("a,0,-1", "session_turn_index: '-1' is no turn"),
        ("a\x1b,0,0", "t:2:9: session_id: 'a\\x1b' is not printable"),
        ("a" * 300 + ",0,0", "is too long"),
    ],
)
def test_bad_vidur_sessions(tmp_path: Path, cells: str, expected: str) -> None:
    head = f"{VIDUR},session_id,block_hash_ids,session_turn_index\n"
    with pytest.raises(InputError) as caught:
        requests(put(tmp_path, f"{head}0.0,5,5,{cells}\n"))
    assert expected in str(caught.value)


# rows that only name their session ----------------------------------------------------------


def test_rows_follow_each_other_by_time() -> None:
    time = np.array([3.0, 1.0, 2.0, 2.0, 0.0])
    before, late = chains.before(["a", "a", "", "a", "b"], time)
    assert before.tolist() == [3, -1, -1, 1, -1]
    assert late == {}


def test_a_row_before_the_turn_it_follows_is_left_out_of_its_chain() -> None:
    time = np.array([1.0, 5.0, 3.0, 6.0])
    before, late = chains.before(["a"] * 4, time, np.array([0, 1, 2, 3]))
    assert before.tolist() == [-1, 0, -1, 1]
    assert late == {2: 1}


# telling formats apart ----------------------------------------------------------------------

ROW = {"timestamp": 0, "input_length": 6, "output_length": 5}
WEKA = {"id": "x", "block_size": 64, "requests": [], "totals": {"tool_tokens": {"1": 2}}}


@pytest.mark.parametrize(
    ("records", "format", "told"),
    [
        ([ROW], "mooncake", "timestamp, input_length, output_length"),
        (
            [{"created_time": 0, "input_tokens": 6, "output_tokens": 5, "request_id": "a"}],
            "mooncake",
            "created_time, input_tokens, output_tokens",
        ),
        ([ROW, ROW | {"session_id": "a"}], "mooncake-sessions", "rows have session_id"),
        ([ROW, ROW | {"delay_ms": 5}], "mooncake-sessions", "--format mooncake-delta"),
        ([ROW | {"request_id": "a"}, ROW | {"wait_for": []}], "agentic-mooncake", "wait_for"),
        (
            [{"schema": "dynamo.agentic_mooncake", "version": 2, "block_size": 64}, ROW],
            "agentic-mooncake",
            'a header with schema "dynamo.agentic_mooncake"',
        ),
        (
            [{"num_turns": 2, "input_prompt_length": 5, "assistant_response_length": [3]}],
            "applied-compute",
            "num_turns",
        ),
        ([chat(1, -1, 0.0, 5)], "bailian", "chat_id, parent_chat_id"),
        ([WEKA], "weka", "requests, block_size"),
        ([{"timestamp": 0, "requests": []}], "aibrix", "timestamp, requests"),
        ([{"arrival_time_ns": 0}], "llmservingsim", "arrival_time_ns"),
    ],
)
def test_json_lines_are_told_by_their_keys(
    tmp_path: Path, records: list[dict[str, Any]], format: str, told: str
) -> None:
    found, told_by = explain(put(tmp_path, lines(*records)))
    assert found == format
    assert told in told_by


def test_a_first_line_longer_than_the_head_is_told_by_the_keys_it_begins_with(
    tmp_path: Path,
) -> None:
    row = WEKA | {"requests": [{"timestamp": 0, "chat_id": 1, "hash_ids": list(range(200_000))}]}
    assert detect(put(tmp_path, lines(row))) == "weka"


def test_tables_are_told_by_their_columns(tmp_path: Path) -> None:
    for text, format in ((PART_1, "burstgpt"), (PART_3, "burstgpt"), (SPLITWISE, "splitwise")):
        assert detect(put(tmp_path, text)) == format
    with pytest.raises(InputError, match="columns are separated by ';'"):
        detect(put(tmp_path, PART_3.replace(",", ";")))


@pytest.mark.parametrize(
    ("folder", "pattern", "expected"),
    [
        ("lmcache-agent", "*.jsonl", "prompts as text without their numbers of tokens"),
        ("servegen/raw", "*-trace.csv", "ServeGen's rates of a client"),
        ("servegen/raw", "*-dataset.json", "ServeGen's lengths of a client"),
        ("servegen", "*_clients.csv.xz", "ServeGen's rates of a client"),
        ("servegen", "*_length_pmf.json.xz", "ServeGen's lengths of a client"),
        ("vidur-processed", "arxiv*", "no arrived_at column"),
    ],
)
def test_files_that_are_no_requests_are_refused(folder: str, pattern: str, expected: str) -> None:
    paths = sorted((TRACES / folder).glob(pattern))
    if not paths:
        pytest.skip(f"{folder}/{pattern} is not in {TRACES}")
    for path in paths:
        with pytest.raises(InputError, match=expected) as caught:
            list(read(path))
        assert len(caught.value.lines) == 1


# the command --------------------------------------------------------------------------------


def test_convert_lists_what_it_leaves_out(tmp_path: Path) -> None:
    bad = "".join(f"{i},x,1\n" for i in range(12))
    path, out = put(tmp_path, f"{VIDUR}\n0,5,5\n{bad}99,5,5\n"), tmp_path / "o.csv"
    arguments = ["convert", str(path), str(out), "--to", "vidur"]
    assert isinstance(CliRunner().invoke(app, arguments).exception, InputError)
    result = CliRunner().invoke(app, [*arguments, "--on-error", "skip"])
    assert result.exit_code == 0, result.output
    assert result.stdout == f"{out}: 2 requests, 12 rows left out\n"
    said = result.stderr.splitlines()
    assert said[0].startswith(f"{path}: read as vidur: line 1 has the columns arrived_at")
    assert f"{path}: 12 rows left out: 12 not a whole number" in said
    assert f"  {path}:3:3: num_prefill_tokens: 'x' is not a whole number" in result.stderr
    assert said[-1] == "  ... and 2 more"
    assert len([line for line in said if line.startswith(f"  {path}:")]) == 10
    odd = CliRunner().invoke(app, [*arguments, "--on-error", "warn"])
    assert "--on-error: 'warn' is unknown; write fail or skip" in str(odd.exception)


# the published rows -------------------------------------------------------------------------


def test_quoted_burstgpt_rows() -> None:
    samples = TRACES / "format-samples"
    one_chunk = one(need(samples / "burstgpt_1_quoted_rows.csv"))
    assert one_chunk.arrival_s.tolist() == [0.0, 40.0, 113.0, 180.0, 209.0]
    assert one_chunk.output_tokens.tolist() == [18, 230, 276, 647, 215]
    three = one(need(samples / "burstgpt_3_quoted_rows.csv"))
    assert three.arrival_s.tolist() == [0.0, 51.0, 82.0, 144.0]
    assert three.links is not None
    assert three.links.session[0] == "1722ac82-0a46-4bf0-aa08-89794e7a2b3f"


def test_quoted_bailian_row() -> None:
    chunk = one(need(TRACES / "format-samples" / "qwen_bailian_quoted_row.jsonl"))
    assert (chunk.prompt_tokens[0], chunk.output_tokens[0]) == (502, 1494)
    assert chunk.block_ids is not None
    assert chunk.block_ids[0] == tuple(range(32))


def test_published_llmservingsim_rows() -> None:
    chunk = one(need(TRACES / "llmservingsim" / "example_trace.jsonl"))
    assert len(chunk) == 10
    assert (chunk.prompt_tokens[0], chunk.output_tokens[0]) == (10, 70)
    assert chunk.arrival_s[1] == pytest.approx(0.301012144)
