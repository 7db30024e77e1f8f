"""Requests as a run served them, measured or simulated: a folder of ours, or a file of any engine.

Times in seconds on the run's own clock. Columns are found by our names, by maps, or by the aliases
below; token times come from a list a request, from `tokens.parquet`, or from the steps.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from sim.delays import token_delay_of
from sim.errors import InputError

from .columns import Columns, read_columns

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

_MOST_BAD = 0.05
_LOST = ("abort", "cancel", "error", "fail", "reject", "timeout", "expired")
"""Words of a status by which a request did not finish."""
_CLOCKS = 1e5
"""Seconds between arrivals and first tokens from which on they are of two clocks."""


@dataclass
class Served:
    """Finished requests in order of arrival; arrays of one length."""

    name: str
    ids: list[str]
    arrival: np.ndarray
    prompt: np.ndarray
    output: np.ndarray
    """Tokens that were generated."""
    first: np.ndarray
    finished: np.ndarray
    unfinished: int = 0
    """Requests that did not finish, which are left out."""
    gaps: list[np.ndarray] = field(default_factory=list)
    """Seconds between tokens of each request; none where token times are not known."""
    notes: list[str] = field(default_factory=list)
    columns: str = ""
    """What the log's columns were taken for, in words."""

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, rows: np.ndarray) -> Served:
        """Those *rows* (numbers)."""
        return replace(
            self, ids=[self.ids[row] for row in rows.tolist()], arrival=self.arrival[rows],
            prompt=self.prompt[rows], output=self.output[rows], first=self.first[rows],
            finished=self.finished[rows],
            gaps=[self.gaps[row] for row in rows.tolist()] if self.gaps else [],
        )  # fmt: skip

    @property
    def ttft(self) -> np.ndarray:
        """Seconds from arrival to the first token."""
        seconds: np.ndarray = self.first - self.arrival
        return seconds

    @property
    def e2el(self) -> np.ndarray:
        """Seconds from arrival to the last token."""
        seconds: np.ndarray = self.finished - self.arrival
        return seconds

    @property
    def tpot(self) -> np.ndarray:
        """Seconds a token after the first; nan for requests of one token."""
        rest = self.output - 1.0
        return np.where(rest > 0, (self.finished - self.first) / np.maximum(rest, 1.0), np.nan)

    @property
    def throughput(self) -> float:
        """Output tokens a second, from the first arrival to the last token."""
        return float(self.output.sum() / (self.finished.max() - self.arrival.min()))


def read(path: Path, maps: Sequence[str] = (), unit: str | None = None) -> Served:
    """The requests of the run at *path*; raises `InputError` for what says too little."""
    folder = path if path.is_dir() else None
    file = path / "requests.parquet" if folder else path
    columns = read_columns(file, maps, unit)
    found = _finished(f"{path}", columns)
    if folder is None:
        said = (f"{ours} = {theirs}" for ours, theirs in columns.said.items() if ours != theirs)
        found.columns = ", ".join(said)
    if not found.gaps and folder is not None:
        found = _with_tokens(found, folder)
    return found


def _finished(name: str, columns: Columns) -> Served:
    arrival, output, prompt = map(columns.get, ("arrival_s", "output_tokens", "prompt_tokens"))
    if arrival is None:
        raise InputError(f"{name}: no column for arrival_s; say which with --map arrival_s=NAME")
    first, finished, notes = columns.get("first_token_s"), columns.get("finished_s"), []
    ttft, e2el, tpot = map(columns.get, ("ttft_s", "e2el_s", "tpot_s"))
    times = columns.lists("token_times")
    if times is not None:
        times = _in_order(times, f"{name}: {columns.said['token_times']}")
        first = _either(first, [one[0] if len(one) else np.nan for one in times])
        finished = _either(finished, [one[-1] if len(one) else np.nan for one in times])
        output = _either(output, [float(len(one)) if len(one) else np.nan for one in times])
    if first is not None and ttft is not None and _two_clocks(arrival, first):
        notes.append(f"arrivals and first tokens are of two clocks; {columns.said['ttft_s']} used")
        finished = None if finished is None else finished - first + arrival + ttft
        first = None
    first = arrival + ttft if first is None and ttft is not None else first
    gaps = _gaps(times, columns.lists("itl_s"))
    if finished is None and e2el is not None:
        finished = arrival + e2el
    if finished is None and first is not None and gaps and times is None:
        finished = first + np.array([one.sum() for one in gaps])
    if finished is None and first is not None and tpot is not None and output is not None:
        finished = first + tpot * (output - 1.0)
    for what, value in (
        ("first_token_s", first), ("finished_s", finished), ("output_tokens", output)
    ):  # fmt: skip
        if value is None:
            raise InputError(f"{name}: no column for {what}; say which with --map {what}=NAME")
    assert first is not None
    assert finished is not None
    assert output is not None
    prompt = np.full(len(arrival), np.nan) if prompt is None else prompt
    ids = columns.values.get("request_id") or [str(row) for row in range(len(arrival))]
    done = np.isfinite(arrival) & np.isfinite(first) & np.isfinite(finished) & (output >= 1)
    done &= ~_lost(columns)
    if not done.any():
        raise InputError(f"{name}: no finished request; check the columns with --map")
    wrong = done & ((first < arrival) | (finished < first))
    if wrong.sum() > _MOST_BAD * done.sum():
        raise InputError(f"{name}: {_why(int(wrong.sum()), arrival, first, columns)}")
    found = Served(
        name, ids, arrival, prompt, output, first, finished, int((~done).sum()), gaps, notes
    )
    rows = np.flatnonzero(done & ~wrong)
    if wrong.any():
        notes.append(
            f"{int(wrong.sum())} requests of {name} with tokens before they arrive left out"
        )
    return found.take(rows[np.argsort(arrival[rows], kind="stable")])


def _either(column: np.ndarray | None, other: list[float]) -> np.ndarray:
    """*column*, where it has no number the *other*."""
    found = np.array(other, np.float64)
    return found if column is None else np.where(np.isfinite(column), column, found)


def _in_order(times: list[Any], what: str) -> list[np.ndarray]:
    """Times of tokens as arrays, empty where not known; `InputError` if they go back."""
    found = [np.array(one, float) if isinstance(one, list) else np.empty(0) for one in times]
    found = [one[np.isfinite(one)] for one in found]
    back = [row for row, one in enumerate(found) if len(one) > 1 and (np.diff(one) < 0).any()]
    if back:
        head = ", ".join(f"{value:g}" for value in found[back[0]][:4])
        raise InputError(
            f"{what}: request {back[0]}: {head}, ... go back, so they are no times of tokens; say "
            "which are with --map token_times=NAME (itl_s=NAME for gaps between them)"
        )
    return found


def _gaps(times: list[np.ndarray] | None, itl: list[Any] | None) -> list[np.ndarray]:
    if times is not None:
        return [np.diff(one) for one in times]
    return [np.array(one, float) if isinstance(one, list) else np.empty(0) for one in itl or ()]


def _two_clocks(arrival: np.ndarray, first: np.ndarray) -> bool:
    apart = (first - arrival)[np.isfinite(first - arrival)]
    return len(apart) > 0 and abs(float(np.median(apart))) > _CLOCKS


def _lost(columns: Columns) -> np.ndarray:
    """Requests whose status says that they did not finish."""
    status = columns.values.get("status")
    if status is None:
        return np.zeros(len(columns.values["arrival_s"]), bool)
    return np.array([any(word in str(one).lower() for word in _LOST) for one in status], bool)


def _why(count: int, arrival: np.ndarray, first: np.ndarray, columns: Columns) -> str:
    names = " and ".join(columns.said.get(n, n) for n in ("arrival_s", "first_token_s")
                         if n in columns.said)  # fmt: skip
    apart = float(np.nanmedian(first - arrival))
    if _two_clocks(arrival, first):
        return (f"{names} lie {apart:.3g} s apart: two clocks or units; map an arrival of the "
                "tokens' clock, or --map ttft_s=NAME instead of first tokens")  # fmt: skip
    what = f"{count} requests have tokens before they arrive ({names}); check --map and --unit"
    return what + "; times from a request's own arrival are ttft_s and e2el_s"


# ---------------------------------------------------------------- times of tokens
def _with_tokens(served: Served, folder: Path) -> Served:
    """*served* with gaps between tokens, from the folder's tokens or its steps."""
    import pyarrow.parquet as pq

    tokens, steps = folder / "tokens.parquet", folder / "iterations.parquet"
    if tokens.is_file():
        table = pq.read_table(tokens, columns=["request_id", "time_s"])
        owner = np.array([str(one) for one in table["request_id"].to_pylist()])
        times = table["time_s"].to_numpy()
        order = np.lexsort((times, owner))
        owner, times = owner[order], times[order]
        low = np.searchsorted(owner, served.ids, "left")
        high = np.searchsorted(owner, served.ids, "right")
        gaps = [np.diff(times[a:b]) for a, b in zip(low, high, strict=True)]
        return replace(served, gaps=gaps)
    if not steps.is_file():
        return served
    names = pq.read_schema(steps).names
    if "replica" in names:
        return replace(served, notes=[*served.notes, "several replicas: no times of tokens"])
    table = pq.read_table(steps, columns=["start_s", "duration_s", "decode_requests"])
    ends = table["start_s"].to_numpy() + table["duration_s"].to_numpy()
    ends = ends[table["decode_requests"].to_numpy() > 0]
    ends = ends + token_delay_of(folder)
    return replace(served, gaps=_of_steps(served, ends))


def _of_steps(served: Served, ends: np.ndarray) -> list[np.ndarray]:
    """Gaps of requests that got a token with every step that decodes, from the first on.

    None for those that did not: preempted, or with several tokens a step.
    """
    tiny = 1e-9
    low = np.searchsorted(ends, served.first + tiny)
    high = np.searchsorted(ends, served.finished + tiny)
    gaps = []
    for row, (a, b) in enumerate(zip(low.tolist(), high.tolist(), strict=True)):
        if b - a != int(served.output[row]) - 1:
            gaps.append(np.empty(0))
        else:
            gaps.append(np.diff(ends[a:b], prepend=served.first[row]))
    return gaps
