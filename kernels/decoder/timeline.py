"""One resident step as its SMs saw it: from stamps inside the kernel to spans, losses, a timeline.

One rule: a step's time is divided without a rest. Between the last SM's end of one stage and the
last SM's end of the next lie the wait for the barrier (until an SM begins, in the mean), the work
(in the mean) and the tail (from the mean end to the last). The three add up to the step.
"""

from __future__ import annotations

import gzip
import json
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

STAGES = ("qkv", "attend", "out", "gate_up", "down")
"""The five of a layer, in order."""
ENDING = ("head", "commit")
"""What follows the last layer, once a step; the commit may be without stamps."""
WAIT, TAIL = "_wait", "_tail"
"""What a stage's name carries for its barrier and its tail."""
NS_A_US = 1e3
WORK_TRACKS, BARRIER_TRACK = 0, 1
FIELDS = {"X": ("name", "ts", "dur", "pid", "tid"), "M": ("name", "pid", "args")}
"""Phases of the trace event format that this module writes, with what each needs."""


@dataclass(frozen=True, slots=True)
class Spans:
    """Begin and end of every stage on every worker, microseconds from the first begin.

    *begin* and *end* [workers, spans]; NaN where a worker took no part.
    """

    begin: np.ndarray[Any, Any]
    end: np.ndarray[Any, Any]
    stages: tuple[str, ...]
    """Those of a layer."""

    @property
    def layers(self) -> int:
        """Layers of the model."""
        return int(self.begin.shape[1]) // len(self.stages)

    @property
    def names(self) -> list[str]:
        """The stage of each span."""
        ending = self.begin.shape[1] % len(self.stages)
        return [*self.stages * self.layers, *ENDING[:ending]]

    def layer(self, span: int) -> int | None:
        """The layer of a span; None for head and commit."""
        layer = span // len(self.stages)
        return layer if layer < self.layers else None

    @property
    def seconds(self) -> float:
        """From the first begin to the last end."""
        return float(np.nanmax(self.end) - np.nanmin(self.begin)) * 1e-6


def spans(
    stamps: Any,
    stages: Sequence[str] = STAGES,
    ticks_a_us: float = NS_A_US,
    own_clocks: bool = False,
) -> Spans:
    """Spans of *stamps* int64 [workers, events]: begin and end of each of *stages* in each layer.

    Behind the last layer follow those of the head and, if there are two more, of the commit. 0 says
    that a worker took no part. *ticks_a_us* is 1000 for a clock of nanoseconds; with *own_clocks*
    each worker counts from its own zero, as clock64 does, and the workers are laid over each other
    first. Raises `ValueError` if the stamps cannot be such.
    """
    found = np.asarray(stamps)
    width, whole_layers = len(stages), 0
    if found.ndim == 2 and found.shape[1] % 2 == 0 and len(found):
        whole_layers, ending = divmod(found.shape[1] // 2, width)
    if not whole_layers or not 1 <= ending <= len(ENDING):
        raise ValueError(
            f"stamps of shape {found.shape}, expected [workers, 2 * ({width} * layers + 1 or 2)]: "
            "begin and end of each stage, then of the head and the commit"
        )
    ticks = np.where(found > 0, found - np.int64(_first(found)), 0).astype(np.float64)
    time = np.where(found > 0, ticks, np.nan) / ticks_a_us
    begin, end = time[:, 0::2], time[:, 1::2]
    if np.isnan(begin).all(axis=0).any() or (np.isnan(begin) != np.isnan(end)).any():
        raise ValueError("stamps: a stage that no worker began, or one begun and never ended")
    if (end < begin).any():
        raise ValueError("stamps: a stage that ended before it began")
    whole = Spans(begin, end, tuple(stages))
    whole = aligned(whole) if own_clocks else whole
    start = np.nanmin(whole.begin)
    return replace(whole, begin=whole.begin - start, end=whole.end - start)


def _first(found: np.ndarray[Any, Any]) -> int:
    positive = found[found > 0]
    return int(positive.min()) if len(positive) else 0


def aligned(whole: Spans, rounds: int = 3) -> Spans:
    """The workers' clocks laid over each other by a line each: a barrier lets all go at once."""
    # Model: the release of a barrier reaches all SMs at the same time but for scatter. What differs
    # steadily between two SMs is their clocks': zero and rate, for each GPC has a clock of its own.
    begin, end = whole.begin, whole.end
    first = begin - np.nanmedian(begin - begin[:1], axis=1, keepdims=True)
    for _ in range(rounds):
        common = np.nanmedian(first, axis=0)
        lines = [_line(row, common) for row in begin]
        rate, zero = (np.array(part)[:, None] for part in zip(*lines, strict=True))
        first = begin * rate + zero
    return replace(whole, begin=first, end=end * rate + zero)


def _line(x: np.ndarray[Any, Any], y: np.ndarray[Any, Any]) -> tuple[float, float]:
    """Slope and intercept of *y* over *x*; the slope is 1 where two points do not tell it."""
    known = ~np.isnan(x)
    if not known.any():
        return 1.0, 0.0
    middle, level = float(x[known].mean()), float(y[known].mean())
    apart, risen = x[known] - middle, y[known] - level
    square = float(apart @ apart)
    slope = float(apart @ risen) / square if square > 0.0 else 1.0
    return slope, level - slope * middle


# ------------------------------------------------------------------------------ where time goes
def losses(whole: Spans) -> list[tuple[float, float, float]]:
    """(wait, work, tail) of every span in seconds; together they are the whole step."""
    found, before = [], float(np.nanmin(whole.begin))
    for span in range(whole.begin.shape[1]):
        begin, end = whole.begin[:, span], whole.end[:, span]
        last = float(np.nanmax(end))
        wait, middle = float(np.nanmean(begin)) - before, float(np.nanmean(end))
        work, tail = middle - float(np.nanmean(begin)), last - middle
        found.append((wait * 1e-6, work * 1e-6, tail * 1e-6))
        before = last
    return found


def stage_seconds(whole: Spans) -> dict[str, float]:
    """Seconds of a step by stage, over all layers: `qkv`, `qkv_wait`, `qkv_tail` and so on."""
    found: dict[str, float] = {}
    for name, (wait, work, tail) in zip(whole.names, losses(whole), strict=True):
        if wait < 0.0:  # an SM that did not wait for the last
            wait, work = 0.0, work + wait
        for key, value in ((name, work), (name + WAIT, wait), (name + TAIL, tail)):
            found[key] = found.get(key, 0.0) + value
    return found


# ------------------------------------------------------------------------------ the timeline
def trace(
    whole: Spans, about: Mapping[str, Any] | None = None, workers: Iterable[int] | None = None
) -> dict[str, Any]:
    """A document in the trace event format, for ui.perfetto.dev or chrome://tracing.

    One track for each of *workers* (default: all) and one for the barriers: from the first SM that
    waits to the last that arrives, and from there until the first goes on. *about* goes along as
    the document's metadata.
    """
    chosen = list(range(len(whole.begin)) if workers is None else workers)
    events = [
        _named("process_name", WORK_TRACKS, 0, "SMs"),
        _named("process_name", BARRIER_TRACK, 0, "barriers"),
        _named("thread_name", BARRIER_TRACK, 0, "all SMs"),
    ]
    for worker in chosen:
        events.append(_named("thread_name", WORK_TRACKS, worker, f"SM {worker}"))
        events += _work(whole, worker)
    events += _barriers(whole)
    return {"traceEvents": events, "displayTimeUnit": "ns", "otherData": dict(about or {})}


def _named(what: str, process: int, thread: int, name: str) -> dict[str, Any]:
    return {"ph": "M", "name": what, "pid": process, "tid": thread, "args": {"name": name}}


def _work(whole: Spans, worker: int) -> list[dict[str, Any]]:
    found = []
    for span, name in enumerate(whole.names):
        begin, end = whole.begin[worker, span], whole.end[worker, span]
        if not np.isnan(begin):
            place = (WORK_TRACKS, worker)
            found.append(_span(name, "stage", float(begin), float(end), place, whole.layer(span)))
    return found


def _barriers(whole: Spans) -> list[dict[str, Any]]:
    """Tail and barrier after each span; those that overlap the one before begin after it."""
    found, free, place = [], 0.0, (BARRIER_TRACK, 0)
    for span, name in enumerate(whole.names[:-1]):
        first, last = float(np.nanmin(whole.end[:, span])), float(np.nanmax(whole.end[:, span]))
        go = float(np.nanmin(whole.begin[:, span + 1]))
        for what, begin, end in ((f"tail of {name}", first, last), ("barrier", last, go)):
            begin = max(begin, free)
            if end > begin:
                found.append(_span(what, "wait", begin, end, place, whole.layer(span)))
                free = end
    return found


def _span(
    name: str, kind: str, begin: float, end: float, place: tuple[int, int], layer: int | None
) -> dict[str, Any]:
    about = {} if layer is None else {"layer": layer}
    return {
        "ph": "X", "name": name, "cat": kind, "ts": round(begin, 3),
        "dur": round(end - begin, 3), "pid": place[0], "tid": place[1], "args": about,
    }  # fmt: skip


def faults(document: Any) -> list[str]:
    """What in *document* is against the trace event format; empty if it is right."""
    events = document.get("traceEvents") if isinstance(document, dict) else None
    if not isinstance(events, list) or not events:
        return ["no list traceEvents"]
    found: list[str] = []
    tracks: dict[tuple[Any, Any], list[dict[str, Any]]] = {}
    for index, event in enumerate(events):
        wanted = FIELDS.get(str(event.get("ph"))) if isinstance(event, dict) else None
        if wanted is None or any(name not in event for name in wanted):
            found.append(f"event {index}: {event!r:.100} lacks a field or is of another phase")
        elif event["ph"] == "X":
            if not (_number(event["ts"]) and _number(event["dur"]) and event["dur"] >= 0):
                found.append(f"event {index}: ts or dur is no time")
                continue
            tracks.setdefault((event["pid"], event["tid"]), []).append(event)
    for track, mine in tracks.items():
        found += [f"track {track}: {text}" for text in _overlaps(mine)]
    return found


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and bool(np.isfinite(value))


def _overlaps(events: Sequence[Mapping[str, Any]]) -> list[str]:
    """Spans of one track may not cross; ours do not even nest."""
    order = sorted(events, key=lambda event: (event["ts"], event["dur"]))
    slack = 2e-3  # times are rounded to a nanosecond
    return [
        f"{one['name']} at {one['ts']} us is not over when {two['name']} begins"
        for one, two in pairwise(order)
        if one["ts"] + one["dur"] > two["ts"] + slack
    ]


def write(document: Mapping[str, Any], path: Path) -> None:
    """Writes *document* with one event a line, packed if *path* ends in `.gz`.

    The same stamps give the same bytes.
    """
    narrow = (",", ":")
    lines = ",\n".join(json.dumps(event, separators=narrow) for event in document["traceEvents"])
    rest = {name: value for name, value in document.items() if name != "traceEvents"}
    tail = json.dumps(rest, sort_keys=True, separators=narrow)[1:]
    words = f'{{"traceEvents":[\n{lines}\n],{tail}\n'.encode()
    path.write_bytes(gzip.compress(words, mtime=0) if path.suffix == ".gz" else words)


def read(path: Path) -> Any:
    """The document that `write` wrote; raises `OSError` or `ValueError` if it is none."""
    words = path.read_bytes()
    try:
        document = json.loads(gzip.decompress(words) if path.suffix == ".gz" else words)
    except (EOFError, RecursionError) as error:
        raise ValueError(str(error)) from None
    found = faults(document)
    if found:
        raise ValueError(found[0])
    return document
