"""A column of acceptance rates, one row a request in the trace's order, from CSV or Parquet."""

from __future__ import annotations

import csv
from typing import TYPE_CHECKING

import numpy as np

from sim.errors import InputError, shown

if TYPE_CHECKING:
    from pathlib import Path

MAX_ROWS = 50_000_000


def read_column(path: Path, column: str) -> np.ndarray:
    """The rates of *column* as float64; raises `InputError` with the first thing to mend."""
    try:
        read = _parquet if path.suffix == ".parquet" else _csv
        rates = read(path, column)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        why = shown(getattr(error, "strerror", None) or str(error))
        raise InputError(f"{path}: cannot be read as a table: {why}; check the file") from None
    if not len(rates):
        raise InputError(f"{path}: no rows; give one acceptance rate a request")
    bad = np.flatnonzero(~((rates >= 0.0) & (rates <= 1.0)))  # nan is neither
    if len(bad):
        row, value = int(bad[0]) + 1, rates[bad[0]]
        what = f"row {row}: {shown(column)} is {value:g}, not a rate from 0 to 1"
        raise InputError(f"{path}: {what}; give the share of drafts that are accepted")
    return rates


def _csv(path: Path, column: str) -> np.ndarray:
    with path.open(newline="", encoding="utf-8-sig") as file:
        rows = csv.reader(file)
        names = [name.strip() for name in next(rows, [])]
        at = _position(path, names, column)
        found = []
        for number, row in enumerate((row for row in rows if row), 1):
            try:
                found.append(float(row[at]))
            except (IndexError, ValueError):
                value = shown(row[at]) if at < len(row) else "nothing"
                what = f"row {number}: expected a number in {shown(column)}, got {value}"
                raise InputError(f"{path}: {what}; mend the row") from None
            if number > MAX_ROWS:
                raise InputError(f"{path}: more than {MAX_ROWS:,} rows; take a part of it")
    return np.array(found, dtype=np.float64)


def _parquet(path: Path, column: str) -> np.ndarray:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            _position(path, file.schema_arrow.names, column)
            if file.metadata.num_rows > MAX_ROWS:
                raise InputError(f"{path}: more than {MAX_ROWS:,} rows; take a part of it")
            values = file.read(columns=[column]).column(0)
        if not (pa.types.is_floating(values.type) or pa.types.is_integer(values.type)):
            what = f"expected numbers in {shown(column)}, got {values.type}"
            raise InputError(f"{path}: {what}; write the rates as numbers")
        rates: np.ndarray = values.cast(pa.float64()).fill_null(float("nan")).to_numpy()
    except pa.ArrowException as error:
        why = shown(str(error).splitlines()[0])
        raise InputError(f"{path}: cannot be read as Parquet: {why}; check the file") from None
    return rates


def _position(path: Path, names: list[str], column: str) -> int:
    if names.count(column) == 1:
        return names.index(column)
    if column in names:
        raise InputError(f"{path}: several columns {shown(column)}; rename one")
    there = shown(", ".join(names), 200)
    raise InputError(f"{path}: no column {shown(column)}; columns there: {there}")
