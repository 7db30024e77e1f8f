"""A point that could not be computed, as `failures/ID.json` records it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from sim.result import replace_json

if TYPE_CHECKING:
    from pathlib import Path

LOST = "ProcessLost"
"""The error of a point whose process died without a word: killed, out of memory, a segfault."""
_LONGEST = 200


@dataclass(frozen=True, slots=True)
class Failure:
    """Why the point *id* has no results: the type of the *error*, its *message* and *traceback*.

    *attempts* counts the tries of the sweep that recorded it.
    """

    id: str
    axes: dict[str, Any]
    replication: int
    error: str
    message: str
    traceback: str
    attempts: int = 1

    @property
    def is_input(self) -> bool:
        """Whether the user's input is at fault, not the program or the machine."""
        return self.error == "InputError"

    @property
    def where(self) -> str:
        """The point by its axes, in one line."""
        parts = [f"{axis}={value}" for axis, value in self.axes.items()]
        if self.replication:
            parts.append(f"replication {self.replication}")
        return _printable(", ".join(parts)) or self.id

    @property
    def what(self) -> str:
        """The last line of the traceback; of the user's faults, the findings."""
        message = "; ".join(self.message.splitlines())
        return _printable(message if self.is_input else f"{self.error}: {message}".rstrip(": "))

    def write(self, folder: Path) -> None:
        """Writes `ID.json` into *folder*, whole or not at all."""
        folder.mkdir(exist_ok=True)
        replace_json(folder / f"{self.id}.json", asdict(self))


def _printable(text: str) -> str:
    """*text* in one line without control characters, not too long."""
    text = "".join(c if c.isprintable() else " " for c in text)
    return text if len(text) <= _LONGEST else text[: _LONGEST - 3] + "..."
