"""What the user brought is at fault: every reader and check of the project raises `InputError`.

The command line prints its lines, one finding each, and exits with 2; anything else that reaches
the top is a defect of ours and exits with 1.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


class InputError(ValueError):
    """One or more findings about the user's input, each one line: place, what, how to mend."""

    def __init__(self, lines: str | Sequence[str]) -> None:
        self.lines = lines.split("\n") if isinstance(lines, str) else list(lines)
        super().__init__("\n".join(self.lines))


def shown(value: object, limit: int = 60) -> str:
    """*value* as it may stand in a message: one line, printable, cut to *limit* characters."""
    text = repr(value) if not isinstance(value, str) or not value.isprintable() else f"'{value}'"
    return text if len(text) <= limit else text[: limit - 4] + "...'"
