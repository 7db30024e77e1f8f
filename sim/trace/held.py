"""All turns of a file as columns, before their order is known.

Turns come one by one and name those they wait for; here they become numbers: turn i is the file's
i-th, and `waits[i]` says for which others it waits.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sim.errors import shown

from .idruns import Dense, IdRuns
from .rows import BadRowError

if TYPE_CHECKING:
    from collections.abc import Hashable

    from .rows import Findings
    from .turns import Turn, Wait


@dataclass(slots=True)
class Held:
    """The turns as columns; all but `waits` and `at` have one entry a turn.

    `time_s`, `delay_s` and `not_before_s` as in `Turn`. `session` numbers of `names`, whose first
    is "". `free` and `ghost` are flags. `waits` has only the turns that wait.
    """

    line: array[int] = field(default_factory=lambda: array("q"))
    prompt: array[int] = field(default_factory=lambda: array("q"))
    output: array[int] = field(default_factory=lambda: array("q"))
    time_s: array[float] = field(default_factory=lambda: array("d"))
    not_before_s: array[float] = field(default_factory=lambda: array("d"))
    session: array[int] = field(default_factory=lambda: array("q"))
    free: bytearray = field(default_factory=bytearray)
    ghost: bytearray = field(default_factory=bytearray)
    waits: dict[int, tuple[Wait, ...]] = field(default_factory=dict)
    at: dict[Hashable, int] = field(default_factory=dict)
    names: list[str] = field(default_factory=lambda: [""])
    ids: IdRuns = field(default_factory=IdRuns)
    with_ids: bool = False
    _numbers: dict[str, int] = field(default_factory=lambda: {"": 0})
    _dense: Dense = field(default_factory=Dense)
    _keys: list[Hashable] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.line)

    def add(self, turn: Turn, findings: Findings) -> None:
        """Take the file's next turn, unless its key has been there."""
        before = self.at.setdefault(turn.key, len(self))
        if before != len(self):
            text = f"{named(turn.key)} is the name of line {self.line[before]} already; rename one"
            findings.add(turn.line, BadRowError("duplicate name", text))
            return
        if waits := turn.all_waits():
            self.waits[len(self)] = waits
        self.line.append(turn.line)
        self.prompt.append(turn.prompt)
        self.output.append(turn.output)
        self.time_s.append(turn.time_s)
        self.not_before_s.append(turn.not_before_s)
        self.free.append(turn.free_start)
        self.ghost.append(turn.ghost)
        number = self._numbers.setdefault(turn.session, len(self.names))
        if number == len(self.names):
            self.names.append(turn.session)
        self.session.append(number)
        if turn.ids is not None and not turn.ghost:
            self.with_ids = True
        if turn.ids is not None and turn.local_ids and not turn.ghost:
            self.ids.add(self._dense.ids(turn.session, turn.ids))
        else:
            self.ids.add(None if turn.ghost else turn.ids)

    def named(self, turn: int) -> str:
        """What messages call turn number *turn*."""
        if not self._keys:
            self._keys = list(self.at)  # as many as turns, in their order
        return named(self._keys[turn])


def named(key: Hashable) -> str:
    """What messages call the turn of *key*; readers' own keys are pairs, or numbers."""
    return shown(key) if isinstance(key, str) else "a turn"
