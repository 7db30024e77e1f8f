"""Fits of step logs: what a known engine's steps teach, and what they do not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from stepping_engine import Engine, Law, requests

from sim.errors import InputError
from sim.nnls import nonnegative, robust
from sim.step_domain import Visits, domain_of, edge
from sim.step_fit import fit_steps
from sim.step_form import Load
from sim.step_log import from_dicts
from sim.step_pace import pace
from sim.step_ready import load_of, prepared
from sim.step_residuals import residuals

Steps = list[dict[str, Any]]


def without(steps: Steps, *names: str) -> Steps:
    return [{key: value for key, value in step.items() if key not in names} for step in steps]


def served(law: Law | None = None, count: int = 150, rate: float = 6.0, **keys: Any) -> Steps:
    steps = Engine(law or Law(), **keys).serve(requests(count, rate, keys.get("seed", 1)))
    return without(steps, "gpu_s", "host_s")


def judged(found: Any, steps: Steps, region: str = "all") -> dict[str, float]:
    """Errors of a fit on other steps."""
    log, seconds, _, _ = prepared(from_dicts(steps), "auto")
    load = load_of(log)
    return residuals(load, found.form.seconds(load), seconds)[region]


@pytest.fixture(scope="module")
def plain() -> Any:
    return fit_steps(from_dicts(served(count=250)))


# ---------------------------------------------------------------- the pieces
def test_nonnegative_least_squares_by_hand() -> None:
    columns = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    gram = columns.T @ columns
    assert nonnegative(gram, columns.T @ np.array([1.0, 2.0, 3.0])) == pytest.approx([1, 2])
    # Free, the second would be -1; without it the first is (1 + 0) / 2.
    assert nonnegative(gram, columns.T @ np.array([1.0, -1.0, 0.0])) == pytest.approx([0.5, 0])


def test_nonnegative_agrees_with_scipy_from_any_start() -> None:
    from scipy.optimize import nnls

    rng = np.random.default_rng(5)
    for _ in range(30):
        columns, target = rng.normal(size=(40, 7)), rng.normal(size=40)
        want = nnls(columns, target)[0]
        for start in (None, rng.random(7), np.zeros(7)):
            found = nonnegative(columns.T @ columns, columns.T @ target, start)
            assert found == pytest.approx(want, abs=1e-7)


def test_robust_fit_does_not_mind_outliers() -> None:
    x = np.linspace(1.0, 10.0, 200)
    seconds = 2.0 + 0.5 * x
    seconds[::20] *= 10.0
    assert robust(np.stack([x * 0 + 1, x], axis=1), seconds) == pytest.approx([2.0, 0.5], rel=1e-6)


# ---------------------------------------------------------------- whole engines
def test_the_law_is_found_and_holds_at_another_rate(plain: Any) -> None:
    other = served(count=150, rate=9.0, seed=7)
    for region, median, p90 in (
        ("all", 0.008, 0.02), ("decode only", 0.008, 0.018), ("with prefill", 0.012, 0.035)
    ):  # fmt: skip
        errors = judged(plain, other, region)
        assert errors["median"] < median
        assert errors["p90"] < p90
        assert abs(errors["signed_median"]) < 0.003
    slope = sum(t.seconds for t in plain.form.decode.branches[-1] if t.name == "context")
    assert slope == pytest.approx(25e-9, rel=0.1)


def test_residuals_are_near_the_noise_floor(plain: Any) -> None:
    assert plain.noise == pytest.approx(0.0054, rel=0.15)  # 0.8 % normal noise: 0.67 sigma
    assert plain.residuals["all"]["median"] < 1.2 * plain.noise
    assert plain.outliers == 0.0


def test_hiccups_and_warm_up_are_told_apart_and_do_not_bend_the_fit() -> None:
    found = fit_steps(from_dicts(served(hiccups=0.01, warm=6, count=200)))
    assert found.warm_up == 6
    assert found.outliers == pytest.approx(0.01, rel=0.5)
    assert found.lost == pytest.approx(0.09, rel=0.5)
    assert abs(judged(found, served(seed=3))["signed_median"]) < 0.004
    assert found.ratios["all"].mean() == pytest.approx(1.0 + found.lost, abs=0.01)


def test_time_between_steps_counts_and_idle_time_does_not() -> None:
    whole = served(rate=2.0)
    short = [step | {"duration_s": step["duration_s"] - 1.5e-3} for step in whole]
    found = pace(from_dicts(short))
    assert (found.basis, found.overlap) == ("start", False)
    assert found.between_s == pytest.approx(1.5e-3, rel=1e-6)
    assert found.idle_share > 0.1
    told = np.array([step["duration_s"] for step in whole])
    assert found.seconds == pytest.approx(told, rel=1e-6)
    assert pace(from_dicts(whole)).basis == "duration"
    assert (pace(from_dicts(short), "duration").seconds < told - 1e-3).all()


def test_steps_that_overlap_are_paced_by_their_starts() -> None:
    whole = served()
    long = [step | {"duration_s": step["duration_s"] * 1.9} for step in whole]
    found = fit_steps(from_dicts(long))
    assert found.pace.overlap
    assert any("asynchronous" in note for note in found.notes)
    assert judged(found, long)["median"] < 0.008
    assert found.form.seconds(load_of(from_dicts(whole))).mean() == pytest.approx(
        np.mean([step["duration_s"] for step in whole]), rel=0.01
    )


def test_stamps_at_the_end_of_steps_are_recognised() -> None:
    whole = served()
    late = [
        step | {"start_s": step["start_s"] + step["duration_s"],
                "duration_s": step["duration_s"] - 1.5e-3}
        for step in whole
    ]  # fmt: skip
    found = pace(from_dicts(late))
    told = np.array([step["duration_s"] for step in whole])
    assert found.between_s == pytest.approx(1.5e-3, rel=1e-6)
    assert np.median(np.abs(found.seconds / told - 1.0)) < 1e-6


def test_planned_ahead_a_step_lasts_from_an_end_to_the_next() -> None:
    whole = served(rate=9.0)
    ends = [step["start_s"] + step["duration_s"] for step in whole]
    ahead = [  # submitted when the one before the one before was done
        step | {"start_s": begin, "duration_s": end - begin}
        for step, begin, end in zip(
            whole[2:], (step["start_s"] for step in whole[1:]), ends[2:], strict=False
        )
        if begin > step["start_s"] - 0.05
    ]
    found = pace(from_dicts(ahead))
    assert (found.basis, found.overlap) == ("end", True)
    assert judged(fit_steps(from_dicts(ahead)), whole)["p90"] < 0.025


def test_a_host_that_hides_behind_the_gpu_is_a_floor() -> None:
    found = fit_steps(from_dicts(served(Law(hidden=True, host=9e-3, each=40e-6))))
    assert len(found.form.mixed.branches) == 2
    assert judged(found, served(Law(hidden=True, host=9e-3, each=40e-6), seed=4))["p90"] < 0.02


def test_padded_batches_are_a_staircase_given_or_found() -> None:
    law = Law(knee=0, weights=2e-3, token=150e-6, captured=(1, 2, 4, 8, 16, 32, 64, 128))
    steps = served(law, rate=14.0, count=250)
    found = fit_steps(from_dicts(steps))
    assert found.form.captured[:5] == (1, 2, 4, 8, 16)
    given = fit_steps(from_dicts(steps), captured=law.captured)
    assert given.form.captured == law.captured
    assert judged(given, served(law, rate=12.0, seed=3), "decode only")["p90"] < 0.025
    none = fit_steps(from_dicts(steps), captured=())
    assert none.form.captured == ()
    assert judged(none, steps, "decode only")["p90"] > 0.05
    padded = [
        step | {"padded_requests": next(s for s in law.captured if s >= step["decode_requests"])}
        for step in steps
    ]
    assert set(fit_steps(from_dicts(padded)).form.captured) <= set(law.captured)


@dataclass
class Dense(Law):
    """Attention without paging: every token reads all KV; tokens in multiples of 64."""

    def seconds(
        self, decode: int, context: int, chunks: list[tuple[int, int]]
    ) -> tuple[float, float]:
        tokens = -(-(decode + sum(chunk for chunk, _ in chunks)) // 64) * 64
        held = context + sum(chunk + before for chunk, before in chunks)
        return max(9e-3, 4e-3 + 25e-6 * tokens + 2e-10 * tokens * held), 1e-3


def test_dense_attention_over_padded_tokens() -> None:
    found = fit_steps(from_dicts(served(Dense(), count=250)))
    assert found.form.mixed.grain == 64
    assert judged(found, served(Dense(), seed=8, rate=8.0), "with prefill")["p90"] < 0.025


def test_context_of_all_requests_in_one_column() -> None:
    def merged(steps: Steps) -> Steps:
        more = "prefill_context_tokens"
        return [
            {k: v for k, v in step.items() if k != more}
            | {"context_tokens": step["context_tokens"] + step[more] + step["prefill_tokens"]}
            for step in steps
        ]

    found = fit_steps(from_dicts(merged(served(rate=2.0))))
    assert found.form.context_of == "all"
    assert judged(found, merged(served(seed=3, rate=2.0)))["p90"] < 0.03


def test_few_steps_and_few_columns() -> None:
    steps = served(count=40)[:250]
    small = fit_steps(from_dicts(steps))
    assert any("steps with prefill" in note for note in small.notes)
    other = served(count=120, seed=9)
    assert judged(small, other)["median"] < 0.012
    assert judged(small, other, "with prefill")["median"] < 0.12
    bare = [{"duration_s": s["duration_s"], "decode_requests": s["decode_requests"]} for s in steps
            if not s["prefill_tokens"]]  # fmt: skip
    found = fit_steps(from_dicts(bare))
    assert any("no context_tokens" in note for note in found.notes)
    with pytest.raises(InputError, match="a fit needs 30"):
        fit_steps(from_dicts(steps[:20]))


def test_a_coarse_timer_does_no_harm() -> None:
    found = fit_steps(from_dicts(served(quantum=1e-3)))
    exact = served(seed=3)
    assert judged(found, exact)["p90"] < 0.03
    assert abs(judged(found, exact)["signed_median"]) < 0.005


def test_gpu_seconds_are_fitted_apart() -> None:
    steps = Engine(Law()).serve(requests(100, 6.0, 1))
    found = fit_steps(from_dicts(steps))
    assert found.gpu is not None
    load = load_of(from_dicts(steps))
    gap = found.form.seconds(load) - found.gpu.seconds(load)
    assert gap.mean() == pytest.approx(np.mean([step["host_s"] for step in steps]), rel=0.1)
    assert any("added to the GPU's" in note for note in found.notes)


def test_decode_beyond_the_log_costs_what_computing_does() -> None:
    law = Law(weights=8e-3, token=60e-6, captured=())
    found = fit_steps(from_dicts(served(law, rate=8.0, count=200, budget=2048)))
    load = Load(*(np.array([float(v)]) for v in (400, 400, 40_000, 0, 0, 0)))
    gpu, host = law.seconds(400, 40_000, [])
    assert found.form.seconds(load)[0] == pytest.approx(gpu + host, rel=0.25)
    # What the decode steps alone would say: memory is the limit for ever.
    assert found.form.decode.branches[-1][0].seconds < 0.5 * (gpu + host)


# ---------------------------------------------------------------- where it holds
def loads(*rows: tuple[float, float, float]) -> Load:
    """Steps of (decoding requests, context tokens each, prefill tokens)."""
    decode, each, prefill = np.array(rows, float).T
    return Load(decode, decode, decode * each, (prefill > 0) * 1.0, prefill, prefill * 0)


def test_a_domain_is_cells_and_not_a_box() -> None:
    domain = domain_of(loads((1, 60_000, 0), (64, 100, 0), (4, 100, 0)))
    visits = Visits(domain)
    visits.add(loads((64, 60_000, 0)), np.array([1.0]))
    visits.add(loads((64, 100, 0), (16, 100, 0)), np.array([5.0, 4.0]))  # 16: between 4 and 64
    first, where = visits.outside()
    assert first == "step log: 10.0% of the loop's time lies outside"
    assert "no step with 33 to 64 decoding requests, 32,769 to 65,536 context tokens" in where


def test_what_lies_beyond_is_named_by_its_axis() -> None:
    visits = Visits(domain_of(loads((4, 100, 0), (8, 100, 0))))
    visits.add(loads((100, 100, 0)), np.array([1.0]))
    assert visits.outside()[1] == (
        "step log: decoding requests from 65, the log has up to 8 (100.0% of the time)"
    )
    visits = Visits(domain_of(loads((4, 100, 0))))
    visits.add(loads((4, 100, 0), (100, 100, 0)), np.array([1.0, 0.001]))
    assert visits.outside() == []  # a trifle


def test_cells_are_about_a_factor_of_two_wide() -> None:
    assert [edge(cell) for cell in range(8)] == [0, 1, 2, 3, 5, 9, 17, 33]
