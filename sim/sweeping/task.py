"""What goes to a worker and what comes back: one point, and a word about it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from .failure import LOST

if TYPE_CHECKING:
    from sim.scenario import Scenario


@dataclass(frozen=True, slots=True)
class Task:
    """One point to compute: its *scenario* into the folder `points/id`.

    *owner* is the token of the sweep, which its temporary folders carry, and *lease* the file that
    a worker finds if it sees the study's folder. A worker on another machine gets the *release*
    that computes the same results, and sends the files if it cannot see the folder or is told to
    *gather*. *driver* is the process whose end ends the work; 0 for none. A *guarded* task has a
    process of its own below the worker.
    """

    id: str
    scenario: Scenario
    points: str
    owner: str
    lease: str
    release: tuple[str, ...] = ()
    gather: bool = False
    guarded: bool = False
    driver: int = 0


@dataclass(frozen=True, slots=True)
class Reply:
    """How a task ended; `lost` says that its process died, *losses* how often."""

    id: str
    kind: Literal["done", "failed", "lost"]
    error: str = ""
    message: str = ""
    traceback: str = ""
    losses: int = 0
    files: dict[str, bytes] | None = field(default=None, repr=False)
    """What the driver is to write, by name; None if the worker has written the point's folder."""


def lost(name: str, losses: int = 1) -> Reply:
    """What to tell of the point *name* that was at work in workers that died."""
    return Reply(name, "lost", LOST, "the worker that computed it died", losses=losses)
