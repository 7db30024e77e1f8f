"""A step of the attention loop that `kernels/loop_control` runs, predicted from a profile.

No decoder: append KV, score pages, select, attend, verify and commit. The one rule: stages and
constants are the profile's, and the loop modes are those that whole models go through, so that what
the GPU measured of this small loop tests them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from .cache_stages import CacheStages
from .measured_step import Step, StepShape, modes_of
from .stages import Body, Pass, Stage

if TYPE_CHECKING:
    from .profile import Profile

MODES = ("host-python", "host-c", "graph", "resident")


@dataclass(frozen=True, slots=True, kw_only=True)
class LoopShape(StepShape):
    """One cell of the table; a step brings a request its token and three drafts."""

    tokens: int = 4
    heads: int = 32
    kv_heads: int = 8
    head_dim: int = 128
    vocabulary: int = 32_000


def predict(profile: Profile, shape: LoopShape, mode: str) -> Step:
    """The step of *shape* in *mode*, one of `MODES`; `InputError` if the profile lacks a kernel.

    The stages are as in graph replay, whatever the mode.
    """
    stages = stage_seconds(profile, shape)
    attend = stages["attend"]
    others = [Stage(name, seconds) for name, seconds in stages.items() if name != "attend"]
    before, after = tuple(others[:-1]), tuple(others[-1:])
    work = Pass(Body(shape.batch, (), before, after, 1), ())
    timing = modes_of(profile, mode).run(mode, work, shape.batch)
    return Step(timing.seconds(attend), stages)


def stage_seconds(profile: Profile, shape: LoopShape) -> dict[str, float]:
    """Seconds of each stage, in the order of a step; a dense one neither scores nor selects."""
    stages = CacheStages(
        profile, shape.batch, shape.tokens, shape.heads, shape.kv_heads, shape.head_dim,
        shape.page_tokens,
    )  # fmt: skip
    found = {"append": stages.append()}
    if shape.budget is not None:
        found["score"] = stages.score(shape.pages)
        found["select"] = stages.select(shape.pages)
    found["attend"] = stages.attend(shape.attended)
    found["verify"] = stages.verify(shape.vocabulary)
    return found
