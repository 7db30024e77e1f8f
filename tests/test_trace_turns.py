"""Turns of a file in order: times by hand, open and closed, drawn starts, bad references, ids."""

from __future__ import annotations

from dataclasses import replace
from math import nan
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sim.errors import InputError
from sim.trace import turns as module
from sim.trace.chunk import Chunk, Tally
from sim.trace.idruns import Dense, IdRuns
from sim.trace.rows import Findings, OnBadRow
from sim.trace.turns import Replay, Turn, Wait, chunks

if TYPE_CHECKING:
    from collections.abc import Iterable

FILE = Path("some.jsonl")


def turn(key: str, line: int, time_s: float = nan, **more: Any) -> Turn:
    return Turn(key, line, 100 + line, 10 + line, more.pop("session", "s"), time_s, **more)


def run(
    turns: Iterable[Turn],
    replay: Replay | None = None,
    *,
    tally: Tally | None = None,
    bad_rows: OnBadRow = "error",
    limit: int | None = None,
    chunk_rows: int = 100,
) -> list[Chunk]:
    tally = Tally() if tally is None else tally
    findings = Findings(FILE, bad_rows, tally)
    how = Replay() if replay is None else replay
    every = chunks(iter(turns), FILE, findings, tally, how, limit=limit, chunk_rows=chunk_rows)
    return list(every)


def rows(turns: Iterable[Turn], replay: Replay | None = None, **more: Any) -> list[Any]:
    """(line, arrival, after, delay, recorded) of each request."""
    found = []
    for chunk in run(turns, replay, **more):
        assert chunk.links is not None
        links = chunk.links
        columns = (
            (chunk.prompt_tokens - 100).tolist(), chunk.arrival_s.tolist(), list(links.after),
            links.delay_s.tolist(), links.recorded_s.tolist(),
        )  # fmt: skip
        found += list(zip(*columns, strict=True))
        assert (chunk.output_tokens - 10 == chunk.prompt_tokens - 100).all()
    return found


def refused(turns: Iterable[Turn], replay: Replay | None = None) -> str:
    with pytest.raises(InputError) as caught:
        run(turns, replay)
    assert len(caught.value.lines) == 1
    return caught.value.lines[0]


CHAIN = (
    turn("a", 1, 5.0),
    turn("b", 2, 17.0, after=("a",), delay_s=3.0),
    turn("c", 3, 30.0, after=("b",), delay_s=4.0),
)


def test_a_chain_waits_for_its_answers_and_its_delays() -> None:
    assert rows(CHAIN) == [
        (1, 0.0, (), 0.0, 0.0),
        (2, 3.0, (0,), 3.0, 12.0),
        (3, 7.0, (1,), 4.0, 25.0),
    ]


def test_open_replays_the_recorded_times_and_keeps_the_sessions() -> None:
    tally = Tally()
    (chunk,) = run(CHAIN, Replay(sessions="open"), tally=tally)
    assert chunk.links is not None
    assert chunk.arrival_s.tolist() == [0.0, 12.0, 25.0]
    assert list(chunk.links.after) == [(), (), ()]
    assert chunk.links.delay_s.tolist() == [0.0, 0.0, 0.0]
    assert chunk.links.session == ["s", "s", "s"]
    assert any("2 requests that follow others" in note for note in tally.notes)


def test_auto_closes_the_sessions_that_have_delays() -> None:
    other = (turn("x", 4, 6.0, session="t"), turn("y", 5, 9.0, session="t", after=("x",)))
    assert rows((*CHAIN, *other)) == [
        (1, 0.0, (), 0.0, 0.0),
        (4, 1.0, (), 0.0, 1.0),
        (2, 3.0, (0,), 3.0, 12.0),
        (5, 4.0, (), 0.0, 4.0),
        (3, 7.0, (2,), 4.0, 25.0),
    ]


def test_closed_takes_the_recorded_gap_where_there_is_no_delay_and_says_so() -> None:
    tally = Tally()
    pair = (turn("x", 1, 6.0), turn("y", 2, 9.0, after=("x",)))
    assert rows(pair, Replay(sessions="closed"), tally=tally) == [
        (1, 0.0, (), 0.0, 0.0),
        (2, 3.0, (0,), 3.0, 3.0),
    ]
    assert any("overstates" in note and note.startswith("1 request") for note in tally.notes)


def test_a_turn_that_starts_before_the_one_it_waits_for_has_no_delay() -> None:
    tally = Tally()
    pair = (turn("x", 1, 6.0), turn("y", 2, 4.0, after=("x",)))
    assert rows(pair, Replay(sessions="closed"), tally=tally)[1] == (2, 0.0, (0,), 0.0, -2.0)
    assert any("start before those they wait for" in note for note in tally.notes)


def test_fork_and_join() -> None:
    # a -> b, c (two sub-agents of which c has two turns) -> d waits for both ends
    tree = (
        turn("a", 1, 0.0),
        turn("b", 2, 10.0, after=("a",), delay_s=1.0),
        turn("c", 3, 10.0, after=("a",), delay_s=2.0),
        turn("c2", 4, 20.0, after=("c",), delay_s=5.0),
        turn("d", 5, 40.0, after=("b", "c2"), delay_s=0.5),
    )
    assert rows(tree) == [
        (1, 0.0, (), 0.0, 0.0),
        (2, 1.0, (0,), 1.0, 10.0),
        (3, 2.0, (0,), 2.0, 10.0),
        (4, 7.0, (2,), 5.0, 20.0),
        (5, 7.5, (1, 3), 0.5, 40.0),
    ]


def test_a_file_in_any_order_with_ties_puts_those_waited_for_first() -> None:
    tree = (
        turn("c", 1, after=("b",), delay_s=0.0),
        turn("z", 2, 0.0, session="t"),
        turn("b", 3, after=("a",), delay_s=0.0),
        turn("a", 4, 0.0),
        turn("y", 5, 0.0, session="u"),
    )
    assert [(line, after) for line, _, after, _, _ in rows(tree)] == [
        (2, ()), (4, ()), (5, ()), (3, (1,)), (1, (3,)),
    ]  # fmt: skip


def test_a_turn_is_not_sent_before_its_time() -> None:
    late = replace(CHAIN[1], not_before_s=11.0)
    assert rows((CHAIN[0], late))[1] == (2, 6.0, (0,), 3.0, 12.0)


def test_waiting_for_the_sending_of_a_turn_is_waiting_for_what_it_waits_for() -> None:
    found = rows((
        turn("a", 1, 0.0),
        turn("b", 2, after=("a",), delay_s=2.0),
        turn("c", 3, waits=(Wait("b", 0.25, sent=True),)),
        turn("d", 4, waits=(Wait("a", 7.0, sent=True),)),
    ))  # fmt: skip
    assert [row[:4] for row in found] == [
        (1, 0.0, (), 0.0),
        (2, 2.0, (0,), 2.0),
        (3, 2.25, (0,), 2.25),
        (4, 7.0, (), 0.0),
    ]


def test_of_several_delays_the_least_counts_and_the_others_are_in_the_earliest_time() -> None:
    tally = Tally()
    found = rows((
        turn("a", 1, 0.0),
        turn("b", 2, 1.0, session="t"),
        turn("c", 3, waits=(Wait("a", 9.0), Wait("b", 2.0))),
    ), tally=tally)  # fmt: skip
    assert found[2][:4] == (3, 9.0, (0, 1), 2.0)
    assert any("several delays" in note for note in tally.notes)


def test_who_waits_for_a_row_that_was_left_out_waits_for_what_it_waits_for() -> None:
    ghost = replace(CHAIN[1], ghost=True)
    assert rows((CHAIN[0], ghost, CHAIN[2])) == [
        (1, 0.0, (), 0.0, 0.0),
        (3, 7.0, (0,), 7.0, 25.0),
    ]
    lost = replace(CHAIN[1], ghost=True, time_s=nan)
    assert [row[0] for row in rows((CHAIN[0], lost, CHAIN[2]), Replay("open"))] == [1, 3]
    first = replace(CHAIN[0], ghost=True)
    assert rows((first, *CHAIN[1:])) == [(2, 0.0, (), 0.0, 9.0), (3, 4.0, (0,), 4.0, 22.0)]


def test_requests_that_know_nobody_have_no_links() -> None:
    (chunk,) = run([turn("a", 1, 2.0, session=""), turn("b", 2, 1.0, session="")])
    assert chunk.links is None
    assert chunk.block_ids is None
    assert chunk.arrival_s.tolist() == [0.0, 1.0]
    assert chunk.prompt_tokens.tolist() == [102, 101]


def test_the_limit_keeps_the_first_in_order_of_time() -> None:
    tally = Tally()
    late = (turn("x", 7, 99.0, session="t"),)
    assert [row[0] for row in rows((*late, *CHAIN), limit=2, tally=tally)] == [1, 2]
    assert tally.rows == 2
    assert len(run(CHAIN, limit=99)) == 1


def test_positions_count_through_all_chunks() -> None:
    every = rows(CHAIN, chunk_rows=1)
    assert [after for _, _, after, _, _ in every] == [(), (0,), (1,)]
    assert len(run(CHAIN, chunk_rows=2)) == 2


# -- starts that the file does not have ------------------------------------------------------------

FREE = tuple(
    turn(f"{name}{number}", 10 * place + number, float(number), session=name, free_start=True,
         after=() if number == 0 else (f"{name}{number - 1}",),
         delay_s=nan if number == 0 else 2.0)
    for place, name in enumerate("pqr") for number in range(2)
)  # fmt: skip


def starts(replay: Replay) -> list[float]:
    return [arrival for line, arrival, _, _, _ in rows(FREE, replay) if not line % 10]


def test_a_rate_is_needed_where_sessions_have_no_start() -> None:
    text = refused(FREE)
    assert "no start times" in text
    assert "--session-rate (trace.session_arrivals" in text


def test_starts_are_drawn_in_order_of_the_file() -> None:
    tally = Tally()
    found = rows(FREE, Replay(rate_per_s=0.5, arrivals="constant"), tally=tally)
    assert sorted(found) == [
        (0, 0.0, (), 0.0, 0.0),
        (1, 2.0, (0,), 2.0, 1.0),
        (10, 2.0, (), 0.0, 2.0),
        (11, 4.0, (2,), 2.0, 3.0),
        (20, 4.0, (), 0.0, 4.0),
        (21, 6.0, (4,), 2.0, 5.0),
    ]
    assert any("3 drawn at 0.5 a second (constant, seed 0)" in note for note in tally.notes)


def test_every_knob_of_the_starts_counts() -> None:
    base = Replay(rate_per_s=0.5, arrivals="gamma", burstiness=0.5, seed=3)
    assert starts(base) == starts(base)
    twice = starts(replace(base, rate_per_s=1.0))
    assert twice == pytest.approx([time / 2 for time in starts(base)])
    others = (
        replace(base, arrivals="poisson"), replace(base, burstiness=2.0), replace(base, seed=4)
    )  # fmt: skip
    assert len({tuple(starts(replay)) for replay in (base, *others)}) == 4


def test_the_rate_of_starts_is_that_asked_for() -> None:
    many = [turn(str(i), i, session=str(i), free_start=True) for i in range(4000)]
    (chunk,) = run(many, Replay(rate_per_s=4.0), chunk_rows=10_000)
    assert chunk.arrival_s[-1] == pytest.approx(1000.0, rel=0.1)


def test_open_sessions_keep_their_offsets_from_the_drawn_start() -> None:
    found = rows(FREE, Replay("open", rate_per_s=0.5, arrivals="constant"))
    assert sorted((line, arrival) for line, arrival, _, _, _ in found) == [
        (0, 0.0), (1, 1.0), (10, 2.0), (11, 3.0), (20, 4.0), (21, 5.0),
    ]  # fmt: skip


def test_a_session_that_does_not_begin_at_0_begins_at_the_drawn_start() -> None:
    late = [replace(one, time_s=one.time_s + 1000.0) for one in FREE]
    how = Replay(rate_per_s=0.5, arrivals="constant")
    assert rows(late, how) == rows(FREE, how)


def test_a_session_without_any_time_begins_at_the_drawn_start() -> None:
    bare = [replace(one, time_s=nan) for one in FREE]
    found = rows(bare, Replay(rate_per_s=0.5, arrivals="constant"))
    assert [arrival for _, arrival, _, _, _ in found] == [0.0, 2.0, 2.0, 4.0, 4.0, 6.0]
    assert all(recorded != recorded for _, _, _, _, recorded in found)


def test_a_rate_that_is_not_needed_is_told_of() -> None:
    tally = Tally()
    run(CHAIN, Replay(rate_per_s=1.0), tally=tally)
    assert any("rate of sessions is not used" in note for note in tally.notes)
    with pytest.raises(InputError, match="--session-rate"):
        run(FREE, Replay(rate_per_s=nan))


# -- bad references --------------------------------------------------------------------------------


def test_what_is_wrong_with_a_reference_is_told_with_its_line() -> None:
    nowhere = turn("b", 8, after=("nobody",), delay_s=0.0)
    assert refused((CHAIN[0], nowhere)) == (
        "some.jsonl:8: waits for 'nobody', which no request of the file is called; correct the name"
    )
    itself = turn("b", 8, after=("b",), delay_s=0.0)
    assert "some.jsonl:8: 'b' waits for itself" in refused((CHAIN[0], itself))
    assert "some.jsonl:9: 'a' is the name of line 1 already" in refused((*CHAIN, turn("a", 9, 3.0)))


def test_a_circle_is_told_of_once_with_its_way() -> None:
    ring = [turn(name, line, after=(before,), delay_s=0.0)
            for line, (name, before) in enumerate(["ac", "ba", "cb", "da"], 1)]  # fmt: skip
    assert refused(ring) == (
        "some.jsonl:1: waits for itself in a circle: 'a' -> 'c' -> 'b' -> 'a'; remove one reference"
    )
    tally = Tally()
    assert rows((*ring, turn("e", 9, 1.0)), bad_rows="skip", tally=tally) == [
        (9, 0.0, (), 0.0, 0.0)
    ]
    assert tally.reasons == {"circle of dependencies": 4}


def test_skipping_leaves_out_those_behind_a_bad_reference_and_counts_them() -> None:
    tally = Tally()
    bad = replace(CHAIN[1], after=("nobody",))
    assert [row[0] for row in rows((CHAIN[0], bad, CHAIN[2]), bad_rows="skip", tally=tally)] == [1]
    assert tally.reasons == {"unknown predecessor": 1, "predecessor left out": 1}
    assert tally.skipped == 2
    assert len(tally.examples) == 2


def test_a_turn_without_a_time_cannot_be_replayed() -> None:
    assert "some.jsonl:4: no time and nothing to wait for" in refused([turn("a", 4)])
    timeless = (CHAIN[0], replace(CHAIN[1], time_s=nan))
    assert "some.jsonl:2: no recorded time" in refused(timeless, Replay(sessions="open"))
    no_delay = (CHAIN[0], replace(CHAIN[1], time_s=nan, delay_s=nan))
    assert "some.jsonl:2: neither a delay nor a time" in refused(no_delay, Replay("closed"))


def test_nothing_left_and_a_trace_too_long_are_told_of() -> None:
    assert "no requests in the file" in refused([])
    text = refused((CHAIN[0], turn("z", 7, 2e9)))
    assert "some.jsonl:7" in text
    assert "31 years" in text


# -- block ids -------------------------------------------------------------------------------------


def with_ids(line: int, session: str, ids: list[int], *, local: bool) -> Turn:
    prompt = 512 * len(ids) or 512
    return Turn(line, line, prompt, 1, session, float(line), ids=np.array(ids, dtype=np.int64),
                local_ids=local)  # fmt: skip


def test_local_ids_become_dense_in_order_of_the_file_and_global_ones_stay() -> None:
    given_ids = [(1, "s", [7, 3, 9]), (2, "t", [7, 3]), (3, "s", [7, 3, 4]), (4, "t", [10**18])]
    (chunk,) = run(with_ids(*one, local=True) for one in given_ids)
    assert chunk.block_ids is not None
    assert list(chunk.block_ids) == [(0, 1, 2), (3, 4), (0, 1, 5), (6,)]
    (chunk,) = run(with_ids(*one, local=False) for one in given_ids)
    assert chunk.block_ids is not None
    assert list(chunk.block_ids) == [tuple(ids) for _, _, ids in given_ids]


def test_chunks_with_many_ids_are_short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_CHUNK_IDS", 5)
    given_ids = [list(range(n)) for n in (2, 3, 0, 9, 1, 1, 4)]
    found = run(with_ids(i, "s", ids, local=False) for i, ids in enumerate(given_ids))
    assert [len(chunk) for chunk in found] == [3, 1, 2, 1]
    there = [row for chunk in found for row in chunk.block_ids or ()]
    assert there == [tuple(ids) for ids in given_ids]


def test_a_row_whose_ids_do_not_fit_its_prompt_is_bad_and_bypassed() -> None:
    good = [with_ids(i, "s", [1, 2, i + 3], local=False) for i in range(9)]
    chain = [replace(one, after=() if i == 0 else (i - 1,), delay_s=1.0)
             for i, one in enumerate(good)]  # fmt: skip
    chain[4] = replace(chain[4], prompt=512)
    with pytest.raises(InputError, match=r"some.jsonl:4: hash_ids: 3 ids for a prompt of 512"):
        run(chain)
    tally = Tally()
    (chunk,) = run(chain, bad_rows="skip", tally=tally)
    assert chunk.links is not None
    assert len(chunk) == 8
    assert list(chunk.links.after)[4] == (3,)
    assert chunk.arrival_s.tolist() == [0.0, 1.0, 2.0, 3.0, 5.0, 6.0, 7.0, 8.0]
    assert tally.block_tokens == 512
    assert tally.skipped == 1


@given(st.lists(st.lists(st.integers(0, 2**63 - 1) | st.integers(0, 6), max_size=12), max_size=8),
       st.randoms(use_true_random=False))  # fmt: skip
@settings(deadline=None)
def test_runs_give_back_what_they_took(given_ids: list[list[int]], random: Any) -> None:
    runs = IdRuns()
    for ids in given_ids:
        runs.add(np.array(ids, dtype=np.int64))
    runs.add(None)
    order = list(range(len(given_ids) + 1))
    random.shuffle(order)
    taken = runs.rows().take(np.array(order, dtype=np.intp))
    assert list(taken) == [tuple([*given_ids, []][i]) for i in order]
    assert runs.sizes.tolist() == [len(ids) for ids in [*given_ids, []]]


@given(
    st.lists(
        st.tuples(
            st.sampled_from("ab"), st.lists(st.integers(0, 30) | st.integers(0, 2**62), max_size=9)
        ),
        max_size=9,
    )
)
@settings(deadline=None)
def test_dense_numbers_are_given_by_first_appearance(rows: list[tuple[str, list[int]]]) -> None:
    dense, known = Dense(), {}  # type: ignore[var-annotated]
    for space, ids in rows:
        found = dense.ids(space, np.array(ids, dtype=np.int64)).tolist()
        assert found == [known.setdefault((space, id), len(known)) for id in ids]


def test_dense_numbers_can_be_said_and_forgotten() -> None:
    dense = Dense()
    shared = dense.ids("tools", np.arange(3))
    for space in ("a", "b"):
        dense.same(space, np.array([5, 6, 7]), shared)
    assert dense.ids("b", np.array([5, 6, 7, 8])).tolist() == [0, 1, 2, 3]
    assert dense.ids("a", np.array([10**15, 7, 8])).tolist() == [4, 2, 5]
    dense.same("a", np.array([7, 9]), np.array([1, 1]))
    assert dense.ids("a", np.array([7, 9])).tolist() == [2, 1]
    dense.forget("a")
    assert dense.ids("a", np.array([7])).tolist() == [6]


def test_prompts_that_extend_each_other_take_little_memory() -> None:
    runs = IdRuns()
    for length in range(1, 2000):
        runs.add(np.arange(7, 7 + length))
    assert runs.sizes.tolist() == list(range(1, 2000))
    assert len(runs._starts) == 1999


# -- all of it -------------------------------------------------------------------------------------


@st.composite
def graphs(draw: st.DrawFn) -> list[Turn]:
    """Turns in any order; each waits for some that were drawn before it."""
    count = draw(st.integers(1, 12))
    delays = st.sampled_from([0.0, 0.5, 1.0, 4.0])
    found = []
    for number in range(count):
        before = draw(st.sets(st.integers(0, number - 1), max_size=3)) if number else set()
        found.append(
            Turn(
                number,
                number,
                number + 1,
                1,
                draw(st.sampled_from(["", "s", "t"])),
                draw(st.sampled_from([0.0, 0.25, 2.0, 7.0])),
                tuple(sorted(before)),
                draw(delays) if before else nan,
            )
        )
    return draw(st.permutations(found))


def longest(turns: dict[int, Turn], number: int) -> float:
    """The earliest time of a turn by the longest way to it."""
    one = turns[number]
    if not one.after:
        return one.time_s
    return max(longest(turns, int(str(before))) for before in one.after) + one.delay_s


@given(graphs())
@settings(max_examples=200, deadline=None)
def test_any_graph_is_in_order_of_its_longest_ways(turns: list[Turn]) -> None:
    by_number = {one.line: one for one in turns}
    every = run(turns, Replay("closed"), chunk_rows=3)
    numbers = [int(n) - 1 for chunk in every for n in chunk.prompt_tokens]
    arrival_s = np.concatenate([chunk.arrival_s for chunk in every])
    wanted = np.array([longest(by_number, number) for number in numbers])
    assert arrival_s == pytest.approx(wanted - wanted.min())
    assert (np.diff(arrival_s) >= 0).all()
    after = [row for chunk in every for row in (chunk.links.after if chunk.links else [()] * 9)]
    for place, number in enumerate(numbers):
        others = {numbers[other] for other in after[place]}
        assert others == set(by_number[number].after)
        assert all(other < place for other in after[place])


@given(graphs(), st.integers(1, 12))
@settings(deadline=None)
def test_a_limited_trace_is_the_beginning_of_the_whole(turns: list[Turn], limit: int) -> None:
    def flat(every: list[Chunk]) -> list[Any]:
        return [
            (chunk.arrival_s[i], chunk.prompt_tokens[i], chunk.links and chunk.links.after[i])
            for chunk in every
            for i in range(len(chunk))
        ]

    assert flat(run(turns, limit=limit)) == flat(run(turns))[:limit]
