"""One decode step's account: where its time went, from a record of measured steps.

One rule: the wall time is divided without a rest. What no stage, barrier or known cost of control
explains stands there as *not accounted*, negative where the parts overlap.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from .shape import READ_BANDWIDTH, SHAPES, Shape
from .timeline import TAIL, WAIT

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

WEIGHT_BITS = {"bf16": 16, "w4a16": 4}
KV_BITS = {"bf16": 16, "int8": 8}


@dataclass(frozen=True, slots=True)
class Ceiling:
    """The best that a kernel which only reads has reached, and where that comes from."""

    bytes_per_s: float
    note: str
    constants: Mapping[str, float]
    """Costs of control in seconds by the profile's names."""
    loops: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """The profile's loops: what a whole step costs in each mode beside its stages."""


@dataclass(frozen=True, slots=True)
class Stage:
    """A stage over all layers of one step."""

    name: str
    seconds: float
    bytes: float | None
    """Weights or cache that it must read; None where only activations pass through."""
    tail: float = 0.0
    """Seconds from the mean end of an SM to the last end, not part of `seconds`."""
    wait: float = 0.0
    """Seconds at the barrier before it."""


@dataclass(frozen=True, slots=True)
class Account:
    """The parts of a step; seconds and bytes a step."""

    record: Mapping[str, Any]
    wall: float
    low: float
    high: float
    """10th and 90th percentile of the wall time."""
    stages: tuple[Stage, ...]
    bytes: float
    """All that a step must read: weights, caches, page bounds."""
    ceiling: Ceiling
    control: tuple[tuple[str, float, str], ...]
    """(what, seconds, `measured` or `estimated`) of waits and control outside the stages."""

    @property
    def floor(self) -> float:
        """Seconds that reading takes at the ceiling."""
        return self.bytes / self.ceiling.bytes_per_s

    @property
    def busy(self) -> float:
        """Seconds in stages, tails included."""
        return sum(stage.seconds + stage.tail for stage in self.stages)

    @property
    def controlled(self) -> float:
        """Seconds of barriers and control."""
        return sum(seconds for _, seconds, _ in self.control)

    @property
    def rest(self) -> float | None:
        """What nothing explains; None where no stage was timed."""
        return self.wall - self.busy - self.controlled if self.stages else None


def account(record: Mapping[str, Any], ceiling: Ceiling | None = None) -> Account:
    """The account of *record* (a `step` of the decode records).

    Raises `ValueError` or `KeyError` if the record lacks what makes a step.
    """
    ceiling = ceiling or read_ceiling(None)
    samples = np.array(record["seconds"], float)
    if not len(samples) or not (samples > 0.0).all():
        raise ValueError("a step without wall seconds")
    low, wall, high = (float(v) for v in np.percentile(samples, (10, 50, 90)))
    needed = stage_bytes(record)
    times = record.get("stages") or {}
    if "score" not in times and "score" in needed:
        needed["attend"] += needed.pop("score")  # timed as one
    stages = _stages(times, needed)
    control = _control(record, stages, ceiling.constants)
    return Account(record, wall, low, high, stages, sum(needed.values()), ceiling, control)


# ------------------------------------------------------------------------------ bytes
def stage_bytes(record: Mapping[str, Any]) -> dict[str, float]:
    """Bytes that each stage of a step must read, over all layers."""
    shape = SHAPES[str(record["model"])]
    bits = WEIGHT_BITS[str(record.get("weights", "bf16"))]
    found = {
        name: float(shape.layers * _matrix_bytes(shape, n, k, bits))
        for name, (n, k) in shape.products.items()
    }
    norm = 2.0 * shape.hidden
    found["qkv"] += shape.layers * norm
    found["gate_up"] += shape.layers * norm
    found["head"] = _matrix_bytes(shape, shape.vocabulary, shape.hidden, bits) + norm
    batch, context = int(record["batch"]), int(record["context"])
    budget, page = int(record.get("budget_tokens") or 0), int(record.get("page_tokens") or 16)
    sparse = 0 < budget < context
    kept = budget if sparse else context
    found["attend"] = float(batch * shape.kv_bytes(kept, KV_BITS[str(record.get("kv", "bf16"))]))
    if sparse:
        bounds = 2 * 2 * shape.kv_heads * shape.head_dim
        found["score"] = float(batch * shape.layers * -(-context // page) * bounds)
    return found


def _matrix_bytes(shape: Shape, n: int, k: int, bits: int) -> float:
    """A product's weights as they lie in memory; the packed form from the shape's own count."""
    if bits == 16:
        return 2.0 * n * k
    whole = sum(shape.layers * a * b for a, b in shape.products.values())
    whole += shape.vocabulary * shape.hidden
    norms = 2 * shape.hidden * (2 * shape.layers + 1)
    return (shape.bytes_streamed(bits) - norms) * (n * k / whole)


def read_ceiling(profile: Path | None) -> Ceiling:
    """The read ceiling and the costs of control in *profile*; without one an earlier run's.

    Raises `OSError` or `ValueError` if the file is no profile.
    """
    if profile is None:
        return Ceiling(READ_BANDWIDTH, "of an earlier run", {})
    found = json.loads(profile.read_text(encoding="utf-8"))
    try:
        constants = found["constants"]
        entry = constants["hbm_read_bytes_per_s"]
        seconds = {
            name: float(one["value"]) for name, one in constants.items() if name.endswith("_s")
        }
        note = f"{entry['kind']}, profile {found['name']}"
        return Ceiling(float(entry["value"]), note, seconds, dict(found.get("loops", {})))
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError(f"no profile with hbm_read_bytes_per_s: {error}") from None


# ------------------------------------------------------------------------------ parts
def _stages(times: Mapping[str, float], needed: Mapping[str, float]) -> tuple[Stage, ...]:
    return tuple(
        Stage(
            name, float(seconds), needed.get(name),
            float(times.get(name + TAIL, 0.0)), float(times.get(name + WAIT, 0.0)),
        )
        for name, seconds in times.items()
        if not name.endswith((WAIT, TAIL)) and name != "barrier"
    )  # fmt: skip


def _control(
    record: Mapping[str, Any], stages: tuple[Stage, ...], at: Mapping[str, float]
) -> tuple[tuple[str, float, str], ...]:
    """Waits as the kernel's clock saw them, else what the profile's constants say."""
    found: list[tuple[str, float, str]] = []
    barriers = record.get("barriers")
    waits = sum(stage.wait for stage in stages)
    waits += float((record.get("stages") or {}).get("barrier", 0.0))
    if waits > 0.0:
        found.append((f"barriers ({barriers or 'uncounted'})", waits, "measured"))
    elif barriers and "grid_barrier_s" in at:
        found.append((f"barriers ({barriers})", barriers * at["grid_barrier_s"], "estimated"))
    work = sum(stage.seconds + stage.tail for stage in stages)
    return (*found, *_host_costs(record, work, at))


def _host_costs(
    record: Mapping[str, Any], work: float, at: Mapping[str, float]
) -> list[tuple[str, float, str]]:
    """Submission as the record has it, synchronisation and copy-back as the profile says.

    The gaps between nodes are in the stages, which are timed as nodes of graphs.
    """
    mode, nodes = str(record["mode"]), int(record.get("nodes") or 0)
    names = {
        "host-python": ("host_python_submit_s", "host_sync_s", "host_copyback_s"),
        "host-c": ("host_c_submit_s", "host_c_sync_s", "host_c_copyback_s"),
        "graph": ("host_c_graph_launch_s", "host_c_copyback_s"),
    }.get(mode, ())
    if not names or not set(names) <= at.keys():
        return []
    if mode == "graph":
        launch, copy = (at[name] for name in names)
        return [("graph launch and synchronise", launch, "estimated"),
                ("copy-back", copy, "estimated")]  # fmt: skip
    found = [("synchronise and copy-back", at[names[1]] + at[names[2]], "estimated")]
    if nodes:
        kind = "measured" if record.get("submit_s") else "estimated"
        whole = float(record.get("submit_s") or nodes * at[names[0]])
        # Launches hide behind work that is longer than they are.
        shown = max(whole / nodes, whole - work)
        found.insert(0, (f"submission of {nodes}, not hidden", shown, kind))
    return found
