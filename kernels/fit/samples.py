"""The samples file of a benchmark run: JSON lines that a killed run may have cut short.

One line a command (`run`), a point (`point`), a failure (`failed`), a set of records (`records`),
a folder's compiled files (`cubins`). The one rule: every line is checked, and a bad one is named by
its number; only the last line of a plain file may be broken off.
"""

from __future__ import annotations

import gzip
import json
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

THROTTLED = 1.05
LAST = 5
LIMIT = 256 << 20
"""Bytes of a samples file, unpacked."""


class SamplesError(ValueError):
    """The user's samples file or option is at fault; the text is one line."""


@dataclass(frozen=True, slots=True)
class Point:
    """One point of a grid, measured."""

    kernel: str
    axes: Mapping[str, Any]
    bytes: float
    flops: float
    seconds: tuple[float, ...]
    error: float
    baselines: Mapping[str, tuple[float, ...]]
    again: bool
    took: float

    @property
    def median(self) -> float:
        """Median of the samples at full clock, in seconds: what a fit aims at.

        Those at full clock are within `THROTTLED` of the third fastest: under a large product the
        power limit lowers the clock after some ten milliseconds, and the samples from then on say
        how long the load had lasted. Of every other kernel they are all samples.
        """
        times = np.sort(self.seconds)
        limit = THROTTLED * times[min(2, len(times) - 1)]
        return float(np.median(times[times <= limit]))

    @property
    def sustained(self) -> float:
        """Median of the last samples, in seconds: as long as the load lasts."""
        return float(np.median(self.seconds[-LAST:]))

    @property
    def key(self) -> tuple[str, str]:
        """What makes this the same point as another."""
        return self.kernel, identity(self.axes)


@dataclass(slots=True)
class Samples:
    """What a samples file holds, first measurements and second ones apart."""

    place: str = "samples"
    """The file, for messages."""
    runs: list[dict[str, Any]] = field(default_factory=list)
    points: dict[tuple[str, str], Point] = field(default_factory=dict)
    repeats: dict[tuple[str, str], Point] = field(default_factory=dict)
    failed: dict[tuple[str, str], str] = field(default_factory=dict)
    records: dict[tuple[str, str, bool], list[dict[str, Any]]] = field(default_factory=dict)
    took: dict[tuple[str, str], float] = field(default_factory=dict)
    """Seconds that each `measure_*` function of a folder needed."""
    incomplete: dict[tuple[str, str], str] = field(default_factory=dict)
    """Why a `measure_*` function of a folder ended early."""
    cubins: dict[str, str] = field(default_factory=dict)

    def of(self, kernel: str) -> list[Point]:
        """The points of *kernel* in the order of their identity."""
        return [self.points[key] for key in sorted(self.points) if key[0] == kernel]

    def named(self, folder: str, name: str | None = None) -> list[dict[str, Any]]:
        """The records of *folder*, first measurements, those called *name* if given."""
        found = []
        for key in sorted(self.records):
            if key[0] == folder and not key[2]:
                found += self.records[key]
        return [record for record in found if name is None or record.get("name") == name]


def identity(axes: Mapping[str, Any]) -> str:
    """*axes* as text, whatever their order."""
    return json.dumps(dict(axes), sort_keys=True)


def read(path: Path) -> Samples:
    """What *path* holds, plain or gzip; raises `SamplesError`, one line, if it is no such file."""
    found = Samples(str(path))
    for number, entry in entries(path):
        try:
            _add(found, entry)
        except (KeyError, TypeError, ValueError) as error:
            what = f"field {error}" if isinstance(error, KeyError) else str(error)
            raise SamplesError(
                f"{path}:{number}: {what[:200]}; remove the line and run bench again"
            ) from None
    return found


def entries(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """The objects in *path*, plain or gzip, with their line's number; raises `SamplesError`."""
    text = _text(path)
    lines = text.split("\n")
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError):
            if number == len(lines):
                return  # a killed run broke off in the middle of it
            entry = None
        if not isinstance(entry, dict):
            raise SamplesError(f"{path}:{number}: not a JSON object; remove the line")
        yield number, entry


def _text(path: Path) -> str:
    try:
        if path.exists() and not (path.is_file() or path.is_dir()):
            raise OSError("not a regular file")  # a pipe would wait for ever
        opener: Any = gzip.open if path.suffix == ".gz" else open
        with opener(path, "rb") as file:
            raw: bytes = file.read(LIMIT + 1)
    except (OSError, EOFError, gzip.zlib.error) as error:  # type: ignore[attr-defined]
        why = getattr(error, "strerror", None) or str(error)
        raise SamplesError(f"{path}: {why}; give the file that bench wrote") from None
    if len(raw) > LIMIT:
        raise SamplesError(f"{path}: larger than {LIMIT} bytes; this is no samples file")
    try:
        return raw.decode()
    except UnicodeDecodeError:
        raise SamplesError(f"{path}: not UTF-8; give the file that bench wrote") from None


def _add(found: Samples, entry: dict[str, Any]) -> None:
    match entry["kind"]:
        case "run":
            found.runs.append(entry)
        case "point":
            point = _point(entry)
            (found.repeats if point.again else found.points)[point.key] = point
            if not point.again:
                found.failed.pop(point.key, None)
        case "failed":
            key = _name(entry), identity(_map(entry, "point"))
            if key not in found.points:
                found.failed[key] = str(entry["reason"])
        case "records":
            records = [dict(record) for record in entry["records"]]
            name = str(entry["measure"])
            found.records[_name(entry), name, bool(entry["again"])] = records
            found.took[_name(entry), name] = _number(entry, "took", 0.0)
            found.incomplete.pop((_name(entry), name), None)
            if entry["incomplete"]:
                found.incomplete[_name(entry), name] = str(entry["incomplete"])
        case "cubins":
            found.cubins.update(_map(entry, "cubins"))
        case other:
            raise ValueError(f"kind {str(other)[:40]!r} is unknown")


def _point(entry: dict[str, Any]) -> Point:
    seconds = _times(entry["seconds"])
    if not seconds:
        raise ValueError("seconds: no sample")
    return Point(
        kernel=_name(entry),
        axes=_axes(_map(entry, "point")),
        bytes=_number(entry, "bytes", 0.0),
        flops=_number(entry, "flops", 0.0),
        seconds=seconds,
        error=_number(entry, "error", 0.0),
        baselines={name: _times(times) for name, times in _map(entry, "baselines").items()},
        again=bool(entry["again"]),
        took=_number(entry, "took", 0.0),
    )


def _name(entry: dict[str, Any]) -> str:
    name = entry["kernel"]
    if not isinstance(name, str) or not name.isidentifier():
        raise ValueError(f"kernel {str(name)[:40]!r} is no name")
    return name


def _map(entry: dict[str, Any], key: str) -> dict[str, Any]:
    value = entry[key]
    if not isinstance(value, dict):
        raise ValueError(f"{key}: not an object")
    return value


def _axes(axes: dict[str, Any]) -> dict[str, Any]:
    for key, value in axes.items():
        if isinstance(value, dict | list) or (
            isinstance(value, float) and not math.isfinite(value)
        ):
            raise ValueError(f"point.{key}: no scalar")
    return axes


def _times(values: Any) -> tuple[float, ...]:
    if not isinstance(values, list):
        raise ValueError("seconds: not a list")
    for value in values:
        if not _finite(value) or not 0.0 < value < 1e6:
            raise ValueError(f"seconds: {str(value)[:40]} is no time")
    return tuple(map(float, values))


def _number(entry: dict[str, Any], key: str, least: float) -> float:
    value = entry[key]
    if not _finite(value) or value < least:
        raise ValueError(f"{key}: {str(value)[:40]} is no number >= {least:g}")
    return float(value)


def _finite(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    try:
        return math.isfinite(float(value))
    except OverflowError:
        return False
