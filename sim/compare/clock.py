"""What a loop did between any two times: integrals over its iterations.

The one rule: within an iteration each share of it passes evenly, so that what a request spent in an
interval is the difference of two integrals, and the shares of an interval add up to it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

    Columns = Mapping[str, np.ndarray]

COLUMNS = ("start_s", "duration_s", "gpu_busy_s", "kind", "path", "replica")
PARTITION = "partition"
PROMPTS = ("prefill", "mixed")


class Shares(NamedTuple):
    """Seconds in intervals, an element each; `rest`: no iteration was running."""

    gpu: np.ndarray
    """The GPU works in decode iterations."""
    gap: np.ndarray
    """The rest of decode iterations."""
    prompts_gpu: np.ndarray
    """The GPU works in iterations with prefill."""
    prompts_gap: np.ndarray
    rest: np.ndarray


class Clock:
    """A replica's iterations that follow one another: the loop's, or a prefill partition's."""

    def __init__(self, rows: Columns) -> None:
        order = np.argsort(rows["start_s"], kind="stable")
        begin, seconds = rows["start_s"][order], rows["duration_s"][order]
        end = np.minimum(begin + seconds, np.append(begin[1:], np.inf))
        seconds = end - begin
        busy = np.clip(rows["gpu_busy_s"][order], 0.0, seconds)
        prompts = np.isin(rows["kind"][order], PROMPTS)
        self._edges = np.stack([begin, end], axis=1).ravel()
        self._sums = []
        for spent in (busy, seconds - busy):
            for chosen in (~prompts, prompts):
                sums = np.repeat(np.cumsum(np.where(chosen, spent, 0.0)), 2)
                self._sums.append(np.append(0.0, sums[:-1]))

    def shares(self, begin: np.ndarray, end: np.ndarray) -> Shares:
        """What passed from *begin* to *end* seconds."""
        if not len(self._edges):
            none = np.zeros_like(begin)
            return Shares(none, none, none, none, end - begin)
        gpu, prompts_gpu, gap, prompts_gap = (
            np.interp(end, self._edges, sums) - np.interp(begin, self._edges, sums)
            for sums in self._sums
        )
        rest = end - begin - gpu - gap - prompts_gpu - prompts_gap
        return Shares(gpu, gap, prompts_gpu, prompts_gap, rest)


class Replica:
    """The clocks of one GPU."""

    def __init__(self, rows: Columns) -> None:
        path = rows.get("path")
        aside = np.zeros(len(rows["start_s"]), bool) if path is None else path == PARTITION
        self.loop = Clock({name: values[~aside] for name, values in rows.items()})
        self.partition = None
        if aside.any():
            self.partition = Clock({name: values[aside] for name, values in rows.items()})


def replicas(rows: Columns) -> dict[int, Replica]:
    """The clocks of each replica."""
    number = rows.get("replica")
    if number is None:
        return {0: Replica(rows)}
    return {
        one: Replica({name: values[number == one] for name, values in rows.items()})
        for one in np.unique(number).tolist()
    }
