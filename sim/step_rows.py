"""Rows of a step log, however many: neighbours are looked at, then some are kept."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

Columns = dict[str, np.ndarray]

ONLY_DECODE, WITH_PREFILL = 1.0, 2.0
"""Kinds of steps in `prev_kind`; 0 where nothing is known of the step before."""
MOST_ROWS = 400_000
"""Rows that are kept; of more, every second, fourth, ... after neighbours have been looked at."""


def gather(parts: Iterable[Columns], most: int = MOST_ROWS) -> tuple[Columns, int, bool]:
    """All *parts* as one, rows of more than *most* thinned evenly; how many there were.

    Before rows are dropped, each learns of its neighbour: `next_start_s`, `next_decodes`. Whether
    anything was dropped.
    """
    held: list[Columns] = []
    stride, total, size = 1, 0, 0
    tail: Columns | None = None
    for part in parts:
        if not len(part["duration_s"]):
            continue
        whole = part if tail is None else joined([tail, part])
        whole = neighbours(whole)
        body = {name: values[:-1] for name, values in whole.items()}
        tail = {name: values[-1:] for name, values in whole.items()}
        length = len(body["duration_s"])
        numbers = np.arange(total, total + length)
        total += length
        held.append({k: v[numbers % stride == 0] for k, v in body.items()})
        size += len(held[-1]["duration_s"])
        while size > 2 * most:
            held = [{k: v[::2] for k, v in joined(held).items()}]
            size, stride = len(held[0]["duration_s"]), stride * 2
    if tail is not None:
        held.append(neighbours(tail))
        total += 1
    if not held:
        return {}, 0, False
    return joined(held), total, stride > 1


def neighbours(part: Columns) -> Columns:
    """*part* with what each row's neighbours say, nan where there are none.

    Of which kind the step before was; when the next step began, how long it took and whether it
    decoded; when the one before began and ended.
    """
    found = dict(part)
    tokens = part.get("prefill_tokens", np.zeros(len(part["duration_s"])))
    kind = np.where(tokens > 0, WITH_PREFILL, ONLY_DECODE)
    head = part["prev_kind"][:1] if "prev_kind" in part else np.zeros(1)
    found["prev_kind"] = np.append(head, kind[:-1])
    if "start_s" not in part:
        return found
    start, seconds = part["start_s"], part["duration_s"]
    going = np.append(part["decode_requests"][1:], 0.0)
    if "prefill_context_tokens" in part:
        going = going + np.append(part["prefill_context_tokens"][1:], 0.0)
    first, stamp = (
        part[name][:1] if name in part else np.array([np.nan])
        for name in ("prev_end_s", "prev_start_s")
    )
    found["next_start_s"] = np.append(start[1:], np.nan)
    found["next_duration_s"] = np.append(seconds[1:], np.nan)
    found["next_decodes"] = (going > 0).astype(float)
    found["prev_end_s"] = np.append(first, (start + seconds)[:-1])
    found["prev_start_s"] = np.append(stamp, start[:-1])
    return found


def joined(parts: Sequence[Columns]) -> Columns:
    if len(parts) == 1:
        return parts[0]
    names = dict.fromkeys(name for part in parts for name in part)
    return {
        name: np.concatenate([part.get(name, np.zeros(len(part["duration_s"]))) for part in parts])
        for name in names
    }


def in_order(columns: Columns) -> list[Columns]:
    """The runs in *columns*, each in order of its starts, with neighbours.

    Where the clock goes back by far, and rarely, another run has begun.
    """
    if "start_s" not in columns:
        return [columns]
    start, usual = columns["start_s"], float(np.median(columns["duration_s"]))
    back = np.flatnonzero(np.diff(start) < -10.0 * usual) + 1
    edges = [0, *back.tolist(), len(start)] if len(back) <= len(start) // 100 else [0, len(start)]
    found = []
    for low, high in pairwise(edges):
        order = low + np.argsort(start[low:high], kind="stable")
        run = {name: v[order] for name, v in columns.items() if not name.startswith("prev_")}
        found.append(neighbours(run))
    return found
