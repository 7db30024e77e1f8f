"""One decode step of the real decoder, predicted from a profile: what a measured step tests.

The one rule: stages and modes are those that scenarios go through; only what surrounds a step in a
serving engine, its scheduling on the CPU, is left out, because the measured loop has none.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from .decoder import GROUPS, DecoderStages
from .measured_step import Step, StepShape, modes_of

if TYPE_CHECKING:
    from .models import ModelShape
    from .profile import Profile
    from .stages import Pass

MODES = ("host-python", "host-c", "graph", "control", "resident")


@dataclass(frozen=True, slots=True)
class DecodeShape(StepShape):
    """A step of *model* on *kernels*, with *weights* and *kv* of these kinds."""

    model: ModelShape
    kernels: str = "library"
    weights: str = "bf16"
    kv: str = "bf16"


def predict(profile: Profile, shape: DecodeShape, mode: str) -> Step:
    """The step of *shape* in *mode*, one of `MODES`.

    Where the profile has no such loop, from kernels timed one by one and constants of empty ones;
    `InputError` if it lacks a kernel. The stages are over all layers, none for a resident step.
    """
    found = profile.loops.get(f"{mode}/{shape.kernels}")
    modes = modes_of(profile, mode)
    if found is not None:
        modes = modes.measured(found.parameters)
    place = "resident" if mode == "resident" else shape.kernels
    stages = DecoderStages(
        profile, shape.model, place, shape.weights, shape.kv, modes.node, shape.page_tokens
    )
    pages = None if shape.budget is None else float(shape.pages)
    rows = shape.batch * shape.tokens
    work = stages.work(shape.batch, rows, pages)
    selected = shape.budget is not None
    x = stages.attend(shape.batch, rows, float(shape.attended), selected)
    timing = modes.run(mode, work, shape.batch)
    if mode == "resident":
        return Step(timing.seconds(x), {})
    return Step(timing.seconds(x), _grouped(work, x))


def _grouped(work: Pass, attention: float) -> dict[str, float]:
    """Seconds of each of the decoder's stages, over all layers."""
    found: dict[str, float] = {}
    for stage in work.stages():
        name = GROUPS.get(stage.name, stage.name)
        found[name] = found.get(name, 0.0) + stage.seconds
    found["attend"] = found.get("attend", 0.0) + work.body.layers * attention
    return found
