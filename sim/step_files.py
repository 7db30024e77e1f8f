"""Step logs as files: Parquet, CSV, JSONL or a JSON list, also gzipped, in chunks of raw columns.

The one rule: whatever a file holds, the reader answers with chunks or with `InputError` that names
file and line; memory is bounded by a chunk.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import zlib
from typing import TYPE_CHECKING, Any, NamedTuple

from . import step_shapes
from .errors import InputError, shown

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path
    from typing import IO

ROWS = 100_000
"""Rows of a chunk at most."""
_DEEP = 6
_LARGE = 32 << 20
"""Bytes of a CSV file from which on Arrow reads it: faster, and less exact about faults."""


class Chunk(NamedTuple):
    """Raw columns, each a list or array of as many values; *first* is the first row's place."""

    columns: dict[str, Any]
    rows: int
    first: int
    """Line of the first row in a text file, else its number from 1."""
    lines: bool
    """Whether places are lines."""


def chunks(path: Path, wanted: tuple[str, ...] = step_shapes.STEPS) -> Iterator[Chunk]:
    """The rows of the log at *path*, by its name's ending; folders: their iterations.parquet.

    *wanted* as in `step_shapes.rows`.
    """
    if path.is_dir():
        path = path / "iterations.parquet"
    try:
        if path.exists() and not path.is_file():
            raise InputError(f"{path}: not a regular file; write the log to one first")
        with path.open("rb") as file:
            head = file.read(4)
            if not head:
                raise InputError(f"{path}: is empty; it must hold a row a step")
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None
    if head == b"PAR1":
        yield from _parquet(path)
        return
    name = path.name.lower().removesuffix(".gz")
    try:
        if name.endswith((".csv", ".tsv", ".txt")):
            large = path.stat().st_size > _LARGE
            yield from _large_csv(path) if large else _csv(path)
        else:
            yield from _json(path, wanted)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InputError(f"{path}: damaged gzip: {error}; copy it again") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 text at byte {error.start}; convert it") from None


def text_of(path: Path) -> IO[str]:
    """*path* as text, gunzipped by its first bytes and not by its name."""
    with path.open("rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
    raw: Any = gzip.open(path, "rb") if packed else path.open("rb")  # noqa: SIM115 (closed with what wraps it)
    return io.TextIOWrapper(raw, encoding="utf-8-sig", newline="")


def _parquet(path: Path) -> Iterator[Chunk]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            first = 1
            for batch in file.iter_batches(batch_size=ROWS):
                columns = {
                    name: _values(column)
                    for name, column in zip(batch.schema.names, batch.columns, strict=True)
                }
                if batch.num_rows:
                    yield Chunk(columns, batch.num_rows, first, False)
                first += batch.num_rows
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{path}: damaged Parquet: {shown(str(error), 160)}") from None


def _values(column: Any) -> Any:
    import pyarrow as pa

    kind = column.type
    if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind):
        return column.cast(pa.float64()).to_numpy(zero_copy_only=False)
    if pa.types.is_timestamp(kind) or pa.types.is_duration(kind):
        scale = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}[kind.unit]
        return column.cast(pa.int64()).to_numpy(zero_copy_only=False) * scale
    return column.to_pylist()


def _csv(path: Path) -> Iterator[Chunk]:
    with text_of(path) as file:
        head = file.readline()
        mark = max(",;\t|", key=head.count)
        names = [name.strip() for name in next(csv.reader([head], delimiter=mark), [])]
        if len(set(names)) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise InputError(f"{path}:1: column {shown(twice)} twice; rename one")
        rows: list[list[str]] = []
        first, line = 2, 1
        reader = csv.reader(file, delimiter=mark)
        try:
            for row in reader:
                line = reader.line_num + 1
                if not row:
                    if not rows:
                        first = line + 1
                    continue
                if len(row) != len(names):
                    what = f"{len(row)} fields, the header has {len(names)}"
                    raise InputError(f"{path}:{line}: {what}; write every column, empty if unknown")
                rows.append(row)
                if len(rows) == ROWS:
                    yield _columns(names, rows, first)
                    first, rows = line + 1, []
        except csv.Error as error:
            raise InputError(f"{path}:{line}: {error}; mend the line") from None
        if rows:
            yield _columns(names, rows, first)


def _large_csv(path: Path) -> Iterator[Chunk]:
    import pyarrow as pa
    from pyarrow import csv as arrow

    with text_of(path) as file:
        head = file.readline()
    options = arrow.ParseOptions(delimiter=max(",;\t|", key=head.count))
    first = 2
    try:
        with (
            pa.input_stream(path, compression="detect") as stream,
            arrow.open_csv(
                stream, parse_options=options, read_options=arrow.ReadOptions(block_size=8 << 20)
            ) as reader,
        ):
            for batch in reader:
                columns = {
                    name.strip(): _values(column)
                    for name, column in zip(batch.schema.names, batch.columns, strict=True)
                }
                yield Chunk(columns, batch.num_rows, first, True)
                first += batch.num_rows
    except pa.ArrowException as error:
        raise InputError(f"{path}: {shown(str(error), 200)}; mend it") from None


def _columns(names: list[str], rows: list[list[str]], first: int) -> Chunk:
    columns = dict(zip(names, map(list, zip(*rows, strict=True)), strict=True))
    return Chunk(columns, len(rows), first, True)


def _json(path: Path, wanted: tuple[str, ...]) -> Iterator[Chunk]:
    """A JSON list, an object that holds one, or an object a line."""
    with text_of(path) as file:
        begin = file.readline(1 << 16)
        while begin and not begin.strip():
            begin = file.readline(1 << 16)
        alone = not file.readline(1 << 16).strip()
        file.seek(0)
        text = begin.lstrip()
        if text.startswith("[") or (text.startswith("{") and not _is_row(text, alone)):
            yield from from_dicts(_listed(path, file.read(), wanted), f"{path}")
            return
        yield from _lines(path, file)


def _is_row(line: str, alone: bool) -> bool:
    """Whether *line* is an object and, if it is *alone* in its file, none that holds rows."""
    try:
        found = json.loads(line)
    except ValueError:
        return False
    return isinstance(found, dict) and not (alone and step_shapes.holds_rows(found))


def _listed(path: Path, text: str, wanted: tuple[str, ...]) -> Iterable[Any]:
    try:
        loaded = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not JSON: {shown(str(error), 120)}") from None
    return step_shapes.rows(loaded, f"{path}", wanted)


def _lines(path: Path, file: IO[str]) -> Iterator[Chunk]:
    first = 1
    rows: list[dict[str, Any]] = []
    for line, text in enumerate(file, 1):
        if not text.strip():
            if not rows:
                first = line + 1
            else:
                rows.append({})
            continue
        try:
            row = json.loads(text)
        except (ValueError, RecursionError) as error:
            what = f"not JSON: {shown(str(error), 100)}; an object a line"
            raise InputError(f"{path}:{line}: {what}") from None
        if not isinstance(row, dict):
            raise InputError(f"{path}:{line}: {shown(row)} is no object; write an object a line")
        if line == 1 and row.get("kind") == "steps":  # the header of our own engine's logs
            first = 2
            continue
        rows.append(flat(row))
        if len(rows) == ROWS:
            yield _gathered(rows, first, True)
            first, rows = line + 1, []
    if rows:
        yield _gathered(rows, first, True)


def from_dicts(steps: Iterable[Any], place: str = "steps") -> Iterator[Chunk]:
    """Chunks of a list of per-step dictionaries; nested ones get names with dots.

    Also of objects with fields, of a map that holds the list, and of a frame of pandas.
    """
    first = 1
    rows: list[dict[str, Any]] = []
    for number, step in enumerate(step_shapes.rows(steps, place), 1):
        row = step_shapes.as_row(step)
        if row is None:
            raise InputError(f"{place}: step {number}: {shown(step)} is no dictionary")
        rows.append(flat(row))
        if len(rows) == ROWS:
            yield _gathered(rows, first, False)
            first, rows = number + 1, []
    if rows:
        yield _gathered(rows, first, False)


def flat(row: Mapping[str, Any], depth: int = _DEEP) -> dict[str, Any]:
    """*row* with the entries of maps in it as `outer.inner`."""
    if not any(isinstance(value, dict) for value in row.values()):
        return dict(row)
    found: dict[str, Any] = {}
    for key, value in row.items():
        if isinstance(value, dict) and depth:
            found[str(key)] = value
            inner = flat(value, depth - 1)
            if len(inner) <= 64:  # more are requests by id, not fields
                found |= {f"{key}.{name}": one for name, one in inner.items()}
        else:
            found[str(key)] = value
    return found


def _gathered(rows: list[dict[str, Any]], first: int, lines: bool) -> Chunk:
    keys = rows[0].keys()
    if all(row.keys() == keys for row in rows):
        columns = {name: [row[name] for row in rows] for name in keys}
    else:
        names = dict.fromkeys(name for row in rows for name in row)
        columns = {name: [row.get(name) for row in rows] for name in names}
    return Chunk(columns, len(rows), first, lines)
