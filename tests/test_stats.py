"""Estimates, differences and verdicts, on runs whose answer is known by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from synthetic_runs import cell, made_up, study, with_values

from sim.errors import InputError
from sim.stats import (
    METRICS,
    Statistics,
    baseline_of,
    difference,
    differences,
    estimate,
    metric_of,
    sentence,
    warm_up,
)
from sim.stats.baseline import followers
from sim.stats.differences import holm
from sim.stats.words import percent, within

PLAIN = Statistics()
T3 = 3.182446305284263
"""Student's 0.975 quantile with 3 degrees of freedom."""


def noisy(count: int = 1000, seed: int = 0, scale: float = 1.0) -> np.ndarray:
    return scale * np.random.default_rng(seed).exponential(size=count)


# ---------------------------------------------------------------- settings and metrics
@pytest.mark.parametrize("value", ["60 s", "2 min", 0.1, 0, "auto", None])
def test_a_warm_up_is_a_time_a_share_or_auto(value: object) -> None:
    settings = Statistics.model_validate({"warm_up": value})
    assert Statistics.model_validate(settings.model_dump(mode="json")) == settings


@pytest.mark.parametrize(
    "value", [60, 1.0, -0.1, "60", "60 GiB", "soon", True, [1], float("nan"), "-1 s", "inf s"]
)
def test_another_warm_up_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match="warm_up"):
        Statistics.model_validate({"warm_up": value})


@pytest.mark.parametrize(
    "settings", [{"confidence": 1.0}, {"confidence": 0.0}, {"confidence": 95}, {"baseline": {}},
                 {"baseline": "graph"}, {"warmup": 0.1}],
)  # fmt: skip
def test_other_settings_are_refused(settings: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(settings))):
        Statistics.model_validate(settings)


def test_a_metric_is_known_by_its_key_in_the_summary() -> None:
    assert METRICS["p99_ttft_ms"].title == "p99 TTFT (ms)"
    assert METRICS["p99_ttft_ms"].better == "lower"
    assert METRICS["output_throughput"].better == "higher"
    assert metric_of("kv_stall_s", [{"kv_stall_s": 1.0}]).title == "kv stall (s)"
    assert metric_of("kv_ssd_read_bytes", [{"kv_ssd_read_bytes": 3}]).unit == "B"
    with pytest.raises(InputError, match="did you mean 'p99_ttft_ms'"):
        metric_of("p99_ttft")
    with pytest.raises(InputError, match=r"no such metric; e\.g\. mean_ttft_ms"):
        metric_of("colour", [{"loop_mode": "graph", "flag": True}])


# ---------------------------------------------------------------- replications
def test_replications_have_students_interval() -> None:
    found = estimate(with_values({}, kv_stall_s=[1.0, 2.0, 3.0, 6.0]), "kv_stall_s", PLAIN)
    error = np.std([1, 2, 3, 6], ddof=1) / 2
    assert found.value == 3.0
    assert found.high == pytest.approx(3 + T3 * error)
    assert found.low == 0.0  # and not below, as stalls are not negative
    assert (found.n, found.method) == (4, "replications")


def test_more_confidence_is_a_wider_interval() -> None:
    values = with_values({}, kv_stall_s=[10.0, 11.0, 12.0])
    widths = []
    for confidence in (0.8, 0.95, 0.99):
        found = estimate(values, "kv_stall_s", Statistics(confidence=confidence))
        assert found.low is not None
        assert found.high is not None
        widths.append(found.high - found.low)
    assert widths == sorted(widths)
    assert widths[1] / widths[0] == pytest.approx(4.302653 / 1.885618, rel=1e-5)


def test_a_quantile_is_never_that_of_pooled_requests() -> None:
    """Two runs, one slow: the p50 is the mean of both, not the median of all requests."""
    runs = [made_up([0.1] * 300, replication=0), made_up([0.3] * 100, replication=1)]
    found = estimate(cell(*runs), "median_ttft_ms", PLAIN)
    assert found.value == pytest.approx(200.0)
    assert found.n == 2


def test_runs_without_a_value_are_said() -> None:
    found = estimate(with_values({}, kv_stall_s=[1.0, None, 3.0]), "kv_stall_s", PLAIN)
    assert (found.value, found.n) == (2.0, 2)
    assert "1 of 3 runs have no value" in found.note
    nothing = estimate(with_values({}, mean_ttft_ms=[None, None]), "mean_ttft_ms", PLAIN)
    assert (nothing.value, nothing.low, nothing.method) == (None, None, "none")


def test_seeds_that_change_nothing_are_one_run() -> None:
    ttft = noisy(400)
    once = estimate(cell(made_up(ttft)), "mean_ttft_ms", PLAIN)
    thrice = estimate(
        cell(*(made_up(ttft, replication=r) for r in range(3))), "mean_ttft_ms", PLAIN
    )
    assert thrice.note == "nothing is random: 3 seeds gave the same run"
    assert replace(thrice, note="") == once
    assert once.method == "batches"


# ---------------------------------------------------------------- one run
def test_one_run_has_batches() -> None:
    found = estimate(cell(made_up(noisy())), "mean_ttft_ms", PLAIN)
    assert found.method == "batches"
    assert found.n in (10, 20)
    assert found.low < found.value < found.high  # type: ignore[operator]
    reach = 2.1 * 1000 / 1000**0.5
    assert (found.high - found.low) / 2 == pytest.approx(reach, rel=0.5)  # type: ignore[operator]


def test_one_run_too_short_has_a_value_and_a_reason() -> None:
    found = estimate(cell(made_up(noisy(50))), "mean_ttft_ms", PLAIN)
    assert found.value is not None
    assert (found.low, found.high, found.method) == (None, None, "none")
    assert found.note == "too few requests for batches: 50 of at least 100"
    tail = estimate(cell(made_up(noisy(400))), "p99_ttft_ms", PLAIN)
    assert (tail.low, tail.note) == (None, "too few requests for the 99th percentile")


def test_what_only_a_summary_has_needs_replications() -> None:
    found = estimate(with_values({}, mean_itl_ms=[5.0]), "mean_itl_ms", PLAIN)
    assert (found.value, found.low) == (5.0, None)
    assert "sweep.seeds" in found.note
    warm = estimate(with_values({}, mean_itl_ms=[5.0]), "mean_itl_ms", Statistics(warm_up=0.5))
    assert "of whole runs" in warm.note


def test_a_run_without_any_finished_request() -> None:
    run = made_up([1.0, 2.0], finished=np.zeros(2, bool))
    for name in ("mean_ttft_ms", "p99_tpot_ms"):
        found = estimate(cell(run), name, PLAIN)
        assert (found.value, found.note) == (None, "no request has finished")
    assert estimate(cell(run), "request_goodput", PLAIN).note == "the scenario has no `slo`"


# ---------------------------------------------------------------- warm-up
def test_requests_that_arrive_before_the_cut_are_left_out() -> None:
    """Ten requests a second apart, the first five of 100 ms, the others of 200 ms."""
    run = made_up([0.1] * 5 + [0.2] * 5, tokens=1)
    for settings in (Statistics(warm_up="5 s"), Statistics(warm_up=5.0 / 9.2)):
        assert estimate(cell(run), "mean_ttft_ms", PLAIN).value == pytest.approx(150.0)
        assert estimate(cell(run), "mean_ttft_ms", settings).value == pytest.approx(200.0)
        rate = estimate(cell(run), "request_throughput", settings)
        assert rate.value == pytest.approx(5 / 4.2)  # until the last is served at 9.2 s
    assert warm_up(run, Statistics(warm_up="5 s")).note == "requests from 5 s on"


def test_rates_count_tokens_and_limits_after_the_cut() -> None:
    run = made_up([0.1] * 6 + [0.3] * 4, tokens=3, slo={"ttft": 0.2, "tpot": None, "e2el": None})
    cut = Statistics(warm_up="4 s")
    seconds = run.summary["duration"] - 4
    assert estimate(cell(run), "request_goodput", cut).value == pytest.approx(2 / seconds)
    assert estimate(cell(run), "output_throughput", cut).value == pytest.approx(18 / seconds)
    total = estimate(cell(run), "total_token_throughput", cut)
    assert total.value == pytest.approx((18 + 48) / seconds)


def test_a_cut_after_the_end_leaves_nothing_and_says_so() -> None:
    late = Statistics(warm_up="1 h")
    found = estimate(cell(made_up([0.1] * 10)), "mean_ttft_ms", late)
    assert found.value is None
    assert found.note == "no request that arrived after the warm-up of 3600 s has such a value"
    assert (
        estimate(cell(made_up([0.1])), "request_throughput", Statistics(warm_up="1 h")).value
        is None
    )


def test_auto_cuts_where_both_latencies_have_settled() -> None:
    ttft = np.concatenate([np.full(50, 9.0), np.repeat(np.tile([0.9, 1.1], 100), 5)])
    run = made_up(ttft, gap=2.0)
    auto = Statistics(warm_up="auto")
    assert warm_up(run, auto).seconds == 100.0
    assert "settled" in warm_up(run, auto).note
    found = estimate(cell(run), "mean_ttft_ms", auto)
    assert found.value == pytest.approx(1000.0)
    assert "100 s" in found.note
    growing = made_up(np.linspace(0, 30, 1000))
    assert warm_up(growing, auto).seconds == 0
    assert "do not settle" in warm_up(growing, auto).note
    assert "too few" in warm_up(made_up([1.0] * 20), auto).note


# ---------------------------------------------------------------- differences
GRAPH, RESIDENT = {"loop.mode": "graph"}, {"loop.mode": "resident"}


def test_replications_are_paired_by_their_seed() -> None:
    """Noise of the traffic is the same on both sides, so that 10 % stands out of it."""
    graph = [100.0, 140.0, 60.0, 120.0]
    one = with_values(RESIDENT, p99_ttft_ms=[90.0, 125.0, 55.0, 107.0])
    found = difference(one, with_values(GRAPH, p99_ttft_ms=graph), "p99_ttft_ms", PLAIN)
    ratio = 377 / 420
    apart = np.array([90.0, 125.0, 55.0, 107.0]) - ratio * np.array(graph)
    reach = T3 * apart.std(ddof=1) / 2 / 105
    assert found.relative == pytest.approx(ratio - 1)
    assert found.high == pytest.approx(ratio - 1 + reach)
    assert (found.paired, found.n, found.better) == (True, 4, True)
    assert found.verdict == f"resident is {percent(1 - ratio, reach)} better at p99 TTFT"
    shuffled = with_values(GRAPH, p99_ttft_ms=[60.0, 100.0, 140.0, 120.0])
    other = difference(one, shuffled, "p99_ttft_ms", PLAIN)
    assert other.relative == pytest.approx(found.relative)
    assert not other.distinguishable
    assert other.verdict.startswith("resident is not distinguishable from graph at p99 TTFT (")


def test_other_seeds_are_compared_as_welch_does() -> None:
    from scipy import stats

    graph, resident = [10.0, 11.0, 12.0], [13.0, 14.0, 15.5, 14.2]
    one, two = with_values(RESIDENT, kv_stall_s=resident), with_values(GRAPH, kv_stall_s=graph)
    for run in two.runs:
        run.summary["seed"] += 100
    found = difference(one, two, "kv_stall_s", PLAIN)
    assert not found.paired
    assert found.better is False
    assert found.relative == pytest.approx(14.175 / 11 - 1)
    parts = [np.var(resident, ddof=1) / 4, (14.175 / 11) ** 2 * np.var(graph, ddof=1) / 3]
    df = sum(parts) ** 2 / (parts[0] ** 2 / 3 + parts[1] ** 2 / 2)
    assert found.p == pytest.approx(2 * stats.t.sf(3.175 / sum(parts) ** 0.5, df))


def test_a_replication_without_partner_is_left_out() -> None:
    one = with_values(RESIDENT, kv_stall_s=[9.0, 8.0, 7.1])
    two = with_values(GRAPH, kv_stall_s=[10.0, 9.0, 8.0, 1000.0])
    found = difference(one, two, "kv_stall_s", PLAIN)
    assert (found.n, found.paired) == (3, True)
    assert found.relative == pytest.approx(24.1 / 27 - 1)
    assert found.note == "without a partner, so left out: 1 of the runs"


def test_what_does_not_vary_is_paired_with_what_does() -> None:
    one, two = (
        with_values(RESIDENT, kv_x=[5.0, 5.0, 5.0]),
        with_values(GRAPH, kv_x=[9.0, 10.0, 11.0]),
    )
    found = difference(one, two, "kv_x", PLAIN)
    assert (found.n, found.paired, found.relative) == (3, True, -0.5)


def test_single_runs_are_paired_by_request() -> None:
    """10 % less for each request, and noise that is the same: 10 % ± 0 %."""
    ttft = noisy(2000, 1)
    graph = cell(made_up(ttft, GRAPH))
    for name in ("mean_ttft_ms", "median_ttft_ms", "p90_ttft_ms"):
        found = difference(cell(made_up(0.9 * ttft, RESIDENT)), graph, name, PLAIN)
        assert found.relative == pytest.approx(-0.1)
        assert (found.method, found.paired, found.better) == ("requests", True, True)
        assert found.high - found.low < 0.01  # type: ignore[operator]
    own = noisy(2000, 2)
    noise = difference(cell(made_up(own, RESIDENT)), graph, "mean_ttft_ms", PLAIN)
    assert not noise.distinguishable
    assert noise.high - noise.low > 0.1  # type: ignore[operator]


def test_a_shift_of_a_quantile_is_found_by_request() -> None:
    base = noisy(4000, 3)
    longer = base + 0.2 * noisy(4000, 4)
    one, two = made_up(longer, RESIDENT), made_up(base, GRAPH)
    found = difference(cell(one), cell(two), "p90_ttft_ms", PLAIN)
    truth = np.quantile(longer, 0.9) / np.quantile(base, 0.9) - 1
    assert found.relative == pytest.approx(truth)
    assert found.better is False
    assert found.verdict.endswith("worse at p90 TTFT")


def test_rates_of_single_runs_are_paired_by_time() -> None:
    tokens = np.random.default_rng(5).integers(10, 30, 3000)
    one = made_up([0.1] * 3000, RESIDENT, tokens=tokens, gap=0.9)
    two = made_up([0.1] * 3000, GRAPH, tokens=tokens)
    found = difference(cell(one), cell(two), "output_throughput", PLAIN)
    assert found.relative == pytest.approx(1 / 0.9 - 1, rel=0.01)
    assert found.better is True
    assert found.high - found.low < 0.02  # type: ignore[operator]


def test_other_requests_are_not_paired() -> None:
    one, two = made_up(noisy(900, 1), RESIDENT, tokens=7), made_up(noisy(900, 2, 4.0), GRAPH)
    found = difference(cell(one), cell(two), "mean_ttft_ms", PLAIN)
    assert (found.paired, found.method, found.better) == (False, "batches", True)


def test_runs_that_finished_other_requests_are_not_judged() -> None:
    half = np.arange(1000) < 500
    one, two = made_up(noisy(), RESIDENT, finished=half), made_up(noisy(), GRAPH)
    found = difference(cell(one), cell(two), "mean_ttft_ms", PLAIN)
    assert not found.judged
    assert "not judged: the two finished different requests (50% in common)" in found.verdict


def test_what_cannot_be_compared_says_why() -> None:
    def against(mine: float | None, theirs: float | None) -> str:
        one, two = (
            with_values(axes, kv_stall_s=[value])
            for axes, value in ((RESIDENT, mine), (GRAPH, theirs))
        )
        found = difference(one, two, "kv_stall_s", PLAIN)
        assert not found.judged
        assert found.better is None
        return found.verdict

    assert "graph has 0, of which there is no share" in against(1.0, 0.0)
    assert "both are 0" in against(0.0, 0.0)
    nobody = cell(made_up(noisy(), RESIDENT, finished=np.zeros(1000, bool)))
    missing = difference(nobody, cell(made_up(noisy(), GRAPH)), "mean_ttft_ms", PLAIN)
    assert missing.verdict.startswith("resident against graph at mean TTFT: resident has no value")
    assert "20 % worse at kv stall, not judged" in against(1.2, 1.0)


def test_equal_runs_are_the_same_and_equal_differences_are_sure() -> None:
    ttft = noisy()
    found = difference(
        cell(made_up(ttft, RESIDENT)), cell(made_up(ttft, GRAPH)), "mean_ttft_ms", PLAIN
    )
    assert found.verdict == "resident is the same as graph at mean TTFT"
    assert (found.p, found.distinguishable, found.better) == (1.0, False, None)
    one, two = with_values(RESIDENT, kv_x=[2.0, 4.0]), with_values(GRAPH, kv_x=[1.0, 2.0])
    assert difference(one, two, "kv_x", PLAIN).verdict == "resident is 100 % ± 0 % higher at kv x"


# ---------------------------------------------------------------- baselines and verdicts
def grid(*modes: str, rates: tuple[int, ...] = (1, 2)) -> list:
    return [
        with_values({"loop.mode": mode, "trace.rate_scale": rate}, kv_x=[float(rate), rate + 0.5])
        for mode in modes
        for rate in rates
    ]


def test_a_baseline_is_the_cell_with_the_same_other_axes() -> None:
    cells = grid("host", "graph", "resident")
    default, chosen = study(*cells), study(*cells, baseline={"loop.mode": "graph"})
    assert baseline_of(cells[5], default) is cells[1]
    assert baseline_of(cells[5], chosen) is cells[3]
    assert baseline_of(cells[3], chosen) is cells[3]
    assert {row.baseline for row in differences(chosen, ["kv_x"])} == {"graph"}
    assert len(differences(chosen, ["kv_x"])) == 4


def test_a_cell_without_a_partner_is_not_compared_with_another_rate() -> None:
    cells = grid("graph", "resident")[1:]  # graph at rate 1 was filtered out
    results = study(*cells)
    assert baseline_of(cells[1], results) is None
    assert baseline_of(cells[2], results) is cells[0]
    row, judged = differences(results, ["kv_x"])
    assert row.verdict == "resident against graph at kv x: there is no such point to compare with"
    assert (row.axes, row.judged, judged.judged) == (cells[1].axes, False, True)


def test_axes_that_are_zipped_move_with_the_baselines() -> None:
    cells = [
        with_values({"dram": dram, "ssd": ssd, "loop.mode": mode}, kv_x=[1.0])
        for dram, ssd in (("64 GiB", "1 TiB"), ("256 GiB", "2 TiB"))
        for mode in ("graph", "resident")
    ]
    results = study(*cells, baseline={"ssd": "1 TiB"})
    assert baseline_of(cells[3], results) is cells[1]
    assert baseline_of(cells[2], results) is cells[0]
    assert followers(results) == {"ssd": ("dram",), "loop.mode": ()}
    assert followers(study(*cells)) == {"dram": ("ssd",), "loop.mode": ()}


def test_loads_are_no_rivals_and_numbers_come_with_their_key() -> None:
    cells = [
        with_values({"trace.rate_scale": rate, "loop.max_batch": batch}, kv_x=[1.0 * rate * batch])
        for rate in (1, 2)
        for batch in (8, 16)
    ]
    results = study(*cells)
    assert baseline_of(cells[3], results) is cells[2]
    assert {(row.cell, row.baseline) for row in differences(results, ["kv_x"])} == {
        ("max_batch 16", "max_batch 8")
    }
    assert differences(study(cells[0], cells[2]), ["kv_x"]) == []
    chosen = differences(study(cells[0], cells[2], baseline={"trace.rate_scale": 1}), ["kv_x"])
    assert [(row.cell, row.baseline) for row in chosen] == [("rate_scale 2", "rate_scale 1")]


def test_a_baseline_that_is_not_there_is_named() -> None:
    cells = grid("graph", "resident")
    with pytest.raises(InputError, match=r"statistics.baseline.loop.mod: .* mean 'loop.mode'"):
        differences(study(*cells, baseline={"loop.mod": "graph"}), ["kv_x"])
    with pytest.raises(InputError, match=r"'host' is not on this axis, which has graph, resident"):
        differences(study(*cells, baseline={"loop.mode": "host"}), ["kv_x"])


def test_a_study_without_axes_has_no_differences() -> None:
    assert differences(study(with_values({}, kv_x=[1.0])), ["kv_x"]) == []


def test_holm_by_hand() -> None:
    """0.04 would pass alone; of three, 0.01 passes 0.05 / 3, 0.03 does not pass 0.05 / 2."""
    assert holm([0.04, 0.01, 0.03, None], 0.05) == [False, True, False, False]
    assert holm([0.04, 0.01, 0.02], 0.05) == [True, True, True]
    assert holm([], 0.05) == []


def test_verdicts_of_a_table_are_judged_together() -> None:
    sure = [10.0, 11.0, 12.0, 13.0]
    some = [9.0, 9.9, 11.5, 11.8]
    cells = [
        with_values(GRAPH, mean_ttft_ms=sure, p99_ttft_ms=sure, mean_tpot_ms=sure),
        with_values(
            RESIDENT, mean_ttft_ms=some, p99_ttft_ms=[x * 0.88 + 1e-3 * x**2 for x in sure],
            mean_tpot_ms=sure,
        ),
    ]  # fmt: skip
    results = study(*cells)
    alone = difference(cells[1], cells[0], "mean_ttft_ms", PLAIN)
    assert alone.distinguishable
    rows = differences(results, ["mean_ttft_ms", "p99_ttft_ms", "mean_tpot_ms"])
    assert [row.better for row in rows] == [True, True, None]
    many = differences(results, ["mean_ttft_ms"] * 30 + ["p99_ttft_ms"])
    assert many[0].better is None
    assert "among 31 comparisons (by itself" in many[0].verdict
    assert many[-1].better is True
    said = sentence(rows, results)
    assert said.startswith("Against graph, resident is ")
    assert "better at mean TTFT and " in said
    assert said.endswith("better at p99 TTFT; the same at mean TPOT")


@pytest.mark.parametrize(
    ("relative", "reach", "said"),
    [(0.1234, 0.031, "12 % ± 3 %"), (0.1234, 0.0031, "12.3 % ± 0.3 %"),
     (0.1234, 0.0141, "12.3 % ± 1.4 %"), (0.5, None, "50 %"), (0.0042, None, "0.4 %"),
     (9.4, 0.3, "940 % ± 30 %"), (0.1, 0.0, "10 % ± 0 %"), (0.0, None, "0 %"),
     (0.0996, 0.0199, "10 % ± 2 %")],
)  # fmt: skip
def test_no_more_digits_than_the_error_lets_stand(
    relative: float, reach: float | None, said: str
) -> None:
    assert percent(relative, reach) == said


def test_a_value_has_the_digits_of_its_error() -> None:
    assert within(15.661, 0.342) == "15.7 ± 0.3"
    assert within(15566.6, 680.1) == "15,567 ± 680"
    assert within(0.0134, 0.0) == "0.0134 ± 0"


def test_what_stands_after_plus_minus_is_the_longer_side() -> None:
    found = estimate(with_values(GRAPH, kv_x=[28.0, 8.0, 6.0]), "kv_x", PLAIN)
    assert (found.low, found.value) == (0.0, 14.0)
    assert found.reach == pytest.approx(4.302653 * np.std([28, 8, 6], ddof=1) / 3**0.5, rel=1e-6)
    assert found.reach == found.high - found.value > (found.high - found.low) / 2
