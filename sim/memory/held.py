"""What a request has to do with units: its prefix, what of it is in HBM, and what is on its way."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sim.request import Request

    from .units import Unit


@dataclass(slots=True, eq=False)
class Held:
    """Of one request, until it ends: *ids* of the whole units of its prompt, from the first.

    `units` are those it uses in HBM, a prefix of its prompt, complete or on their way there;
    `loads` the transfers that it waits for. While it is swapped out, `swapped` blocks that are
    its own lie in DRAM, behind its first `swap_units` units; `leaving` until they are out.
    """

    ids: list[int]
    blocks: int = 0
    """Blocks of the trace that the prompt has, the last one included if it is not full."""
    tail: int | None = None
    """Id of the block after the whole units, if there is one."""
    units: list[Unit] = field(default_factory=list)
    loads: list[Load] = field(default_factory=list)
    swapped: int = 0
    swap_units: int = 0
    leaving: bool = False
    resumes: bool = False
    """Whether it goes straight on to decode when its loads have ended."""
    counted: bool = False
    """Whether its lookup has been counted: once, not at every admission."""
    computed: bool = False
    """Whether the use of what it computed has been counted."""
    waits: bool = False
    """Whether it waits for a link to be less busy; until something has ended."""


@dataclass(slots=True, eq=False)
class Load:
    """A transfer into HBM: of *units*, or of a swapped request's own blocks if there are none.

    `waiters` go on when it has ended.
    """

    units: list[Unit]
    waiters: list[Request] = field(default_factory=list)
    prefetch: bool = False
