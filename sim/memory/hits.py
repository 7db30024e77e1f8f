"""What lookups found and how often units are used, counted."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from .units import NAMES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sim.request import Request

    from .held import Held
    from .units import Index, Unit


def count_hits(
    counts: Counter[str], index: Index, request: Request, held: Held, found: list[Unit]
) -> None:
    """A lookup by *request* that *found* units: in *counts*, and in the request by tier."""
    tokens, highest = index.unit_tokens, index.highest
    tiers = Counter(highest(unit) for unit in found)
    request.cached_hbm = tiers[1] * tokens
    request.cached_dram = tiers[2] * tokens
    request.cached_ssd = tiers[4] * tokens
    request.cached_remote = tiers[8] * tokens
    counts["lookups"] += 1
    counts["lookup_units"] += len(held.ids)
    counts["lookup_tokens"] += request.prompt_tokens
    counts["hits"] += bool(found)
    for tier, units in tiers.items():
        counts[f"hit_{NAMES[tier]}"] += units


def count_uses(units: Sequence[Unit], first: int, total: int, now: float) -> None:
    """A use of *units*, from place *first* on in a prompt of *total* units."""
    behind = total - first
    for unit in units:
        behind -= 1
        unit.behind = behind
        unit.uses += 1
        unit.last_use = now
        unit.score += 1.0
