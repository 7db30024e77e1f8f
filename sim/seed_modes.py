"""The benchmark modes of the first seed as scenarios: which there are, and their files.

The one rule: like for like. All modes play the same requests with the same draws; a mode's file
changes what its name says and nothing else.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from .load import load
from .study import Point

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .load import Faults

FOLDER = Path(__file__).parent / "seeds"
MODES = (
    "serial_decode",
    "speculative_decode",
    "forced_rejection",
    "kv_pressure",
    "mega_kernel_sim",
    "sparse_kv_megakernel",
    "block_speculative",
    "block_speculative_persistent_sim",
    "block_speculative_host_orchestrated",
)
OPTIONAL = ("speculation", "sparse")
"""Sections that not all modes have."""
STUDY = "seeds"


def points(overrides: Sequence[str] = (), faults: Faults | None = None) -> list[Point]:
    """A point a mode, with *overrides* such as 'trace.requests=20' on top.

    An override of a section in `OPTIONAL` goes to the modes that have it. Raises `InputError` as
    `load` does.
    """
    found = []
    for mode in MODES:
        path = FOLDER / f"{mode}.yaml"
        plain = load(path)
        fit = [text for text in overrides if _has(plain, text.partition(".")[0])]
        scenario = load(path, fit, faults) if fit else plain
        found.append(Point({"mode": mode}, scenario.model_copy(update={"name": STUDY})))
    return found


def _has(scenario: object, section: str) -> bool:
    return section not in OPTIONAL or getattr(scenario, section) is not None
