"""How far a sweep is, on a terminal; nothing in a pipe."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from time import monotonic
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.progress import Progress, TaskID


class Count:
    """Points done, failed and left of those that a sweep has to compute."""

    def __init__(self, missing: int, bar: Progress | None, task: TaskID | None) -> None:
        self.done = self.failed = 0
        self._missing = missing
        self._bar, self._task = bar, task
        self._begin = monotonic()

    def add(self, failed: bool = False) -> None:
        """One point more has ended."""
        self.failed += failed
        self.done += not failed
        if self._bar is None or self._task is None:
            return
        ended = self.done + self.failed
        rate = ended / max(monotonic() - self._begin, 1e-9)
        said = [f"{self.done} done", f"{self._missing - ended} left", f"{rate:.3g} points/s"]
        if self.failed:
            said.insert(1, f"{self.failed} failed")
        self._bar.update(self._task, completed=ended, said=", ".join(said))

    def note(self, line: str) -> None:
        """Tells *line*, above the bar if there is one."""
        if self._bar is not None:
            self._bar.console.print(line, highlight=False, markup=False)
        else:
            print(line, file=sys.stderr, flush=True)


@contextmanager
def counted(total: int, missing: int, quiet: bool) -> Iterator[Count]:
    """Counts *missing* points of *total* behind a bar with the time that is left."""
    if quiet or not missing or not sys.stderr.isatty():
        yield Count(missing, None, None)
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    there = f", {total - missing} there already" if missing < total else ""
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[said]}"))
    left = (TimeRemainingColumn(), TextColumn("to go"))
    with Progress(*columns, *left, console=Console(stderr=True)) as bar:
        yield Count(missing, bar, bar.add_task(f"{missing} points{there}", total=missing, said=""))
