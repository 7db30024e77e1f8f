"""Whether measured requests wait longer than simulated by a constant, and which key holds it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sim.units import seconds_text

if TYPE_CHECKING:
    from .served import Served

_LEAST_S = 100e-6
_SHARE = 0.02
_SPREAD = 0.5
_FEW = 20


def waiting_line(measured: Served, simulated: Served) -> str | None:
    """One line if first tokens of the same requests come later by much the same time; else None.

    That time is the median difference of TTFT. It counts as a constant if it is at least 0.1 ms and
    2 % of the median TTFT, and the middle half of the differences lies within half of it.
    """
    if len(measured) < _FEW:
        return None
    late = measured.ttft - simulated.ttft
    low, middle, high = (float(value) for value in np.quantile(late, (0.25, 0.5, 0.75)))
    if middle < max(_LEAST_S, _SHARE * float(np.median(measured.ttft))):
        return None
    if high - low > _SPREAD * middle:
        return None
    return (
        f"first tokens come {seconds_text(middle)} later than simulated, nearly a constant (middle "
        f"half: {seconds_text(low)} to {seconds_text(high)}): time around the engine, which "
        f"`schedule: {{arrival_delay: {middle * 1e3:.3g} ms}}` would hold (token_delay, as far as "
        "tokens are late at the client)"
    )
