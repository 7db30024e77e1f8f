"""Links and requests, and the arrows from what happened to what it led to."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .events import flow, named, nested, slices
from .lanes import lanes, titled
from .loop_tracks import LOOP_TID
from .rows import nanoseconds

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from .loop_tracks import Iterations
    from .rows import Columns
    from .window import Window

TRANSFERS = (
    "start_s", "end_s", "queued_s", "link", "bytes", "blocks", "reason", "request_id", "replica",
)  # fmt: skip
CARRIED = (
    "request_id", "arrival_s", "prompt_tokens", "output_tokens", "generated_tokens", "preemptions",
    "status", "session", "queue_ms", "ttft_ms", "tpot_ms", "e2el_ms", "cached_hbm_tokens",
    "cached_dram_tokens", "cached_ssd_tokens",
)  # fmt: skip
"""Columns that spans of requests carry."""
REQUESTS = (*CARRIED, "admitted_s", "first_token_s", "finished_s", "load_ms", "replica")
OWN_LINKS = ("h2d", "d2h")
"""Links of each GPU; the others are the host's."""
MARK = 1000
"""ns that the mark of an arrival is drawn long, or less, until the next one."""
ARRIVALS_TID = 1


class Links:
    """Transfers of all links, each link with as many tracks as it serves at once."""

    def __init__(self, pid: int, rows: Columns, several: bool) -> None:
        self.pid = pid
        begin, end = nanoseconds(rows["start_s"]), nanoseconds(rows["end_s"])
        order = np.argsort(begin, kind="stable")
        self.rows = {name: values[order] for name, values in rows.items()}
        self.begin, self.end = begin[order], end[order]
        self.tid = np.zeros(len(begin), np.int64)
        self.tracks: list[tuple[int, str]] = []
        for name, chosen in self._links(several):
            lane = lanes(self.begin[chosen], self.end[chosen])
            first = len(self.tracks) + 1
            self.tid[chosen] = first + lane
            said = titled(name, int(lane.max(initial=0)) + 1)
            self.tracks += list(enumerate(said, first))

    def _links(self, several: bool) -> Iterator[tuple[str, np.ndarray]]:
        link = [str(name) for name in self.rows.get("link", ["link"] * len(self.begin))]
        codes = {name: code for code, name in enumerate(sorted(set(link)))}
        coded = np.array([codes[name] for name in link])
        for name, code in codes.items():
            of_link = coded == code
            if several and name in OWN_LINKS and "replica" in self.rows:
                for number in np.unique(self.rows["replica"][of_link]).tolist():
                    yield f"{name} of replica {number}", of_link & (self.rows["replica"] == number)
            else:
                yield name, of_link

    def names(self) -> Iterator[str]:
        """Metadata of the tracks."""
        for tid, name in self.tracks:
            yield from named(self.pid, name, tid, tid)

    def slices(self) -> Iterator[str]:
        """A slice a transfer, called by its reason."""
        rows = self.rows
        reason = rows.get("reason", np.full(len(self.begin), "transfer"))
        carried = ("bytes", "blocks", "request_id")
        args: dict[str, np.ndarray] = {name: rows[name] for name in carried if name in rows}
        if "queued_s" in rows:
            args["queued_us"] = (rows["start_s"] - rows["queued_s"]) * 1e6
        length = self.end - self.begin
        yield from slices(list(reason), "transfer", self.begin, length, self.pid, self.tid, args)

    def flows(self, loops: Sequence[Iterations]) -> Iterator[str]:
        """From each transfer for a request to the first iteration that begins behind it."""
        if "request_id" not in self.rows:
            return
        mine = (self.rows["request_id"] >= 0) & (self.end > self.begin)
        for number, loop in enumerate(loops):
            chosen = mine & (self.rows.get("replica", np.zeros(len(mine))) == number)
            at = np.flatnonzero(loop.tid == LOOP_TID)
            next_ = loop.begin[at].searchsorted(self.end[chosen], "left")
            there = next_ < len(at)
            rows, goal = np.flatnonzero(chosen)[there], at[next_[there]]
            ids = 2 * rows + 1
            pid = np.full(len(rows), self.pid)
            yield from flow("s", "transfer", ids, self.begin[rows], pid, self.tid[rows])
            pid = np.full(len(rows), loop.pid)
            yield from flow("f", "transfer", ids, loop.begin[goal], pid, loop.tid[goal])


class Requests:
    """Requests as nested spans, cut at the ends of the window, and marks where they arrive."""

    def __init__(self, pid: int, rows: Columns, end_s: float, window: Window, delay: float) -> None:
        self.pid = pid
        self.delay = delay  # seconds from the end of an iteration until clients have its tokens
        order = np.argsort(rows["arrival_s"], kind="stable")
        self.rows = {name: values[order] for name, values in rows.items()}
        arrival = self.rows["arrival_s"].astype(float)
        self.id = self.rows.get("request_id", np.arange(len(order))).astype(np.int64)
        admitted, self.first, finished = (
            self.rows.get(name, np.full(len(order), np.nan)).astype(float)
            for name in ("admitted_s", "first_token_s", "finished_s")
        )
        status = self.rows.get("status", np.full(len(order), "finished"))
        cut = np.where(status == "rejected", arrival, np.maximum(end_s, arrival))
        self.last = np.where(np.isnan(finished), cut, finished)
        self.marked = window.within(arrival)
        self.told = window.within(self.first)
        self.arrival = nanoseconds(arrival)
        bounds = nanoseconds(np.array([window.begin, window.end]))
        edges = [self.arrival]
        for time in (admitted, self.first, self.last):
            # A phase that was not reached ends with the request.
            known = nanoseconds(np.where(np.isnan(time), self.last, time))
            edges.append(np.maximum(edges[-1], known))
        self.edges = [edge.clip(*bounds) for edge in edges]

    def names(self) -> Iterator[str]:
        """Metadata of the track of arrivals."""
        yield from named(self.pid, "arrivals", ARRIVALS_TID, ARRIVALS_TID)

    def spans(self) -> Iterator[str]:
        """queued, prefill and decode within each request; first tokens as instants."""
        arrival, admitted, first, last = self.edges
        ids, pid = self.id, self.pid
        args = {name: self.rows[name] for name in CARRIED if name in self.rows}
        yield from nested("b", "request", ids, arrival, pid, args)
        for name, begin, end in (
            ("queued", arrival, admitted), ("prefill", admitted, first), ("decode", first, last)
        ):  # fmt: skip
            some = end > begin
            more = {}
            if name == "prefill" and "load_ms" in self.rows:
                more = {"kv_load_ms": self.rows["load_ms"][some].astype(float)}
            yield from nested("b", name, ids[some], begin[some], pid, more)
            yield from nested("e", name, ids[some], end[some], pid)
        yield from nested("n", "first token", ids[self.told], first[self.told], pid)
        yield from nested("e", "request", ids, last, pid)

    def arrivals(self) -> Iterator[str]:
        """A short slice an arrival, for arrows to begin in."""
        begin = self.arrival[self.marked]
        unique, back = np.unique(begin, return_inverse=True)
        until = np.diff(np.append(unique, unique[-1:] + MARK)).clip(max=MARK)
        args = {"request_id": self.id[self.marked]}
        yield from slices("arrival", "mark", begin, until[back], self.pid, ARRIVALS_TID, args)

    def flows(self, loops: Sequence[Iterations]) -> Iterator[str]:
        """From each arrival to the iteration of the first token, and to that of the last; where
        one of them is not in the window, between the others."""
        for number, loop in enumerate(loops):
            mine = self.rows.get("replica", np.zeros(len(self.id))) == number
            rows = np.flatnonzero(mine)
            first = loop.at_end(self.first[rows] - self.delay, prefill=True)
            last = loop.at_end(self.last[rows] - self.delay, prefill=False)
            last[last == first] = -1
            there = np.stack([self.marked[rows], first >= 0, last >= 0])
            rows, first, last = (v[there.sum(axis=0) > 1] for v in (rows, first, last))
            there = there[:, there.sum(axis=0) > 1]
            pids = np.full(len(rows), self.pid), loop.pid
            begins = np.append(loop.begin, 0)  # that of number -1, which is asked for and not used
            tids = np.append(loop.tid, 0)
            points = (
                (self.arrival[rows], pids[0], np.full(len(rows), ARRIVALS_TID)),
                (begins[first], np.full(len(rows), pids[1]), tids[first]),
                (begins[last], np.full(len(rows), pids[1]), tids[last]),
            )
            for place, (time, pid, tid) in enumerate(points):
                before, after = there[:place].any(axis=0), there[place + 1 :].any(axis=0)
                for phase, chosen in (("s", ~before), ("t", before & after), ("f", ~after)):
                    at = np.flatnonzero(there[place] & chosen)
                    ids = 2 * self.id[rows[at]]
                    yield from flow(phase, "request", ids, time[at], pid[at], tid[at])
