"""What a file is, wherever it lies: its name and a digest of its content.

Scenarios are told apart by it, so that the same scenario has the same hash in every checkout, and a
run is not taken for done when its trace has changed.
"""

from __future__ import annotations

import hashlib
import os
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


def file_identity(path: str) -> str:
    """`name#digest` of the file at *path*; *path* itself if it is no file that can be read."""
    try:
        facts = os.stat(path)
        if not Path(path).is_file():
            return path
        return _identity(path, facts.st_size, facts.st_mtime_ns)
    except (OSError, ValueError):
        return path


def group_identity(name: str, paths: Sequence[Path]) -> str:
    """`name#digest` of several files together, by their names and contents."""
    text = "\n".join(sorted(file_identity(str(path)) for path in paths))
    return f"{name}#{hashlib.blake2b(text.encode(), digest_size=6).hexdigest()}"


@lru_cache(maxsize=256)
def _identity(path: str, size: int, changed: int) -> str:
    """Read once for all points of a study, as long as *size* and *changed* stay."""
    with Path(path).open("rb") as file:
        digest = hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=6))
    return f"{Path(path).name}#{digest.hexdigest()}"
