"""Progress on a terminal; nothing in a pipe."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from time import perf_counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .scenario import Scenario
    from .simulate import Progress


@contextmanager
def watched(scenario: Scenario, quiet: bool = False) -> Iterator[Progress | None]:
    """A progress bar with simulated time, requests done and speed, or None."""
    if quiet or not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[said]}"))
    begin = perf_counter()
    with Progress(*columns, TimeElapsedColumn(), console=Console(stderr=True)) as bar:
        trace = scenario.trace
        fewer = trace.window or trace.thin or trace.replica  # how many, nobody knows yet
        task = bar.add_task(scenario.name, total=None if fewer else trace.requests, said="")

        def show(simulated: float, arrived: int, ended: int) -> None:
            speed = ended / max(perf_counter() - begin, 1e-9)
            said = f"{simulated:,.0f} s simulated, {ended:,} requests done, {speed:,.0f} /s"
            bar.update(task, completed=ended, said=said)

        yield show
