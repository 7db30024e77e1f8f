"""What is written reads back: what a format holds is equal, and what it does not is said."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from sim.cli_trace import app
from sim.errors import InputError
from sim.trace.blocks import id_count
from sim.trace.chunk import Chunk, Links, Tally
from sim.trace.ragged import Ragged
from sim.trace.read import read
from sim.trace.transforms.held import joined
from sim.trace.turns import Replay
from sim.trace.write import write
from sim.trace.writers.ids import GlobalIds
from sim.trace.writers.target import Target

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("traces") / "trace"


# traces ---------------------------------------------------------------------------------------


@st.composite
def flat_traces(draw: st.DrawFn, size: int = 512, last: str = "partial") -> Chunk:
    """Requests without sessions; some prompts share a prefix, some have no ids."""
    prompts = draw(st.lists(st.integers(1, 6 * size), min_size=1, max_size=8))
    rows: list[tuple[int, ...]] = []
    fresh = iter(range(100, 10**6, 3))
    for prompt in prompts:
        count = int(id_count(prompt, size, last))  # type: ignore[arg-type]
        shared: tuple[int, ...] = ()
        if rows and draw(st.booleans()):
            other = draw(st.sampled_from(rows))
            shared = other[: draw(st.integers(0, count))]
        unknown = draw(st.integers(0, 5)) == 0
        own = tuple(next(fresh) for _ in range(count - len(shared)))
        rows.append(() if unknown else shared + own)
    gaps = draw(st.lists(st.integers(0, 5000), min_size=len(rows), max_size=len(rows)))
    time = np.cumsum(gaps)
    outputs = np.arange(1, len(rows) + 1)
    return Chunk((time - time[0]) / 1e3, np.array(prompts), outputs, Ragged.of(rows))


@st.composite
def linked_traces(draw: st.DrawFn, chains: bool = False, apart: bool = False) -> Chunk:
    """Requests that wait for each other; only for the turn before in their session if *chains*.

    *apart*: no two at the same time, which might come back the other way around.
    """
    count = draw(st.integers(1, 9))
    names = ["", "a", "b", 'c, "d"', "é"]
    earliest: list[float] = []
    session, after, delay = [], [], []
    for row in range(count):
        name = draw(st.sampled_from(names))
        before = [other for other in range(row) if session[other] == name and name]
        if chains:
            waits = tuple(before[-1:])
        else:
            waits = tuple(sorted(draw(st.sets(st.integers(0, row - 1), max_size=2)))) if row else ()
        seconds = draw(st.integers(0, 4000)) / 1e3 if waits else 0.0
        floor = max((earliest[other] + seconds for other in waits), default=0.0)
        extra = 0 if waits and (chains or draw(st.booleans())) else draw(st.integers(0, 3000))
        if apart:
            last = max(earliest, default=-1.0) + 1e-3
            if chains and floor < last:
                waits, name, seconds = (), "", 0.0
            floor = max(floor, last)
        earliest.append(max([floor + extra / 1e3, *earliest[-1:]]))
        session.append(name)
        after.append(waits)
        delay.append(seconds)
    base = earliest[0]
    recorded = [draw(st.sampled_from([float("nan"), 3.5, 1000.25])) for _ in range(count)]
    links = Links(session, Ragged.of(after), np.array(delay), np.array(recorded))
    prompts = np.array(draw(st.lists(st.integers(1, 2000), min_size=count, max_size=count)))
    return Chunk(np.array(earliest) - base, prompts, np.arange(1, count + 1), None, links)


def equal(one: Chunk, other: Chunk) -> bool:
    for name in ("arrival_s", "prompt_tokens", "output_tokens"):
        assert np.array_equal(getattr(one, name), getattr(other, name)), name
    assert one.block_ids == other.block_ids
    assert (one.links is None) == (other.links is None)
    if one.links is not None and other.links is not None:
        assert one.links.session == other.links.session
        assert one.links.after == other.links.after
        assert np.array_equal(one.links.delay_s, other.links.delay_s)
        assert np.array_equal(one.links.recorded_s, other.links.recorded_s, equal_nan=True)
    return True


def back(path: Path, **options: object) -> Chunk:
    chunks = list(read(path, **options))  # type: ignore[arg-type]
    whole = joined(chunks)
    links = whole.links if any(chunk.links is not None for chunk in chunks) else None
    return Chunk(whole.arrival_s, whole.prompt_tokens, whole.output_tokens, whole.block_ids, links)


def prefixes(ids: Ragged) -> list[list[int]]:
    """How many leading blocks any two rows share: what reuse there is, whatever the numbers."""
    rows = list(ids)
    return [
        [next((i for i, (x, y) in enumerate(zip(one, other, strict=False)) if x != y), len(one))
         for other in rows if len(other) >= len(one)] for one in rows
    ]  # fmt: skip


# flat traces ----------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(flat_traces(), st.booleans(), st.integers(1, 4))
def test_parquet_and_vidur_keep_flat_traces(path: Path, trace: Chunk, ids: bool, rows: int) -> None:
    if not ids or not len(trace.block_ids.values):  # type: ignore[union-attr]
        trace = Chunk(trace.arrival_s, trace.prompt_tokens, trace.output_tokens)
    for format in ("parquet", "vidur"):
        lost: list[str] = []
        write(trace.split(rows), path, format, lost=lost)  # type: ignore[arg-type]
        assert lost == []
        found = back(path)
        equal(Chunk(found.arrival_s, found.prompt_tokens, found.output_tokens, found.block_ids),
              trace)  # fmt: skip


@settings(max_examples=40, deadline=None)
@given(flat_traces(), st.integers(1, 4))
def test_mooncake_keeps_times_lengths_and_reuse(path: Path, trace: Chunk, rows: int) -> None:
    assert trace.block_ids is not None
    lost: list[str] = []
    write(trace.split(rows), path, "mooncake", lost=lost)
    found = back(path)
    for name in ("arrival_s", "prompt_tokens", "output_tokens"):
        assert np.array_equal(getattr(found, name), getattr(trace, name))
    assert found.block_ids is not None
    flat = found.block_ids.values
    assert np.array_equal(np.unique(flat), np.arange(flat.max() + 1))
    assert (np.diff(np.unique(flat, return_index=True)[1]) > 0).all()  # in order of appearance
    unknown = int((trace.block_ids.lengths == 0).sum())
    assert lost == ([f"mooncake: {unknown} requests without block ids got ids of their own"]
                    if unknown else [])  # fmt: skip
    known = np.flatnonzero(trace.block_ids.lengths)
    assert prefixes(found.block_ids.take(known)) == prefixes(trace.block_ids.take(known))
    again = path.with_suffix(".again")
    write(read(path), again, "mooncake")
    assert again.read_bytes() == path.read_bytes()


def test_times_that_are_no_whole_milliseconds_are_said(path: Path) -> None:
    trace = Chunk(np.array([0, 0.0004, 2.0005, 3600.25]), np.ones(4, int), np.ones(4, int))
    lost: list[str] = []
    write([trace], path, "mooncake", lost=lost)
    assert sorted(lost) == [
        "mooncake: 4 requests without block ids got ids of their own",
        "mooncake: times of 2 requests are rounded to milliseconds",
    ]
    assert (np.diff(back(path).arrival_s) >= 0).all()


# blocks of another size -----------------------------------------------------------------------


def regrouped(trace: Chunk, size: int, last: str, tokens: int) -> tuple[Ragged, list[str]]:
    source = Tally(block_tokens=size, last_block=last)  # type: ignore[arg-type]
    target = Target("mooncake", tokens, source)
    ids = GlobalIds(target, tokens)
    parts = [ids.of(part) for part in trace.split(3)]
    return Ragged.joined(parts), target.lost


@pytest.mark.parametrize(
    ("size", "last", "tokens"),
    [(16, "partial", 64), (64, "full", 512), (64, "full", 64), (512, "partial", 64),
     (64, "full", 16), (48, "partial", 32), (32, "full", 48)],
)  # fmt: skip
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_blocks_are_regrouped(data: st.DataObject, size: int, last: str, tokens: int) -> None:
    trace = data.draw(flat_traces(size, last))
    assert trace.block_ids is not None
    ids, _ = regrouped(trace, size, last, tokens)
    prompts = trace.prompt_tokens.tolist()
    assert ids.lengths.tolist() == [-(-prompt // tokens) for prompt in prompts]
    # two blocks are the same if all blocks of the source in them are, and are known
    meant: dict[object, int] = {}
    for row, (prompt, source, written) in enumerate(
        zip(prompts, trace.block_ids, ids, strict=True)
    ):
        for block, number in enumerate(written):
            first, stop = (
                block * tokens // size,
                (min((block + 1) * tokens, prompt) - 1) // size + 1,
            )
            key: object = (block, source[first:stop])
            if stop > len(source):
                key = (row, block, "unknown")
            assert meant.setdefault(key, number) == number
    assert len(set(meant.values())) == len(meant)
    flat = ids.values
    assert np.array_equal(np.unique(flat), np.arange(flat.max() + 1))


def test_what_regrouping_loses_is_said() -> None:
    trace = Chunk(
        np.zeros(2), np.array([600, 700]), np.ones(2, int), Ragged.of([range(9), range(10)])
    )
    ids, lost = regrouped(trace, 64, "full", 512)
    assert list(ids) == [(0, 1), (0, 2)]
    assert lost == [
        "mooncake: block ids are of 512 tokens, those of the source of 64: prefixes are shared in "
        "steps of 512 tokens only",
        "mooncake: 2 last blocks that are not full have no id in the source, and got one of their "
        "own",
    ]
    _, lost = regrouped(trace, 64, "full", 48)
    assert "blocks that agree in part count as different" in lost[0]
    trace = Chunk(np.zeros(1), np.array([600]), np.ones(1, int), Ragged.of([range(3)]))
    _, lost = regrouped(trace, 512, "partial", 512)
    assert lost == [
        "mooncake: 1 requests have not one id a block of 512 tokens, and got ids of their own"
    ]


def test_parquet_and_vidur_keep_the_sources_blocks_unless_told(path: Path) -> None:
    trace = Chunk(
        np.zeros(2), np.array([600, 700]), np.ones(2, int), Ragged.of([range(9), range(10)])
    )
    source = Tally(block_tokens=64, last_block="full")
    lost: list[str] = []
    write([trace], path, "vidur", tally=source, lost=lost)
    assert lost == ["vidur: the size of the blocks, 64 tokens, is not in the file"]
    assert back(path).block_ids == trace.block_ids
    write([trace], path, "parquet", tally=source, block_tokens=512)
    tally = Tally()
    assert list(back(path, tally=tally).block_ids or []) == [(0, 1), (0, 2)]
    assert (tally.block_tokens, tally.last_block) == (512, "partial")


# sessions -------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(linked_traces(), st.integers(1, 4))
def test_parquet_keeps_sessions_and_dependencies(path: Path, trace: Chunk, rows: int) -> None:
    lost: list[str] = []
    write(trace.split(rows), path, "parquet", lost=lost)
    assert lost == []
    equal(back(path), trace)


@settings(max_examples=60, deadline=None)
@given(linked_traces(apart=True))
def test_agentic_mooncake_keeps_who_waits_for_whom(path: Path, trace: Chunk) -> None:
    assert trace.links is not None
    write([trace], path, "agentic-mooncake")
    found = back(path)
    assert found.links is not None
    assert np.allclose(found.arrival_s, trace.arrival_s, rtol=0, atol=1e-8)
    assert found.links.after == trace.links.after
    assert np.allclose(found.links.delay_s, trace.links.delay_s, rtol=0, atol=1e-8)
    assert np.array_equal(found.prompt_tokens, trace.prompt_tokens)


@settings(max_examples=60, deadline=None)
@given(linked_traces(chains=True, apart=True))
def test_mooncake_sessions_keep_chains(path: Path, trace: Chunk) -> None:
    assert trace.links is not None
    lost: list[str] = []
    write([trace], path, "mooncake", lost=lost)
    found = back(path)
    assert np.array_equal(found.prompt_tokens, trace.prompt_tokens)
    assert np.allclose(found.arrival_s, trace.arrival_s, rtol=0, atol=1e-6)
    if found.links is not None:
        assert found.links.session == trace.links.session
        assert found.links.after == trace.links.after
        assert np.allclose(found.links.delay_s, trace.links.delay_s)
    assert not any("fork" in line or "join" in line or "earliest" in line for line in lost)


@settings(max_examples=80, deadline=None)
@given(linked_traces())
def test_what_mooncake_sessions_cannot_hold_is_counted(path: Path, trace: Chunk) -> None:
    assert trace.links is not None
    lost: list[str] = []
    write([trace], path, "mooncake", lost=lost)
    records = [json.loads(line) for line in path.read_text().splitlines()]
    said = {line.split(": ")[1].partition(" ")[2]: line for line in lost}
    waits = sum("delay" in record for record in records)
    asked = len(trace.links.after.values)
    gone = [int(line.split()[1]) for line in lost if "do not join" in line]
    forks = [int(line.split()[1]) for line in lost if "begin a session of their own" in line]
    assert waits + sum(gone) + sum(forks) == asked, said
    # every thread begins with a time, goes on with delays, and is nobody else's
    last: dict[str, int] = {}
    for row, record in enumerate(records):
        name = record.get("session_id")
        assert ("timestamp" in record) != ("delay" in record)
        if "delay" in record:
            assert last[name] in trace.links.after[row]
            assert record["delay"] == round(trace.links.delay_s[row] * 1e3)
        elif name in last:
            assert all("delay" not in r for r in records if r.get("session_id") == name)
        last[name] = row
    assert sum(map(len, read(path))) == len(trace)


def test_an_open_session_keeps_its_times_in_mooncake_and_vidur(path: Path) -> None:
    links = Links(["a", "", "a"], Ragged.empty(3), np.zeros(3), np.array([0.0, 1.0, 2.5]))
    trace = Chunk(np.array([0.0, 1.0, 2.5]), np.array([5, 6, 7]), np.ones(3, int), None, links)
    for format in ("mooncake", "vidur"):
        lost: list[str] = []
        write([trace], path, format, lost=lost)  # type: ignore[arg-type]
        found = back(path)
        assert found.links is not None
        assert found.links.session == links.session
        assert found.arrival_s.tolist() == trace.arrival_s.tolist()
        if format == "mooncake":
            waits = "1 later turns have a time, before which AIPerf and Dynamo wait for answers"
            assert f"mooncake: {waits}" in lost


def test_what_vidur_cannot_hold_is_said(path: Path) -> None:
    links = Links(["a", "a", "b"], Ragged.of([(), (0,), (0, 1)]), np.array([0, 1.0, 2.0]),
                  np.array([0.0, 9.0, np.nan]))  # fmt: skip
    trace = Chunk(np.array([0.0, 1.0, 3.0]), np.array([5, 6, 7]), np.ones(3, int), None, links)
    lost: list[str] = []
    write([trace], path, "vidur", lost=lost)
    assert lost == [
        "vidur: recorded times of 1 requests that wait for others are not kept",
        "vidur: 1 requests wait for others than the one before them in their session, which is "
        "not kept",
        "vidur: delays of 2 requests are not kept, nor that they wait: their times are the "
        "earliest (--sessions open writes the recorded ones)",
    ]
    assert path.read_text().splitlines() == [
        "arrived_at,num_prefill_tokens,num_decode_tokens,session_id,session_turn_index",
        "0.0,5,1,a,0", "1.0,6,1,a,1", "3.0,7,1,b,0",
    ]  # fmt: skip


def test_the_command_says_what_is_lost_and_opens_sessions(path: Path) -> None:
    links = Links(["a", "a"], Ragged.of([(), (0,)]), np.array([0, 1.0]), np.array([0.0, 9.0]))
    trace = Chunk(np.array([0.0, 1.0]), np.array([5, 6]), np.ones(2, int), None, links)
    write([trace], path, "parquet")
    out = path.with_name("out")

    def run(*flags: str) -> tuple[str, list[dict[str, object]]]:
        arguments = ["convert", str(path), str(out), "--to", "mooncake", *flags]
        result = CliRunner().invoke(app, arguments)
        assert result.exit_code == 0, result.output
        return result.stderr, [json.loads(line) for line in out.read_text().splitlines()]

    said, rows = run()
    assert "mooncake: recorded times of 1 later turns are not kept" in said
    assert [row.get("timestamp") for row in rows] == [0, None]
    assert [row.get("delay") for row in rows] == [None, 1000]
    said, rows = run("--sessions", "open")
    assert "recorded times" not in said.replace("their recorded times", "")
    assert [row["timestamp"] for row in rows] == [0, 9000]
    for flags in (["--sessions", "both"], ["--session-rate", "nan"], ["--to-block-tokens", "0"]):
        arguments = ["convert", str(path), str(out), "--to", "mooncake", *flags]
        result = CliRunner().invoke(app, arguments)
        assert result.exit_code == 2 or isinstance(result.exception, InputError)


def test_sessions_are_one_play_if_they_share_blocks(path: Path) -> None:
    links = Links(["a", "b"], Ragged.empty(2), np.zeros(2), np.full(2, np.nan))
    for ids, plays in (([(0,), (1,)], ["a", "b"]), ([(0,), (0,)], ["trace", "trace"])):
        trace = Chunk(np.zeros(2), np.array([5, 6]), np.ones(2, int), Ragged.of(ids), links)
        lost: list[str] = []
        write([trace], path, "agentic-mooncake", lost=lost)
        rows = [json.loads(line) for line in path.read_text().splitlines()][1:]
        assert [row["play_id"] for row in rows] == plays
        assert [row["session_id"] for row in rows] == ["a", "b"]
        assert bool(lost) == (plays[0] == "trace")


def test_parquet_with_sessions_replays_them_open_at_recorded_times(path: Path) -> None:
    links = Links(["a", "a", ""], Ragged.of([(), (0,), ()]), np.array([0, 1.0, 0]),
                  np.array([0.0, 9.0, np.nan]))  # fmt: skip
    trace = Chunk(np.array([0.0, 1.0, 3.0]), np.array([5, 6, 7]), np.ones(3, int), None, links)
    write([trace], path, "parquet")
    tally = Tally()
    found = back(path, replay=Replay("open"), tally=tally)
    assert found.arrival_s.tolist() == [0.0, 3.0, 9.0]
    assert found.prompt_tokens.tolist() == [5, 7, 6]
    assert found.links is not None
    assert not len(found.links.after.values)
    assert "open loop: 1 requests" in tally.notes[-1]


# columns that come late -----------------------------------------------------------------------


@pytest.mark.parametrize("format", ["parquet", "vidur"])
def test_columns_that_come_late_are_given_to_all_rows(path: Path, format: str) -> None:
    def chunk(start: int, ids: bool, linked: bool) -> Chunk:
        links = Links(["s", ""], Ragged.of([(), (0,)]), np.array([0, 0.5]), np.full(2, np.nan))
        return Chunk(
            np.array([start, start + 0.25]), np.array([5, 600]), np.array([1, 2]),
            Ragged.of([(3,), (3, start + 4)]) if ids else None, links if linked else None,
        )  # fmt: skip

    parts = [
        chunk(0, False, False),
        chunk(1, True, False),
        chunk(2, False, True),
        chunk(3, True, True),
    ]
    write(parts, path, format)  # type: ignore[arg-type]
    found = back(path)
    assert found.block_ids == Ragged.of([(), (), (3,), (3, 5), (), (), (3,), (3, 7)])
    assert found.links is not None
    assert found.links.session == ["", "", "", "", "s", "", "s", ""]
    assert found.arrival_s.tolist() == [0, 0.25, 1, 1.25, 2, 2.25, 3, 3.25]
    if format == "parquet":
        assert list(found.links.after) == [(), (), (), (), (), (0,), (), (0,)]
    write(parts, path, "mooncake")
    assert len(back(path)) == 8
    write(parts, path, "agentic-mooncake")
    assert len(back(path)) == 8


# bad links in a Parquet file ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ({"after": [[], [1], []]}, "t:row 2: after: 1 is no row before this one, which is 1"),
        ({"after": [[], [-5], []]}, "t:row 2: after: -5 is no row before this one"),
        (
            {"after": [[], [0, None], []]},
            "t:row 2: after: a missing value is no row before this one",
        ),
        ({"after": [[], [0, 0], []]}, "t:row 2: after: a row is named twice"),
        ({"delay_s": [0.0, float("nan"), 0]}, "t:row 2: delay_s: nan is no delay; write seconds"),
        ({"delay_s": [0.0, -1.0, 0]}, "t:row 2: delay_s: -1.0 is no delay"),
        ({"delay_s": [0.0, None, 0]}, "t:row 2: delay_s: nan is no delay"),
        ({"delay_s": [0.0, 1e300, 0]}, "t:row 2: delay_s: 1e+300 is no delay"),
        ({"recorded_s": [0.0, float("inf"), 0]}, "t:row 2: recorded_s: inf is not a plausible"),
        ({"session": ["a", "b" * 300, ""]}, "t:row 2: session: "),
        ({"session": ["a", "b\nc", ""]}, "t:row 2: session: 'b\\nc' is too long or not"),
        ({"session": [1, 2, 3]}, "session: has the wrong type"),
        ({"after": [1, 2, 3]}, "after: has the wrong type"),
        ({"delay_s": ["a", "b", "c"]}, "delay_s: has the wrong type"),
        ({"output_tokens": [0, 1, 1]}, "t:row 1: output_tokens: 0 tokens, a failed request"),
        ({"arrival_s": [1.0, 0.5, 2.0]}, "t:row 2: arrival_s: row 2 arrives before row 1"),
        ({"block_ids": [[0], [0, 1], [0]]}, "t:row 2: block_ids: 2 ids for a prompt of 6 tokens"),
    ],
)
def test_bad_links(path: Path, columns: dict[str, object], expected: str) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    base: dict[str, object] = {
        "arrival_s": [0.0, 1.0, 2.0], "prompt_tokens": [5, 6, 7], "output_tokens": [1, 2, 3],
        "session": ["a", "a", None], "after": [[], [0], []], "delay_s": [0.0, 1.0, 0.0],
        "recorded_s": [0.0, None, 2.0],
    }  # fmt: skip
    path = path.with_name("t")
    pq.write_table(pa.table(base), path)
    assert list(back(path).links.after) == [(), (0,), ()]  # type: ignore[union-attr]
    pq.write_table(pa.table(base | columns), path)
    with pytest.raises(InputError) as caught:
        list(read(path))
    assert expected in caught.value.lines[0]


def test_what_waits_for_a_row_that_is_left_out_is_left_out_too(path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.table({
        "arrival_s": [0.0, 1.0, 2.0, 3.0], "prompt_tokens": [5, 0, 7, 8],
        "output_tokens": [1, 2, 3, 4], "after": [[], [0], [1], [0]], "delay_s": [0.0, 1, 1, 3],
    })  # fmt: skip
    pq.write_table(table, path)
    tally = Tally()
    found = back(path, bad_rows="skip", tally=tally)
    assert found.prompt_tokens.tolist() == [5, 8]
    assert list(found.links.after) == [(), (0,)]  # type: ignore[union-attr]
    assert tally.reasons == {"zero prompt tokens": 1, "predecessor left out": 1}
    with_delay = table.drop_columns("delay_s")
    pq.write_table(with_delay, path)
    with pytest.raises(ValueError, match="delay_s: no such column"):
        list(read(path))


def test_a_file_of_links_can_be_sorted_and_cut(path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = {
        "arrival_s": [5.0, 6.0, 1.0], "prompt_tokens": [5, 6, 7], "output_tokens": [1, 2, 3],
        "after": [[], [0], []], "delay_s": [0.0, 1.0, 0.0],
    }  # fmt: skip
    pq.write_table(pa.table(table), path)
    found = back(path, sort=True)
    assert found.prompt_tokens.tolist() == [7, 5, 6]
    assert list(found.links.after) == [(), (), (1,)]  # type: ignore[union-attr]
    assert len(back(path, sort=True, limit=2)) == 2
    table["arrival_s"] = [5.0, 4.0, 6.0]
    pq.write_table(pa.table(table), path)
    with pytest.raises(ValueError, match="row 2: after: waits for a request that arrives later"):
        list(read(path, sort=True))
