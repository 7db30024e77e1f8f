"""The requests of a run as columns, from its records, and the metrics of those after a cut.

The one rule: a metric here is the one of `summary.json`, to the last digit, when nothing is cut.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from sim.metrics import latencies
from sim.quantiles import percentile

from .settling import FEWEST, mser

if TYPE_CHECKING:
    from sim.runs import Run

    from .metrics import Metric

_COLUMNS = {
    "request_id": "id", "arrival_s": "arrival", "admitted_s": "admitted",
    "first_token_s": "first_token", "finished_s": "finished", "prompt_tokens": "prompt_tokens",
    "output_tokens": "output_tokens",
}  # fmt: skip
"""Columns of the file, and what they are called here."""
_MOST_KEPT = 2_000_000
"""Requests that stay in memory, of all runs together."""


@dataclass(frozen=True, eq=False)
class Requests:
    """The finished requests of a run in order of arrival, as columns named as in `RequestLog`.

    Times are in seconds; *start* is when counting begins, *end* when the run does.
    """

    columns: dict[str, np.ndarray]
    start: float
    end: float

    @classmethod
    def of(cls, run: Run) -> Requests:
        """Those of *run*; `InputError` if its records are missing or damaged."""
        table = run.columns("requests", *_COLUMNS, "status")
        done = np.flatnonzero(table["status"] == "finished")
        done = done[np.argsort(table["arrival_s"][done], kind="stable")]
        columns = {name: table[name_in_file][done] for name_in_file, name in _COLUMNS.items()}
        return cls(columns, 0.0, float(run.summary["duration"]))

    def __len__(self) -> int:
        return len(self["id"])

    def __getitem__(self, name: str) -> np.ndarray:
        """A column."""
        return self.columns[name]

    def only(self, chosen: np.ndarray, start: float | None = None) -> Requests:
        """Those *chosen*, by position or by mask."""
        columns = {name: column[chosen] for name, column in self.columns.items()}
        return Requests(columns, self.start if start is None else start, self.end)

    def after(self, seconds: float) -> Requests:
        """Those that arrived at *seconds* or later, counted from then on."""
        if seconds <= 0:
            return self
        if seconds not in self.kept:
            self.kept[seconds] = self.only(self["arrival"] >= seconds, seconds)
        kept: Requests = self.kept[seconds]
        return kept

    @cached_property
    def kept(self) -> dict[Any, Any]:
        """What was worked out of them, by what it was asked for."""
        return {}

    @cached_property
    def settled(self) -> float | None:
        """Seconds from which TTFT and TPOT have settled; None if they do not, 0 if too few."""
        several = self.only(self["output_tokens"] > 1)
        decoding = several["finished"] - several["first_token"]
        seconds = 0.0
        for these, values in (
            (self, self["first_token"] - self["arrival"]),
            (several, decoding / (several["output_tokens"] - 1)),
        ):
            left_out = mser(values) if len(values) >= FEWEST else 0
            if left_out is None:
                return None
            if left_out:
                seconds = max(seconds, float(these["arrival"][left_out]))
        return seconds

    @cached_property
    def _latencies(self) -> dict[str, np.ndarray]:
        return latencies(self.columns)

    def milliseconds(self, metric: Metric) -> np.ndarray:
        """The latency of each request that *metric* is about; `nan` where a request has none."""
        return self._latencies[metric.column] * 1e3

    def weights(self, metric: Metric, limits: dict[str, float | None]) -> np.ndarray | None:
        """What each request counts in a rate; None for a goodput without limits.

        One-token outputs count as 0 TPOT, as in vLLM.
        """
        if metric.name == "request_throughput":
            return np.ones(len(self))
        if metric.name == "request_goodput":
            given = {name: limit for name, limit in limits.items() if limit is not None}
            good = np.ones(len(self), bool)
            for name, limit in given.items():
                good &= np.nan_to_num(self._latencies[name], nan=0.0) <= limit
            return good.astype(float) if given else None
        both = metric.name == "total_token_throughput"
        tokens = self["output_tokens"] + (self["prompt_tokens"] if both else 0)
        return tokens.astype(float)


def latency(values: np.ndarray, metric: Metric) -> float | None:
    """Mean or percentile of the finite *values*; None if there are none."""
    values = np.sort(values[np.isfinite(values)])
    if not len(values):
        return None
    percent = metric.percent
    return float(values.mean()) if percent is None else percentile(values, percent)


def rate(requests: Requests, weights: np.ndarray | None) -> float | None:
    """The sum of *weights* a second."""
    seconds = requests.end - requests.start
    if weights is None or seconds <= 0:
        return None
    return float(weights.sum()) / seconds


def limits_of(run: Run) -> dict[str, float | None]:
    """The limits of the run's SLO in seconds."""
    slo = run.scenario.get("slo")
    given = slo if isinstance(slo, dict) else {}
    return {name: given.get(name) for name in ("ttft", "tpot", "e2el")}


class _Kept:
    """Requests of runs that were read lately."""

    def __init__(self) -> None:
        self.of: OrderedDict[tuple[str, int, int], Requests] = OrderedDict()

    def get(self, run: Run) -> Requests:
        """The requests of *run*, read once while there is room."""
        path = run.folder / "requests.parquet"
        try:
            stat = path.stat()
            key = (os.path.abspath(path), stat.st_mtime_ns, stat.st_ino)
        except OSError:
            return Requests.of(run)  # which says what is wrong
        if key not in self.of:
            self.of[key] = Requests.of(run)
            while len(self.of) > 1 and sum(map(len, self.of.values())) > _MOST_KEPT:
                self.of.popitem(last=False)
        self.of.move_to_end(key)
        return self.of[key]


requests_of = _Kept().get
