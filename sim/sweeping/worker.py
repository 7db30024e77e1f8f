"""A point in a worker: computed beside its place and renamed; whatever goes wrong is told.

The one rule: no exception leaves, so that a bad point costs nobody else anything. Only the death of
the process is beyond it, and that is for the driver to notice.
"""

from __future__ import annotations

import os
import signal
import socket
import tempfile
import threading
import traceback
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sim.errors import InputError, shown
from sim.result import new_folder
from sim.simulate import run

from .point import is_done, point_id
from .release import check_release
from .task import Reply

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .task import Task


def compute(task: Task, scratch: str | None = None) -> Reply:
    """Computes one point; files that the driver is to write are made in *scratch*."""
    if task.guarded:
        from .alone import compute_alone

        return compute_alone(task, scratch)
    try:
        with _ends_with(task.driver) if task.driver else nullcontext():
            if task.release:
                _check_here(task)
            if _is_shared(task):
                run_point(task)
                return Reply(task.id, "done")
            return Reply(task.id, "done", files=_files(task, scratch))
    except Exception as error:
        return failed(task.id, error)


def failed(name: str, error: BaseException) -> Reply:
    """What to tell of the point *name* that *error* ended."""
    text = "".join(traceback.format_exception(error))
    return Reply(name, "failed", type(error).__name__, str(error), text)


def run_point(task: Task) -> None:
    """One point into its folder, unless another sweep has put it there meanwhile."""
    path = Path(task.points) / task.id
    if is_done(path):
        return
    try:
        with new_folder(path, owner=task.owner) as temporary:
            run(task.scenario, temporary)
    except InputError:
        if not is_done(path):
            raise


def start() -> None:
    """Makes a process a worker: Ctrl-C is the driver's business."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _is_shared(task: Task) -> bool:
    """Whether this process may write the point's folder itself."""
    if not task.release:  # on the driver's machine
        return True
    return not task.gather and os.path.exists(task.lease) and os.access(task.points, os.W_OK)


def _files(task: Task, scratch: str | None) -> dict[str, bytes]:
    """The files of a point, by name, from a folder that is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="residentsim-", dir=scratch) as folder:
        run(task.scenario, Path(folder))
        return {path.name: path.read_bytes() for path in sorted(Path(folder).iterdir())}


def _check_here(task: Task) -> None:
    """`InputError` unless this machine has the same code and the same files as the driver's."""
    host = socket.gethostname()
    check_release(task.release, host)
    for name in _named_files(task.scenario.model_dump()):
        if not os.access(name, os.R_OK):
            what = "cannot be read there; put it where every worker finds it under this name"
            raise InputError(f"worker {host}: {shown(name, 300)}: {what}")
    task.scenario.__dict__.pop("hash", None)  # it came along; here it is to be found out anew
    if point_id(task.scenario) != task.id:
        what = "has another trace or profile under the scenario's names; copy those of the driver"
        raise InputError(f"worker {host}: {what}")


def _named_files(node: Any) -> Iterator[str]:
    """Every absolute path in a scenario's data, as `load` has anchored them."""
    if isinstance(node, dict):
        node = list(node.values())
    if isinstance(node, list | tuple):
        for entry in node:
            yield from _named_files(entry)
    elif isinstance(node, str) and os.path.isabs(node):
        yield node


@contextmanager
def _ends_with(driver: int) -> Iterator[None]:
    """Ends this process when its parent is no longer *driver*, which may be killed outright."""
    over = threading.Event()

    def watch() -> None:
        while not over.wait(0.5):
            if os.getppid() != driver:
                os._exit(1)

    if os.getppid() != driver:
        os._exit(1)
    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()
