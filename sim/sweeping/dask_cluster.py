"""Workers of a Dask cluster, on this machine or others, behind one scheduler's address.

Dask computes the tasks of a lost worker again by itself, and gives up one that has lost several.
"""

from __future__ import annotations

import logging
import pickle
import secrets
import time
import warnings
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sim.errors import InputError, shown

from .task import Reply, lost

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator

    from .backend import Note
    from .lease import Lease
    from .task import Task

CONNECT_S = 10
LEAST_OUT = 16
"""Tasks that a scheduler without workers gets: an adaptive cluster starts workers for them."""
_TO_AGREE = ("python", "dask", "distributed")


def opener() -> Callable[[bytes], bytes]:
    """What a worker runs: a function that travels as code and opens its task there.

    So a scheduler needs no simulator, and a worker without one says so instead of breaking down.
    """

    def opened(sent: bytes) -> bytes:
        import pickle

        from distributed import get_worker

        compute, task = pickle.loads(sent)
        return pickle.dumps(compute(task, get_worker().local_directory))  # which Dask clears

    return opened


@dataclass(frozen=True, slots=True)
class Dask:
    """The cluster of the scheduler at *address*, e.g. tcp://10.0.0.5:8786."""

    address: str
    gather: bool = False

    @property
    def remote(self) -> bool:
        """Its workers may be anywhere."""
        return True

    def run(self, tasks: Iterable[Task], lease: Lease, note: Note) -> Generator[Reply]:
        from .backend import handed_out
        from .worker import compute

        opened = opener()

        def submit(task: Task) -> Any:
            name = f"{task.id}-{secrets.token_hex(4)}"
            return client.submit(opened, pickle.dumps((compute, task)), key=name, pure=False)

        pending: dict[Any, Task] = {}
        with self._client() as client:
            watch = _Watch(client, self.address, note)
            try:
                for task, future in handed_out(
                    tasks,
                    submit,
                    watch.room,
                    watch.idle,
                    pending,
                ):
                    yield self._reply(task, future, client)
                    future.release()
            finally:
                if pending and client.status == "running":
                    client.cancel(list(pending), force=True)

    def _reply(self, task: Task, future: Any, client: Any) -> Reply:
        from distributed.scheduler import KilledWorker

        from .worker import failed

        if future.status == "finished":
            reply = pickle.loads(future.result())
            assert isinstance(reply, Reply)
            return reply
        if future.status == "cancelled" and client.status != "running":
            raise _gone(self.address)
        if future.status == "cancelled":  # by another client's restart of the cluster
            return lost(task.id)
        error = future.exception()
        if isinstance(error, KilledWorker):
            return lost(task.id, 1 + error.allowed_failures)
        if isinstance(error, ImportError):
            what = (
                f"a worker cannot load the simulator ({error}); install the same residentsim there"
            )
            return failed(task.id, InputError(f"--dask {self.address}: {what}"))
        return failed(task.id, error)

    @contextmanager
    def _client(self) -> Iterator[Any]:
        """A connection; `InputError` in one line if there is none, or versions disagree."""
        try:
            from distributed import Client
        except ImportError:
            what = "needs Dask; install it with `pip install 'residentsim[dask]'`"
            raise InputError(f"--dask {what}") from None
        log = logging.getLogger("distributed")
        before = log.level
        log.setLevel(logging.CRITICAL + 1)  # what matters is said in a line of ours
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                try:
                    connect: Any = Client  # which has no types
                    client = connect(self.address, timeout=CONNECT_S, set_as_default=False)
                except (OSError, ValueError, TypeError, RuntimeError, ImportError) as error:
                    reason = shown(" ".join(str(error).split()) or type(error).__name__, 160)
                    what = f"no scheduler answers there ({reason}); start one with `dask scheduler`"
                    raise InputError(f"--dask {shown(self.address)}: {what}") from None
                try:
                    self._check_versions(client)
                    yield client
                finally:
                    client.close(timeout=CONNECT_S)
        finally:
            log.setLevel(before)

    def _check_versions(self, client: Any) -> None:
        found = client.get_versions()
        ours = found["client"]["packages"]
        others = {"the scheduler": found["scheduler"], **found["workers"]}
        for place, facts in others.items():
            theirs = (facts or {}).get("packages", {})
            for name in _TO_AGREE:
                here, there = (_release(p.get(name), name) for p in (ours, theirs))
                if here != there:
                    who = place if place == "the scheduler" else f"worker {place}"
                    what = f"{name} is {here} here, but {there} on {who}; install the same on both"
                    raise InputError(f"--dask {self.address}: {what}")


def _release(version: str | None, name: str) -> str:
    """A version as far as it matters: of Python, the first two numbers."""
    return ".".join(str(version).split(".")[: 2 if name == "python" else None])


def _gone(address: str) -> InputError:
    what = "the scheduler is gone; finished points are kept, so start it and sweep again"
    return InputError(f"--dask {address}: {what}")


class _Watch:
    """How much a cluster takes, and what to tell while it does nothing."""

    def __init__(self, client: Any, address: str, note: Note) -> None:
        self._client = client
        self._address = address
        self._note = note
        self._asked = -10.0
        self._threads = 0
        self._waiting = False
        self._crowded = False

    def room(self) -> int:
        """Tasks that may be out: two a thread, so that none waits for the driver."""
        now = time.monotonic()
        if now - self._asked > 1.0:
            self._asked = now
            self._ask()
        return max(LEAST_OUT, 2 * self._threads)

    def idle(self) -> None:
        """A second without news."""
        self.room()
        if self._client.status == "closed":
            raise _gone(self._address)

    def _ask(self) -> None:
        try:
            threads = self._client.nthreads()
        except (OSError, RuntimeError, TimeoutError):
            return  # the connection is down: dask tries again, and cancels all if it cannot
        self._threads = sum(threads.values())
        if not threads and not self._waiting:
            self._note(f"{self._address} has no workers; waiting for some")
        self._waiting = not threads
        if not self._crowded and any(n > 1 for n in threads.values()):
            self._crowded = True
            what = "workers with several threads compute their points in turns"
            self._note(f"{self._address}: {what}; start them with `--nthreads 1`")
