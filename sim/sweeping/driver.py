"""All points of a study, each in a folder of its own; what is there already is not run again.

A point's folder appears complete or not at all, so the folders are the record of what is done, and
every round asks them what is missing. A point that fails is recorded in `failures` and tried again
by the next sweep. One that was at work when a worker died is tried again in a process of its own,
beside the others and at last by itself; if that process dies too, it is the culprit.
"""

from __future__ import annotations

import time
from collections import Counter
from contextlib import closing, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sim.errors import InputError
from sim.result import replace_json

from .backend import Here
from .failure import Failure
from .lease import Lease
from .point import done_of, fill, point_id
from .progress import Count, counted
from .release import release
from .task import Reply, Task, lost

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from sim.study import Point, Study

    from .backend import Backend

TRIES = 3
"""Processes that a point may lose, and rounds that may come to nothing, before it runs alone."""


SEEN_S = 5.0
"""Seconds until a folder that a worker has written is seen here, over a network."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """The ids of the points whose results are there and the failures, in the points' order."""

    done: list[str]
    failed: list[Failure]

    @property
    def exit_code(self) -> int:
        """0 if all is done, 2 if the user's input is at fault where it is not, else 1."""
        if not self.failed:
            return 0
        return 2 if all(failure.is_input for failure in self.failed) else 1


def run_study(
    study: Study, folder: Path, *, backend: Backend | None = None, quiet: bool = False
) -> Outcome:
    """`run_points` for all points of *study*, with its `study.json`; not into a run's folder."""
    if (folder / "summary.json").exists():
        raise InputError(f"{folder}: holds a run; give the study another folder (--out)")
    with Lease(folder) as lease:
        replace_json(folder / "study.json", study.manifest())
        return _Sweep(study.points, lease, backend or Here(), quiet).run()


def run_points(
    points: Sequence[Point], folder: Path, *, backend: Backend | None = None, quiet: bool = False
) -> Outcome:
    """Computes what is missing of *points* in *folder*/points; without a *backend*, here, in turn.

    Whatever ends it (an exception, Ctrl-C), finished points stay and nothing half-done does. Raises
    `InputError` if the folder cannot be written or holds a damaged point, or if a cluster cannot be
    reached; what is wrong with single points is in the outcome and in *folder*/failures.
    """
    with Lease(folder) as lease:
        return _Sweep(points, lease, backend or Here(), quiet).run()


class _Sweep:
    """One way through *points*, under the *lease* of their folder."""

    def __init__(
        self, points: Sequence[Point], lease: Lease, backend: Backend, quiet: bool
    ) -> None:
        self._lease = lease
        self._backend = backend
        self._quiet = quiet
        self._points = {point_id(point.scenario): point for point in points}
        self._places = lease.folder / "points"
        self._failures = lease.folder / "failures"
        self._failed: dict[str, Failure] = {}
        self._losses: Counter[str] = Counter()
        self._lost: dict[str, Reply] = {}
        self._release: tuple[str, ...] = ()

    def run(self) -> Outcome:
        """Round after round until every point is done or has failed."""
        others = self._lease.clear_dead()
        missing = self._missing(self._points)
        if others:
            missing.reverse()  # so that two sweeps meet in the middle
        if missing and self._backend.remote:
            self._release = release()
        try:
            with counted(len(self._points), len(missing), self._quiet) as count:
                self._rounds(missing, count)
        finally:
            self._forget_failures()
        lacking = set(self._lacking())
        return Outcome(
            [name for name in self._points if name not in lacking],
            [self._failed[name] for name in self._points if name in self._failed],
        )

    def _lacking(self) -> list[str]:
        """The points without a folder, each of which has failed."""
        deadline = time.monotonic() + SEEN_S
        while True:
            lacking = self._missing(self._points)
            if all(name in self._failed for name in lacking):
                return lacking
            if time.monotonic() > deadline:
                break
            time.sleep(0.2)
        for name in lacking:
            if name not in self._failed:
                what = f"a worker has written it, but it is not in {self._places}"
                self._record(Reply(name, "failed", "FileNotFoundError", what, what))
        return lacking

    def _missing(self, names: Iterable[str]) -> list[str]:
        """Those of *names* without a folder."""
        done = done_of(names, self._places)
        return [name for name in names if name not in done]

    def _rounds(self, missing: list[str], count: Count) -> None:
        fruitless = 0
        while missing and fruitless < TRIES:
            # What was at work when a worker died goes last, under guard: it may do so again.
            pooled = [name for name in missing if self._losses[name] < TRIES]
            if not pooled:
                break
            pooled.sort(key=self._losses.__getitem__)
            settled, blamed = self._round(pooled, count)
            fruitless = 0 if settled or blamed else fruitless + 1
            self._lease.clear({self._lease.owner})
            missing = self._missing([name for name in missing if name not in settled])
        for name in missing:
            self._losses[name] = max(self._losses[name], TRIES)
            if not self._round([name], count)[0]:
                self._settle(self._lost.get(name, lost(name, 0)), count)

    def _round(self, names: list[str], count: Count) -> tuple[set[str], bool]:
        """One pass through the backend; those of *names* that it settled, and if some were lost."""
        settled = set()
        blamed = False
        tasks = (self._task(name) for name in names)
        with closing(self._backend.run(tasks, self._lease, count.note)) as replies:
            for reply in replies:
                if reply.kind == "lost":
                    self._losses[reply.id] += reply.losses
                    self._lost[reply.id] = reply
                    blamed = True
                else:
                    self._settle(reply, count)
                    settled.add(reply.id)
        return settled, blamed

    def _task(self, name: str) -> Task:
        return Task(
            name,
            self._points[name].scenario,
            str(self._places),
            self._lease.owner,
            str(self._lease.path),
            self._release,
            self._backend.gather,
            guarded=self._losses[name] > 0,
        )

    def _settle(self, reply: Reply, count: Count) -> None:
        """Writes what a worker sent, or why it has nothing to send."""
        if reply.kind == "done":
            if reply.files is not None:
                fill(self._places / reply.id, reply.files, self._lease.owner)
        else:
            self._record(reply)
        count.add(failed=reply.kind != "done")

    def _record(self, reply: Reply) -> None:
        point = self._points[reply.id]
        failure = Failure(
            reply.id,
            point.axes,
            point.replication,
            reply.error,
            reply.message,
            reply.traceback,
            self._losses[reply.id] + (reply.kind == "failed"),
        )
        self._failed[reply.id] = failure
        failure.write(self._failures)

    def _forget_failures(self) -> None:
        """Removes the records of points that are there by now."""
        if not self._failures.is_dir():
            return
        for path in self._failures.glob("*.json"):
            if path.stem in self._points and (self._places / path.stem).is_dir():
                path.unlink(missing_ok=True)
        with suppress(OSError):
            self._failures.rmdir()  # if it is empty
