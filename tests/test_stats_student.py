"""Student's t without scipy, against scipy."""

from __future__ import annotations

import math

import pytest
from scipy import stats

from sim.stats.student import quantile, two_sided


@pytest.mark.parametrize("df", [0.7, 1, 1.5, 2, 3, 3.7, 4, 5, 9, 19, 57.3, 1000, 1e6])
@pytest.mark.parametrize("confidence", [0.5, 0.8, 0.9, 0.95, 0.99, 0.9999])
def test_quantiles_are_scipys(df: float, confidence: float) -> None:
    expected = stats.t.ppf((1 + confidence) / 2, df)
    assert quantile(confidence, df) == pytest.approx(expected, rel=1e-8)


@pytest.mark.parametrize("t", [0.0, 1e-6, 0.3, 1.0, 2.5, 40.0, 1e6])
@pytest.mark.parametrize("df", [1, 2, 2.5, 3, 30, 400])
def test_tails_are_scipys(t: float, df: float) -> None:
    assert two_sided(t, df) == pytest.approx(2 * stats.t.sf(t, df), rel=1e-9, abs=1e-14)
    assert two_sided(-t, df) == two_sided(t, df)


def test_few_runs_have_the_values_of_every_table() -> None:
    assert quantile(0.95, 1) == pytest.approx(math.tan(0.475 * math.pi), rel=1e-10)  # Cauchy
    assert quantile(0.95, 1) == pytest.approx(12.7062, abs=1e-4)
    assert quantile(0.95, 2) == pytest.approx(4.3027, abs=1e-4)
    assert quantile(0.95, 3) == pytest.approx(3.1824, abs=1e-4)
    assert two_sided(math.inf, 3) == 0.0


@pytest.mark.parametrize(("confidence", "df"), [(0.0, 3), (1.0, 3), (0.9, 0)])
def test_what_has_no_quantile_says_so(confidence: float, df: float) -> None:
    with pytest.raises(ValueError, match="no quantile"):
        quantile(confidence, df)
