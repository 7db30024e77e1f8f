"""`leap` and `step` are one model: any small run comes out of both equal to the last bit."""

from __future__ import annotations

import tempfile
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import kv_runs
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from toy import TICK, Ran, Turn, hbm, linked, play, toy_scenario

from sim import iteration_log
from sim.simulate import Simulation
from sim.trace.chunk import Tally
from sim.trace.transforms import rate_scale

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sim.scenario import Scenario
    from sim.trace.chunk import Chunk

# Arrivals on and off the toy's boundaries, many at the same time.
GAPS = st.sampled_from([0, 0, 0, 1, 15, 16, 16.5, 20, 37, 100, 1000])
LENGTHS = st.one_of(st.integers(1, 8), st.integers(1, 40))


@st.composite
def loops(draw: Any, max_batch: int) -> dict[str, Any]:
    """Every key of `loop`, valid together."""
    sizes = st.sets(st.integers(1, max_batch), min_size=1).map(sorted)
    return {
        "mode": draw(st.sampled_from(["host", "graph", "control", "resident"])),
        "host": draw(st.sampled_from(["python", "c"])),
        "kernels": draw(st.sampled_from(["fused", "library"])),
        "prefill": draw(st.sampled_from(["exit", "partition"])),
        "prefill_share": draw(st.sampled_from([0.25, 0.5, 0.9])),
        "max_batch": max_batch,
        "token_budget": max_batch + draw(st.integers(0, 30)),
        "captured_batches": draw(st.one_of(st.none(), sizes)),
    }


@st.composite
def schedules(draw: Any, loop: dict[str, Any]) -> dict[str, Any]:
    """Keys of `schedule` that go with *loop*; often none."""
    if draw(st.booleans()):
        return {}
    beside = loop["mode"] == "resident" and loop["prefill"] == "partition"
    return {
        "order": draw(st.sampled_from(["decode_first", "prefill_first", "prefill_alone"])),
        "free_margin": draw(st.sampled_from([0.0, 0.2, 0.5])),
        "reserve": "prompt" if beside else draw(st.sampled_from(["prompt", "chunk"])),
        "asynchronous": loop["mode"] in ("host", "graph") and draw(st.booleans()),
    }


@st.composite
def settings_of_a_run(draw: Any) -> dict[str, Any]:
    """A trace and all sections of a scenario, with memory for few requests at a time."""
    rows = draw(st.lists(st.tuples(GAPS, LENGTHS, LENGTHS), min_size=1, max_size=12))
    at = np.cumsum([gap for gap, _, _ in rows]).tolist()
    profile = draw(st.sampled_from(["nvidia-h200", "toy"]))
    scale = 1.0 if profile == "toy" else draw(st.sampled_from([8.0, 32.0]))  # iterations: 0.1 ms
    requests = [(t, *lengths) for t, (_, *lengths) in zip(at, rows, strict=True)]
    data: dict[str, Any] = draw(sections_of_a_run(profile, scale))
    return data | {"requests": requests, "trace": {"rate_scale": scale}}


@st.composite
def sections_of_a_run(draw: Any, profile: str, scale: float) -> dict[str, Any]:
    """All sections but the trace; it ends at some time, in ticks over *scale*, or never."""
    size = draw(st.sampled_from([1, 2, 3, 4, 16]))
    dtype = draw(st.sampled_from(["bf16", "fp8", "int8"]))
    blocks = draw(st.integers(1, 90)) // size + 1
    stop = draw(st.one_of(st.none(), st.sampled_from([0.5, 16, 20, 36, 100.25, 700])))
    loop = draw(loops(draw(st.integers(1, 5))))
    schedule = draw(schedules(loop))
    alone = schedule.get("reserve") == "chunk" or schedule.get("asynchronous")
    whole = {"prefix_cache": False} if alone else {}
    return {
        "schedule": schedule,
        "hardware": {"hbm": hbm(blocks, size, 16 if dtype == "bf16" else 8)}
        | ({} if profile == "toy" else {"profile": profile}),
        "loop": loop,
        "kv": {"block_tokens": size, "dtype": dtype} | whole,
        "stop": {"at": None if stop is None else f"{stop / scale * TICK} s"},
        "slo": {"ttft": "30 ms", "tpot": "20 ms"},
    }


@st.composite
def turns_of_a_run(draw: Any, scale: float) -> list[Turn]:
    """Requests of which some wait for any that stand before them, with times over *scale*."""
    turns: list[Turn] = []
    for number in range(draw(st.integers(1, 14))):
        several = st.sets(st.integers(max(0, number - 5), number - 1), max_size=3)
        after = draw(several) if number else set()
        turns.append(
            Turn(
                draw(GAPS) * draw(st.integers(0, 3)) / scale,
                draw(LENGTHS),
                draw(st.one_of(st.just(1), LENGTHS)),
                draw(st.sampled_from(["", "a", "b"])),
                tuple(after),
                draw(GAPS) / scale if after else 0.0,
            )
        )
    return turns


@st.composite
def closed_loops(draw: Any) -> tuple[list[Turn], dict[str, Any]]:
    """A trace of turns, and a scenario to play it."""
    profile = draw(st.sampled_from(["nvidia-h200", "toy"]))
    scale = 1.0 if profile == "toy" else draw(st.sampled_from([8.0, 32.0]))
    trace = {"rate_scale": draw(st.sampled_from([1.0, 1.0, 0.5, 3.0]))}
    sections: dict[str, Any] = draw(sections_of_a_run(profile, scale))
    return draw(turns_of_a_run(scale)), sections | {"requests": [(0, 1, 1)], "trace": trace}


def both(
    scenario: Scenario, chunks: Sequence[Chunk] = (), block_tokens: int | None = None
) -> tuple[Ran, Ran]:
    step, leap = (play(scenario, e, chunks, block_tokens) for e in ("step", "leap"))
    return step, leap


def assert_same(first: Ran, second: Ran) -> None:
    """Equal to the last bit: floats are compared as they are, nulls with nulls."""
    for name in ("requests", "iterations", "transfers"):
        a, b = getattr(first, name), getattr(second, name)
        assert list(a) == list(b)
        for column in a:
            same = (a[column] == b[column]) | (a[column].isna() & b[column].isna())
            assert same.all(), (name, column, a[~same], b[~same])
    assert first.summary == second.summary
    assert first.trace == second.trace


def check_conservation(ran: Ran) -> None:
    """Nothing is lost: requests, tokens, blocks."""
    requests, summary = ran.requests, ran.summary
    status = Counter(requests.status)
    assert requests.request_id.is_monotonic_increasing
    if not summary["trace_closed_loop"]:
        assert requests.request_id.tolist() == list(range(len(requests)))
    for name in ("finished", "rejected", "unfinished"):
        assert status[name] == summary[f"requests_{name}"]
    assert summary["requests_in"] == len(requests) == status.total()
    done = requests[requests.status == "finished"]
    assert (done.generated_tokens == done.output_tokens).all()
    left = requests[requests.status == "unfinished"]
    assert (left.generated_tokens < left.output_tokens).all()
    assert (requests[requests.status == "rejected"].generated_tokens == 0).all()
    assert requests.generated_tokens.sum() == summary["tokens_committed"]
    if not len(left):
        assert summary["kv_blocks_allocated"] == summary["kv_blocks_freed"]
    assert summary["kv_blocks_peak"] <= summary["kv_blocks_capacity"]
    assert requests.preemptions.sum() == summary["kv_preemptions"]


def check_times(ran: Ran) -> None:
    """Each request passes its stations in order, and the loop does one thing at a time."""
    requests, iterations = ran.requests, ran.iterations
    order = ["arrival_s", "admitted_s", "first_token_s", "finished_s"]
    for before, after in pairwise(order):
        known = requests[after].notna()
        assert (requests[before][known] <= requests[after][known]).all()
    if not ran.summary["trace_closed_loop"]:
        assert requests.arrival_s.is_monotonic_increasing
    if not len(iterations):
        return
    assert (iterations.duration_s > 0).all()
    for _, rows in iterations.groupby(iterations.path == "partition"):
        ends = rows.start_s + rows.duration_s
        assert (rows.start_s.to_numpy()[1:] >= ends.to_numpy()[:-1] * (1 - 1e-15)).all()
    np.testing.assert_allclose(
        iterations.gpu_busy_s + iterations.gap_s, iterations.duration_s, rtol=1e-12
    )
    assert (iterations.gap_s >= -1e-12).all()
    assert (iterations.gpu_busy_s > 0).all()
    end = (iterations.start_s + iterations.duration_s).max()
    assert end <= ran.summary["duration"] * (1 + 1e-15)


def check_iterations(ran: Ran, scenario: Scenario) -> None:
    """What a row says about queue, batch and memory fits the requests' own rows."""
    iterations, loop = ran.iterations, scenario.loop
    if not len(iterations):
        return
    assert iterations.kv_blocks.between(0, ran.summary["kv_blocks_capacity"]).all()
    assert iterations.running.between(1, loop.max_batch).all()
    assert (iterations.decode_requests <= iterations.running).all()
    assert (iterations.decode_requests <= iterations.padded_requests).all()
    tokens = iterations.decode_requests + iterations.prefill_tokens
    assert (tokens.between(1, loop.token_budget)).all()
    requests = ran.requests[ran.requests.status != "rejected"]
    for row in iterations[iterations.path != "partition"].itertuples():
        arrived = requests.arrival_s <= row.start_s
        gone = requests.finished_s <= row.start_s  # False where it is null
        assert row.running + row.waiting == (arrived & ~gone).sum()
    partition = loop.mode == "resident" and loop.prefill == "partition"
    if not partition or not ran.summary["kv_preemptions"]:
        assert iterations.output_tokens.sum() == ran.summary["tokens_committed"]
    if not ran.summary["kv_preemptions"] and not ran.summary["requests_unfinished"]:
        assert iterations.prefill_tokens.sum() == requests.prompt_tokens.sum()


@settings(
    max_examples=24,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)
@given(settings_of_a_run())
def test_any_small_run(data: dict[str, Any]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        scenario = toy_scenario(Path(folder), **data)
        step, leap = both(scenario)
    assert_same(step, leap)
    check_conservation(leap)
    check_times(leap)
    check_iterations(leap, scenario)


def check_sending(ran: Ran, chunks: Sequence[Chunk], scenario: Scenario) -> None:
    """Each request was sent just when its trace and the answers before it say, to the last bit."""
    scaled = rate_scale(iter(chunks), scenario.trace.rate_scale, Tally())
    sent = {row.request_id: row.arrival_s for row in ran.requests.itertuples()}
    done = ran.requests[ran.requests.status != "unfinished"]
    answered = dict(zip(done.request_id, done.finished_s.fillna(done.arrival_s), strict=True))
    stop = scenario.stop.at or float("inf")
    position = not_sent = 0
    for chunk in scaled:
        assert chunk.links is not None
        columns = (chunk.arrival_s.tolist(), chunk.links.after, chunk.links.delay_s.tolist())
        for earliest, after, delay in zip(*columns, strict=True):
            due = float("inf")
            if all(other in answered for other in after):
                due = max([earliest, *(answered[other] + delay for other in after)])
            assert sent.get(position) == (due if due <= stop else None)
            not_sent += earliest <= stop < due
            position += 1
    assert ran.summary["trace_requests_not_sent"] == not_sent
    assert ran.trace["requests"] == len(sent) + not_sent


@settings(
    max_examples=18,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)
@given(closed_loops())
def test_any_small_closed_loop(data: tuple[list[Turn], dict[str, Any]]) -> None:
    turns, sections = data
    chunks = linked(turns)
    with tempfile.TemporaryDirectory() as folder:
        scenario = toy_scenario(Path(folder), **sections)
        step, leap = both(scenario, chunks)
    assert_same(step, leap)
    check_conservation(leap)
    check_times(leap)
    check_iterations(leap, scenario)
    check_sending(leap, chunks, scenario)


@pytest.mark.parametrize("mode", ["graph", "resident"])
@pytest.mark.parametrize("prefill", ["exit", "partition"])
def test_closed_loop_with_many_preemptions(tmp_path: Path, mode: str, prefill: str) -> None:
    """Twelve users with three turns at a time in memory for few of them."""
    lengths = crowd(120)
    turns = [
        Turn(i % 5, prompt, output, f"user {i % 12}", (i - 12, i - 7) if i > 18 else (), i % 3)
        for i, (_, prompt, output) in enumerate(lengths)
    ]
    chunks = linked(turns)
    scenario = toy_scenario(
        tmp_path,
        [(0, 1, 1)],
        loop={"mode": mode, "prefill": prefill, "max_batch": 6, "token_budget": 20},
        hardware={"hbm": hbm(23, 4)},
        kv={"block_tokens": 4},
    )
    step, leap = both(scenario, chunks)
    assert leap.summary["kv_preemptions"] > 5
    assert leap.summary["requests_finished"] == 120
    assert_same(step, leap)
    check_conservation(leap)
    check_iterations(leap, scenario)
    check_sending(leap, chunks, scenario)


@settings(max_examples=26, deadline=None, suppress_health_check=list(HealthCheck))
@given(run=kv_runs.runs())
def test_any_run_with_tiers(run: tuple[list[Chunk], int, dict[str, Any]]) -> None:
    chunks, block_tokens, sections = run
    with tempfile.TemporaryDirectory() as folder:
        scenario = toy_scenario(Path(folder), [(0, 1, 1)], **sections)
        step, leap = both(scenario, chunks, block_tokens)
    assert_same(step, leap)
    if sections["stop"]["at"] is None:
        assert not (leap.requests.status == "unfinished").any()


def crowd(count: int) -> list[tuple[float, int, int]]:
    """A burst of requests of all kinds, for more memory than there is."""
    return [(7.0 * i, 3 + 5 * i % 40, 1 + 11 * i % 30) for i in range(count)]


def scarce(folder: Path, mode: str, prefill: str) -> Scenario:
    """60 requests of all kinds, for more memory than the 23 blocks there are."""
    return toy_scenario(
        folder,
        crowd(60),
        loop={"mode": mode, "prefill": prefill, "max_batch": 6, "token_budget": 20},
        hardware={"hbm": hbm(23, 4)},
        kv={"block_tokens": 4},
    )


@pytest.mark.parametrize("mode", ["host", "graph", "resident"])
@pytest.mark.parametrize("prefill", ["exit", "partition"])
def test_crowd_with_many_preemptions(tmp_path: Path, mode: str, prefill: str) -> None:
    scenario = scarce(tmp_path, mode, prefill)
    step, leap = both(scenario)
    assert leap.summary["kv_preemptions"] > 5
    assert leap.summary["requests_finished"] == 60
    assert_same(step, leap)
    check_conservation(leap)
    check_times(leap)
    check_iterations(leap, scenario)


def test_tokens_of_a_partition_that_preempts(tmp_path: Path) -> None:
    ran = play(
        toy_scenario(
            tmp_path,
            crowd(60),
            loop={"mode": "resident", "prefill": "partition", "max_batch": 6, "token_budget": 20},
            hardware={"hbm": hbm(23, 4)},
            kv={"block_tokens": 4},
        )
    )
    assert ran.iterations.output_tokens.sum() == ran.summary["tokens_committed"]


def test_records_do_not_depend_on_where_slices_are_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scenario = crowded(tmp_path)
    whole = play(scenario)
    monkeypatch.setattr(iteration_log, "SLICE", 7)
    step, leap = both(scenario)
    assert whole.iterations.equals(leap.iterations)
    assert whole.iterations.equals(step.iterations)
    assert whole.requests.equals(leap.requests)


def test_summaries_agree_over_more_than_one_slice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(iteration_log, "SLICE", 7)
    step, leap = both(crowded(tmp_path))
    assert step.summary == leap.summary


def crowded(folder: Path) -> Scenario:
    loop = {"mode": "host", "max_batch": 6, "token_budget": 20}
    hardware = {"hbm": hbm(23, 4)}
    return toy_scenario(folder, crowd(60), loop=loop, hardware=hardware, kv={"block_tokens": 4})


def test_leap_needs_few_events(tmp_path: Path) -> None:
    """The point of leaping: one event for all that happens between two changes of state."""
    scenario = toy_scenario(tmp_path, [(0, 8, 3000), (0, 8, 4000)])
    counts = {}
    for engine in ("step", "leap"):
        simulation = Simulation(scenario, engine)
        assert simulation.run()["loop_iterations"] == 4000
        counts[engine] = simulation.clock.events()
    assert counts["step"] > 4000
    assert counts["leap"] < 12


def test_being_watched_changes_nothing(tmp_path: Path) -> None:
    scenario = crowded(tmp_path)
    seen: list[tuple[float, int, int]] = []
    watched = Simulation(scenario, "step").run(lambda *state: seen.append(state))
    assert watched == Simulation(scenario, "step").run()
    assert seen
    assert all(ended <= arrived <= 60 for _, arrived, ended in seen)
