"""Where the time of requests went: each latency as a sum of parts.

The one rule: the parts of a request add up to its latency, so those of a mean add up to the mean,
and their differences between two runs to the difference.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from sim.delays import token_delay_of
from sim.errors import InputError
from sim.runs import columns_of

from . import clock

if TYPE_CHECKING:
    from sim.runs import Run

LABELS = {
    "queue": "in the queue",
    "load": "waits for its KV",
    "prefill": "prefill, from admission to the first token",
    "prefill_gpu": "prefill: GPU works",
    "prefill_gap": "prefill: gaps of the loop",
    "prefill_rest": "prefill: no iteration runs",
    "delivery": "delivery of the token to the client",
    "decode": "decode, from the first token to the last",
    "decode_gpu": "decode: GPU works",
    "decode_gap": "decode: gaps of the loop",
    "decode_prompts": "decode: iterations with prompts",
    "decode_rest": "decode: no iteration runs",
}
"""Parts of a request's time, in order. `decode_prompts`: iterations that others' prompts make
longer, or in which the request waits for them."""
OF_TTFT = (
    "queue", "load", "prefill", "prefill_gpu", "prefill_gap", "prefill_rest", "delivery",
)  # fmt: skip
TAIL = 99.0
"""Percentile from which a TTFT counts among the slowest."""


@dataclass(frozen=True)
class Requests:
    """The finished requests of a run; an element a request, times in seconds."""

    id: np.ndarray
    prompt_tokens: np.ndarray
    output_tokens: np.ndarray
    ttft: np.ndarray
    e2el: np.ndarray
    queue: np.ndarray
    parts: dict[str, np.ndarray]
    """Seconds of parts, of which `OF_TTFT` add up to the TTFT and all to the E2EL."""
    sent: tuple[np.ndarray, np.ndarray, np.ndarray]
    """Ids, prompt and output tokens of all that were sent."""

    @property
    def tpot(self) -> np.ndarray:
        """Time per output token after the first; NaN where there is none."""
        return self._per_token(self.e2el - self.ttft)

    def _per_token(self, seconds: np.ndarray) -> np.ndarray:
        more = np.maximum(self.output_tokens - 1, 1)
        each: np.ndarray = np.where(self.output_tokens > 1, seconds / more, np.nan)
        return each

    def latency(self, column: str) -> np.ndarray:
        """ttft, tpot, e2el or queue."""
        found: np.ndarray = getattr(self, column)
        return found

    def mean(self, name: str) -> dict[str, float]:
        """Seconds of the parts of a mean, a name of `MEANS`; they add up to it."""
        chosen = np.ones(len(self.id), bool)
        parts = self.parts
        if name in ("ttft", "slow_ttft"):
            parts = {part: values for part, values in parts.items() if part in OF_TTFT}
        if name == "slow_ttft" and len(self.id):
            chosen = self.ttft >= np.percentile(self.ttft, TAIL)
        if name == "tpot":
            chosen = self.output_tokens > 1
            parts = {
                part: self._per_token(values)
                for part, values in parts.items()
                if part not in OF_TTFT
            }
        if not chosen.any():
            return {}
        return {part: float(values[chosen].mean()) for part, values in parts.items()}


MEANS = {
    "ttft": "mean TTFT",
    "slow_ttft": "mean TTFT of the slowest 1 %",
    "tpot": "mean TPOT",
    "e2el": "mean E2EL",
}
_NEEDED = ("request_id", "arrival_s", "admitted_s", "first_token_s", "finished_s",
           "prompt_tokens", "output_tokens", "status")  # fmt: skip


def requests_of(run: Run, rows: clock.Columns | None) -> Requests:
    """The requests of *run*, whose iterations are *rows* (None: not recorded)."""
    path = run.folder / "requests.parquet"
    table = columns_of(path, _NEEDED)
    more = _optional(run, ("load_ms", "replica"))
    sent = (table["request_id"], table["prompt_tokens"], table["output_tokens"])
    done = table["status"] == "finished"
    times = [table[name][done].astype(float) for name in _NEEDED[1:5]]
    if any(not np.isfinite(time).all() for time in times) or (np.diff(times, axis=0) < 0).any():
        raise InputError(f"{path}: has times that no run can have; delete the run and repeat it")
    delay = token_delay_of(run.folder)
    arrival, admitted = times[:2]
    first, last = (time - delay for time in times[2:])  # when their iterations ended
    load = np.zeros(len(arrival))
    if "load_ms" in more:
        load = np.clip(more["load_ms"][done].astype(float) / 1e3, 0.0, first - admitted)
    parts = {"queue": admitted - arrival, "load": load}
    if rows is None:
        parts |= {"prefill": first - admitted - load, "decode": last - first}
    else:
        replica = more["replica"][done] if "replica" in more else np.zeros(len(arrival), int)
        parts |= _divided(rows, replica, admitted + load, first, last)
    if delay:
        parts["delivery"] = np.full(len(arrival), delay)
    return Requests(
        table["request_id"][done], table["prompt_tokens"][done], table["output_tokens"][done],
        times[2] - arrival, times[3] - arrival, admitted - arrival, parts, sent,
    )  # fmt: skip


def _divided(
    rows: clock.Columns, replica: np.ndarray, loaded: np.ndarray, first: np.ndarray,
    last: np.ndarray,
) -> dict[str, np.ndarray]:  # fmt: skip
    """Parts of prefill and decode by what the replica of each request did."""
    names = [name for name in LABELS if name.startswith(("prefill_", "decode_"))]
    found = {name: np.zeros(len(first)) for name in names}
    clocks = clock.replicas(rows)
    for number in np.unique(replica).tolist():
        mine = replica == number
        one = clocks.get(number)
        if one is None:
            found["prefill_rest"][mine] = (first - loaded)[mine]
            found["decode_rest"][mine] = (last - first)[mine]
            continue
        prefill = (one.partition or one.loop).shares(loaded[mine], first[mine])
        decode = one.loop.shares(first[mine], last[mine])
        found["prefill_gpu"][mine] = prefill.gpu + prefill.prompts_gpu
        found["prefill_gap"][mine] = prefill.gap + prefill.prompts_gap
        found["prefill_rest"][mine] = prefill.rest
        found["decode_gpu"][mine] = decode.gpu
        found["decode_gap"][mine] = decode.gap
        found["decode_prompts"][mine] = decode.prompts_gpu + decode.prompts_gap
        found["decode_rest"][mine] = decode.rest
    return found


def _optional(run: Run, names: tuple[str, ...]) -> dict[str, np.ndarray]:
    """Those columns that the run has."""
    import pyarrow.parquet as pq

    path = run.folder / "requests.parquet"
    there = set(pq.read_schema(path).names)
    return columns_of(path, [name for name in names if name in there])


def iterations_of(run: Run) -> clock.Columns | None:
    """The iterations of *run*, None if they were not recorded or lack what is needed."""
    import pyarrow.parquet as pq

    path = run.folder / "iterations.parquet"
    if not path.is_file():
        return None
    try:
        there = set(pq.read_schema(path).names)
    except (OSError, ValueError):
        raise InputError(f"{path}: is not a table of a run; delete the run and repeat it") from None
    if not set(clock.COLUMNS[:4]) <= there:
        return None
    rows = columns_of(path, [name for name in clock.COLUMNS if name in there])
    numbers = [rows[name].astype(float) for name in clock.COLUMNS[:3]]
    if not all(np.isfinite(column).all() and (column >= 0).all() for column in numbers):
        raise InputError(f"{path}: has times that no run can have; delete the run and repeat it")
    return rows
