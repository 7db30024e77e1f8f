"""Columns of a log of requests: what they mean, how engines call them, and in which unit.

By our names first, then by what the user says, then by the aliases below.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from sim import step_files
from sim.errors import InputError, shown
from sim.step_names import UNITS, plain, unit_of
from sim.step_shapes import REQUESTS
from sim.step_values import instant

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from sim.step_files import Chunk

_TIMES = (
    "arrival_s", "first_token_s", "finished_s", "ttft_s", "e2el_s", "tpot_s", "token_times",
    "itl_s",
)  # fmt: skip
_ALIASES = {
    "request_id": "requestid id rid reqid",
    "arrival_s": "arrival arrivals arrivaltime arrivaltimestamp arrivalts arrivedat sent sentat "
    "senttime submit submitted submittedtime submittime created createdtime createdat start "
    "starttime starttimes timestamp queuedts",
    "prompt_tokens": "prompttokens numprompttokens promptlen promptlength promptlens inputtokens "
    "inputlen inputlens inputlength numinputtokens promptids prompttokenids inputids nprompt "
    "numprompt promptsize prompt",
    "output_tokens": "outputtokens numoutputtokens generatedtokens numgeneratedtokens outputlen "
    "outputlens outputlength completiontokens numgenerationtokens generationtokens tokenids "
    "outputids outputtokenids noutput numoutput nout ngenerated completionlen generated",
    "first_token_s": "firsttoken firsttokentime firsttokenat firsttokentimestamp firsttokents "
    "first tfirst",
    "finished_s": "finished finish finishtime finishedtime finishedat finishts end endtime "
    "lasttoken lasttokentime lasttokents completed completedtime done tdone",
    "ttft_s": "ttft ttfts timetofirsttoken firsttokenlatency",
    "e2el_s": "e2el e2els e2e latency latencies e2elatency requestlatency totallatency",
    "tpot_s": "tpot tpots timeperoutputtoken",
    "token_times": "tokentimes tokentimestamps timestamps tokents tokens outputtokentimes times "
    "ttokens",
    "itl_s": "itl itls intertokenlatency intertokenlatencies gaps",
    "status": "status state finishreason finishedreason",
}
ALIASES = {alias: ours for ours, names in _ALIASES.items() for alias in names.split()}
OURS = tuple(_ALIASES)
_EMPTY = ("", "nan", "none", "null")
_COUNTS = ("prompt_tokens", "output_tokens")


class Columns:
    """*values* by our names, a list each, times in seconds; *said* is where each came from."""

    def __init__(self) -> None:
        self.values: dict[str, list[Any]] = {}
        self.said: dict[str, str] = {}
        self._rows = 0

    def add(self, chunk: Chunk, names: dict[str, tuple[str, float]], file: Path) -> None:
        """The rows of *chunk*, whose columns *names* says with their scales."""
        for ours, (theirs, scale) in names.items():
            raw = chunk.columns[theirs]
            values = raw.tolist() if isinstance(raw, np.ndarray) else raw
            found = self.values.setdefault(ours, [float("nan")] * self._rows)
            if ours in ("request_id", "status"):
                found.extend(map(_named, values))
                continue
            for row, value in enumerate(values):
                where = f"{'' if chunk.lines else ' row '}{chunk.first + row}: {theirs}"
                found.append(_value(value, scale, ours, f"{file}:{where}"))
            unit = next((name for name, size in UNITS.items() if size == scale), "s")
            self.said[ours] = theirs + ("" if unit == "s" else f" [{unit}]")
        self._rows += chunk.rows
        for found in self.values.values():
            found.extend([float("nan")] * (self._rows - len(found)))

    def get(self, name: str) -> np.ndarray | None:
        """The column *name* as float64; None if there is none, or one of lists."""
        values = self.values.get(name)
        if values is None or any(isinstance(one, list) for one in values):
            return None
        return np.array(values, np.float64)

    def lists(self, name: str) -> list[Any] | None:
        """The column *name* if it has lists; rows without one have nan."""
        values = self.values.get(name)
        has = values is not None and any(isinstance(one, list) for one in values)
        return values if has else None


def read_columns(file: Path, maps: Sequence[str] = (), unit: str | None = None) -> Columns:
    """The columns of the log at *file*; `InputError` for what is no log of requests."""
    found = Columns()
    for chunk in step_files.chunks(file, REQUESTS):
        found.add(chunk, _names(list(chunk.columns), maps, unit, f"{file}"), file)
    if not found.values:
        raise InputError(f"{file}: no requests; it must hold a row a request")
    return found


def _named(value: Any) -> str:
    """An id as text; whole numbers are the same in every format."""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _value(value: Any, scale: float, ours: str, where: str) -> Any:
    if isinstance(value, str) and value.lstrip().startswith("["):
        value = [one for one in value.strip(" []").replace(";", ",").split(",") if one.strip()]
    if isinstance(value, list | tuple):
        if ours in _COUNTS:
            return float(len(value))  # ids of tokens
        return [_value(one, scale, ours, where) for one in value]
    if value is None or (isinstance(value, str) and value.strip().lower() in _EMPTY):
        return float("nan")
    if isinstance(value, str) and ours in _TIMES and ":" in value:
        moment = instant(value)
        if moment is not None:
            return moment
    try:
        return float(value) * scale
    except (TypeError, ValueError):
        raise InputError(f"{where}: {shown(value)} is no number; mend it") from None


def _names(
    theirs: Sequence[str], maps: Sequence[str], unit: str | None, place: str
) -> dict[str, tuple[str, float]]:
    """Our column -> theirs and seconds of its unit."""
    found = dict(_mapped(text, theirs, unit, place) for text in maps)
    for name in theirs:
        if name in OURS:
            found.setdefault(name, (name, 1.0))
    if "generated_tokens" in theirs:
        found["output_tokens"] = ("generated_tokens", 1.0)  # what was, beside what was asked for
    used = {name for name, _ in found.values()}
    ranks = {alias: rank for rank, alias in enumerate(ALIASES)}
    known = [name for name in theirs if name not in used and plain(_last(name)) in ALIASES]
    for name in sorted(known, key=lambda one: ranks[plain(_last(one))]):
        ours = ALIASES[plain(_last(name))]
        found.setdefault(ours, (name, _scale(ours, name, unit)))
    return found


def _last(name: str) -> str:
    """The field's own name, of one within others (`metrics.arrival_time`)."""
    return name.rpartition(".")[2]


def _scale(ours: str, theirs: str, unit: str | None) -> float:
    return UNITS[unit_of(theirs) or unit or "s"] if ours in _TIMES else 1.0


def _mapped(
    text: str, theirs: Sequence[str], unit: str | None, place: str
) -> tuple[str, tuple[str, float]]:
    ours, equals, right = (part.strip() for part in text.partition("="))
    if not equals or ours not in OURS:
        raise InputError(f"--map {shown(text)}: write our=theirs; ours: {', '.join(OURS)}")
    own = None
    if right.endswith("]") and right not in theirs:  # ttft_s=lat[ms]
        right, _, own = (part.strip() for part in right[:-1].partition("["))
        if own not in UNITS:
            raise InputError(f"--map {ours}: unit {shown(own)}; choose {', '.join(UNITS)}")
    if right not in theirs:
        have = ", ".join(shown(name, 40) for name in theirs[:30])
        raise InputError(f"{place}: --map {ours}: no column {shown(right)}; there are {have}")
    scale = UNITS[own] if own and ours in _TIMES else _scale(ours, right, unit)
    return ours, (right, 1.0 if right in OURS and not own else scale)
