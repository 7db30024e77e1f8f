"""Workers of a Ray cluster, or of one that Ray starts on this machine."""

from __future__ import annotations

import logging
import os
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sim.errors import InputError, shown

from .task import Reply, lost

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Iterator

    from .backend import Note
    from .lease import Lease
    from .task import Task

LOCAL = "local"
"""The address that starts a cluster for this sweep alone."""


@dataclass(frozen=True, slots=True)
class Ray:
    """The cluster at *address* (`auto`, HOST:PORT, ray://...), or `local`."""

    address: str = LOCAL
    gather: bool = False

    @property
    def remote(self) -> bool:
        """Its workers may be anywhere."""
        return True

    def run(self, tasks: Iterable[Task], lease: Lease, note: Note) -> Generator[Reply]:
        from .backend import handed_out
        from .worker import compute

        pending: dict[Any, Task] = {}
        with self._cluster() as ray:
            remote = ray.remote(max_retries=0, num_cpus=1)(compute)
            room = max(2, 2 * int(ray.cluster_resources().get("CPU", 1)))
            refs: dict[Any, Any] = {}

            def submit(task: Task) -> Any:
                ref = remote.remote(task)
                future = ref.future()
                refs[future] = ref
                return future

            try:
                for task, future in handed_out(tasks, submit, lambda: room, pending=pending):
                    del refs[future]
                    yield _reply(task, future)
            finally:
                for future in pending:
                    ray.cancel(refs[future], force=True)

    @contextmanager
    def _cluster(self) -> Iterator[Any]:
        try:
            import ray
        except ImportError:
            what = "needs Ray; install it with `pip install 'residentsim[ray]'`"
            raise InputError(f"--ray {what}") from None
        paths = os.pathsep.join(path or os.getcwd() for path in sys.path)
        try:
            ray.init(
                address=self.address,
                include_dashboard=False if self.address == LOCAL else None,
                logging_level=logging.CRITICAL,
                log_to_driver=False,
                runtime_env={"env_vars": {"PYTHONPATH": paths}} if self.address == LOCAL else None,
            )
        except (OSError, ValueError, RuntimeError) as error:
            reason = shown(" ".join(str(error).split()), 160)
            what = f"no cluster answers there ({reason}); start one with `ray start --head`"
            raise InputError(f"--ray {shown(self.address)}: {what}") from None
        try:
            yield ray
        finally:
            ray.shutdown()


def _reply(task: Task, future: Any) -> Reply:
    from ray.exceptions import NodeDiedError, OutOfMemoryError, WorkerCrashedError

    from .worker import failed

    error = future.exception()
    if error is None:
        reply = future.result()
        assert isinstance(reply, Reply)
        return reply
    if isinstance(error, WorkerCrashedError | OutOfMemoryError | NodeDiedError):
        return lost(task.id)
    return failed(task.id, error)
