"""When generated requests arrive: gaps of one mean, and a rate that changes by the minute."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from sim.errors import InputError, shown

from .bounds import BURSTINESS, RATE_PER_S
from .lengths import in_range

Arrivals = Literal["poisson", "gamma", "constant"]
Gaps = Callable[[np.random.Generator, int], NDArray[np.float64]]
Warp = Callable[[NDArray[np.float64]], NDArray[np.float64]]

_MINUTE_S = 60.0


def plain_gaps(rate_per_s: float, arrivals: Arrivals, burstiness: float) -> Gaps:
    """A draw of n gaps in seconds of mean 1 / *rate_per_s*; raises `InputError`."""
    in_range("rate_per_s", rate_per_s, *RATE_PER_S)
    check_arrivals("arrivals", arrivals)
    mean_s = 1.0 / rate_per_s
    match arrivals:
        case "poisson":
            return lambda rng, n: mean_s * rng.standard_exponential(n)
        case "gamma":
            in_range("burstiness", burstiness, *BURSTINESS)
            return gamma_gaps(burstiness, mean_s)
        case "constant":
            return lambda rng, n: np.full(n, mean_s)


def check_arrivals(name: str, arrivals: str) -> None:
    """Raise `InputError` about the argument or option *name* if it is none of `Arrivals`."""
    if arrivals not in get_args(Arrivals):
        choices = ", ".join(get_args(Arrivals))
        raise InputError(f"{name}: {shown(arrivals)} is unknown; write one of {choices}")


def gamma_gaps(shape: float, mean_s: float) -> Gaps:
    """A draw of n gamma gaps; *shape* 1 is Poisson, less is burstier."""
    return lambda rng, n: rng.gamma(shape, mean_s / shape, n)


def minute_profile(per_minute: Sequence[int], rate_per_s: float) -> Warp:
    """From a clock on which requests come at rate 1 to seconds, by a profile that repeats.

    The rate is constant within each minute, in proportion to *per_minute*, and *rate_per_s* over
    the whole profile.
    """
    shares = np.array(per_minute, dtype=np.float64)
    seconds = _MINUTE_S * np.arange(len(shares) + 1)
    expected = np.concatenate([[0.0], np.cumsum(shares)]) * (
        rate_per_s * seconds[-1] / shares.sum()
    )

    def warp(clock: NDArray[np.float64]) -> NDArray[np.float64]:
        rounds, within = np.divmod(clock, expected[-1])
        return np.asarray(rounds * seconds[-1] + np.interp(within, expected, seconds))

    return warp
