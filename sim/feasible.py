"""What a valid scenario still needs from the world: its files, its kernels, room in memory.

Checked before anything runs, so that a study does not fail at its last point.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from . import speculative_checks, step_cost
from .dtypes import BITS
from .errors import InputError
from .fleet import hbm_blocks
from .memory.movers import moving
from .profile import Profile, load_profile
from .tiers import LINKS, TIERS, memory_options
from .units import bytes_text

if TYPE_CHECKING:
    from collections.abc import Callable

    from .node import Place
    from .scenario import Scenario


def faults(scenario: Scenario) -> list[tuple[Place, str]]:
    """Place and remedy of all that would stop a run of *scenario* before its first request."""
    found: list[tuple[Place, str]] = []
    trace = scenario.trace
    files: list[tuple[Place, str | None]] = [(("trace", "file"), trace.file)]
    files += [(("trace", "merge", i, "file"), p.file) for i, p in enumerate(trace.merge or ())]
    for place, file in files:
        if file is not None and not Path(file).exists():
            found.append((place, f"{file}: no such file; check the path"))
    found += speculative_checks.faults(scenario)
    try:
        profile = load_profile(scenario.hardware.profile)
    except InputError as error:
        return [*found, *((("hardware", "profile"), line) for line in error.lines)]
    found += step_cost.faults(scenario, profile)
    if profile.steps is not None:
        return found
    for place, what, kernel in (
        (("model", "weights"), scenario.model.weights, profile.gemm),
        (("kv", "dtype"), scenario.kv.dtype, profile.decode_attention),
    ):
        able = [name for name in BITS if _has(kernel, name)]
        if what not in able:
            said = f"profile {profile.name} has no kernel for {what}; use {' or '.join(able)}"
            found.append((place, said))
    return found + _memory(scenario, profile) + _tiers(scenario, profile)


def warnings(scenario: Scenario) -> list[str]:
    """What runs, but may not be meant: `Scenario.warnings`, and more HBM than the GPU has."""
    lines, capacity = scenario.warnings(), scenario.hardware.hbm.capacity
    profile = load_profile(scenario.hardware.profile)
    if capacity is not None and capacity > profile.device["hbm_bytes"]:
        has = bytes_text(profile.device["hbm_bytes"])
        what = f"{bytes_text(capacity)} is more than the {has} of {profile.name}"
        lines.append(f"hardware.hbm.capacity: {what}; null takes what the profile says")
    return lines


def _has(kernel: Callable[[str], object], name: str) -> bool:
    try:
        kernel(name)
    except InputError:
        return False
    return True


def _tiers(scenario: Scenario, profile: Profile) -> list[tuple[Place, str]]:
    """What the tiers below HBM and the cache of prefixes lack."""
    found: list[tuple[Place, str]] = []
    hardware, kv = scenario.hardware, scenario.kv
    options = memory_options(hardware, kv)
    for tier in TIERS:
        store = getattr(hardware, tier)
        if store is None:
            continue
        block = scenario.model.shape.kv_bytes_per_token(options.bits[tier]) * kv.block_tokens
        size = store.capacity * store.share / scenario.replicas.parts
        if size < block:
            what = f"{bytes_text(size)} hold no KV block of {bytes_text(block)}; give it more"
            found.append((("hardware", tier), what))
    if hardware.dram is not None:
        links = [name for tier, names in LINKS.items() if getattr(hardware, tier) for name in names]
        try:
            moving(profile, links, mover=options.mover, given=options.links)
        except InputError as error:
            found += [(("hardware", "mover"), line) for line in error.lines]
    trace, block = scenario.trace.block_tokens, kv.block_tokens
    if kv.prefix_cache and trace is not None and trace % block and block % trace:
        what = f"{block}, and trace.block_tokens is {trace}: one must be a multiple of the other"
        what += "; choose kv.block_tokens accordingly, or kv.prefix_cache: false"
        found.append((("kv", "block_tokens"), what))
    return found


def _memory(scenario: Scenario, profile: Profile) -> list[tuple[Place, str]]:
    try:
        hbm_blocks(scenario, profile)
    except InputError as error:
        place: Place = ("model",) if scenario.hardware.hbm.capacity is None else ("hardware", "hbm")
        return [(place, line) for line in error.lines]
    return []
