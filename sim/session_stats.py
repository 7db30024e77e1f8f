"""Sessions in numbers: how many there were, how long they took from first request to last answer.

Of a session only begin, end and what it still lacks are kept.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .quantiles import Summary, percentile
from .request_log import STATUSES

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .request_log import Columns

FINISHED, UNFINISHED = STATUSES.index("finished"), STATUSES.index("unfinished")


class SessionStats:
    """Accumulates slices of requests; a sink of `RequestLog`."""

    def __init__(self) -> None:
        self._begin: dict[str, float] = {}
        self._end: dict[str, float] = {}
        self._cut: set[str] = set()

    def add(self, columns: Columns) -> None:
        """Takes a slice of ended requests; those without a session do not count."""
        if not any(columns["session"]):
            return
        # A rejected request has its answer, an error, when it arrives.
        ends = np.where(columns["status"] == FINISHED, columns["finished"], columns["arrival"])
        rows = zip(
            columns["session"].tolist(), columns["arrival"].tolist(), ends.tolist(),
            columns["status"].tolist(), strict=True,
        )  # fmt: skip
        for session, arrival, end, status in rows:
            if session:
                self._begin[session] = min(self._begin.get(session, arrival), arrival)
                self._end[session] = max(self._end.get(session, end), end)
                if status == UNFINISHED:
                    self._cut.add(session)

    def summary(self, unsent: Iterable[str]) -> Summary:
        """Our keys; *unsent* are the sessions with a request that waited in vain.

        Durations are those of sessions all of whose requests were answered.
        """
        cut = self._cut.union(unsent)
        whole = [session for session in self._begin if session not in cut]
        seconds = np.array([self._end[session] - self._begin[session] for session in whole])
        seconds.sort()
        any_whole = len(seconds) > 0
        return {
            "trace_sessions": len(cut.union(self._begin)),
            "trace_sessions_unfinished": len(cut),
            "trace_session_mean_s": float(seconds.mean()) if any_whole else None,
            "trace_session_median_s": percentile(seconds, 50.0) if any_whole else None,
            "trace_session_p99_s": percentile(seconds, 99.0) if any_whole else None,
        }
