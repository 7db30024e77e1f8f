"""Requests as a run served them, measured or simulated: a folder of ours, or a file of any engine.

Times in seconds on the run's own clock. Columns are found by our names, by maps, or by the aliases
below; token times come from a list a request, from `tokens.parquet`, or from the steps.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from sim import step_files
from sim.delays import token_delay_of
from sim.errors import InputError, shown
from sim.step_names import UNITS, plain, unit_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from sim.step_files import Chunk

_TIMES = ("arrival_s", "first_token_s", "finished_s", "ttft_s", "e2el_s", "tpot_s")
_ALIASES = {
    "request_id": "requestid id rid reqid",
    "arrival_s": "arrival arrivals arrivaltime arrivaltimestamp sent senttime submitted "
    "submittedtime created createdtime createdat start starttime timestamp",
    "prompt_tokens": "prompttokens numprompttokens promptlen promptlength inputtokens inputlen "
    "inputlength numinputtokens",
    "output_tokens": "outputtokens numoutputtokens generatedtokens numgeneratedtokens outputlen "
    "outputlength completiontokens numgenerationtokens generationtokens",
    "first_token_s": "firsttoken firsttokentime firsttokenat firsttokentimestamp firsttokents",
    "finished_s": "finished finish finishtime finishedtime finishedat end endtime lasttoken "
    "lasttokentime completed completedtime",
    "ttft_s": "ttft timetofirsttoken",
    "e2el_s": "e2el e2e latency e2elatency requestlatency totallatency",
    "tpot_s": "tpot timeperoutputtoken",
    "token_times": "tokentimes tokentimestamps timestamps tokens outputtokentimes",
    "status": "status state",
}
ALIASES = {alias: ours for ours, names in _ALIASES.items() for alias in names.split()}
OURS = tuple(_ALIASES)
_MOST_BAD = 0.05


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
    columns = _gathered(file, step_files.chunks(file), maps, unit)
    found = _served(f"{path}", columns)
    if not found.gaps and folder is not None:
        found = _with_tokens(found, folder)
    return found


def _gathered(
    file: Path, chunks: Iterable[Chunk], maps: Sequence[str], unit: str | None
) -> dict[str, list[Any]]:
    """Our columns as lists, times in seconds."""
    found: dict[str, list[Any]] = {}
    for chunk in chunks:
        names = _names(list(chunk.columns), maps, f"{file}")
        for ours, theirs in names.items():
            scale = 1.0
            if ours in _TIMES or ours == "token_times":
                own = None if theirs in OURS else unit_of(theirs)
                scale = UNITS[own or (unit if theirs not in OURS else None) or "s"]
            raw = chunk.columns[theirs]
            values = raw.tolist() if isinstance(raw, np.ndarray) else raw
            if ours in ("request_id", "status"):
                found.setdefault(ours, []).extend(map(_named, values))
                continue
            for row, value in enumerate(values):
                where = f"{file}:{chunk.first + row}" if chunk.lines else f"{file}: row " \
                    f"{chunk.first + row}"  # fmt: skip
                found.setdefault(ours, []).append(_value(value, scale, f"{where}: {theirs}"))
    if not found:
        raise InputError(f"{file}: no requests; it must hold a row a request")
    return found


def _named(value: Any) -> str:
    """An id as text; whole numbers are the same in every format."""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _value(value: Any, scale: float, where: str) -> Any:
    if isinstance(value, str) and value.lstrip().startswith("["):
        value = [one for one in value.strip(" []").replace(";", ",").split(",") if one.strip()]
    if isinstance(value, list | tuple):
        return [_value(one, scale, where) for one in value]
    if value is None or value == "":
        return float("nan")
    try:
        return float(value) * scale
    except (TypeError, ValueError):
        raise InputError(f"{where}: {shown(value)} is no number; mend it") from None


def _names(theirs: Sequence[str], maps: Sequence[str], place: str) -> dict[str, str]:
    found = {}
    for text in maps:
        ours, equals, right = (part.strip() for part in text.partition("="))
        if not equals or ours not in OURS:
            raise InputError(f"--map {shown(text)}: write our=theirs; ours: {', '.join(OURS)}")
        if right not in theirs:
            have = ", ".join(shown(name, 40) for name in theirs[:30])
            raise InputError(f"{place}: --map {ours}: no column {shown(right)}; there are {have}")
        found[ours] = right
    for name in theirs:
        if name in OURS:
            found.setdefault(name, name)
    if "generated_tokens" in theirs:
        found["output_tokens"] = "generated_tokens"  # what was, beside what was asked for
    for name in theirs:
        alias = ALIASES.get(plain(name))
        if alias is not None and name not in found.values():
            found.setdefault(alias, name)
    return found


def _served(name: str, columns: dict[str, list[Any]]) -> Served:
    def column(key: str) -> np.ndarray | None:
        values = columns.get(key)
        if values is None or any(isinstance(one, list) for one in values[:1]):
            return None
        return np.array(values, np.float64)

    arrival, output, prompt = (column(k) for k in ("arrival_s", "output_tokens", "prompt_tokens"))
    times = columns.get("token_times")
    if times is not None and not any(isinstance(one, list) for one in times):
        times = None
    if arrival is None:
        raise InputError(f"{name}: no column for arrival_s; say which with --map arrival_s=NAME")
    first, finished = column("first_token_s"), column("finished_s")
    if times is not None:
        ends = [one if isinstance(one, list) and one else [float("nan")] for one in times]
        first = np.array([one[0] for one in ends]) if first is None else first
        finished = np.array([one[-1] for one in ends]) if finished is None else finished
        output = np.array([float(len(one)) for one in ends]) if output is None else output
    ttft, e2el, tpot = column("ttft_s"), column("e2el_s"), column("tpot_s")
    if first is None and ttft is not None:
        first = arrival + ttft
    if finished is None and e2el is not None:
        finished = arrival + e2el
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
    ids = columns.get("request_id") or [str(row) for row in range(len(arrival))]
    done = np.isfinite(arrival) & np.isfinite(first) & np.isfinite(finished) & (output >= 1)
    if not done.any():
        raise InputError(f"{name}: no finished request; check the columns with --map")
    wrong = done & ((first < arrival) | (finished < first))
    if wrong.sum() > _MOST_BAD * done.sum():
        what = f"{int(wrong.sum())} requests have tokens before they arrive; check --map and --unit"
        raise InputError(f"{name}: {what}")
    gaps = []
    if times is not None:
        gaps = [np.diff(np.array(one, float)) if isinstance(one, list) else np.empty(0)
                for one in times]  # fmt: skip
    found = Served(name, ids, arrival, prompt, output, first, finished, int((~done).sum()), gaps)
    rows = np.flatnonzero(done & ~wrong)
    return found.take(rows[np.argsort(arrival[rows], kind="stable")])


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
