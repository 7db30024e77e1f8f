"""Worker processes on this machine, by joblib's loky.

When one of them dies, loky ends them all; which points were at work is told by their temporary
folders, and one of those is to blame.
"""

from __future__ import annotations

import os
import threading
import warnings
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from .task import lost

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Iterator

    from .backend import Note
    from .lease import Lease
    from .task import Reply, Task

IDLE_S = 60
"""Seconds after which a worker without work goes; until then the next points find it warm."""
_ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


def cores() -> int:
    """The cores that this process may use, by its affinity and its group's quota."""
    import joblib

    return int(joblib.cpu_count())


@dataclass(frozen=True, slots=True)
class Local:
    """*jobs* processes; a point that kills its own does not harm the driver, even with one job."""

    jobs: int

    @property
    def remote(self) -> bool:
        """They see what the driver sees."""
        return False

    @property
    def gather(self) -> bool:
        """They write in place."""
        return False

    def run(self, tasks: Iterable[Task], lease: Lease, note: Note) -> Generator[Reply]:
        from .backend import handed_out
        from .worker import compute, failed

        broken = threading.Event()
        whole = False
        driver = os.getpid()
        with _quiet():
            executor = _executor(self.jobs)
            try:
                for task, future in handed_out(
                    (replace(task, driver=driver) for task in tasks),
                    lambda task: executor.submit(compute, task),
                    lambda: 0 if broken.is_set() else self.jobs + 1,
                ):
                    error = future.exception()
                    if error is None:
                        yield future.result()
                    elif not _is_death(error):
                        yield failed(task.id, error)
                    else:
                        broken.set()
                        if task.id in lease.at_work():
                            yield lost(task.id)
                whole = not broken.is_set()
            finally:
                if not whole:
                    executor.shutdown(wait=True, kill_workers=True)


def _executor(jobs: int) -> Any:
    """As many workers as *jobs*; those of an earlier call if they still wait."""
    from joblib.externals.loky import get_reusable_executor

    from .worker import start

    return get_reusable_executor(
        max_workers=jobs, timeout=IDLE_S, initializer=start, env=_ONE_THREAD
    )


def _is_death(error: BaseException) -> bool:
    from joblib.externals.loky.process_executor import BrokenProcessPool, ShutdownExecutorError

    return isinstance(error, BrokenProcessPool | ShutdownExecutorError)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without loky's word that it replaces a worker that has grown, which harms nobody."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="A worker stopped while some jobs")
        yield
