"""What the tiers below HBM cost: copies, files, and how much a copy disturbs decode work.

Each function yields records, dicts of JSON values with `name`, axes, `bytes` and `seconds` (every
sample), until *deadline*, a time of `time.time`.
"""

from __future__ import annotations

import math
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import copies, files, interference

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..backend import Gpu


def measure_copies(gpu: Gpu, deadline: float = math.inf) -> Iterator[dict[str, Any]]:
    """Copies between pinned DRAM and HBM: copy engine, batched copies, gather kernel."""
    yield from copies.measure(gpu, deadline)


def measure_files(
    gpu: Gpu | None = None, deadline: float = math.inf, folder: Path | None = None
) -> Iterator[dict[str, Any]]:
    """Reads and writes past the page cache, in *folder* or where temporary files go; no GPU."""
    yield from files.measure(folder or Path(tempfile.gettempdir()), deadline)


def measure_interference(gpu: Gpu, deadline: float = math.inf) -> Iterator[dict[str, Any]]:
    """Decode-like work alone and beside each mover."""
    yield from interference.measure(gpu, deadline)
