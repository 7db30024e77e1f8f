"""The step log of an engine: one row a step, whatever the file, its column names and its units.

`read_steps` takes files, `from_dicts` a list of per-step dictionaries; both answer with a
`StepLog`. Times are in seconds, counts in requests and tokens.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from . import step_files
from .errors import InputError, shown
from .step_names import COUNTS, TIMES, plain, sources
from .step_rows import Columns, gather, in_order, joined
from .step_stamps import Stamps, check_units
from .step_text import with_iteration_lines
from .step_values import chunks_of, derived, numbers, place_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from .step_files import Chunk
    from .step_names import Source

LARGEST = 1e15
_WANTED = ("duration_s", "start_s", "prefill_tokens", "context_tokens")
"""Columns without which a fit knows less; their lack is said."""


@dataclass
class StepLog:
    """Steps in order of their start; *columns* float64 arrays of one length, by our names.

    `segment` counts runs (files, or clocks that begin anew). A column that the log does not have
    is not in *columns*.
    """

    columns: Columns
    names: dict[str, str] = field(default_factory=dict)
    """Our column -> what it was made of, in the user's words."""
    notes: list[str] = field(default_factory=list)
    rows_read: int = 0

    def __len__(self) -> int:
        return len(self.columns["duration_s"])

    def get(self, name: str) -> np.ndarray:
        """The column *name*, zeros where the log has none."""
        found = self.columns.get(name)
        return np.zeros(len(self)) if found is None else found

    def take(self, rows: np.ndarray) -> StepLog:
        """Those *rows* (numbers or a mask)."""
        columns = {name: values[rows] for name, values in self.columns.items()}
        return StepLog(columns, self.names, self.notes, self.rows_read)


class Reader:
    """What the user says about a log: maps, unit of times, rows wanted (`column=value`)."""

    def __init__(
        self, maps: Sequence[str] = (), unit: str | None = None, only: Sequence[str] = ()
    ) -> None:
        self.maps = maps
        self.unit = unit
        self.only = [self._pair(text) for text in only]
        self.names: dict[str, str] = {}
        self.skipped = 0
        self.unknown = 0
        self.unused: list[str] = []
        self.rows = 0

    @staticmethod
    def _pair(text: str) -> tuple[str, str]:
        name, equals, value = text.partition("=")
        if not equals:
            raise InputError(f"--only {shown(text)}: write column=value, e.g. path=graph")
        return name.strip(), value.strip()

    def columns(self, chunks: Iterable[Chunk], place: str) -> Iterator[Columns]:
        """Our columns of each chunk; rows without a duration are left out and counted."""
        found: dict[str, Source] | None = None
        seen: tuple[str, ...] = ()
        zero: float | None = None
        stamps: Stamps | None = None
        for chunk in chunks:
            if found is None or not set(chunk.columns) <= set(seen):
                seen = tuple(dict.fromkeys((*seen, *chunk.columns)))
                found = self._sources(seen, place)
            columns = {
                name: self._column(name, source, chunk, place) for name, source in found.items()
            }
            columns |= chunks_of(found, chunk)
            columns = self._wanted(chunk, columns, place)
            self.rows += chunk.rows
            if "duration_s" not in columns and not {"start_s", "end_s"} <= set(columns):
                stamps = stamps or Stamps("start_s" if "start_s" in columns else "end_s")
                columns = stamps.timed(columns)
            columns = derived(columns, place)
            if "start_s" in columns and len(columns["start_s"]):
                if zero is None:
                    start = columns["start_s"]
                    zero = float(start[np.isfinite(start)][0]) if np.isfinite(start).any() else 0.0
                if zero > 1e8:  # an epoch: keep the digits for the differences
                    columns["start_s"] = columns["start_s"] - zero
            bad = ~(columns["duration_s"] > 0.0)
            if "start_s" in columns:
                bad |= ~np.isfinite(columns["start_s"])
            self.skipped += int(np.count_nonzero(bad))
            yield {name: values[~bad] for name, values in columns.items()}
        if stamps is not None:
            self.unknown, self.skipped = stamps.unknown, max(0, self.skipped - stamps.unknown)

    def _sources(self, names: Sequence[str], place: str) -> dict[str, Source]:
        found = sources(names, self.maps, self.unit, place)
        have = ", ".join(shown(name, 40) for name in names[:30]) or "nothing"
        what = []
        if not {"decode_requests", "decode_tokens", "requests", "tokens"} & set(found):
            what.append("decode_requests")
        stamps = {"start_s", "end_s"} & set(found)
        if "duration_s" not in found and (len(stamps) == 0 or (what and len(stamps) == 1)):
            what.insert(0, "duration_s")
        if what:
            maps = " ".join(f"--map {name}=NAME" for name in what)
            raise InputError(
                f"{place}: no column for {' and '.join(what)}; say which with {maps}; "
                f"the log has {have}"
            )
        self.names = {name: source.text() for name, source in found.items()}
        used = {name for source in found.values() for name, _ in source.terms}
        self.unused = [name for name in names if name not in used]
        return found

    def _column(self, name: str, source: Source, chunk: Chunk, place: str) -> np.ndarray:
        if name == "phase":
            values = chunk.columns.get(source.terms[0][0]) if source.terms else None
            return np.array([plain(str(one)) for one in (values or [""] * chunk.rows)], object)
        total = np.full(chunk.rows, source.constant)
        for theirs, sign in source.terms:
            raw = chunk.columns.get(theirs)
            if raw is None:
                raw = np.full(chunk.rows, np.nan)
            values = numbers(raw, name, theirs, chunk, place)
            if name in COUNTS or name not in TIMES:
                values = np.nan_to_num(values, nan=0.0)  # an empty count is none
            total = total + sign * values
        total *= source.scale
        if name not in ("start_s", "end_s"):
            self._check(total, name, source, chunk, place)
        return total

    @staticmethod
    def _check(total: np.ndarray, name: str, source: Source, chunk: Chunk, place: str) -> None:
        wrong = (total < 0.0) | (np.abs(total) > LARGEST)
        if name == "duration_s":
            wrong &= total != 0.0
        if wrong.any():
            row = int(wrong.argmax())
            said = f"{place_of(chunk, row, place)}: {source.text()}: {name} {total[row]:g}"
            raise InputError(f"{said} is {'negative' if total[row] < 0 else 'too large'}; mend it")

    def _wanted(self, chunk: Chunk, columns: Columns, place: str) -> Columns:
        if not self.only:
            return columns
        keep = np.ones(chunk.rows, bool)
        for name, value in self.only:
            if name not in chunk.columns:
                raise InputError(f"{place}: --only {name}={value}: no such column")
            keep &= np.array([_same(one, value) for one in chunk.columns[name]], bool)
        return {key: values[keep] for key, values in columns.items()}


def _same(value: Any, text: str) -> bool:
    if isinstance(value, float) and value.is_integer():
        return text in (str(value), str(int(value)))
    return str(value) == text


def _finished(reader: Reader, segments: list[tuple[Columns, int, bool]], place: str) -> StepLog:
    segments = [one for one in segments if one[1]]
    if not segments:
        raise InputError(f"{place}: no step with a duration above 0; check --map and --unit")
    notes = []
    parts: list[Columns] = []
    for columns, _, thinned in segments:
        runs = [columns] if thinned else in_order(columns)
        for run in runs:
            parts.append(run | {"segment": np.full(len(run["duration_s"]), float(len(parts)))})
    columns = joined(parts)
    if any(thinned for *_, thinned in segments):
        kept = len(columns["duration_s"])
        notes.append(f"{reader.rows:,} rows, of which {kept:,} evenly spread ones are used")
    if reader.skipped:
        if reader.skipped > 0.02 * reader.rows + 2:
            what = f"{reader.skipped:,} of {reader.rows:,} rows have no start or duration above 0"
            raise InputError(f"{place}: {what}; check --map and --unit")
        notes.append(f"{reader.skipped:,} rows without a duration left out")
    if reader.unknown:
        kind, other = ("start_s", "end_s")[:: 1 if "start_s" in reader.names else -1]
        stamp = reader.names[kind]
        notes.append(
            f"no durations: steps last from {kind} ({stamp}) to {kind}, {reader.unknown:,} that "
            f"no decoding connects are left out; if it is the other stamp, --map {other}={stamp}"
        )
    if "start_s" not in columns:
        notes.append("no start of steps (--map start_s=NAME): time between steps is not seen")
    lacking = [n for n in _WANTED if n not in reader.names]
    if lacking and reader.unused:
        notes.append(f"no column for {', '.join(lacking)}; not used: "
                     f"{', '.join(shown(name, 40) for name in reader.unused[:12])}")  # fmt: skip
    prompts = columns.get("prefill_requests")
    if prompts is not None and prompts.any() and not columns["prefill_tokens"].any():
        raise InputError(
            f"{place}: steps compute prompts ({reader.names.get('prefill_requests', 'phase')}) but "
            "no column for prefill_tokens; say which with --map prefill_tokens=NAME; not used: "
            f"{', '.join(shown(name, 40) for name in reader.unused[:12]) or 'none'}"
        )
    check_units(columns, reader.names, place)
    middle = float(np.median(columns["duration_s"]))
    if not 1e-6 <= middle <= 60.0:
        raise InputError(
            f"{place}: the median step takes {middle:g} s ({reader.names.get('duration_s')}); "
            "say the unit of times with --unit s, ms, us or ns"
        )
    return StepLog(columns, reader.names, notes, reader.rows)


def read_steps(
    paths: str | Path | Sequence[str | Path], maps: Sequence[str] = (),
    unit: str | None = None, only: Sequence[str] = (),
) -> StepLog:  # fmt: skip
    """The step log in one file or several, each a run of its own.

    *maps* `our=theirs`; *unit* of times without a unit in their name; *only* rows with
    `column=value`. Raises `InputError` for what cannot be read as steps.
    """
    several = [paths] if isinstance(paths, str | Path) else list(paths)
    reader = Reader(maps, unit, only)
    segments = []
    for path in map(Path, several):
        found = with_iteration_lines(path) or step_files.chunks(path)
        segments.append(gather(reader.columns(found, f"{path}")))
    return _finished(reader, segments, f"{several[0]}")


def from_dicts(
    steps: Iterable[Mapping[str, Any]], maps: Sequence[str] | Mapping[str, str] = (),
    unit: str | None = None, only: Sequence[str] = (),
) -> StepLog:  # fmt: skip
    """The step log in a list of per-step dictionaries; *maps* also as {our: theirs}."""
    if isinstance(maps, Mapping):
        maps = [f"{ours}={theirs}" for ours, theirs in maps.items()]
    reader = Reader(maps, unit, only)
    parts = reader.columns(step_files.from_dicts(steps), "steps")
    return _finished(reader, [gather(parts)], "steps")
