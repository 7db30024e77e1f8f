"""What a valid scenario still needs from the world: its files, its kernels, room in memory.

Checked before anything runs, so that a study does not fail at its last point.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from .dtypes import BITS
from .errors import InputError
from .profile import Profile, load_profile
from .simulate import hbm_blocks

if TYPE_CHECKING:
    from collections.abc import Callable

    from .node import Place
    from .scenario import Scenario


def faults(scenario: Scenario) -> list[tuple[Place, str]]:
    """Place and remedy of all that would stop a run of *scenario* before its first request."""
    found: list[tuple[Place, str]] = []
    file = scenario.trace.file
    if file is not None and not Path(file).exists():
        found.append((("trace", "file"), f"{file}: no such file; check the path"))
    try:
        profile = load_profile(scenario.hardware.profile)
    except InputError as error:
        return [*found, *((("hardware", "profile"), line) for line in error.lines)]
    for place, what, kernel in (
        (("model", "weights"), scenario.model.weights, profile.gemm),
        (("kv", "dtype"), scenario.kv.dtype, profile.decode_attention),
    ):
        able = [name for name in BITS if _has(kernel, name)]
        if what not in able:
            said = f"profile {profile.name} has no kernel for {what}; use {' or '.join(able)}"
            found.append((place, said))
    return found + _memory(scenario, profile)


def _has(kernel: Callable[[str], object], name: str) -> bool:
    try:
        kernel(name)
    except InputError:
        return False
    return True


def _memory(scenario: Scenario, profile: Profile) -> list[tuple[Place, str]]:
    try:
        hbm_blocks(scenario, profile)
    except InputError as error:
        place: Place = ("model",) if scenario.hardware.hbm.capacity is None else ("hardware", "hbm")
        return [(place, line) for line in error.lines]
    return []
