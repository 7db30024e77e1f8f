"""What lies between clients and the engine, in ticks: TTFT and E2EL change, tokens' gaps do not."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from toy import TICK, Ran, Turn, linked, play, toy_scenario

from sim.compare.parts import iterations_of, requests_of
from sim.runs import read_run
from sim.scenario import Scenario
from sim.simulate import run
from sim.timeline import write
from sim.validation import served
from sim.validation.waiting import waiting_line

if TYPE_CHECKING:
    from pathlib import Path

REQUESTS = [(0, 8, 3), (40, 8, 1), (41, 8, 4)]
SENDS = {"arrival_delay": f"{5 * TICK} s"}
TOKENS = {"token_delay": f"{3 * TICK} s"}


def scenario(folder: Path, schedule: dict[str, Any], **sections: Any) -> Scenario:
    return toy_scenario(folder, REQUESTS, kv={"prefix_cache": False}, schedule=schedule, **sections)


def played(folder: Path, schedule: dict[str, Any], **sections: Any) -> Ran:
    """Both engines' run, which are the same."""
    chosen = scenario(folder, schedule, **sections)
    step, leap = play(chosen, "step"), play(chosen, "leap")
    assert step.requests.equals(leap.requests)
    assert step.iterations.equals(leap.iterations)
    assert step.summary == leap.summary
    return leap


def moved(one: Ran, other: Ran, column: str) -> list[float]:
    """By how many ticks a column of requests is later in *other*."""
    return [
        pytest.approx(b - a, abs=1e-6)
        for a, b in zip(one.ticks(column), other.ticks(column), strict=True)
    ]


def test_a_late_arrival_is_a_longer_wait(tmp_path: Path) -> None:
    plain, late = played(tmp_path, {}), played(tmp_path, SENDS)
    assert moved(plain, late, "arrival_s") == [0, 0, 0]  # when the clients send
    for column in ("admitted_s", "first_token_s", "finished_s"):
        assert moved(plain, late, column) == [5, 5, 5]
    for column in ("queue_ms", "ttft_ms", "e2el_ms"):
        assert list(late.requests[column] - plain.requests[column]) == pytest.approx(
            [5e3 * TICK] * 3
        )
    assert list(late.requests.tpot_ms.dropna()) == pytest.approx(
        list(plain.requests.tpot_ms.dropna())
    )
    assert late.rows("decode_requests")[0][0] == pytest.approx(5)


def test_a_late_token_is_seen_later_and_changes_nothing_else(tmp_path: Path) -> None:
    plain, late = played(tmp_path, {}), played(tmp_path, TOKENS)
    assert late.iterations.equals(plain.iterations)
    for column in ("arrival_s", "admitted_s", "queue_ms"):
        assert late.requests[column].equals(plain.requests[column])
    for column in ("first_token_s", "finished_s"):
        assert moved(plain, late, column) == [3, 3, 3]
    for column in ("ttft_ms", "e2el_ms"):
        assert list(late.requests[column] - plain.requests[column]) == pytest.approx(
            [3e3 * TICK] * 3
        )
    same = [key for key in plain.summary if key.startswith(("mean_itl", "p99_itl", "loop_it"))]
    assert len(same) > 2
    assert {k: plain.summary[k] for k in same} == {k: late.summary[k] for k in same}
    assert late.summary["duration"] == pytest.approx(plain.summary["duration"] + 3 * TICK)


def test_no_delay_leaves_no_mark(tmp_path: Path) -> None:
    none = scenario(tmp_path, {"arrival_delay": "0 s", "token_delay": "0 ms"})
    assert none.hash == scenario(tmp_path, {}).hash != scenario(tmp_path, TOKENS).hash
    assert "schedule" not in none.resolved()
    late = scenario(tmp_path, SENDS | TOKENS)
    assert Scenario.from_resolved(late.resolved()).schedule == late.schedule


def test_an_answer_goes_to_the_client_and_the_next_question_back(tmp_path: Path) -> None:
    turns = [Turn(0, 8, 2, "s"), Turn(0, 8, 1, "s", (0,), delay=10), Turn(100, 8, 1, "t")]

    def times(schedule: dict[str, Any], engine: str) -> Ran:
        chosen = toy_scenario(tmp_path, [], kv={"prefix_cache": False}, schedule=schedule)
        return play(chosen, engine, linked(turns))

    for engine in ("leap", "step"):
        plain, late = times({}, engine), times(SENDS | TOKENS, engine)
        assert moved(plain, late, "finished_s") == [8, 16, 8]
        # The client has the answer 8 ticks later, and thinks as long as ever.
        assert moved(plain, late, "arrival_s") == [0, 8, 0]
        assert moved(plain, late, "admitted_s") == [5, 13, 5]


def test_who_has_not_reached_the_engine_by_the_end_is_in_no_row(tmp_path: Path) -> None:
    stop = {"stop": {"at": f"{44 * TICK} s"}}
    assert len(played(tmp_path, {}, **stop).requests) == 3
    assert len(played(tmp_path, SENDS, **stop).requests) == 1


def test_gaps_of_a_run_are_found_in_its_iterations(tmp_path: Path) -> None:
    for number, schedule in enumerate(({}, SENDS | TOKENS)):
        folder = tmp_path / f"run{number}"
        folder.mkdir()
        run(scenario(tmp_path, schedule), folder)
        found = served.read(folder)
        assert [len(gaps) for gaps in found.gaps] == [2, 0, 3]
        assert min(np.concatenate(found.gaps)) > 0
        assert found.ttft == pytest.approx(read_run(folder).requests("ttft_ms")["ttft_ms"] / 1e3)


def test_parts_of_a_latency_have_the_delivery(tmp_path: Path) -> None:
    found = []
    for number, schedule in enumerate(({}, SENDS | TOKENS)):
        folder = tmp_path / f"run{number}"
        folder.mkdir()
        run(scenario(tmp_path, schedule), folder)
        one = read_run(folder)
        found.append(requests_of(one, iterations_of(one)))
    plain, late = (one.mean("ttft") for one in found)
    assert "delivery" not in plain
    assert late.pop("delivery") == pytest.approx(3 * TICK)
    assert late.pop("queue") - plain.pop("queue") == pytest.approx(5 * TICK)
    assert late == pytest.approx(plain)
    assert sum(found[1].mean("e2el").values()) == pytest.approx(found[1].e2el.mean())


def test_tokens_are_drawn_from_the_iterations_that_made_them(tmp_path: Path) -> None:
    arrows = []
    for number, schedule in enumerate(({}, TOKENS)):
        folder = tmp_path / f"run{number}"
        folder.mkdir()
        run(scenario(tmp_path, schedule), folder)
        write(folder, tmp_path / f"{number}.json")
        events = json.loads((tmp_path / f"{number}.json").read_text())["traceEvents"]
        flows = [e for e in events if e.get("cat") == "request" and e["ph"] in "stf"]
        arrows.append([(e["ph"], e["id"], e["ts"]) for e in flows])
    assert len(arrows[0]) > len(REQUESTS)
    assert arrows[0] == arrows[1]


def test_a_constant_that_a_key_would_hold_is_named(tmp_path: Path) -> None:
    requests = [(25 * i, 8, 3) for i in range(30)]
    found = []
    for number, schedule in enumerate(({}, SENDS, SENDS | TOKENS)):
        folder = tmp_path / f"run{number}"
        folder.mkdir()
        run(toy_scenario(tmp_path, requests, kv={"prefix_cache": False}, schedule=schedule), folder)
        found.append(served.read(folder))
    plain, late, later = found
    line = waiting_line(late, plain)
    assert line is not None
    assert "first tokens come 4.88 ms later than simulated, nearly a constant" in line
    assert "schedule: {arrival_delay: 4.88 ms}" in line
    assert "arrival_delay: 7.81 ms" in str(waiting_line(later, plain))
    assert waiting_line(late, late) is None
    assert waiting_line(plain, late) is None  # earlier than simulated
    few = np.arange(19)
    assert waiting_line(late.take(few), plain.take(few)) is None
    slow = late.take(np.arange(30))
    slow.first = plain.first + np.linspace(0, 10, 30) * TICK  # a load that grows is no constant
    assert waiting_line(slow, plain) is None
