"""How messages call a file: on one line, whatever its name is made of."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sim.errors import shown

if TYPE_CHECKING:
    from pathlib import Path


def said(path: Path | str) -> str:
    """*path* as it is, or escaped and in quotes if it holds line ends or the like."""
    text = str(path)
    return text if text.isprintable() else shown(text, 300)
