"""What one run says about its own error, and where its warm-up ends."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.signal import lfilter

from sim.stats.batches import of_mean, of_quantile
from sim.stats.settling import mser


def autoregressive(count: int, phi: float, seed: int) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(size=count + 500)
    return np.asarray(lfilter([1.0], [1.0, -phi], noise)[500:])


def test_twenty_batches_by_hand() -> None:
    """Batches of 5 with means 0 and 1 in turn: neighbours differ, so no batch leans on another."""
    values = np.repeat([0.0, 1.0] * 10, 5)
    spread = of_mean(values)
    assert spread.df == 19
    assert spread.error == pytest.approx((0.25 * 20 / 19 / 20) ** 0.5)


def test_what_does_not_fill_a_batch_is_left_out_at_the_beginning() -> None:
    values = np.repeat([0.0, 1.0] * 10, 5)
    assert of_mean(np.concatenate([[1e6] * 7, values])) == of_mean(values)


def test_batches_that_lean_on_each_other_are_joined_and_allowed_for() -> None:
    """Twenty means that come in pairs: ten batches, whose own correlation widens the error."""
    rising = np.repeat([0.0, 1.0, 0.5, 2.0, 2.5, 1.5, 1.0, 0.0, 0.5, 1.0], 2)
    widened = of_mean(np.repeat(rising, 10))
    apart = rising[::2] - rising[::2].mean()
    r = float((apart[1:] * apart[:-1]).sum() / (apart**2).sum()) + 0.1
    assert 0 < r < 0.5
    assert widened.df == 9
    plain = rising[::2].std(ddof=1) / 10**0.5
    assert widened.error == pytest.approx(plain * ((1 + r) / (1 - r)) ** 0.5)


def test_too_short_a_run_says_why() -> None:
    assert "too few requests" in of_mean(np.arange(99.0)).why
    assert "depend on one another" in of_mean(np.arange(1000.0)).why  # a trend from end to end
    values = np.random.default_rng(1).exponential(size=500)
    assert "99th" in of_quantile(values, 99.0, 0.95).why
    assert not of_quantile(values, 90.0, 0.95).why


def test_values_that_never_change_have_no_error() -> None:
    assert of_mean(np.full(200, 0.1)).error == pytest.approx(0.0, abs=1e-15)


def test_a_quantiles_interval_of_independent_values_is_that_of_the_binomial() -> None:
    """Half the values are at or below the median, within sqrt(p (1 - p) / n)."""
    values = np.random.default_rng(5).random(40_000)
    found = of_quantile(values, 50.0, 0.95)
    reach = 2.09 * (0.25 / 40_000) ** 0.5  # t of 19 degrees of freedom
    assert (found.high - found.low) / 2 == pytest.approx(reach, rel=0.35)
    assert found.low < 0.5 < found.high
    assert found.density == pytest.approx(1.0, rel=0.1)


def test_correlation_widens_the_interval_as_theory_has_it() -> None:
    """An AR(1)'s mean has (1 + phi)/(1 - phi) times the variance of independent values."""
    errors = [of_mean(autoregressive(20_000, 0.8, seed)).error ** 2 for seed in range(40)]
    independent = 1 / (1 - 0.8**2) / 20_000
    assert np.mean(errors) / independent == pytest.approx(9.0, rel=0.25)


# ---------------------------------------------------------------- warm-up
def test_a_step_is_cut_where_it_ends() -> None:
    values = np.concatenate([np.full(50, 10.0), np.repeat(np.tile([0.9, 1.1], 50), 5)])
    assert mser(values) == 50


def test_nothing_is_cut_from_what_is_settled() -> None:
    assert mser(np.tile([1.0, 2.0, 3.0, 4.0, 5.0], 100)) == 0
    assert mser(0.1 + np.arange(500) * 1e-18) == 0
    assert mser(np.linspace(0.1, 0.1 + 1e-12, 500)) == 0


def test_what_grows_to_the_end_does_not_settle() -> None:
    assert mser(np.arange(1000.0) ** 2) is None


def test_a_transient_of_a_queue_that_begins_empty_is_found() -> None:
    """An AR(1) that begins 30 above its mean is cut after a few of its times of 20."""
    noise = autoregressive(3000, 0.95, 3)
    values = noise + 60 * 0.95 ** np.arange(3000)
    cut = mser(values)
    assert cut is not None
    assert 20 <= cut <= 400
