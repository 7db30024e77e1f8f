"""When each turn of a file can be sent, for whom it waits, and its place in the trace.

One rule: a turn comes after all those it waits for, in time and in place.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf, isfinite, isnan, nan
from typing import TYPE_CHECKING

import numpy as np

from sim.errors import InputError
from sim.rng import stream

from .bounds import MAX_SECONDS, RATE_PER_S
from .gaps import plain_gaps
from .lengths import in_range
from .naming import said
from .rows import BadRowError
from .waiting import Graph

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from .chunk import Tally
    from .held import Held
    from .rows import Findings
    from .turns import Replay


@dataclass(frozen=True, slots=True)
class Schedule:
    """The requests in order: `turns` their numbers in the file, the other columns beside it.

    `arrival_s`, `delay_s` and `recorded_s` as in `Chunk` and `Links`, [n]. `after` has the numbers
    of the turns for which a turn waits, `position` the place in the trace by number. `linked` says
    whether the file has sessions or dependencies at all.
    """

    turns: NDArray[np.intp]
    arrival_s: NDArray[np.float64]
    delay_s: NDArray[np.float64]
    recorded_s: NDArray[np.float64]
    after: dict[int, tuple[int, ...]]
    position: NDArray[np.int64]
    linked: bool


def schedule(held: Held, path: Path, findings: Findings, tally: Tally, replay: Replay) -> Schedule:
    """The schedule of all good turns; bad ones go to *findings*, which is to be checked."""
    linked = bool(held.waits) or any(held.session)
    graph = Graph.of(held, findings)
    findings.check()
    held.waits.clear()  # the graph has them
    clock = _Clock(held, graph, replay, _free_starts(held, graph, tally, replay))
    for turn in graph.roots():
        clock.root(turn, findings)
    for turn in graph.sequence:
        clock.waiting(turn, findings)
    clock.note(tally)
    ghosts = np.frombuffer(held.ghost, dtype=np.uint8) if held.ghost else np.zeros(0, np.uint8)
    gone = np.array(graph.left_out, dtype=bool)
    kept = np.flatnonzero(~gone & (ghosts == 0))
    earliest = np.array(clock.earliest, dtype=np.float64)
    level = np.array(clock.level, dtype=np.int64)
    kept = kept[np.lexsort((level[kept], earliest[kept]))]
    position = np.full(len(held), -1, dtype=np.int64)
    position[kept] = np.arange(len(kept))
    origin = earliest[kept[0]] if len(kept) else 0.0
    arrival_s = earliest[kept] - origin
    if len(kept) and arrival_s[-1] > MAX_SECONDS:
        late = int(np.searchsorted(arrival_s, MAX_SECONDS, side="right"))
        raise InputError(
            f"{said(path)}:{held.line[int(kept[late])]}: {arrival_s[late]:,.10g} s after the "
            f"first request, a trace spans at most {MAX_SECONDS:,.10g} s (31 years); correct the "
            "times or delete the row"
        )
    return Schedule(
        kept,
        arrival_s,
        np.array(clock.delay_s, dtype=np.float64)[kept],
        np.array(clock.time_s, dtype=np.float64)[kept] - origin,
        clock.after,
        position,
        linked,
    )


class _Clock:
    """Gives every turn its earliest time; those a turn waits for must have theirs before.

    `earliest` and `time_s` (the recorded time, nan for none) in seconds on the clock of the trace.
    `level` orders turns of the same earliest time, of which one waits for another.
    """

    def __init__(self, held: Held, graph: Graph, replay: Replay, starts: dict[int, _Start]) -> None:
        self._held = held
        self._graph = graph
        self._open = replay.sessions == "open"
        self._auto = replay.sessions == "auto"
        self.time_s = held.time_s.tolist()
        self._floor_s = held.not_before_s.tolist()
        self.earliest = held.time_s.tolist()
        for turn in graph.members(starts) if starts else ():
            start = starts[graph.group(turn)]
            self.time_s[turn] += start.shift_s
            self._floor_s[turn] += start.shift_s
            if isnan(self.time_s[turn]) and turn not in graph.waits:
                self.earliest[turn] = start.begin_s
            else:
                self.earliest[turn] = self.time_s[turn]
        self.level = [0] * len(held)
        self.delay_s = [0.0] * len(held)
        self.after: dict[int, tuple[int, ...]] = {}
        self._counts = dict.fromkeys(("closed", "open", "gaps", "back", "uneven"), 0)

    def _closed(self, turn: int) -> bool:
        if self._auto:
            return self._graph.group(turn) in self._graph.delayed
        return not self._open

    def root(self, turn: int, findings: Findings) -> None:
        """A turn that waits for nobody."""
        if isnan(self.earliest[turn]):
            self._leave_out(turn, findings, "no time and nothing to wait for; give it a time")

    def waiting(self, turn: int, findings: Findings) -> None:
        """A turn that waits for others, as it is to be replayed."""
        closed = self._closed(turn)
        self._counts["closed" if closed else "open"] += not self._held.ghost[turn]
        if closed:
            self._after_others(turn, findings)
        elif isnan(self.time_s[turn]):
            text = "no recorded time to replay it at; set trace.sessions: closed (--sessions)"
            self._leave_out(turn, findings, text)

    def _after_others(self, turn: int, findings: Findings) -> None:
        after: dict[int, None] = {}
        delays: list[float] = []
        earliest = self._floor_s[turn] if self._floor_s[turn] > 0 else -inf
        links = self._graph.waits[turn]
        gap_s = self._gap(turn) if any(isnan(delay_s) for _, delay_s, _ in links) else nan
        for other, given_s, sent in links:
            if self._graph.left_out[other]:
                findings.check()  # where it is an error, the first one is enough
                text = f"waits for {self._held.named(other)}, which is left out; delete the row"
                self._leave_out(turn, findings, text, "predecessor left out")
                return
            delay_s = gap_s if isnan(given_s) else given_s
            if isnan(delay_s):
                text = "neither a delay nor a time; give one of them"
                self._leave_out(turn, findings, text)
                return
            earliest = max(earliest, self.earliest[other] + delay_s)
            if not sent and not self._held.ghost[other]:
                after[other] = None
                delays.append(delay_s)
            elif other in self.after:
                # sent as soon as the other is, or would be: it waits for the same
                after.update(dict.fromkeys(self.after[other]))
                delays.append(self.delay_s[other] + delay_s)
        self._counts["uneven"] += len(set(delays)) > 1
        self.earliest[turn] = earliest
        if after:
            self.after[turn] = tuple(after)
            # Model: a request has one delay, from the last completion. Where the file has a delay
            # for each, the least: the others are in its earliest time.
            self.delay_s[turn] = min(delays)
        ties = (self.level[other] for other in after if self.earliest[other] == earliest)
        self.level[turn] = 1 + max(ties, default=-1)

    def _gap(self, turn: int) -> float:
        """Recorded seconds from the last start of those it waits for to its own; nan if unknown."""
        others = [self.time_s[other] for other, _, _ in self._graph.waits[turn]]
        if isnan(self.time_s[turn]) or any(isnan(time_s) for time_s in others):
            return nan
        gap_s = self.time_s[turn] - max(others)
        self._counts["gaps"] += 1
        self._counts["back"] += gap_s < 0
        return max(gap_s, 0.0)

    def _leave_out(self, turn: int, findings: Findings, text: str, reason: str = "no time") -> None:
        self._graph.left_out[turn] = True
        if not self._held.ghost[turn]:  # of a ghost it was told before
            findings.add(self._held.line[turn], BadRowError(reason, text))

    def note(self, tally: Tally) -> None:
        """Tell *tally* how the sessions are replayed."""
        count = self._counts
        if count["closed"]:
            tally.note(f"closed loop: {count['closed']:,} requests wait for answers to others")
        if count["open"]:
            tally.note(
                f"open loop: {count['open']:,} requests that follow others in a session are sent "
                "at their recorded times"
            )
        if count["gaps"]:
            tally.note(
                f"{count['gaps']:,} requests have no delay in the file: theirs is the recorded gap "
                "between starts, which holds the recorded service time too and so overstates the "
                "time to think"
            )
        if count["back"]:
            tally.note(f"{count['back']:,} requests start before those they wait for: delay 0")
        if count["uneven"]:
            tally.note(
                f"{count['uneven']:,} requests have several delays: the least counts from the last "
                "completion, the others are in the earliest time"
            )


@dataclass(frozen=True, slots=True)
class _Start:
    """When a group without a start begins, and what its own times are to be shifted by."""

    begin_s: float
    shift_s: float


def _free_starts(held: Held, graph: Graph, tally: Tally, replay: Replay) -> dict[int, _Start]:
    """The drawn starts of the groups that have none, in order of the file."""
    if replay.rate_per_s is None:
        return {}
    in_range("--session-rate (trace.session_arrivals)", replay.rate_per_s, *RATE_PER_S)
    gaps = plain_gaps(replay.rate_per_s, replay.arrivals, replay.burstiness)
    own: dict[int, float] = {}  # the first time of a group on its own clock
    for turn, free in enumerate(held.free):
        if free and not graph.left_out[turn]:
            time_s = inf if isnan(held.time_s[turn]) else held.time_s[turn]
            group = graph.group(turn)
            own[group] = min(own.get(group, inf), time_s)
    if not own:
        tally.note("the rate of sessions is not used: the file has their start times")
        return {}
    tally.note(
        f"the file has no start times of sessions: {len(own):,} drawn at {replay.rate_per_s:g} a "
        f"second ({replay.arrivals}, seed {replay.seed})"
    )
    others = [t for t, free in zip(held.time_s, held.free, strict=True) if not free]
    base_s = min((time_s for time_s in others if not isnan(time_s)), default=0.0)
    begins = base_s + np.cumsum(gaps(stream(replay.seed, "trace.sessions.starts"), len(own)))
    return {
        group: _Start(begin_s, begin_s - (first_s if isfinite(first_s) else 0.0))
        for (group, first_s), begin_s in zip(own.items(), begins.tolist(), strict=True)
    }
