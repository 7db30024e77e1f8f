"""What the two predictions of a step that a GPU measured share: its size, and how they answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from .modes import Modes

if TYPE_CHECKING:
    from .profile import Profile


@dataclass(frozen=True, slots=True, kw_only=True)
class StepShape:
    """A step of *batch* requests with *tokens* new tokens each behind *context* committed ones.

    *budget* is how many tokens a sparse step attends to, None for a dense one.
    """

    batch: int
    context: int
    budget: int | None = None
    tokens: int = 1
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
    """GPU time of each stage, gaps included; which stages there are is the prediction's."""


def modes_of(profile: Profile, mode: str) -> Modes:
    """The modes of a measured loop: it replays graphs from C, and its hosts schedule nothing."""
    modes = Modes(profile, "python" if mode == "host-python" else "c")
    modes.schedule_base = modes.schedule_each = 0.0
    return modes
