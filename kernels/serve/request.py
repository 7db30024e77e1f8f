"""A request inside the engine: what was asked, where it stands, and when it passed each station."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import nan


@dataclass(slots=True, eq=False)
class Request:
    """One request; times in seconds of the engine's clock, `nan` until passed."""

    id: int
    arrival: float
    prompt_tokens: int
    output_tokens: int
    generated: int = 0
    """Output tokens that the host holds."""
    prefilled: int = 0
    """Tokens of `prefill_tokens` computed since the last admission."""
    admitted: float = nan
    first_token: float = nan
    last_token: float = nan
    """When the last prompt of it was complete."""
    finished: float = nan
    preemptions: int = 0
    rejected: str = ""
    """Why it was turned away."""
    swapped: bool = False
    """Its keys and values lie in DRAM."""
    tokens: list[int] = field(default_factory=list)
    """The output so far; computed again after a preemption."""
    pages: list[int] = field(default_factory=list)
    """Physical pages, in order; kept by `slots.Slots`."""
    slot: int = -1
    """Where it decodes, -1 if it does not."""

    @property
    def prefill_tokens(self) -> int:
        """Tokens to prefill at an admission: the prompt and, after a preemption, its answer."""
        return self.prompt_tokens + self.generated

    @property
    def context_tokens(self) -> int:
        """Tokens whose keys are held while it decodes: the newest has none yet."""
        return self.prompt_tokens + self.generated - 1

    @property
    def final_context_tokens(self) -> int:
        """The same when the last token is there: the most it ever needs."""
        return self.prompt_tokens + self.output_tokens - 1

    @property
    def wanted(self) -> int:
        """Output tokens still to come."""
        return self.output_tokens - self.generated
