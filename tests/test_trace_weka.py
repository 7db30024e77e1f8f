"""Weka sessions: sub-agents, think times, shared prefixes, and the real corpus."""

from __future__ import annotations

import csv
import json
import lzma
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from session_files import DRAWN, FORK, agent, ask, load, put, session, shape, told

from sim.trace.chunk import Chunk, Tally
from sim.trace.formats import weka
from sim.trace.ragged import Ragged
from sim.trace.read import read
from sim.trace.turns import Replay

TRACES = Path(__file__).parents[1].parent / "shared" / "traces"
WEKA = TRACES / "weka-claude-code"


def need(path: Path) -> Path:
    if not path.exists():
        pytest.skip(f"{path.name} is not in {path.parent}")
    return path


def test_sub_agents_fork_from_their_parent_and_join_its_next_request(tmp_path: Path) -> None:
    chunk = load(put(tmp_path, FORK), "weka", replay=DRAWN)
    found = shape(chunk)
    # the second agent ends at 27, 6 s before the parent goes on
    assert [x[:4] for x in found] == [
        (0.0, 200, 10, "one"), (1.0, 64, 10, "one"), (2.0, 65, 10, "one"), (9.0, 128, 10, "one"),
        (15.0, 300, 10, "one"), (21.0, 320, 10, "one"), (31.0, 320, 10, "one"),
    ]  # fmt: skip
    assert [x[4:] for x in found] == [
        ((), 0.0), ((0,), 1.0), ((0,), 2.0), ((1,), 8.0), ((2, 3), 6.0), ((4,), 6.0), ((5,), 10.0)
    ]  # fmt: skip
    assert chunk.block_ids == Ragged.of(
        [(0, 1, 2), (3,), (3,), (3, 4), (0, 1, 2, 5), (0, 1, 2, 5, 6), (0, 1, 2, 5, 6)]
    )


def test_open_sub_agents_are_on_the_sessions_clock(tmp_path: Path) -> None:
    path = put(tmp_path, FORK)
    opened = load(path, "weka", replay=Replay("open", rate_per_s=1.0))
    assert opened.arrival_s.tolist() == [0.0, 6.0, 7.0, 16.0, 33.0, 40.0, 50.0]
    assert opened.prompt_tokens.tolist() == [200, 64, 65, 128, 300, 320, 320]


@pytest.mark.parametrize(
    ("marker", "duration_ms", "nested", "wanted"),
    [
        (20.0, 14_000, (0.0, 9.0), (6.0, 15.0)),  # relative, the marker at the end
        (6.0, 14_000, (0.0, 9.0), (6.0, 15.0)),  # relative, the marker at the beginning
        (6.0, None, (0.0, 9.0), (6.0, 15.0)),  # relative, length unknown
        (6.0, 14_000, (6.0, 15.0), (6.0, 15.0)),  # the session's, the marker at the beginning
        (20.0, 14_000, (6.0, 15.0), (6.0, 15.0)),  # the session's, the marker at the end
    ],
)
def test_nested_times_are_told_apart_by_value(
    tmp_path: Path,
    marker: float,
    duration_ms: float | None,
    nested: tuple[float, float],
    wanted: tuple[float, float],
) -> None:
    inner = (ask(t, 64, [7], api_time=1.0) for t in nested)
    path = put(
        tmp_path,
        session("a", ask(0.0, 64, [1], api_time=5.0), agent(marker, duration_ms, *inner)),
    )
    chunk = load(path, "weka", replay=Replay("open", rate_per_s=1.0))
    assert tuple(chunk.arrival_s[1:].tolist()) == wanted


def test_nobody_waits_for_a_background_agent(tmp_path: Path) -> None:
    launched = agent(6.0, None, ask(0.0, 64, [9], api_time=100.0), status="async_launched")
    path = put(
        tmp_path,
        session(
            "a", ask(0.0, 64, [1], api_time=5.0), launched, ask(9.0, 128, [1, 2], think_time=4.0)
        ),
    )
    assert [x[4:] for x in shape(load(path, "weka", replay=DRAWN))] == [
        ((), 0.0), ((0,), 1.0), ((0,), 4.0)
    ]  # fmt: skip


def test_a_missing_think_time_is_what_lies_between_end_and_start(tmp_path: Path) -> None:
    path = put(
        tmp_path,
        session(
            "a",
            ask(0.0, 64, [1], api_time=5.0),
            ask(12.0, 64, [1], api_time=9.0),
            ask(20.0, 64, [1], think_time=1.0),
        ),
    )
    assert [x[5] for x in shape(load(path, "weka", replay=DRAWN))] == [0.0, 7.0, 1.0]


def test_failed_requests_are_counted_and_bypassed(tmp_path: Path) -> None:
    path = put(
        tmp_path,
        session(
            "a",
            ask(0.0, 64, [1], api_time=5.0),
            ask(12.0, 64, [1], api_time=9.0, out=0, think_time=7.0),
            ask(25.0, 64, [1], think_time=4.0),
        ),
    )
    tally = Tally()
    found = shape(load(path, "weka", replay=DRAWN, tally=tally))
    assert [x[4:] for x in found] == [((), 0.0), ((0,), 11.0)]
    assert tally.reasons == {"failed request": 1}


def test_sessions_share_the_blocks_of_equal_tools_and_system_prompts(tmp_path: Path) -> None:
    path = put(
        tmp_path,
        session("a", ask(0.0, 260, [1, 2, 3, 4]), agent(5.0, None, ask(0.0, 64, [8]))),
        session("b", ask(0.0, 128, [1, 2]), ask(1.0, 260, [1, 2, 3, 4], think_time=1.0)),
        session("c", ask(0.0, 260, [1, 2, 3, 4]), system_tokens=128),
        session("d", ask(0.0, 260, [1, 2, 3, 4]), agent(5.0, None, ask(0.0, 64, [8])),
                tool_tokens=127, system_tokens=65),
        session("e", ask(0.0, 64, [1])),
    )  # fmt: skip
    alone = load(path, "weka", replay=DRAWN)
    assert alone.block_ids is not None
    assert len(set(alone.block_ids.values.tolist())) == 5 + 4 + 4 + 5 + 1
    shared = load(path, "weka", replay=Replay(rate_per_s=0.01, arrivals="constant",
                                              shared_prefix=True))  # fmt: skip
    a, inner_a, b0, b1, c, d, inner_d, e = shared.block_ids or ()
    assert a[:3] == b1[:3]
    assert a[3] != b1[3]
    assert b0 == b1[:2]
    assert c[:2] == a[:2]
    assert not set(c[2:]) & set(a)
    assert not set(d) & {*a, *b1, *c}
    assert inner_a == inner_d
    assert not set(e) & {*a, *b1, *c, *d}  # too short to hold tools and system prompt


def test_what_is_wrong_with_a_session_is_told_with_its_place(tmp_path: Path) -> None:
    first, more = ask(0.0, 64, [1]), session("a", ask(0.0, 64, [1]))

    def second(entry: Any) -> dict[str, Any]:
        return session("a", first, entry)

    cases = {
        "id: not there": {},
        "requests: no list, or": {**more, "requests": 3},
        "requests: no list, or an empty one": session("a"),
        "block_size: 0 is no size": {**more, "block_size": 0},
        "hash_id_scope: 'x' is not known": {**more, "hash_id_scope": "x"},
        "hash_id_scope: a list is not known": {**more, "hash_id_scope": [1]},
        "tool_tokens: -4 is negative": {**more, "tool_tokens": -4},
        "requests[1]: 3 is no JSON object": second(3),
        "requests[1].type: not there": second({}),
        "requests[1].type: 'q' is not known": second({**first, "type": "q"}),
        "requests[1].in: 0 tokens": second({**first, "in": 0}),
        "requests[1].t: null": second({**first, "t": None}),
        "requests[1].t: -1.0 is negative": second({**first, "t": -1.0}),
        "requests[1].think_time: 'x' is not a number": second({**first, "think_time": "x"}),
        "requests[1].api_time: 2e+09 s is too long": second({**first, "api_time": 2e9}),
        "requests[1].hash_ids: 1.5 is not a whole": second({**first, "hash_ids": [1.5]}),
        "requests[1].hash_ids: -2 is not in 0": second({**first, "hash_ids": [-2]}),
        f"requests[1].hash_ids: {2**63} is not in 0": second({**first, "hash_ids": [2**63]}),
        "requests[1].requests: 3 is no list": second({**agent(1.0, 1), "requests": 3}),
        "requests[1].requests[0].out: -1 is negative": second(
            agent(1.0, 1, {**first, "out": -1})
        ),
        "2 ids for a prompt of 64 tokens": session("a", *[first] * 9, ask(1.0, 64, [1, 2])),
    }  # fmt: skip
    for text, bad in cases.items():
        for shared in (False, True):
            how = Replay(rate_per_s=1.0, shared_prefix=shared)
            found = told(put(tmp_path, bad), "weka", replay=how)
            assert text in found
            assert "trace.jsonl:1" in found
    twice = put(tmp_path, more, more)
    assert "trace.jsonl:2: id: 'a' is the name of line 1 already" in told(
        twice, "weka", replay=DRAWN
    )
    sizes = put(tmp_path, more, {**session("b", ask(0.0, 32, [1])), "block_size": 32})
    assert "block_size: 32, but 64" in told(sizes, "weka", replay=DRAWN)
    assert "64 in the file, but 512 is stated" in told(
        sizes, "weka", replay=DRAWN, block_tokens=512
    )
    assert "--session-rate" in told(twice, "weka")


def test_bad_requests_of_a_session_are_skipped_one_by_one(tmp_path: Path) -> None:
    path = put(
        tmp_path,
        session(
            "a",
            ask(0.0, 64, [1]),
            {"type": "n"},
            agent(3.0, None, {"type": "n"}, ask(1.0, 64, [5])),
            ask(20.0, 128, [1, 2], think_time=3.0),
        ),
        '{"id": 1\n',
    )
    tally = Tally()
    chunk = load(path, "weka", replay=DRAWN, bad_rows="skip", tally=tally)
    assert chunk.prompt_tokens.tolist() == [64, 64, 128]
    assert tally.reasons == {"missing key": 2, "not JSON": 1}


def test_a_line_above_the_limit_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weka, "LINE_LIMIT", 2**20)
    long = session("a", ask(0.0, 64, [1], model="m" * 2**20))
    assert "longer than 1 MiB" in told(put(tmp_path, long), "weka", replay=DRAWN)


# -- the real corpus -------------------------------------------------------------------------------


def leading_hits(chunks: list[Chunk]) -> tuple[int, int]:
    """Blocks, and how many of them lead a prompt and are in an earlier one."""
    seen: set[int] = set()
    blocks = hits = 0
    for chunk in chunks:
        for ids in chunk.block_ids or ():
            blocks += len(ids)
            for id in ids:
                if id not in seen:
                    break
                hits += 1
            seen.update(ids)
    return blocks, hits


def test_the_sample_sessions_agree_with_the_derived_table(tmp_path: Path) -> None:
    path = need(WEKA / "sample_sessions.jsonl")
    names = [json.loads(line)["id"] for line in path.read_text().splitlines()]
    with lzma.open(need(WEKA / "derived_request_table.csv.xz"), "rt") as file:
        table = [one for one in csv.DictReader(file) if one["trace_id"] in names]
    tally = Tally()
    chunk = load(path, "weka", replay=Replay("open", rate_per_s=1e-6), tally=tally)
    assert tally.rows + tally.skipped == len(table) == 172
    assert sorted(set(chunk.links.session if chunk.links else ())) == sorted(names)
    wanted = [one for one in table if one["out"] != "0"]
    assert int(chunk.prompt_tokens.sum()) == sum(int(one["in"]) for one in wanted)
    assert int(chunk.output_tokens.sum()) == sum(int(one["out"]) for one in wanted)
    blocks, hits = leading_hits([chunk])
    assert blocks == sum(int(one["n_blocks"]) for one in wanted)
    ideal = sum(int(one["ideal_prefix_hit_blocks"]) for one in wanted)
    assert hits == pytest.approx(ideal, abs=300)  # of 187,000; what a failed request brought
    # a session's own requests keep their recorded distances
    first = names[0]
    mine = [one for one in wanted if one["trace_id"] == first and one["is_subagent"] == "0"]
    assert chunk.links is not None
    times = [
        t for t, name in zip(chunk.arrival_s, chunk.links.session, strict=True) if name == first
    ]
    assert len(times) >= len(mine)
    gaps = {round(float(one["t_s"]), 3) for one in mine}
    assert gaps <= {round(t - times[0], 3) for t in times}


def test_nothing_happens_before_what_it_waits_for_in_the_sample() -> None:
    path = need(WEKA / "sample_sessions.jsonl")
    chunk = load(path, "weka", replay=Replay(rate_per_s=0.01))
    links = chunk.links
    assert links is not None
    waiting = 0
    for place, others in enumerate(links.after):
        for other in others:
            waiting += 1
            assert other < place
            assert links.session[other] == links.session[place]
            earliest = chunk.arrival_s[other] + links.delay_s[place]
            assert chunk.arrival_s[place] >= earliest - 1e-6
    assert waiting >= len(chunk) - 7


@pytest.mark.slow
def test_the_whole_corpus_agrees_with_its_statistics() -> None:
    path = need(WEKA / "kv_cache_tester_sessions.jsonl.xz")
    measured = json.loads(need(TRACES / "STATISTICS.json").read_text())["measured"]
    wanted = measured["weka_claude_code"]
    tally = Tally()
    rows = waiting = tokens = blocks = hits = saved = 0
    names: set[str] = set()
    known = np.zeros(0, dtype=bool)
    for chunk in read(path, "weka", replay=Replay(rate_per_s=0.01), tally=tally):
        assert chunk.links is not None
        assert chunk.block_ids is not None
        assert len(chunk.block_ids.values) <= 2**21
        rows += len(chunk)
        names.update(chunk.links.session)
        waiting += int((chunk.links.after.lengths > 0).sum())
        tokens += int(chunk.prompt_tokens.sum())
        blocks += len(chunk.block_ids.values)
        for i in range(len(chunk)):
            start, stop = chunk.block_ids.offsets[i : i + 2]
            ids = chunk.block_ids.values[start:stop]
            if len(ids) and ids.max() >= len(known):
                known = np.concatenate([known, np.zeros(len(known) + ids.max() + 1, dtype=bool)])
            there = known[ids]
            leading = int(np.argmin(there)) if not there.all() else len(ids)
            hits += leading
            saved += leading * 64
            known[ids] = True
    assert len(names) == wanted["sessions"] == 692
    assert rows + tally.skipped == wanted["requests"] == 46_218
    assert tally.reasons == {"failed request": 27}
    assert round(wanted["zero_output_frac"] * wanted["requests"]) == 27
    prefix = wanted["prefix"]
    assert blocks == pytest.approx(prefix["total_block_refs"], rel=0.002)
    ratio = prefix["ideal_within_session_prefix_block_hit_ratio"]
    assert hits / blocks == pytest.approx(ratio, abs=1e-4)
    uncached = wanted["uncached_input_tokens_per_request_ideal"]["mean"]
    assert (tokens - saved) / rows == pytest.approx(uncached, rel=0.002)
    # of 692 first requests and 63 sub-agents all but the former wait for another
    assert waiting == pytest.approx(rows - 692, abs=30)
