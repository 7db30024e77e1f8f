"""A distribution of lengths as people write it on a command line, or keep it in a file.

lognormal:300:0.8                       plain
lognormal:300:0.8,tail=0.1:1.5,cap=9000 with a Pareto tail of the longest tenth, cut
0.7*lognormal:300:0.8+0.3*fixed:20      a mixture
table:lengths.csv                       of a file
"""

from __future__ import annotations

import csv
import json
import math
import re
from pathlib import Path
from typing import Any

from sim.errors import InputError, shown

from .bounds import MAX_PARTS, MAX_TOKENS
from .lengths import Length
from .lines import read_text
from .naming import said

_FIELDS = {
    "fixed": ("mean",),
    "exponential": ("mean",),
    "uniform": ("low", "high"),
    "lognormal": ("median", "sigma"),
    "pareto": ("low", "alpha"),
}
HOW = (
    "write fixed:MEAN, exponential:MEAN, uniform:LOW:HIGH, lognormal:MEDIAN:SIGMA, "
    "pareto:LOW:ALPHA or table:FILE, with ,tail=SHARE:ALPHA ,within=LOW:HIGH ,cap=MOST behind it, "
    "or several as WEIGHT*LENGTH+WEIGHT*LENGTH"
)
_PART = re.compile(r"([0-9.eE]+)\*(.+)")
_TABLE = re.compile(r"table:(.*?)((?:,(?:tail|within|cap)=[^,]*)*)", re.DOTALL)
_FILE_BYTES = 64 * 2**20
_ROWS = 1_000_000


def parse_length(name: str, text: str) -> Length:
    """The distribution that *text* writes; raises `InputError` about *name*."""
    length = _mixture(name, text) or _plain(name, text, text)
    length.check(name)
    return length


def _mixture(name: str, text: str) -> Length | None:
    pieces = [_PART.fullmatch(piece) for piece in re.split(r"\+(?=[0-9.eE]+\*)", text)]
    parts = [(piece[1], piece[2]) for piece in pieces if piece is not None]
    if not parts or len(parts) != len(pieces):
        return None
    if len(parts) > MAX_PARTS:
        raise InputError(f"{name}: {len(parts)} parts, {MAX_PARTS} is the most; leave some out")
    try:
        weights = [float(weight) for weight, _ in parts]
    except ValueError:
        raise _no_length(name, text) from None
    return Length(
        "mixture",
        parts=tuple(zip(weights, [_plain(name, part, text) for _, part in parts], strict=True)),
    )


def _plain(name: str, text: str, whole: str) -> Length:
    """One part without a weight; *whole* is what stands in a message."""
    table = _TABLE.fullmatch(text)
    body, *cuts = (table[2] if table else text).split(",")
    kind, *numbers = body.split(":")
    given: dict[str, Any] = {"kind": kind}
    if table:
        given = {"kind": "table", "atoms": read_table(name, Path(table[1])).atoms}
    try:
        if not table:
            given |= zip(_FIELDS[kind], map(float, numbers), strict=True)
        for cut in cuts:
            key, _, value = cut.partition("=")
            values = [float(number) for number in value.split(":")]
            if key in given or len(values) != {"tail": 2, "within": 2, "cap": 1}[key]:
                raise ValueError
            given[key] = tuple(values) if key != "cap" else values[0]
    except (KeyError, ValueError):
        raise _no_length(name, whole) from None
    Length(**given).check(name)
    for key in ("low", "high", "cap"):
        if key in given:
            given[key] = int(given[key])
    if "within" in given:
        given["within"] = tuple(map(int, given["within"]))
    return Length(**given)


def _no_length(name: str, text: str) -> InputError:
    return InputError(f"{name}: {shown(text)} is no length; {HOW}")


def read_table(name: str, path: Path) -> Length:
    """The lengths in the file at *path*; raises `InputError`.

    A CSV with the columns tokens and weight, or with tokens alone for lengths as they were
    measured, or a JSON object of tokens to weight; packed or not.
    """
    text = read_text(path, _FILE_BYTES, "is it a table?", "convert the file with iconv")
    pairs = _json_pairs(path, text) if text.lstrip().startswith("{") else _csv_pairs(path, text)
    atoms: dict[int, float] = {}
    for place, tokens, weight in pairs:
        if len(atoms) > _ROWS:
            raise InputError(f"{place}: more than {_ROWS:,} different lengths; is it a table?")
        atom = _tokens(place, tokens)
        atoms[atom] = atoms.get(atom, 0.0) + _weight(place, weight)
    if not sum(atoms.values()) > 0:
        raise InputError(f"{said(path)}: no length with a weight above 0; correct the table")
    length = Length("table", atoms=tuple(sorted(atoms.items())))
    length.check(name)
    return length


def _json_pairs(path: Path, text: str) -> list[tuple[str, Any, Any]]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        why = str(error).splitlines()[0]
        raise InputError(f"{said(path)}: not JSON: {why}; correct the file") from None
    return [(f"{said(path)}: {shown(key)}", key, weight) for key, weight in found.items()]


def _csv_pairs(path: Path, text: str) -> list[tuple[str, Any, Any]]:
    rows = csv.reader(text.splitlines())
    pairs: list[tuple[str, Any, Any]] = []
    columns: list[str] | None = None
    try:
        for cells in rows:
            if not cells or not "".join(cells).strip():
                continue
            place = f"{said(path)}:{rows.line_num}"
            if columns is None:
                columns = [cell.strip().lower() for cell in cells]
                if columns not in (["tokens", "weight"], ["tokens"]):
                    raise InputError(
                        f"{place}: the columns are {shown(', '.join(columns))}; "
                        "write tokens,weight or tokens alone"
                    )
            elif len(cells) != len(columns):
                raise InputError(f"{place}: {len(cells)} cells, {len(columns)} columns; mend it")
            else:
                pairs.append((place, cells[0], cells[1] if len(cells) == 2 else 1.0))
    except csv.Error as error:
        raise InputError(f"{said(path)}:{rows.line_num}: {error}; correct the line") from None
    return pairs


def _tokens(place: str, cell: Any) -> int:
    try:
        value = float(cell)
    except (TypeError, ValueError):
        value = math.nan
    if not 1 <= value <= MAX_TOKENS or value != int(value):
        what = "is no number of tokens; write a whole number"
        raise InputError(f"{place}: tokens: {shown(cell)} {what} from 1 to {MAX_TOKENS:,}")
    return int(value)


def _weight(place: str, cell: Any) -> float:
    try:
        value = math.nan if isinstance(cell, bool) else float(cell)
    except (TypeError, ValueError, OverflowError):
        value = math.nan
    if not 0 <= value <= 1e18:
        raise InputError(f"{place}: weight: {shown(cell)} is no weight; write a number from 0")
    return value
