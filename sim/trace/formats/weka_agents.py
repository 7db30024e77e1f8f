"""When the requests of an agent session follow each other, and how its sub-agents fork and join.

Times are seconds on the session's clock.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import isnan, nan
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

_ROUNDING_S = 1.0  # times of requests are whole seconds


@dataclass(frozen=True, slots=True)
class Request:
    """One request: sent at `t_s`, `api_s` until its last token, `think_s` before it; nan: unknown.

    `failed`: it has no output, and is no request of the trace.
    """

    key: tuple[int, ...]
    t_s: float
    prompt: int
    output: int
    api_s: float = nan
    think_s: float = nan
    ids: NDArray[np.int64] | None = None
    failed: bool = False

    @property
    def end_s(self) -> float:
        """When its answer was complete, nan if unknown."""
        return self.t_s + self.api_s

    def at(self, t_s: float) -> Request:
        """The same request at another time."""
        return replace(self, t_s=t_s)


@dataclass(frozen=True, slots=True)
class Agent:
    """The marker of a sub-agent at `t_s`, with how long it ran (nan: unknown) and its requests.

    Of one in the `background` nobody waits for the end.
    """

    t_s: float
    duration_s: float
    background: bool
    requests: tuple[Request, ...]

    def on_session_clock(self, parent: Request | None) -> tuple[Request, ...]:
        """Its requests at the session's times; *parent* is the request before the marker.

        Nested times count from the sub-agent's start, or they are the session's already: that is so
        if they are not before the marker, or where the run that ended at the marker began.
        """
        first_s = min((request.t_s for request in self.requests), default=0.0)
        began_s = self._began(parent)
        if first_s >= self.t_s or (first_s > 0 and abs(first_s - began_s) <= 2 * _ROUNDING_S):
            return self.requests
        return tuple(request.at(began_s + request.t_s) for request in self.requests)

    def _began(self, parent: Request | None) -> float:
        # Model: a marker with a duration stands at the end of the run, when the parent got the
        # result. In kv-cache-tester's sessions, marker time less duration is 0.1 to 1.1 s after the
        # end of the parent's request in 57 of 59 cases (of the other two the parent is not in the
        # file), and parallel sub-agents so begin together. A marker without duration, or one whose
        # run would have begun before its parent was sent, stands at the beginning.
        began_s = self.t_s - self.duration_s
        sent_s = 0.0 if parent is None else parent.t_s
        return self.t_s if isnan(began_s) or began_s < sent_s - _ROUNDING_S else max(began_s, 0.0)


def delay(request: Request, others: Sequence[Request], *, think: bool) -> float:
    """Seconds from the last completion of *others* until *request* was sent; nan if unknown.

    With *think* the recorded think time, where there is one; else, or without it, what lies between
    the recorded end and start. Nothing is less than 0: times are rounded to seconds.
    """
    if think and not isnan(request.think_s):
        return request.think_s
    ends = [other.end_s for other in others]
    if any(isnan(end_s) for end_s in ends):
        return nan
    return max(request.t_s - max(ends), 0.0)
