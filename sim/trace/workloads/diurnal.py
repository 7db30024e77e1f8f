"""The rate by hour of day: built-in profiles, a cosine, or 24 numbers of the user's own.

One rule: a shape moves requests in time and changes none of them, and the mean rate over a day
stays what it was.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from sim.errors import InputError, shown

if TYPE_CHECKING:
    from numpy.typing import NDArray

Diurnal = str | float | Sequence[float]

# Requests in each hour of the day relative to the mean hour, from midnight.
# ServeGen (Alibaba Cloud, arXiv 2505.09999): summed over all clients and days of the published
# client files, 14 days of the m- models, one day of the two others (local time of the publisher).
# BurstGPT (HPMLL, part 1, 61 days): mean requests by hour as published with an analysis of the
# file (IsabellaLiu99/burstgpt_analysis); not measured here.
# fmt: off
PROFILES: dict[str, tuple[float, ...]] = {
    "servegen-m-large": (
        0.994, 1.002, 0.986, 0.936, 0.908, 0.883, 0.854, 0.817, 0.788, 0.868, 1.046, 1.106, 0.971,
        0.981, 1.047, 1.047, 1.109, 1.078, 1.040, 1.143, 1.133, 1.074, 1.103, 1.086,
    ),
    "servegen-m-mid": (
        1.010, 1.043, 1.147, 1.170, 1.021, 0.937, 0.981, 1.061, 0.979, 0.993, 1.106, 1.111, 0.955,
        1.128, 1.058, 0.848, 0.841, 0.925, 0.902, 0.890, 1.014, 0.933, 0.927, 1.021,
    ),
    "servegen-m-small": (
        0.839, 0.714, 0.733, 0.676, 0.714, 0.660, 0.684, 0.855, 1.015, 1.054, 1.125, 1.093, 1.060,
        1.073, 1.060, 1.047, 1.091, 1.079, 1.007, 1.229, 1.456, 1.402, 1.270, 1.063,
    ),
    "servegen-deepseek-r1": (
        1.206, 1.389, 2.034, 1.788, 1.064, 0.908, 0.749, 0.577, 0.596, 0.664, 0.810, 0.830, 0.447,
        0.545, 0.684, 0.704, 0.878, 0.553, 0.749, 0.587, 1.240, 1.621, 2.194, 1.181,
    ),
    "servegen-mm-image": (
        0.591, 0.889, 1.118, 0.866, 0.965, 0.939, 0.868, 0.916, 0.866, 1.113, 1.334, 1.250, 1.080,
        1.104, 1.262, 1.301, 1.347, 1.060, 0.887, 0.917, 1.015, 0.887, 0.825, 0.599,
    ),
    "burstgpt": (
        0.963, 0.914, 0.585, 0.525, 0.377, 0.350, 0.198, 0.157, 0.182, 0.426, 0.900, 1.317, 1.786,
        1.537, 1.839, 1.435, 1.511, 1.388, 1.210, 1.605, 1.385, 1.203, 1.156, 1.050,
    ),
}
# fmt: on
# Model: the peak of an amplitude without a profile, 15:00, is that of the profiles' office hours.
_PEAK_HOUR = 15.0
_HOUR_S = 3600.0
DAY_S = 24 * _HOUR_S


def hourly(diurnal: Diurnal) -> NDArray[np.float64]:
    """24 rates of mean 1; raises `InputError`.

    A number a is a cosine that goes from 1 - a to 1 + a: 0.8 has the ratio of peak to trough that
    is published for the Azure 2024 code trace (9.1), 0.31 that of its conversations (1.9).
    """
    if isinstance(diurnal, str):
        if diurnal not in PROFILES:
            names = ", ".join(PROFILES)
            raise InputError(
                f"diurnal: {shown(diurnal)} is unknown; write one of {names}, an amplitude from 0 "
                "to 1, or 24 numbers"
            )
        rates = np.array(PROFILES[diurnal])
    elif isinstance(diurnal, (int, float)):
        if not 0 <= diurnal <= 1:
            raise InputError(f"diurnal: an amplitude of {shown(diurnal)} is not in 0 to 1")
        hours = np.arange(24) + 0.5
        rates = 1.0 + diurnal * np.cos(2 * math.pi * (hours - _PEAK_HOUR) / 24)
    else:
        rates = np.array(diurnal, dtype=np.float64)
        if rates.shape != (24,):
            raise InputError(f"diurnal: {len(diurnal)} numbers; write 24, one an hour from 0:00")
        if not (np.isfinite(rates).all() and (rates >= 0).all() and rates.max() > 0):
            raise InputError("diurnal: a rate that is negative or not finite, or all are 0")
        rates = rates / rates.max()
    return np.asarray(rates / rates.mean(), dtype=np.float64)


class DayShape:
    """Moves times at which requests come at an even rate to those of a daily profile.

    The rate is constant within each hour. An hour of rate 0 has no requests.
    """

    def __init__(self, diurnal: Diurnal, start_hour: float = 0.0) -> None:
        rates = hourly(diurnal)
        if not 0 <= start_hour < 24:
            raise InputError(f"start_hour: {shown(start_hour)} is not in 0 to below 24; correct it")
        self._even = _HOUR_S * np.concatenate([[0.0], np.cumsum(rates)])
        self._hours = _HOUR_S * np.arange(25)
        self._start_s = start_hour * _HOUR_S
        self._offset = float(np.interp(self._start_s, self._hours, self._even))

    def __call__(self, even_s: NDArray[np.float64]) -> NDArray[np.float64]:
        """Seconds from the start for times *even_s*, from 0 and non-decreasing."""
        days, within = np.divmod(even_s + self._offset, DAY_S)
        shaped = days * DAY_S + np.interp(within, self._even, self._hours)
        return np.asarray(np.maximum(shaped - self._start_s, 0.0), dtype=np.float64)
