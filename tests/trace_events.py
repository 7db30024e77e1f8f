"""A validator for the trace event format, written from its rules; raises `AssertionError`."""

from __future__ import annotations

import gzip
import json
from collections import defaultdict
from math import inf, isfinite
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

Event = dict[str, Any]
NEEDS = {
    "X": ("name", "cat", "ts", "dur", "pid", "tid"),
    "b": ("name", "cat", "id2", "ts", "pid"),
    "n": ("name", "cat", "id2", "ts", "pid"),
    "e": ("name", "cat", "id2", "ts", "pid"),
    "s": ("name", "cat", "id", "ts", "pid", "tid"),
    "t": ("name", "cat", "id", "ts", "pid", "tid", "bp"),
    "f": ("name", "cat", "id", "ts", "pid", "tid", "bp"),
    "C": ("name", "ts", "pid", "args"),
    "M": ("name", "pid", "args"),
}
METADATA = {"process_name", "process_sort_index", "thread_name", "thread_sort_index"}


def load(path: Path) -> dict[str, Any]:
    """The document in *path*; not a number is no JSON."""
    data = path.read_bytes()
    text = gzip.decompress(data) if path.name.endswith(".gz") else data

    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is no JSON")

    document = json.loads(text, parse_constant=refuse)
    assert isinstance(document, dict)
    return document


def validate(document: dict[str, Any]) -> list[Event]:
    """The events of *document*, which keeps the format's rules."""
    events = document["traceEvents"]
    assert isinstance(events, list)
    for event in events:
        _well_formed(event)
    _named(events)
    _nested_slices(events)
    _nested_spans(events)
    _bound_flows(events)
    _counters(events)
    return events


def ns(microseconds: float) -> int:
    """What the viewers keep of a time."""
    return round(microseconds * 1000)


def _well_formed(event: Event) -> None:
    assert event["ph"] in NEEDS, event
    for key in NEEDS[event["ph"]]:
        assert key in event, (key, event)
    assert isinstance(event["name"], str)
    assert event["name"]
    assert {type(event["pid"]), type(event.get("tid", 0))} == {int}
    for key in ("ts", "dur"):
        value = event.get(key, 0)
        assert type(value) in (int, float), event
        assert 0 <= value < inf, event
    for value in event.get("args", {}).values():
        assert not isinstance(value, float) or isfinite(value)


def _named(events: Iterable[Event]) -> None:
    """Every process is named once, and so is every thread that has slices or flows."""
    named = defaultdict(int)
    used = set()
    for event in events:
        pid, tid = event["pid"], event.get("tid", 0)
        if event["ph"] == "M":
            assert event["name"] in METADATA
            key = "sort_index" if event["name"].endswith("sort_index") else "name"
            assert isinstance(event["args"][key], int if key == "sort_index" else str)
            named[event["name"], pid, tid if event["name"].startswith("thread") else 0] += 1
        else:
            used.add(("process_name", pid, 0))
            if event["ph"] in "Xstf":
                used.add(("thread_name", pid, tid))
    assert used <= set(named), used - set(named)
    assert set(named.values()) <= {1}


def _by_track(events: Iterable[Event]) -> dict[tuple[int, int], list[Event]]:
    tracks = defaultdict(list)
    for event in events:
        if event["ph"] == "X":
            tracks[event["pid"], event["tid"]].append(event)
    return tracks


def _nested_slices(events: Iterable[Event]) -> None:
    """On a track each slice follows the one before or lies within it."""
    for track in _by_track(events).values():
        open_: list[int] = []
        # Viewers sort by time and keep the file's order among equals.
        for event in sorted(track, key=lambda e: ns(e["ts"])):
            begin = ns(event["ts"])
            end = begin + ns(event["dur"])
            while open_ and open_[-1] <= begin:
                open_.pop()
            assert not open_ or end <= open_[-1], event
            open_.append(end)


def _nested_spans(events: Iterable[Event]) -> None:
    """Each `b` has its `e` with the same category, id and name, closed in reverse order."""
    spans = defaultdict(list)
    for event in events:
        if event["ph"] in "bne":
            spans[event["cat"], event["id2"]["local"], event["pid"]].append(event)
    for key, members in spans.items():
        stack: list[str] = []
        # Viewers sort by time and keep the file's order among equals.
        for event in sorted(members, key=lambda e: ns(e["ts"])):
            if event["ph"] == "b":
                stack.append(event["name"])
                continue
            assert stack, event
            if event["ph"] == "e":
                assert stack.pop() == event["name"], event
        assert not stack, (key, stack)


def _bound_flows(events: Iterable[Event]) -> None:
    """Each flow starts once and ends once, in order, and each of its ends lies in a slice."""
    begins: dict[tuple[int, int], list[tuple[int, int]]] = {
        track: sorted((ns(e["ts"]), ns(e["ts"]) + ns(e["dur"])) for e in members)
        for track, members in _by_track(events).items()
    }
    flows = defaultdict(list)
    for event in events:
        if event["ph"] in "stf":
            flows[event["cat"], event["id"]].append(event)
            at = ns(event["ts"])
            track = begins[event["pid"], event["tid"]]
            assert _covered(track, at), event
            assert event["ph"] == "s" or event["bp"] == "e"
    for key, members in flows.items():
        phases = [event["ph"] for event in sorted(members, key=lambda e: "stf".index(e["ph"]))]
        assert phases in (["s", "f"], ["s", "t", "f"]), (key, phases)
        times = [ns(e["ts"]) for e in sorted(members, key=lambda e: "stf".index(e["ph"]))]
        assert times == sorted(times), key


def _covered(track: list[tuple[int, int]], at: int) -> bool:
    from bisect import bisect_right

    place = bisect_right(track, (at, 1 << 62))
    return any(begin <= at <= end for begin, end in track[max(0, place - 64) : place])


def _counters(events: Iterable[Event]) -> None:
    """Numbers, of the same series each time, in order of time."""
    tracks = defaultdict(list)
    for event in events:
        if event["ph"] == "C":
            tracks[event["pid"], event["name"]].append(event)
    for members in tracks.values():
        assert len({tuple(e["args"]) for e in members}) == 1
        times = [ns(e["ts"]) for e in members]
        assert times == sorted(set(times))
        assert all(
            isinstance(v, int | float) and v >= 0 for e in members for v in e["args"].values()
        )
