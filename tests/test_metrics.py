"""Numbers of the summary against the slowest way to get them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from toy import TICK, Ran, hbm, play, toy_scenario

from sim.metrics import RequestStats, latencies
from sim.quantiles import PERCENTILES, statistics, weighted_statistics
from sim.request import Request, Status
from sim.request_log import RequestLog
from sim.scenario import Slo

if TYPE_CHECKING:
    from pathlib import Path

VLLM = (
    ["duration", "completed", "failed", "total_input_tokens", "total_output_tokens"]
    + ["request_throughput", "request_goodput", "output_throughput", "total_token_throughput"]
    + ["max_output_tokens_per_s", "max_concurrent_requests"]
    + [
        f"{what}_{name}_ms"
        for name in ("ttft", "tpot", "itl", "e2el")
        for what in ("mean", "median", "std", "p50", "p90", "p95", "p99", "p99.9")
    ]
)
SECONDS = st.floats(1e-6, 1e3)


def columns(rows: list[tuple[float, float, float, int]]) -> dict[str, np.ndarray]:
    """Finished requests of (arrival, first token, end, output tokens), admitted at once."""
    slices: list[dict[str, np.ndarray]] = []
    log = RequestLog(slices.append)
    for i, (arrival, first, end, output) in enumerate(rows):
        log.add(
            Request(
                i, arrival, 10, output, Status.FINISHED, generated=output, admitted=arrival,
                first_token=first, finished=end,
            )
        )  # fmt: skip
    log.close([])
    return slices[0]


# ---------------------------------------------------------------- statistics
def test_statistics_of_a_few() -> None:
    found = statistics("ttft", np.array([0.001, 0.002, np.nan, 0.003, 0.010]))
    assert found["mean_ttft_ms"] == 4.0
    assert found["median_ttft_ms"] == found["p50_ttft_ms"] == 2.5
    assert found["std_ttft_ms"] == pytest.approx(np.std([1, 2, 3, 10]))
    assert found["p90_ttft_ms"] == pytest.approx(np.percentile([1, 2, 3, 10], 90))


def test_statistics_of_none_are_none() -> None:
    for found in (
        statistics("tpot", np.array([np.nan])),
        weighted_statistics("itl", [], [], np.empty(0)),
        weighted_statistics("itl", [np.array([1.0])], [np.array([0])], np.empty(0)),
    ):
        assert len(found) == 3 + len(PERCENTILES)
        assert set(found.values()) == {None}


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    st.lists(st.lists(st.tuples(SECONDS, st.integers(0, 30)), max_size=8), max_size=4),
    st.lists(SECONDS, max_size=5),
)
def test_weighted_statistics_are_those_of_the_expanded_values(slices, singles) -> None:
    values = [np.array([v for v, _ in rows]) for rows in slices]
    weights = [np.array([w for _, w in rows], np.int32) for rows in slices]
    expanded = [v for rows in slices for v, w in rows for _ in range(w)] + singles
    found = weighted_statistics("itl", values, weights, np.array(singles))
    if not expanded:
        assert set(found.values()) == {None}
        return
    ms = np.array(expanded) * 1e3
    assert found["mean_itl_ms"] == pytest.approx(ms.mean())
    assert found["std_itl_ms"] == pytest.approx(ms.std(), abs=1e-6 * ms.max())
    for percent in PERCENTILES:
        expected = np.percentile(ms, percent)
        assert found[f"p{percent:g}_itl_ms"] == pytest.approx(expected, rel=1e-9)
    assert found["median_itl_ms"] == found["p50_itl_ms"]


# ---------------------------------------------------------------- requests
def test_latencies() -> None:
    found = latencies(columns([(1.0, 1.5, 3.5, 5), (1.0, 2.0, 2.0, 1)]))
    assert found["ttft"].tolist() == [0.5, 1.0]
    assert found["e2el"].tolist() == [2.5, 1.0]
    assert found["tpot"][0] == 0.5
    assert np.isnan(found["tpot"][1])


@pytest.mark.parametrize(
    ("slo", "good"),
    [
        ({}, None),
        ({"ttft": "500 ms"}, 2),
        ({"ttft": "499 ms"}, 1),
        ({"tpot": "500 ms"}, 3),
        ({"tpot": "400 ms"}, 2),
        ({"tpot": "1 ms"}, 1),  # the request of one token has no TPOT to be late with
        ({"e2el": "2.5 s"}, 3),
        ({"e2el": "2 s"}, 2),
        ({"ttft": "500 ms", "tpot": "499 ms"}, 1),
    ],
)
def test_goodput(slo, good) -> None:
    stats = RequestStats(Slo.model_validate(slo))
    # (TTFT, TPOT, E2EL) = (0.5, 0.5, 2.5), (1, none, 1), (0.25, 0.25 + 1/8, 1)
    stats.add(columns([(1.0, 1.5, 3.5, 5), (1.0, 2.0, 2.0, 1), (0.0, 0.25, 1.0, 3)]))
    assert stats.summary(8.0)["request_goodput"] == (None if good is None else good / 8)


def test_slices_add_up() -> None:
    rows = [(1.0, 1.5, 3.5, 5), (1.0, 2.0, 2.0, 1), (2.5, 2.75, 4.0, 3)]
    whole, parts = RequestStats(Slo()), RequestStats(Slo())
    whole.add(columns(rows))
    parts.add(columns(rows[:1]))
    parts.add(columns(rows[1:]))
    assert whole.summary(4.0) == parts.summary(4.0)
    assert whole.summary(4.0)["total_token_throughput"] == (30 + 9) / 4
    assert whole.summary(4.0)["max_concurrent_requests"] == 2


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.lists(st.tuples(st.integers(0, 20), st.integers(1, 9)), min_size=1, max_size=15))
def test_most_requests_at_one_time(spans) -> None:
    stats = RequestStats(Slo())
    stats.add(columns([(float(a), float(a), float(a + n), 1) for a, n in spans]))
    crowd = max(sum(a <= t < a + n for a, n in spans) for t in range(30))
    assert stats.summary(30.0)["max_concurrent_requests"] == crowd


# ---------------------------------------------------------------- a whole run
def token_times(ran: Ran) -> list[list[float]]:
    """Of each request, when its tokens came: it is in every iteration that decodes until its end.

    Holds for runs without preemption.
    """
    assert ran.summary["kv_preemptions"] == 0
    rows = ran.iterations[ran.iterations.decode_requests > 0]
    ends = (rows.start_s + rows.duration_s).to_numpy()
    times = []
    for request in ran.requests.itertuples():
        during = (rows.start_s >= request.first_token_s) & (ends <= request.finished_s)
        times.append([request.first_token_s, *ends[during.to_numpy()]])
        assert len(times[-1]) == request.generated_tokens
    return times


@pytest.mark.parametrize(
    "loop",
    [
        {"mode": "graph"},
        {"mode": "host"},
        {"mode": "resident"},
        {"mode": "resident", "prefill": "partition", "prefill_share": 0.5},
    ],
    ids=["graph", "host", "exit", "partition"],
)
@pytest.mark.parametrize("engine", ["step", "leap"])
def test_summary_from_the_times_of_every_token(tmp_path: Path, loop, engine) -> None:
    rows = [(13.0 * i, 1 + 31 * i % 90, 1 + 7 * i % 12) for i in range(30)]
    scenario = toy_scenario(tmp_path, rows, loop=loop)
    ran = play(scenario, engine)
    times = token_times(ran)
    arrivals = ran.requests.arrival_s
    ms = {
        "ttft": [(t[0] - a) * 1e3 for t, a in zip(times, arrivals, strict=True)],
        "tpot": [(t[-1] - t[0]) / (len(t) - 1) * 1e3 for t in times if len(t) > 1],
        "e2el": [(t[-1] - a) * 1e3 for t, a in zip(times, arrivals, strict=True)],
        "itl": [gap * 1e3 for t in times for gap in np.diff(t)],
    }
    summary = ran.summary
    for name, values in ms.items():
        assert summary[f"mean_{name}_ms"] == pytest.approx(np.mean(values), rel=1e-9)
        assert summary[f"std_{name}_ms"] == pytest.approx(np.std(values), rel=1e-9)
        for percent in PERCENTILES:
            expected = np.percentile(values, percent)
            assert summary[f"p{percent:g}_{name}_ms"] == pytest.approx(expected, rel=1e-9)
    everything = [time for request in times for time in request]
    assert summary["max_output_tokens_per_s"] == np.bincount(np.array(everything, int)).max()
    assert summary["total_output_tokens"] == len(everything)
    assert summary["total_input_tokens"] == sum(prompt for _, prompt, _ in rows)
    assert summary["output_throughput"] == pytest.approx(len(everything) / summary["duration"])
    assert summary["request_throughput"] == pytest.approx(30 / summary["duration"])


def test_keys_of_vllm(tmp_path: Path) -> None:
    summary = play(toy_scenario(tmp_path, [(0, 8, 3)])).summary
    assert [key for key in VLLM if key not in summary] == []
    ours = ("scenario", "kind", "model_id", "trace_", "seed", "requests_", "tokens_", "loop_")
    ours += ("kv_", "cost_", "goodput_share", "mean_queue", "median_queue", "std_queue", "p")
    assert [key for key in summary if key not in VLLM and not key.startswith(ours)] == []


def test_loop_account(tmp_path: Path) -> None:
    # A prefill of 20 ticks, 18 of them GPU work, and two graph replays of 16 with 14.
    summary = play(
        toy_scenario(tmp_path, [(0, 8, 3)], hardware={"hbm": hbm(4)}, stop={"at": "1 s"})
    ).summary
    assert summary["loop_time_s"] == 52 * TICK
    assert summary["loop_gpu_busy_s"] == 46 * TICK
    assert summary["loop_gap_s"] == 6 * TICK
    assert summary["loop_idle_s"] == 1 - 52 * TICK
    assert summary["loop_gpu_busy_fraction"] == 46 * TICK
    assert summary["loop_gap_fraction"] == pytest.approx(6 / 52)
    assert summary["loop_mean_decode_requests"] == pytest.approx(32 / 52)
    assert summary["loop_launches"] == 12 + 2
    assert summary["loop_syncs"] == 3
    assert summary["kv_blocks_capacity"] == 4
    assert summary["kv_mean_utilization"] == pytest.approx(1 / 4)
