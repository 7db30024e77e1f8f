"""What computes tasks: a backend; here the one without workers, and how the others hand out work.

A backend answers each task with at most one reply, in any order, and leaves out what it lost
without knowing why; the driver asks again for what is missing.
"""

from __future__ import annotations

import queue
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Iterator

    from .lease import Lease
    from .task import Reply, Task


Note = Callable[[str], None]
"""Tells the user one line while the work goes on."""


class Backend(Protocol):
    """Where the points of a sweep are computed."""

    @property
    def remote(self) -> bool:
        """Whether the workers may be on other machines, and see other files."""
        ...

    @property
    def gather(self) -> bool:
        """Whether they send their files even if they see the study's folder."""
        ...

    def run(self, tasks: Iterable[Task], lease: Lease, note: Note) -> Generator[Reply]:
        """Computes *tasks*, taken as there is room; closing the iterator ends the work."""
        ...


class Here:
    """In this process, one point after another."""

    remote = False
    gather = False

    def run(self, tasks: Iterable[Task], lease: Lease, note: Note) -> Generator[Reply]:
        from .worker import compute

        for task in tasks:
            yield compute(task)


def handed_out(
    tasks: Iterable[Task],
    submit: Callable[[Task], Any],
    room: Callable[[], int],
    idle: Callable[[], None] = lambda: None,
    pending: dict[Any, Task] | None = None,
) -> Iterator[tuple[Task, Any]]:
    """Each task with its future once that is done; never more than *room* are out.

    So neither the driver nor a scheduler holds more than that. *idle* is called every second
    without news; *pending* holds what is out, for who has to call it off.
    """
    todo = iter(tasks)
    pending = {} if pending is None else pending
    done: queue.SimpleQueue[Any] = queue.SimpleQueue()
    while True:
        while len(pending) < room() and (task := next(todo, None)) is not None:
            future = submit(task)
            pending[future] = task
            future.add_done_callback(done.put)
        if not pending:
            return
        try:
            future = done.get(timeout=1.0)
        except queue.Empty:
            idle()
            continue
        yield pending.pop(future), future
