"""The engine's clock: seconds since its zero, real or told by a test."""

from __future__ import annotations

import time
from typing import Protocol

SLEEP_ABOVE_S = 2e-3
"""A longer wait sleeps until so much is left, and then spins: an arrival must be seen on time."""


class Clock(Protocol):
    """What the engine asks."""

    def now(self) -> float:
        """Seconds since zero."""

    def wait_until(self, moment: float) -> None:
        """Returns at *moment* or a little after."""


class RealClock:
    """Wall time; zero is when it is made, or *lead_s* later."""

    def __init__(self, lead_s: float = 0.0) -> None:
        self._zero = time.perf_counter_ns() + int(lead_s * 1e9)

    def now(self) -> float:
        """See `Clock.now`."""
        return (time.perf_counter_ns() - self._zero) * 1e-9

    def wait_until(self, moment: float) -> None:
        """See `Clock.wait_until`."""
        left = moment - self.now()
        if left > SLEEP_ABOVE_S:
            time.sleep(left - SLEEP_ABOVE_S)
        while self.now() < moment:
            pass


class FakeClock:
    """Time that passes when `advance` says so."""

    def __init__(self) -> None:
        self.time = 0.0

    def now(self) -> float:
        """See `Clock.now`."""
        return self.time

    def wait_until(self, moment: float) -> None:
        """See `Clock.wait_until`."""
        self.time = max(self.time, moment)

    def advance(self, seconds: float) -> None:
        """*seconds* pass."""
        self.time += seconds
