"""Events of the trace event format as text, whole columns of them at a time.

The one rule: times are whole nanoseconds written as microseconds with three decimals, so that a
slice that lies in another one does so in the file as well.
"""

from __future__ import annotations

import json
from math import isfinite
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

_TIME = '"ts":%d.%03d,"pid":%d,"tid":%d'
CHUNK = 8192
"""Events that are text at the same time."""


def slices(
    name: Sequence[str] | str,
    category: Sequence[str] | str,
    begin: np.ndarray,
    length: np.ndarray,
    pid: int,
    tid: np.ndarray | int,
    args: Mapping[str, np.ndarray] | None = None,
) -> Iterator[str]:
    """Complete events (`X`); *begin* and *length* in ns, an element of *args* a slice."""
    names, categories = _each(name, len(begin)), _each(category, len(begin))
    head = f'{{"name":%s,"cat":%s,"ph":"X",{_TIME},"dur":%d.%03d'
    tids = np.broadcast_to(np.asarray(tid), begin.shape)
    for at in range(0, len(begin), CHUNK):
        part = slice(at, at + CHUNK)
        pids = [pid] * len(begin[part])
        fixed = (names[part], categories[part], *_micros(begin[part]), pids, tids[part].tolist(),
                 *_micros(length[part]))  # fmt: skip
        yield from _filled(head, fixed, args or {}, part)


def counters(
    name: str, time: np.ndarray, pid: int, values: Mapping[str, np.ndarray]
) -> Iterator[str]:
    """Counter events (`C`), one for each *time* at which one of *values* is another than before."""
    if not len(time) or not values:
        return
    changed = np.zeros(len(time), bool)
    changed[0] = True
    for column in values.values():
        changed[1:] |= column[1:] != column[:-1]
    # Of several at the same instant the last one holds.
    last = np.append(time[1:] != time[:-1], True)
    kept = np.maximum.reduceat(changed, np.flatnonzero(np.append(True, last[:-1])))
    rows = np.flatnonzero(last)[kept]
    head = f'{{"name":{quoted(name)},"ph":"C",{_TIME}'
    for at in range(0, len(rows), CHUNK):
        part = rows[at : at + CHUNK]
        fixed = (*_micros(time[part]), [pid] * len(part), [0] * len(part))
        yield from _filled(head, fixed, {k: v[part] for k, v in values.items()}, slice(None))


def nested(
    phase: str,
    name: str,
    ids: np.ndarray,
    time: np.ndarray,
    pid: int,
    args: Mapping[str, np.ndarray] | None = None,
) -> Iterator[str]:
    """Nestable events of requests (*phase* `b`, `n` or `e`) at *time* in ns."""  # fmt: skip
    head = (
        f'{{"name":{quoted(name)},"cat":"request","ph":"{phase}","id2":{{"local":"0x%x"}},{_TIME}'
    )
    for at in range(0, len(ids), CHUNK):
        part = slice(at, at + CHUNK)
        count = len(ids[part])
        fixed = (ids[part].tolist(), *_micros(time[part]), [pid] * count, [0] * count)
        yield from _filled(head, fixed, args or {}, part)


def flow(
    phase: str, category: str, ids: np.ndarray, time: np.ndarray, pid: np.ndarray, tid: np.ndarray
) -> Iterator[str]:
    """Flow events (*phase* `s`, `t` or `f`), each bound to the slice around its time."""
    bound = "" if phase == "s" else ',"bp":"e"'
    head = f'{{"name":{quoted(category)},"cat":{quoted(category)},"ph":"{phase}"{bound},"id":%d,'
    fixed = (ids.tolist(), *_micros(time), pid.tolist(), tid.tolist())
    yield from _filled(head + _TIME, fixed, {}, slice(None))


def named(pid: int, name: str, order: int, tid: int | None = None) -> Iterator[str]:
    """Metadata events (`M`): the name and the place of a process, or of a thread in it."""
    what = "process" if tid is None else "thread"
    place: dict[str, Any] = {"pid": pid, "tid": 0 if tid is None else tid}
    for key, said in ((f"{what}_name", {"name": name}), (f"{what}_sort_index",
                      {"sort_index": order})):  # fmt: skip
        yield json.dumps({"name": key, "ph": "M"} | place | {"args": said}, separators=(",", ":"))


def quoted(text: str) -> str:
    """*text* as a JSON string, which viewers do not want to be empty."""
    return json.dumps(str(text) or "?")


def _micros(ns: np.ndarray) -> tuple[list[int], list[int]]:
    whole, rest = np.divmod(ns, 1000)
    return whole.tolist(), rest.tolist()


def _each(text: Sequence[str] | str, count: int) -> list[str]:
    """JSON strings, one an event; few of them differ."""
    if isinstance(text, str):
        return [quoted(text)] * count
    known = {word: quoted(word) for word in set(text)}
    return [known[word] for word in text]


def _filled(
    head: str, fixed: Iterable[Sequence[Any]], args: Mapping[str, np.ndarray], part: slice
) -> Iterator[str]:
    """*head* with the columns *fixed*, and *args*, closed."""
    if not args:
        yield from map((head + "}").__mod__, zip(*fixed, strict=True))
        return
    columns = {key: values[part] for key, values in args.items()}
    keys = ",".join(f"{quoted(key)}:{_format(values)}" for key, values in columns.items())
    cells = [_cells(values) for values in columns.values()]
    template = f'{head},"args":{{{keys}}}}}'
    yield from map(template.__mod__, zip(*fixed, *cells, strict=True))


def _format(values: np.ndarray) -> str:
    kind = values.dtype.kind
    whole = kind in "iub"
    return "%d" if whole else "%.9g" if kind == "f" and np.isfinite(values).all() else "%s"


def _cells(values: np.ndarray) -> Sequence[Any]:
    if values.dtype.kind in "iub" or (values.dtype.kind == "f" and np.isfinite(values).all()):
        cells: list[Any] = values.tolist()
        return cells
    if values.dtype.kind == "f":
        return [f"{v:.9g}" if isfinite(v) else "null" for v in values.tolist()]
    return [json.dumps(None if value is None else str(value)) for value in values.tolist()]
