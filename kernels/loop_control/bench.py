"""What the loop's driver measures: constants of control, and the loop table."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from . import constants
from .table import MODES, measure_table, points

if TYPE_CHECKING:
    from ..backend import Gpu

__all__ = ["MODES", "measure_constants", "measure_table", "points"]


def measure_constants(gpu: Gpu) -> dict[str, Any]:
    """Raw samples in seconds of everything in `constants`, by name."""
    return {
        "barrier": constants.barriers(gpu),
        "nodes": constants.nodes(gpu),
        "launch": constants.launches(gpu),
        "mailbox": constants.mailbox_round_trip(gpu),
        "control": constants.control(gpu),
        "leaving": constants.leaving(gpu),
    }
