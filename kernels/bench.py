"""`python -m kernels bench`: checks and times every point of every kernel's grid, then fits.

One rule: a point that is on file is not measured again. Each point is one line, written when it is
done, so that a command may end at any moment and the next one goes on where it stopped. Points run
in an order drawn once, lest a drift of the machine pass for an effect of size; about a tenth is
measured a second time when a folder is through, which gives the repeatability floor.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import multiprocessing
import statistics
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .bench_worker import GpuMachine, Job, Machine, digest, plain, reason, serve
from .fit.samples import Samples, SamplesError, identity, read
from .machine import commit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

HERE = Path(__file__).parent
ORDER_SEED = "order-1"
AGAIN_SHARE = 0.1
POINT_LIMIT_S, MEASURE_LIMIT_S, START_LIMIT_S = 60.0, 240.0, 180.0
GUESS_S, START_S = 0.5, 6.0
"""Seconds for a point nobody has measured yet, and for starting a folder's process."""
RESTARTS = 12
REPEATED = ("measure_constants",)
"""Of the functions that yield records, those that are called a second time."""
GRACE_S = 25.0
"""How long the last job may run on when the time is up; then it is stopped, and not recorded."""


@dataclass(slots=True)
class Folder:
    """What is left to do in one kernel's folder."""

    name: str
    jobs: list[Job] = field(default_factory=list)
    done: int = 0
    guess_s: float = 0.0
    broken: str = ""

    @property
    def left(self) -> int:
        """How many jobs have neither succeeded nor failed."""
        return len(self.jobs)


def discover(package: str, only: Iterable[str] = ()) -> list[str]:
    """Folders of *package* with a `bench.py`, sorted; `SamplesError` for a strange name."""
    top = Path(importlib.import_module(package).__path__[0])
    found = sorted(path.parent.name for path in top.glob("*/bench.py"))
    strange = sorted(set(only) - set(found))
    if strange:
        raise SamplesError(f"--only {' '.join(strange)}: no such folder; use {' '.join(found)}")
    return [name for name in found if not only or name in only]


def plan(
    package: str, names: Sequence[str], samples: Samples, most: int | None = None
) -> list[Folder]:
    """The jobs of each folder that *samples* does not answer yet, in the order drawn for them.

    *most* limits a folder to the first points drawn.
    """
    return [_folder(package, name, samples, most) for name in names]


def _folder(package: str, name: str, samples: Samples, most: int | None) -> Folder:
    folder = Folder(name)
    try:
        module = importlib.import_module(f"{package}.{name}.bench")
        points = [plain(dict(point)) for point in module.points()] if _has_grid(module) else []
    except Exception as error:
        folder.broken = reason(error)
        return folder
    measures = sorted(word for word in vars(module) if word.startswith("measure_"))
    twice = [measure for measure in measures if measure in REPEATED]
    jobs: list[Job] = []
    for again in (False, True):
        jobs += [
            Job(0, None, measure, again)
            for measure in (twice if again else measures)
            if (name, measure, again) not in samples.records
            or (not again and (name, measure) in samples.incomplete)
        ]
        known = samples.repeats if again else samples.points
        drawn = sorted(points, key=lambda point: _order(name, point, again))
        drawn = [point for point in drawn if not again or is_repeated(name, point)][:most]
        jobs += [
            Job(0, point, "", again) for point in drawn if (name, identity(point)) not in known
        ]
    folder.jobs = [Job(index, job.point, job.measure, job.again) for index, job in enumerate(jobs)]
    folder.done = sum(
        key[0] == name for found in (samples.points, samples.repeats) for key in found
    ) + sum(key[0] == name for key in samples.records)
    took = [point.took for key, point in samples.points.items() if key[0] == name]
    each = statistics.mean(took) if took else GUESS_S
    folder.guess_s = START_S * bool(jobs) + sum(
        each if job.point is not None else samples.took.get((name, job.measure), 20.0)
        for job in jobs
    )
    return folder


def _has_grid(module: Any) -> bool:
    return hasattr(module, "points") and hasattr(module, "prepare")


def _order(name: str, point: Mapping[str, Any], again: bool) -> str:
    text = f"{ORDER_SEED}|{again}|{digest(name, point)}"
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def is_repeated(name: str, point: Mapping[str, Any]) -> bool:
    """Whether *point* is one of the tenth that is measured twice."""
    text = f"again|{digest(name, point)}"
    drawn = int.from_bytes(hashlib.blake2b(text.encode(), digest_size=4).digest(), "big")
    return drawn < AGAIN_SHARE * 2**32


class Bench:
    """One command: what it writes and when it has to stop."""

    def __init__(
        self,
        file: Path,
        budget_s: float,
        package: str,
        open_machine: Callable[[], Machine] = GpuMachine,
        head: Mapping[str, Any] | None = None,
    ) -> None:
        self.file, self.package, self.open_machine = file, package, open_machine
        self.start = time.time()
        self.deadline = self.start + budget_s
        self.head = dict(head or {})
        self.announced = False
        self.lines = 0

    def measure(self, folders: Sequence[Folder]) -> None:
        """Does the jobs of *folders* until the time is up; failures are noted, never raised."""
        for folder in folders:
            if folder.broken:
                print(f"{folder.name:20s} BROKEN: {folder.broken}", file=sys.stderr)
            elif folder.jobs and time.time() < self.deadline:
                self._folder(folder)

    def _folder(self, folder: Folder) -> None:
        """One folder in processes of its own: another is started where one was lost."""
        start, failures, done = time.time(), Counter[str](), 0
        for _ in range(RESTARTS):
            jobs = list(folder.jobs)
            before = len(jobs)
            done += self._process(folder, jobs, failures)
            out_of_time = time.time() > self.deadline
            if not folder.jobs or folder.broken or out_of_time or len(folder.jobs) == before:
                break
        took = time.time() - start
        failed = failures.total()
        each = f"{took / max(done, 1):.2f} s each"
        print(
            f"{folder.name:20s} {done:4d} done, {failed:3d} failed, {folder.left:4d} left, "
            f"{took:6.1f} s, {each}",
            flush=True,
        )
        for why, count in failures.most_common(5):
            print(f"    {count:4d} x {why}", flush=True)

    def _process(self, folder: Folder, jobs: list[Job], failures: Counter[str]) -> int:
        """Lets one process work on *jobs*; takes those that ended off `folder.jobs`."""
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe(duplex=False)
        arguments = (theirs, self.package, folder.name, jobs, self.deadline, self.open_machine)
        process = context.Process(target=serve, args=arguments, daemon=True)
        process.start()
        theirs.close()
        by_index = {job.index: job for job in jobs}
        current: Job | None = None
        done, limit, what = 0, START_LIMIT_S, ""
        while what not in ("end", "lost", "broken", "gone", "late"):
            what, index, body = self._next(ours, process, limit)
            if what == "facts":
                self._announce(body)
            elif what == "start":
                current = by_index[index]
                limit = POINT_LIMIT_S if current.point is not None else MEASURE_LIMIT_S
            elif what == "cubins":
                self._write({"kind": "cubins", "kernel": folder.name, "cubins": body})
            elif what in ("done", "failed", "gone") and current is not None:
                failures.update([] if what == "done" else [body])
                ended = _done if what == "done" else _failed
                self._write(ended(folder.name, current, body))
                folder.jobs.remove(current)
                done += what == "done"
                current = None
            elif what in ("broken", "gone"):
                folder.broken = "" if done else body
                failures[body] += 1
        if what in ("gone", "late"):
            process.kill()
        process.join()
        ours.close()
        folder.done += done
        return done

    def _next(self, pipe: Any, process: Any, limit: float) -> tuple[str, int, Any]:
        """The worker's next answer; `gone` if it died or hangs, `late` if the time is long up."""
        overtime = self.deadline + GRACE_S - time.time()
        try:
            if pipe.poll(max(0.0, min(limit, overtime))):
                answer: tuple[str, int, Any] = pipe.recv()
                return answer
        except (EOFError, OSError):
            process.join(5.0)
            return "gone", -1, f"its process ended with code {process.exitcode}"
        if overtime < limit:
            return "late", -1, None
        return "gone", -1, f"no answer within {limit:.0f} s"

    def _announce(self, facts: Mapping[str, Any]) -> None:
        """The header of this command, written by the first process that opened the GPU."""
        if not self.announced:
            now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
            found = {"device": facts, "date": now, "commit": self.head.get("commit")}
            self._write({"kind": "run", **found})
            self.announced = True

    def _write(self, entry: Mapping[str, Any]) -> None:
        text = json.dumps(entry, separators=(",", ":"), allow_nan=False) + "\n"
        if not self.lines:
            text = _mended(self.file) + text
        with self.file.open("a", encoding="utf-8") as file:
            file.write(text)
        self.lines += 1


def _mended(file: Path) -> str:
    """Cuts off a line that a killed run broke off at the end of *file*; returns nothing to add."""
    if not file.exists():
        return ""
    raw = file.read_bytes()
    whole = raw.rfind(b"\n") + 1
    if whole < len(raw):
        try:
            json.loads(raw[whole:])
        except ValueError:
            with file.open("r+b") as handle:
                handle.truncate(whole)
            return ""
        return "\n"
    return ""


def _done(name: str, job: Job, body: Mapping[str, Any]) -> dict[str, Any]:
    if job.point is None:
        return {
            "kind": "records", "kernel": name, "measure": job.measure, "again": job.again, **body,
        }  # fmt: skip
    return {"kind": "point", "kernel": name, "point": job.point, "again": job.again, **body}


def _failed(name: str, job: Job, why: str) -> dict[str, Any]:
    point = job.point if job.point is not None else {"measure": job.measure}
    return {"kind": "failed", "kernel": name, "point": point, "again": job.again, "reason": why}


def describe(folders: Sequence[Folder]) -> None:
    """Prints what is left and about how long it takes."""
    for folder in folders:
        if folder.broken:
            print(f"{folder.name:20s} BROKEN: {folder.broken}")
        else:
            print(
                f"{folder.name:20s} {folder.done:4d} on file, {folder.left:4d} to go, "
                f"about {folder.guess_s:4.0f} s"
            )
    total = sum(folder.guess_s for folder in folders)
    left = sum(folder.left for folder in folders)
    print(f"{'all':20s} {left:4d} to go, about {total:.0f} s ({total / 60:.1f} min)", flush=True)


def on_file(file: Path) -> Samples:
    """What *file* holds already; nothing if there is none. Raises `SamplesError`."""
    if file.suffix == ".gz":
        raise SamplesError(f"{file}: packed; measure into a plain .jsonl file and pack it after")
    return read(file) if file.exists() else Samples()


def where_from() -> str | None:
    """The commit of this checkout, None without git."""
    return commit(HERE)
