"""One model in one loop: what the time of its passes depends on beside the requests.

The one rule: a model that drafts is a model like the one that verifies, with a setup of its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from .decoder import Commit
    from .models import ModelShape
    from .moe import Experts
    from .profile import Profile
    from .scenario import Loop
    from .selecting import Selecting


class Product(NamedTuple):
    """A matrix product behind the layers, of one row a request: *k* inputs, *n* outputs."""

    name: str
    k: int
    n: int


@dataclass(frozen=True, slots=True)
class Setup:
    """A model's shape and formats, the loop that it runs in, and what it does beside decoding."""

    profile: Profile
    loop: Loop
    shape: ModelShape
    weights: str
    kv_dtype: str
    page_tokens: int
    selecting: Selecting | None = None
    """None: every layer attends to the whole context."""
    commit: Commit | None = None
    """How drafts are judged; None where nobody drafts."""
    extra: tuple[Product, ...] = ()
    """What a pass runs behind its LM head."""
    between: bool = False
    """Whether its passes lie inside another model's iteration: not scheduled nor synchronised."""
    experts: Experts | None = None
    """Who is routed where; None for a dense model."""
