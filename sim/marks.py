"""Where things stand: the marks of a document's keys and values, and findings about them.

The one rule: a value keeps the mark of the file (or `--set`) that it came from, however documents
are merged, so that a finding leads to the line that is to mend.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from .node import Place


class Mark(NamedTuple):
    """Where something stands; line 0 is the command line, and *file* then its text."""

    file: str
    line: int = 0
    column: int = 0

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}" if self.line else self.file


class Finding(NamedTuple):
    """One thing to mend, ordered by where it stands."""

    mark: Mark
    text: str

    def __str__(self) -> str:
        return f"{self.mark}: {self.text}"


@dataclass(slots=True)
class Document:
    """Plain data and its marks; *bad* are the places whose findings are already known."""

    data: dict[str, Any] = field(default_factory=dict)
    values: dict[Place, Mark] = field(default_factory=dict)
    keys: dict[Place, Mark] = field(default_factory=dict)
    bad: set[Place] = field(default_factory=set)
    findings: list[Finding] = field(default_factory=list)

    def has(self, place: Place) -> bool:
        """Whether *place* exists in the data."""
        node: Any = self.data
        for step in place:
            match node:
                case dict() if step in node:
                    node = node[step]
                case list() if isinstance(step, int) and step < len(node):
                    node = node[step]
                case _:
                    return False
        return True

    def without(self, key: str) -> Document:
        """The document without one of its outermost keys."""
        return Document(
            {k: v for k, v in self.data.items() if k != key},
            {p: m for p, m in self.values.items() if p[:1] != (key,)},
            {p: m for p, m in self.keys.items() if p[:1] != (key,)},
            self.bad,
            self.findings,
        )

    def mark(self, place: Place, key: bool = False) -> Mark:
        """The mark of *place* (of its key, if *key*), or of its nearest parent that exists."""
        if key and place in self.keys:
            return self.keys[place]
        while place and not (place in self.values and self.has(place)):
            place = place[:-1]
        return self.values[place]
