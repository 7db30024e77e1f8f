"""A step of the attention loop that `kernels/loop_control` runs, predicted from a profile.

No decoder: append KV, score pages, select, attend, verify and commit. The one rule: stages and
constants are the profile's, and the loop modes are those that whole models go through, so that what
the GPU measured of this small loop tests them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from .cache_stages import CacheStages
from .modes import Modes
from .stages import Body, Pass, Stage

if TYPE_CHECKING:
    from .profile import Profile
    from .timing import Timing

MODES = ("host-python", "host-c", "graph", "resident")


@dataclass(frozen=True, slots=True)
class LoopShape:
    """One cell of the table: *batch* requests of *context* committed tokens each.

    A step brings *drafts* + 1 new tokens a request. *budget* is how many tokens a sparse step
    attends to, None for a dense one.
    """

    batch: int
    context: int
    budget: int | None
    drafts: int = 3
    heads: int = 32
    kv_heads: int = 8
    head_dim: int = 128
    page_tokens: int = 16
    vocabulary: int = 32_000

    @property
    def tokens(self) -> int:
        """New tokens of a request in a step."""
        return self.drafts + 1

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
    """GPU time of each stage in graph replay, the gap between nodes included."""


def predict(profile: Profile, shape: LoopShape, mode: str) -> Step:
    """The step of *shape* in *mode*, one of `MODES`; `InputError` if the profile lacks a kernel."""
    stages = stage_seconds(profile, shape)
    attend = stages["attend"]
    others = [Stage(name, seconds) for name, seconds in stages.items() if name != "attend"]
    before, after = tuple(others[:-1]), tuple(others[-1:])
    work = Pass(Body(shape.batch, (), before, after, 1), ())
    return Step(_timing(profile, work, shape.batch, mode).seconds(attend), stages)


def _timing(profile: Profile, work: Pass, batch: int, mode: str) -> Timing:
    # The measured loop replays its graphs from C, and its hosts schedule nothing between steps.
    modes = Modes(profile, "python" if mode == "host-python" else "c")
    modes.schedule_base = modes.schedule_each = 0.0
    return modes.run(mode, work, batch)


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
