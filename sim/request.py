"""A request on its way: what was asked, where it stands, and when it passed each station.

Nothing is stored twice: lengths that follow from others are properties.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from math import nan
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .memory.held import Held


class Status(Enum):
    """Where a request ended."""

    UNFINISHED = "unfinished"
    FINISHED = "finished"
    REJECTED = "rejected"


class Reason(Enum):
    """Why a request was rejected."""

    EXCEEDS_MODEL_CONTEXT = "exceeds_model_context"
    EXCEEDS_KV_CAPACITY = "exceeds_kv_capacity"


@dataclass(slots=True, eq=False)
class Request:
    """One request; times in seconds since the first arrival of the trace, `nan` until passed.

    `id` is its position in the trace, `arrival` the time at which the engine gets to know of it: of
    one that waits for answers, the earliest until they are there.
    """

    id: int
    arrival: float
    prompt_tokens: int
    output_tokens: int
    status: Status = Status.UNFINISHED
    reason: Reason | None = None
    generated: int = 0
    """Output tokens committed. While it decodes, the decoding set knows the present number."""
    prefilled: int = 0
    """Tokens of `prefill_tokens` whose KV has been computed since the last admission."""
    admitted: float = nan
    first_token: float = nan
    last_token: float = nan
    """Time of the newest committed token that the loop has recorded for this request alone."""
    finished: float = nan
    preemptions: int = 0
    session: str = ""
    """Name of the session it belongs to, "" for none."""
    waits_for: int = 0
    """How many answers it was sent after."""
    think: float = 0.0
    """Seconds from the last of these answers until the client sends it, as the trace has it."""
    cached_hbm: int = 0
    """Prompt tokens that the first admission found in HBM; likewise in the tiers below."""
    cached_dram: int = 0
    cached_ssd: int = 0
    cached_remote: int = 0
    load_s: float = 0.0
    """Seconds it held its place and waited for KV from a lower tier."""
    sent: float = nan
    """When the client sent it, where the engine knows of it later than that."""
    replica: int = 0
    """The one it was sent to."""
    kv: Held | None = None
    """What it has to do with KV that is shared or moves; kept until it ends."""
    spec: Any = None
    """What its speculator remembers of it, from its first decode iteration on."""
    drafts: int = 0
    """Steps in which something was drafted; then tokens drafted, and of these accepted."""
    draft_tokens: int = 0
    accepted_tokens: int = 0

    @property
    def prefill_tokens(self) -> int:
        """Tokens to prefill at an admission: the prompt and, after a preemption, its answer."""
        return self.prompt_tokens + self.generated

    @property
    def context_tokens(self) -> int:
        """KV entries held while decoding; the newest token has none before it is fed back."""
        return self.prompt_tokens + self.generated - 1

    @property
    def final_context_tokens(self) -> int:
        """KV entries held when the last token is committed: the most it ever needs."""
        return self.prompt_tokens + self.output_tokens - 1
