"""One decode step of the real decoder, predicted from a profile: what a measured step tests.

The one rule: stages and modes are those that scenarios go through; only what surrounds a step in a
serving engine, its scheduling on the CPU, is left out, because the measured loop has none.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from .decoder import GROUPS, DecoderStages
from .modes import Modes

if TYPE_CHECKING:
    from .models import ModelShape
    from .profile import Profile
    from .stages import Pass

MODES = ("host-python", "host-c", "graph", "control", "resident")


@dataclass(frozen=True, slots=True)
class DecodeShape:
    """A step of *batch* requests with *tokens* new tokens each behind *context* committed ones.

    *budget* is how many tokens a sparse step attends to, None for a dense one.
    """

    model: ModelShape
    batch: int
    context: int
    budget: int | None = None
    tokens: int = 1
    kernels: str = "library"
    weights: str = "bf16"
    kv: str = "bf16"
    page_tokens: int = 16

    @property
    def pages(self) -> int:
        """Pages of a request, those of the step's tokens included."""
        return -(-(self.context + self.tokens) // self.page_tokens)

    @property
    def attended(self) -> int:
        """Tokens that a request attends to."""
        seen = self.context + self.tokens
        return seen if self.budget is None else min(seen, self.budget)


class Step(NamedTuple):
    """A predicted step: its length and where it goes, in seconds."""

    seconds: float
    stages: dict[str, float]
    """GPU time of each stage over all layers, gaps included; empty for a resident step."""


def predict(profile: Profile, shape: DecodeShape, mode: str) -> Step:
    """The step of *shape* in *mode*, one of `MODES`.

    Where the profile has no such loop, from kernels timed one by one and constants of empty ones;
    `InputError` if it lacks a kernel.
    """
    found = profile.loops.get(f"{mode}/{shape.kernels}")
    modes = Modes(profile, "python" if mode == "host-python" else "c")
    modes.schedule_base = modes.schedule_each = 0.0
    if found is not None:
        modes = modes.measured(found.parameters)
    place = "resident" if mode == "resident" else shape.kernels
    stages = DecoderStages(
        profile, shape.model, place, shape.weights, shape.kv, modes.node, shape.page_tokens
    )
    pages = None if shape.budget is None else float(shape.pages)
    work = stages.work(shape.batch, shape.tokens, pages)
    selected = shape.budget is not None
    x = stages.attend(shape.batch, shape.tokens, float(shape.attended), selected)
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
