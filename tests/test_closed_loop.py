"""Sessions: a turn is sent when the answers it waits for are there, so a slow server sees it late.

Times are in the ticks of `toy.py`; both engines must meet them to the last bit.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from scipy import stats
from toy import ENDLESS, TICK, Ran, Turn, hbm, linked, play, toy_scenario, write_profile

from sim import request_log

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from sim.scenario import Scenario

    Replay = Callable[..., Ran]


def scenario_of(folder: Path, **sections: Any) -> Scenario:
    """The toy; its trace is replaced by the chunks that are played."""
    return toy_scenario(folder, [(0, 8, 1)], **sections)


@pytest.fixture(params=["step", "leap"])
def replay(request: pytest.FixtureRequest, tmp_path: Path) -> Replay:
    """Plays turns on the toy GPU with the engine in turn."""

    def run(turns: list[Turn], **sections: Any) -> Ran:
        return play(scenario_of(tmp_path, **sections), request.param, linked(turns))

    return run


def until(ticks: float) -> dict[str, str]:
    return {"at": f"{ticks * TICK} s"}


# ---------------------------------------------------------------- who is sent when
TWO_SESSIONS = [
    Turn(session="a", output=2),
    Turn(session="a", after=(0,)),  # at once
    Turn(10, session="b"),
    Turn(session="b", after=(2,), delay=5, output=2),  # a fork
    Turn(session="b", after=(2,), delay=30),
    Turn(session="b", after=(3, 4), delay=4),  # and its join
]


def test_fork_and_join(replay: Replay) -> None:
    ran = replay(TWO_SESSIONS)
    assert ran.rows("kind", "running", "waiting", "output_tokens") == [
        (0, 20, "prefill", 1, 0, 1),  # the first of a
        (20, 24, "mixed", 2, 0, 2),  # its answer ends beside the first of b
        (44, 20, "prefill", 1, 0, 1),  # a asks again at once, and this boundary sees it
        (64, 20, "prefill", 1, 0, 1),  # one branch of b, sent at 49
        (84, 24, "mixed", 2, 0, 2),  # the other, sent at 74
        (112, 20, "prefill", 1, 0, 1),  # 4 after both
    ]
    assert ran.ticks("arrival_s") == [0, 44, 10, 49, 74, 112]
    assert ran.ticks("finished_s") == [44, 64, 44, 108, 108, 132]
    assert ran.requests.session.tolist() == ["a", "a", "b", "b", "b", "b"]
    assert ran.requests.waited_for.tolist() == [0, 1, 0, 1, 1, 2]
    assert ran.ticks("think_s")[1:2] + ran.ticks("think_s")[3:] == [0, 5, 30, 4]
    assert ran.requests.think_s.isna().tolist() == [True, False, True, False, False, False]
    assert ran.requests.ttft_ms.iloc[5] == 20 * TICK * 1e3  # counts from when it was sent


def test_what_a_run_says_of_its_sessions(replay: Replay) -> None:
    ran = replay(TWO_SESSIONS)
    assert ran.summary["trace_closed_loop"] is True
    assert ran.summary["trace_sessions"] == 2
    assert ran.summary["trace_sessions_unfinished"] == 0
    assert ran.summary["trace_requests_not_sent"] == 0
    assert ran.summary["trace_session_mean_s"] == (64 + 122) / 2 * TICK
    assert ran.summary["trace_session_median_s"] == (64 + 122) / 2 * TICK
    assert ran.summary["trace_session_p99_s"] == pytest.approx((64 + 0.99 * 58) * TICK)
    assert ran.trace["replay"] == "closed loop"
    assert (ran.trace["requests"], ran.trace["requests_not_sent"]) == (6, 0)
    assert (ran.trace["sessions"], ran.trace["requests_that_wait"]) == (2, 4)
    assert ran.trace["answers_waited_for"] == 5


def test_nobody_waits_in_an_open_trace_of_sessions(replay: Replay) -> None:
    ran = replay([Turn(3 * i, session=f"s{i % 2}") for i in range(4)])
    assert ran.ticks("arrival_s") == [0, 3, 6, 9]
    assert ran.summary["trace_closed_loop"] is False
    assert ran.summary["trace_sessions"] == 2
    assert ran.trace["replay"] == "open loop"


def test_a_trace_without_sessions_has_none(tmp_path: Path) -> None:
    ran = play(scenario_of(tmp_path))
    assert ran.requests.session.isna().all()
    assert ran.summary["trace_closed_loop"] is False
    assert ran.summary["trace_sessions"] == ran.summary["trace_requests_not_sent"] == 0
    assert ran.summary["trace_session_median_s"] is None


def test_an_answer_of_one_token_is_there_after_its_prefill(replay: Replay) -> None:
    ran = replay([Turn(), Turn(after=(0,), delay=0.5), Turn(after=(1,))])
    assert ran.ticks("arrival_s") == [0, 20.5, 40.5]
    assert ran.ticks("finished_s") == [20, 40.5, 60.5]


def test_a_turn_due_on_a_boundary_is_seen_there(replay: Replay) -> None:
    turns = [Turn(output=6), Turn(), Turn(after=(1,), delay=16)]
    assert replay(turns).ticks("admitted_s") == [0, 0, 36]
    turns[2] = Turn(after=(1,), delay=16.0625)
    assert replay(turns).ticks("admitted_s") == [0, 0, 52]


def test_an_answer_that_came_before_the_turn_was_due(replay: Replay) -> None:
    """A join whose one branch ended long ago, behind a branch of its own."""
    turns = [Turn(), Turn(500), Turn(after=(0, 1), delay=10)]
    assert replay(turns).ticks("arrival_s") == [0, 500, 530]
    waits = [Turn(), Turn(400, after=(0,), delay=10)]  # is not sent before its own time
    assert replay(waits).ticks("arrival_s") == [0, 400]


def test_a_turn_after_a_rejected_one_is_sent(replay: Replay) -> None:
    too_long = Turn(5, prompt=10**6, session="a")
    ran = replay([too_long, Turn(after=(0,), delay=7, session="a"), Turn(after=(0,), session="a")])
    assert ran.requests.status.tolist() == ["rejected", "finished", "finished"]
    assert ran.ticks("arrival_s") == [5, 5, 12]
    assert ran.summary["requests_rejected"] == 1
    assert ran.summary["trace_session_mean_s"] == (5 + 20 + 20 - 5) * TICK


def test_a_chain_of_rejected_turns_ends_at_once(replay: Replay) -> None:
    turns = [Turn(prompt=10**6, after=(i - 1,) if i else ()) for i in range(1000)]
    ran = replay(turns)
    assert ran.summary["requests_rejected"] == 1000
    assert set(ran.ticks("arrival_s")) == {0}


@pytest.mark.parametrize("crossed", [False, True])
@pytest.mark.parametrize("delay", [0, 1])
def test_turns_of_the_same_instant_come_in_the_order_of_the_trace(
    replay: Replay, crossed: bool, delay: int
) -> None:
    """Two end together, of which the one with the lower position began to decode last."""
    turns = [
        Turn(),
        Turn(after=(0,), output=2),
        Turn(1, output=2),
        Turn(prompt=60, after=(2 if crossed else 1,), delay=delay),
        Turn(prompt=60, after=(1 if crossed else 2,), delay=delay),
    ]
    both = 56 + delay
    rows = replay(turns).requests
    rows = rows[rows.prompt_tokens == 60]
    assert (rows.arrival_s / TICK).tolist() == [both, both]
    assert (rows.first_token_s / TICK).tolist() == [both + 20, both + 40]


@pytest.mark.parametrize("loop", ["exit", "partition"])
def test_resident_loop(replay: Replay, loop: str) -> None:
    """A partition's answer of one token is there before the loop's next boundary."""
    ran = replay(
        [Turn(output=20), Turn(20), Turn(after=(1,), delay=1)],
        loop={"mode": "resident", "prefill": loop, "prefill_share": 0.5},
    )
    assert ran.requests.arrival_s[2] == ran.requests.finished_s[1] + TICK
    assert ran.summary["requests_finished"] == 3


# ---------------------------------------------------------------- the end of a run
def test_turns_that_are_not_sent_before_the_end_are_counted(replay: Replay) -> None:
    turns = [
        Turn(output=100, session="long"),
        Turn(after=(0,), session="long"),
        Turn(after=(1,), session="long"),
        Turn(session="late"),
        Turn(after=(3,), delay=81, session="late"),  # answered, but thinks beyond the end
        Turn(session="good"),
        Turn(after=(5,), session="good"),
        Turn(5000, session="never"),  # beyond the end whatever the server does
    ]
    ran = replay(turns, stop=until(100))
    summary = ran.summary
    assert summary["requests_in"] == len(ran.requests) == 4
    assert summary["requests_finished"] + summary["requests_unfinished"] == 4
    assert summary["trace_requests_not_sent"] == 3
    assert (summary["trace_sessions"], summary["trace_sessions_unfinished"]) == (3, 2)
    assert summary["trace_session_mean_s"] == ran.requests.finished_s.max()
    assert (ran.trace["requests"], ran.trace["requests_not_sent"]) == (7, 3)


def test_a_turn_due_at_the_very_end_is_sent(replay: Replay) -> None:
    turns = [Turn(), Turn(after=(0,), delay=4)]
    assert replay(turns, stop=until(24)).ticks("arrival_s") == [0, 24]
    assert replay(turns, stop=until(23)).ticks("arrival_s") == [0]
    at_once = [Turn(), Turn(after=(0,))]
    assert replay(at_once, stop=until(20)).requests.status.tolist() == ["finished", "unfinished"]


def test_records_do_not_depend_on_where_slices_are_cut(
    replay: Replay, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = replay(TWO_SESSIONS)
    monkeypatch.setattr(request_log, "SLICE", 2)
    cut = replay(TWO_SESSIONS)
    assert whole.requests.equals(cut.requests)
    assert whole.summary == cut.summary


# ---------------------------------------------------------------- feedback
def chains(users: int, turns: int, think: float, **keys: Any) -> list[Turn]:
    """So many users who ask, read and think by turns; all begin at 0."""
    return [
        Turn(session=f"user {number % users}", delay=think,
             after=(number - users,) if number >= users else (), **keys)
        for number in range(users * turns)
    ]  # fmt: skip


def test_a_slower_server_sees_later_arrivals(tmp_path: Path) -> None:
    turns = chains(3, 6, think=40, output=5)
    fast = play(scenario_of(tmp_path), chunks=linked(turns))
    (tmp_path / "slow").mkdir()
    write_profile(tmp_path / "slow" / "toy.json", {"graph_launch_s": 8 * TICK})
    slow = play(scenario_of(tmp_path / "slow"), chunks=linked(turns))
    first, later = fast.requests.waited_for == 0, fast.requests.waited_for > 0
    assert (slow.requests.arrival_s[first] == fast.requests.arrival_s[first]).all()
    assert (slow.requests.arrival_s[later] > fast.requests.arrival_s[later]).all()
    assert slow.summary["trace_session_median_s"] > fast.summary["trace_session_median_s"]


def test_closed_loop_cannot_be_overloaded(tmp_path: Path) -> None:
    """Six users never wait behind more than five others; open loop the queue grows and grows."""
    turns = chains(6, 30, think=10, output=4)
    recorded = [Turn(at=10 * (number // 6), output=4) for number in range(len(turns))]
    loop = {"max_batch": 1}
    closed = play(scenario_of(tmp_path, loop=loop), chunks=linked(turns))
    opened = play(scenario_of(tmp_path, loop=loop), chunks=linked(recorded))
    service = 20 + 3 * 16
    assert closed.requests.queue_ms.max() <= 5 * service * TICK * 1e3
    assert opened.requests.queue_ms.max() > 100 * service * TICK * 1e3
    assert closed.summary["loop_time_s"] == opened.summary["loop_time_s"]


def mean_value_analysis(users: int, service: float, think: float) -> tuple[float, float]:
    """Throughput and response time of one exponential server and *users* who think."""
    queue = response = 0.0
    for number in range(1, users + 1):
        response = service * (1 + queue)
        queue = number * response / (think + response)
    return users / (think + response), response


@pytest.mark.parametrize("users", [2, pytest.param(8, marks=pytest.mark.slow), 20])
def test_machine_repairman(tmp_path: Path, users: int) -> None:
    """Exponential service in one slot and exponential think times: M/M/1//N, by theory."""
    tokens, each, turns = 1000.0, TICK / 1024, 24_000 // users
    flops = 2 * 2 * (8 * 16 + 8 * 8 + 8 * 16 + 8 * 8) / each  # a layer's products for a token
    nothing = dict.fromkeys(("launch_latency_s", "host_sync_s", "host_copyback_s"), 0.0)
    write_profile(
        tmp_path / "toy.json",
        nothing | {"host_python_submit_s": 0.0},
        {
            "gemm.bf16": {"t0_s": 0.0, "flops_per_s": flops},
            "elementwise": {"t0_s": 0.0, "bytes_per_s": ENDLESS},
            "prefill_attention.bf16": {"t0_s": 0.0},
        },
    )
    service = tokens * each + 2 * 8 * 16 / flops
    think = 7 * service
    rng = np.random.default_rng(11)
    prompts = rng.geometric(1 / tokens, users * turns).tolist()
    delays = rng.exponential(think / TICK, users * turns).tolist()
    plan = chains(users, turns, think=0.0)
    plan = [
        Turn(delay, prompt, 1, turn.session, turn.after, delay)
        for turn, prompt, delay in zip(plan, prompts, delays, strict=True)
    ]
    scenario = scenario_of(tmp_path, loop={"max_batch": 1, "token_budget": 10_000_000})
    rows = play(scenario, chunks=linked(plan)).requests
    # Between a warm-up and the moment at which the first user has nothing more to ask.
    end = rows.groupby("session").finished_s.max().min()
    rows = rows[(rows.finished_s > 0.05 * end) & (rows.finished_s <= end)]
    throughput, response = mean_value_analysis(users, service, think)
    ordered = rows.sort_values("finished_s")
    assert_mean(ordered.e2el_ms.to_numpy() / 1e3, response)
    assert_mean(np.diff(ordered.finished_s.to_numpy()), 1 / throughput)


def assert_mean(values: np.ndarray, expected: float, batches: int = 24) -> None:
    """The batch means allow the *expected* mean at 99.9 %, and are sharp enough to tell."""
    means = values[: len(values) // batches * batches].reshape(batches, -1).mean(axis=1)
    reach = stats.t.ppf(0.9995, batches - 1) * means.std(ddof=1) / batches**0.5
    assert reach < 0.15 * expected, "too few requests to tell"
    assert abs(means.mean() - expected) < reach


def test_little_s_law_in_a_closed_network(tmp_path: Path) -> None:
    """Users are either thinking or served: N = X (R + Z), exactly for constant times."""
    ran = play(scenario_of(tmp_path), chunks=linked(chains(4, 50, think=33, output=3)))
    for _, rows in ran.requests.groupby("session"):
        for (_, before), (_, after) in pairwise(rows.iterrows()):
            assert after.arrival_s == before.finished_s + 33 * TICK


def test_requests_that_wait_are_forgotten_when_sent(tmp_path: Path) -> None:
    from sim.closed_loop import ClosedLoop
    from sim.request import Request

    links = ClosedLoop()
    for number in range(1000):
        after = (number - 1,) if number else ()
        links.read(Request(number, 0.0, 1, 1, waits_for=len(after)), after)
    assert (links.waiting, links.not_sent) == (999, 1000)
    for number in range(1000):
        assert links.next_due == number
        links.answered(links.pop(), float(number + 1))
    assert links.not_sent == 0
    assert not links._left
    assert not links._behind


def test_hbm_for_one_request_at_a_time(replay: Replay) -> None:
    """Preempted or not, an answer is complete when its last token is."""
    turns = chains(4, 5, think=3, prompt=20, output=30)
    ran = replay(turns, hardware={"hbm": hbm(14, 4)}, kv={"block_tokens": 4})
    assert ran.summary["requests_finished"] == 20
    for _, rows in ran.requests.groupby("session"):
        for (_, before), (_, after) in pairwise(rows.iterrows()):
            assert after.arrival_s == before.finished_s + 3 * TICK
