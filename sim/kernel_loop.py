"""A step of the attention loop that `kernels/loop_control` runs, predicted from a profile.

No decoder: append KV, score pages, select, attend, verify and commit. The one rule: stages and
constants are the profile's, and the loop modes are those that whole models go through, so that what
the GPU measured of this small loop tests them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from .forms import SplitKv, StreamRows, Waves
from .modes import Modes
from .stages import Body, Pass, Stage

if TYPE_CHECKING:
    from .profile import Profile
    from .timing import Timing

MODES = ("host-python", "host-c", "graph", "resident")
ELEMENT_BYTES = 2.0  # cache, bounds and logits in bf16


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
    match mode:
        case "graph":
            return modes.graph(work, batch)
        case "resident":
            return modes.resident(work, batch)
        case _:
            return modes.host(work, batch)


def stage_seconds(profile: Profile, shape: LoopShape) -> dict[str, float]:
    """Seconds of each stage, in the order of a step; a dense one neither scores nor selects."""
    found = {"append": _append(profile, shape)}
    if shape.budget is not None:
        found["score"] = _score(profile, shape)
        found["select"] = _select(profile, shape)
    found["attend"] = _attend(profile, shape)
    found["verify"] = _verify(profile, shape)
    return found


def _append(profile: Profile, shape: LoopShape) -> float:
    form = profile.kernel("kv_append.bf16").form
    assert isinstance(form, StreamRows)
    rows = shape.batch * shape.kv_heads
    token = shape.head_dim * ELEMENT_BYTES
    # New rows of K and V read and written, the page's keys before them read, the bounds written.
    pages = 1.0 + (shape.tokens - 1.0) / shape.page_tokens
    before = (shape.page_tokens - 1.0) / 2.0
    return form.seconds(rows * token * (4.0 * shape.tokens + before + 2.0 * pages), rows)


def _score(profile: Profile, shape: LoopShape) -> float:
    """Bounds of every page, queries, page table and scores."""
    form = profile.kernel("page_score").form
    assert isinstance(form, StreamRows)
    rows, pages = shape.batch * shape.kv_heads, shape.batch * shape.pages
    bounds = pages * shape.kv_heads * 2.0 * shape.head_dim * ELEMENT_BYTES
    queries = shape.batch * shape.tokens * shape.heads * shape.head_dim * ELEMENT_BYTES
    return form.seconds(bounds + queries + 4.0 * pages * (shape.kv_heads + 1), rows)


def _select(profile: Profile, shape: LoopShape) -> float:
    form = profile.kernel("topk_select").form
    assert isinstance(form, Waves)
    return form.seconds(shape.batch * shape.kv_heads, shape.pages)


def _attend(profile: Profile, shape: LoopShape) -> float:
    form = profile.kernel("verify_attention.bf16").form
    assert isinstance(form, SplitKv)
    # Queries of all new tokens share a request's keys: they count as more heads.
    heads = shape.heads * shape.tokens
    total = float(shape.batch * shape.attended)
    return form.seconds(shape.batch, total, heads, shape.kv_heads, shape.head_dim)


def _verify(profile: Profile, shape: LoopShape) -> float:
    form = profile.kernel("verify_commit.greedy").form
    assert isinstance(form, StreamRows)
    rows = shape.batch * shape.tokens
    return form.seconds(rows * shape.vocabulary * ELEMENT_BYTES, rows)
