"""ServeGen's parameter files, as published or consolidated, read with limits.

One rule: nothing in a file is ever evaluated. The publisher writes distributions as Python
dictionaries inside strings; they are taken apart as numbers between commas and colons.
"""

from __future__ import annotations

import csv
import json
import re
from typing import TYPE_CHECKING, Any

import numpy as np

from sim.errors import InputError, shown
from sim.trace.bounds import MAX_TOKENS, RATE_PER_S
from sim.trace.lines import read_text
from sim.trace.naming import said

from .clients import WINDOW_S, Clients, Lengths, Pmf

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from sim.trace.chunk import Tally

_FILE_BYTES = 256 * 2**20
_ROWS = 5_000_000
_FILES = 10_000
_WINDOWS = 1_000_000  # 19 years
_RATE_PER_S = 1e6
_SHAPE = (1e-4, 1e6)
_COLUMNS = ["client_id", "window_start_s", "rate_rps", "iat_cv", "iat_family", "shape", "scale"]
_FAMILIES = {"Gamma": False, "Weibull": True}
_CHUNK = re.compile(r"(.*)chunk-([0-9]{1,9})-trace\.csv(\.(gz|xz|zst|bz2))?")
_LENGTHS_S = {"all": 0.0, "00-06": 0.0, "06-12": 21600.0, "12-18": 43200.0, "18-24": 64800.0}
_PARTS = ("text_tokens", "image_tokens", "audio_tokens", "video_tokens")  # of a prompt
_PACKED = ("", ".xz", ".gz", ".zst", ".bz2")

Window = tuple[int, float, bool, float]  # number, rate, whether Weibull, shape


def load(path: Path, given: Lengths | None, tally: Tally) -> Clients:
    """The clients in the files at *path*; raises `InputError`.

    *path* is a folder of the publisher's pairs `chunk-N-trace.csv` and `chunk-N-dataset.json`, or
    one `..._clients.csv` (or a folder with one) beside its `..._length_pmf.json`. *given* are
    lengths that go before those of the files.
    """
    if path.is_dir():
        names = sorted(path.iterdir())
        found = [name for name in names if _CHUNK.fullmatch(name.name)]
        if found:
            return _published(path, found, given, tally)
        whole = [name for name in names if re.search(r"_clients\.csv(\.\w+)?$", name.name)]
        if len(whole) != 1:
            said_all = ", ".join(said(name.name) for name in whole[:5]) or "none"
            raise InputError(
                f"{said(path)}: no chunk-N-trace.csv in the folder, and not one _clients.csv "
                f"({said_all}); name the clients file itself"
            )
        path = whole[0]
    return _consolidated(path, given, tally)


def _published(folder: Path, traces: list[Path], given: Lengths | None, tally: Tally) -> Clients:
    if len(traces) > _FILES:
        raise InputError(f"{said(folder)}: {len(traces):,} clients, {_FILES:,} is the most")
    kinds = {match[1] for name in traces if (match := _CHUNK.fullmatch(name.name))}
    if len(kinds) > 1:
        names = ", ".join(sorted(shown(kind) for kind in kinds))
        what = f"clients of several models ({names})"
        raise InputError(f"{said(folder)}: {what}; put each into a folder of its own")
    rows: list[tuple[int, Window]] = []
    lengths: list[list[tuple[float, Lengths]]] = []
    for client, trace in enumerate(traces):
        for line, cells in _csv(trace, 6):
            rows.append((client, _window_of(f"{said(trace)}:{line}", cells, tally)))
        if given is None:
            lengths.append(_dataset(_beside(trace, "-trace.csv", "-dataset.json"), tally))
    return _clients(folder, rows, [[(0.0, given)]] if given is not None else lengths)


def _consolidated(path: Path, given: Lengths | None, tally: Tally) -> Clients:
    rows: list[tuple[int, Window]] = []
    numbers: dict[str, int] = {}
    header = False
    for line, cells in _csv(path, 7):
        place = f"{said(path)}:{line}"
        if not header:
            if cells != _COLUMNS:
                raise InputError(
                    f"{place}: the columns are {shown(','.join(cells))}; needs {','.join(_COLUMNS)}"
                )
            header = True
            continue
        client = numbers.setdefault(cells[0], len(numbers))
        rows.append((client, _window_of(place, cells[1:], tally)))
    if given is not None:
        return _clients(path, rows, [[(0.0, given)]])
    beside = _beside(path, "_clients.csv", "_length_pmf.json")
    found = _json(beside)
    parts = found.get("pmf") if isinstance(found, dict) else None
    if not isinstance(parts, dict) or not parts:
        raise InputError(f"{said(beside)}: pmf: missing; needs {{'pmf': {{'all': ...}}}}")
    times = [name for name in _LENGTHS_S if name in parts and (name != "all" or len(parts) == 1)]
    if not times:
        raise InputError(f"{said(beside)}: pmf: has none of {', '.join(_LENGTHS_S)}")
    by_time = [
        (_LENGTHS_S[name], laws)
        for name in times
        if (laws := _lengths(f"{said(beside)}: pmf.{name}", parts[name], tally)) is not None
    ]
    if not by_time:
        raise InputError(f"{said(beside)}: no part of the day has lengths; fetch the file again")
    days = 1 + int(max((window[0] for _, window in rows), default=0) * WINDOW_S // 86400)
    spread = [(day * 86400.0 + since, laws) for day in range(days) for since, laws in by_time]
    return _clients(path, rows, [spread])


def _clients(
    path: Path, rows: list[tuple[int, Window]], lengths: list[list[tuple[float, Lengths]]]
) -> Clients:
    rows = [row for row in rows if row[1][1] > 0]
    if not rows:
        raise InputError(f"{said(path)}: no client sends anything; fetch the files again")
    client = np.array([row[0] for row in rows], dtype=np.int64)
    number, rate, weibull, shape = (
        np.array(column) for column in zip(*(row[1] for row in rows), strict=True)
    )
    windows = int(number.max()) + 1
    if rate.sum() / windows < RATE_PER_S[0]:
        raise InputError(
            f"{said(path)}: {rate.sum() / windows:.3g} requests a second on average, "
            f"{RATE_PER_S[0]:g} is the least; fetch the files again"
        )
    order = np.lexsort((client, number))
    return Clients(
        client[order], number[order].astype(np.int64), rate[order].astype(np.float64),
        weibull[order].astype(bool), shape[order].astype(np.float64), windows,
        lengths,
    )  # fmt: skip


def _window_of(place: str, cells: list[str], tally: Tally) -> Window:
    """A row `t,rate,cv,family,shape,scale`; raises `InputError`."""
    start_s, rate = _float(place, "t", cells[0]), _float(place, "rate", cells[1])
    if not 0 <= start_s <= _WINDOWS * WINDOW_S or start_s % WINDOW_S:
        raise InputError(f"{place}: t: {shown(cells[0])} is no start of a window of {WINDOW_S:g} s")
    if not 0 <= rate <= _RATE_PER_S:
        raise InputError(f"{place}: rate: {shown(cells[1])} is not in 0 to {_RATE_PER_S:,.0f} /s")
    if not rate:
        return int(start_s // WINDOW_S), 0.0, False, 1.0
    if cells[3] not in _FAMILIES:
        raise InputError(f"{place}: family: {shown(cells[3])} is neither Gamma nor Weibull")
    shape = _float(place, "shape", cells[4])
    if not _SHAPE[0] <= shape <= _SHAPE[1]:
        raise InputError(f"{place}: shape: {shown(cells[4])} is not in {_SHAPE[0]} to {_SHAPE[1]}")
    tally.note("cv and scale of a window are not used: its gaps are stretched to fill it")
    return int(start_s // WINDOW_S), rate, _FAMILIES[cells[3]], shape


def _dataset(path: Path, tally: Tally) -> list[tuple[float, Lengths]]:
    found = _json(path)
    if not isinstance(found, dict) or not found:
        raise InputError(f"{said(path)}: no windows; needs an object of start to distributions")
    laws: list[tuple[float, Lengths]] = []
    for key, fields in found.items():
        place = f"{said(path)}: {shown(key)}"
        since = _float(place, "start", key)
        if not 0 <= since <= _WINDOWS * WINDOW_S:
            raise InputError(f"{place}: no start of a window; write seconds from 0")
        found_here = _lengths(place, fields, tally)
        if found_here is not None:
            laws.append((since, found_here))
    if not laws:
        raise InputError(f"{said(path)}: no window has lengths; fetch the file again")
    return sorted(laws, key=lambda law: law[0])


def _lengths(place: str, fields: Any, tally: Tally) -> Lengths | None:
    """The lengths in *fields*, name to distribution; None for no data; raises `InputError`."""
    if not isinstance(fields, dict):
        raise InputError(f"{place}: {shown(fields)} is no object of distributions")
    names = ["input_tokens"] if "input_tokens" in fields else [n for n in _PARTS if n in fields]
    if not names or "output_tokens" not in fields:
        raise InputError(f"{place}: needs input_tokens (or text_tokens) and output_tokens")
    unused = sorted({*fields} - {*names, "output_tokens"})
    if unused:
        tally.note(f"not used of the clients' lengths: {shown(', '.join(unused), 200)}")
    laws = {name: _pmf(f"{place}: {name}", fields[name]) for name in (*names, "output_tokens")}
    known = [law for law in laws.values() if law is not None]
    if len(known) < len(laws):
        tally.note("parts of the day without lengths have those of the part before them")
        return None
    return Lengths(tuple(known[:-1]), known[-1])


def _pmf(place: str, value: Any) -> Pmf | None:
    """The distribution in *value*, None if it is empty; raises `InputError`."""
    tokens, shares = [], []
    for key, share in _pairs(place, value):
        number = _float(place, "tokens", key)
        weight = _float(place, f"share of {shown(key)}", share)
        if not 0 <= number <= MAX_TOKENS or number != int(number):
            raise InputError(f"{place}: {shown(key)} is no number of tokens")
        if not 0 <= weight <= 1e18:
            raise InputError(f"{place}: share of {shown(key)}: {shown(share)} is negative or huge")
        tokens.append(int(number))
        shares.append(weight)
    return Pmf.of(tokens, shares) if sum(shares) > 0 else None


def _pairs(place: str, value: Any) -> Iterable[tuple[Any, Any]]:
    """Keys and values of a JSON object, or of a string that holds a flat Python dictionary."""
    if isinstance(value, dict):
        return value.items()
    if not isinstance(value, str):
        raise InputError(f"{place}: {shown(value)} is no distribution")
    text = value.strip()
    if not (text.startswith("{") and text.endswith("}")):
        raise InputError(f"{place}: {shown(text)} is no dictionary of tokens to share")
    pairs = []
    for item in text[1:-1].split(","):
        key, colon, share = item.partition(":")
        if colon:
            pairs.append((key.strip(), share.strip()))
        elif item.strip():
            raise InputError(f"{place}: {shown(item.strip())} is no pair of tokens and share")
    return pairs


def _float(place: str, key: str, cell: Any) -> float:
    """A finite number; raises `InputError`."""
    try:
        value = float("nan") if isinstance(cell, bool) else float(cell)
    except (TypeError, ValueError, OverflowError):
        value = float("nan")
    if not np.isfinite(value):
        raise InputError(f"{place}: {key}: {shown(cell)} is no number; correct the file")
    return value


def _beside(path: Path, end: str, other: str) -> Path:
    """The file that belongs to *path*, packed or not."""
    stem = path.name[: path.name.rfind(end)] if end in path.name else None
    if stem is None:
        raise InputError(
            f"{said(path)}: its name does not end in {end}, so its lengths cannot be found; rename "
            "it, or give lengths of prompts and answers"
        )
    for packed in _PACKED:
        if (found := path.with_name(f"{stem}{other}{packed}")).is_file():
            return found
    raise InputError(
        f"{said(path)}: no {said(stem + other)} beside it; fetch it, or give lengths of prompts "
        "and answers"
    )


def _text(path: Path) -> str:
    return read_text(path, _FILE_BYTES, "is it ServeGen's?", "fetch the file again")


def _csv(path: Path, columns: int) -> Iterator[tuple[int, list[str]]]:
    """The cells of each line with its number; raises `InputError` unless there are *columns*."""
    rows = csv.reader(_text(path).splitlines())
    try:
        for cells in rows:
            if not cells:
                continue
            if rows.line_num > _ROWS:
                raise InputError(f"{said(path)}:{rows.line_num}: more than {_ROWS:,} lines")
            if len(cells) != columns:
                raise InputError(
                    f"{said(path)}:{rows.line_num}: {len(cells)} cells, needs {columns}; fetch the "
                    "file again"
                )
            yield rows.line_num, [cell.strip() for cell in cells]
    except csv.Error as error:
        raise InputError(f"{said(path)}:{rows.line_num}: {error}; fetch the file again") from None


def _json(path: Path) -> Any:
    try:
        return json.loads(_text(path))
    except (ValueError, RecursionError) as error:
        why = str(error).splitlines()[0]
        raise InputError(f"{said(path)}: not JSON: {why}; fetch the file again") from None
