"""Student's t distribution, without scipy: its tail, and the quantile that an interval needs.

Exact to rounding for every number of degrees of freedom, whole or (as Welch's are) not.
"""

from __future__ import annotations

import math
from functools import lru_cache

_STEPS = 500


def two_sided(t: float, df: float) -> float:
    """The chance that |T| is larger than |*t*| with *df* degrees of freedom."""
    if math.isnan(t):
        return math.nan
    if math.isinf(t):
        return 0.0
    return _beta(df / 2, 0.5, df / (df + t * t), t * t / (df + t * t))


@lru_cache(maxsize=4096)
def quantile(confidence: float, df: float) -> float:
    """How many standard errors a two-sided interval reaches: |T| is within them so often."""
    if not 0 < confidence < 1 or df <= 0:
        raise ValueError(f"no quantile for confidence {confidence} and {df} degrees of freedom")
    tail = 1.0 - confidence
    low, high = 0.0, 1.0
    while two_sided(high, df) > tail:
        low, high = high, 2 * high
    while high - low > 1e-13 * high:
        middle = (low + high) / 2
        if middle in (low, high):
            break
        low, high = (middle, high) if two_sided(middle, df) > tail else (low, middle)
    return (low + high) / 2


def _beta(a: float, b: float, x: float, rest: float) -> float:
    """The regularised incomplete beta function I_x(a, b), with *rest* = 1 - x."""
    if x <= 0 or rest <= 0:
        return 0.0 if x <= 0 else 1.0
    log = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b)
    log += a * math.log(x) + b * math.log(rest)
    if x < (a + 1) / (a + b + 2):  # where the fraction below converges fast
        return math.exp(log) / (a * _fraction(a, b, x))
    return 1.0 - math.exp(log) / (b * _fraction(b, a, rest))


def _fraction(a: float, b: float, x: float) -> float:
    """The continued fraction 1 + d1/(1 + d2/(1 + ...)) of DLMF 8.17.22, from its front.

    Numerators and denominators of its convergents follow the usual three-term recurrence, scaled
    at every step so that the denominator is 1.
    """
    before, now = 1.0, 1.0  # numerators A(-1), A(0)
    below_before = 0.0  # denominator B(-1); B(0) is 1
    for step in range(1, _STEPS):
        m = step // 2
        if step % 2:
            d = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        else:
            d = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        above, below = now + d * before, 1.0 + d * below_before
        following = above / below
        if abs(following - now) <= 1e-16 * abs(following):
            return following
        before, below_before = now / below, 1.0 / below
        now = following
    return now
