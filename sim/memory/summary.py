"""What a run's summary says about KV: found where, moved how far, waited for how long.

One rule: every key begins with `kv_`, and the same keys are there for every run that keeps KV for
reuse or moves it.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from .links import use_of
from .movers import LINKS
from .units import HBM, NAMES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .links import Use
    from .manager import Memory
    from .stock import Tier

BELOW = tuple(name for bit, name in NAMES.items() if bit != HBM)


def summary(memories: Sequence[Memory], duration: float) -> dict[str, object]:
    """The keys for a run of *duration* seconds, over the replicas that *memories* are of.

    What replicas share counts once. The peak of tiers of their own is the sum of their peaks.
    """
    index = memories[0].index
    tokens = index.unit_tokens
    counts, stalls = Counter[str](), Counter[str]()
    for memory in memories:
        counts += memory.counts
        stalls += memory.stalls
    stall_s = {
        reason: sum(memory.stall_s[reason] for memory in memories) for reason in ("swap", "load")
    }
    hits = {name: counts[f"hit_{name}"] for name in NAMES.values()}
    found = sum(hits.values())
    tiers = _tiers(memories)
    lines = {line: None for memory in memories for line in memory.host.links.by_name.values()}
    uses = [use_of(line, duration) for line in lines]
    return {
        "kv_unit_tokens": tokens,
        "kv_prefix_lookups": counts["lookups"],
        "kv_prefix_lookups_hit": counts["hits"],
        "kv_prefix_lookup_units": counts["lookup_units"],
        "kv_prefix_hit_units": found,
        "kv_prefix_lookup_tokens": counts["lookup_tokens"],
        "kv_prefix_hit_tokens": found * tokens,
        "kv_prefix_hit_rate": found * tokens / (counts["lookup_tokens"] or 1),
        "kv_prefix_unit_hit_rate": found / (counts["lookup_units"] or 1),
        **_blocks(memories[0], counts),
        **{f"kv_hit_tokens_{name}": units * tokens for name, units in hits.items()},
        "kv_prefill_tokens_saved": counts["saved_tokens"],
        "kv_duplicate_units": counts["duplicates"],
        **{f"kv_evicted_units_{name}": counts[f"evicted_{name}"] for name in NAMES.values()},
        **{f"kv_demoted_units_{name}": counts[f"demoted_{name}"] for name in BELOW},
        **{f"kv_no_room_units_{name}": counts[f"no_room_{name}"] for name in BELOW},
        "kv_dropped_unsaved_units": counts["dropped_hbm"],
        "kv_promoted_units": counts["promoted"],
        "kv_promotions_put_off": counts["backpressure"],
        "kv_prefetched_units": counts["prefetch_issued"],
        "kv_prefetched_units_used": counts["prefetch_used"],
        "kv_prefetched_units_late": counts["prefetch_late"],
        "kv_prefetched_units_wasted": counts["prefetch_wasted"],
        "kv_swaps": counts["swaps"],
        "kv_swapped_blocks": counts["swapped_blocks"],
        "kv_swaps_lost": counts["swaps_lost"],
        "kv_swaps_without_room": counts["swaps_no_room"],
        "kv_swaps_dearer": counts["swaps_dearer"],
        "kv_stall_s": sum(stall_s.values()),
        **{f"kv_stall_{reason}_s": seconds for reason, seconds in stall_s.items()},
        **{f"kv_stalls_{reason}": stalls[reason] for reason in stall_s},
        "kv_loading_requests_left": sum(len(memory.loading) for memory in memories),
        **{
            f"kv_{name}_bytes_{what}": sum(getattr(tier, key) for tier in tiers[name])
            for name in BELOW
            for what, key in (("capacity", "capacity"), ("peak", "peak"), ("end", "used"))
        },
        "kv_hbm_cached_blocks_end": sum(
            len(memory.rooms.orders[HBM]) * index.unit_blocks for memory in memories
        ),
        **{f"kv_{link}_transfers": _sum(uses, link, "transfers", 0) for link in LINKS},
        **{f"kv_{link}_bytes": _sum(uses, link, "bytes", 0) for link in LINKS},
        **{f"kv_{link}_busy_s": _sum(uses, link, "busy_s", 0.0) for link in LINKS},
        **{f"kv_{link}_waited_s": _sum(uses, link, "waited_s", 0.0) for link in LINKS},
        "kv_transfers_end_s": max((use.last_end_s for use in uses), default=0.0),
        "kv_transfers_unfinished": sum(use.unfinished for use in uses),
        "kv_bytes_unfinished": sum(use.unfinished_bytes for use in uses),
    }


def _blocks(memory: Memory, counts: Counter[str]) -> dict[str, object]:
    """Hits by the trace's blocks, as `trace inspect` counts them; None where units are larger."""
    keys = ("kv_prefix_lookup_blocks", "kv_prefix_found_blocks", "kv_prefix_block_hit_rate")
    if not memory.sharing.tails.counts:
        return dict.fromkeys(keys)
    asked, found = counts["lookup_blocks"], counts["found_blocks"]
    return dict(zip(keys, (asked, found, found / (asked or 1)), strict=True))


def _tiers(memories: Sequence[Memory]) -> dict[str, list[Tier]]:
    """The tiers of that name, each of them once."""
    found: dict[str, dict[Tier, None]] = {name: {} for name in BELOW}
    for memory in memories:
        for tier in memory.rooms.tiers.values():
            found[tier.name][tier] = None
    return {name: list(tiers) for name, tiers in found.items()}


def _sum(uses: Sequence[Use], link: str, what: str, none: float) -> float:
    """Over all links of that name; *none* where there is none."""
    return sum((getattr(use, what) for use in uses if use.link == link), none)
