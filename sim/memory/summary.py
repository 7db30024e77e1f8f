"""What a run's summary says about KV: found where, moved how far, waited for how long.

One rule: every key begins with `kv_`, and the same keys are there for every run that keeps KV for
reuse or moves it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .movers import LINKS
from .units import HBM, NAMES

if TYPE_CHECKING:
    from .manager import Memory

BELOW = tuple(name for bit, name in NAMES.items() if bit != HBM)


def summary(memory: Memory, duration: float) -> dict[str, object]:
    """The keys for a run of *duration* seconds."""
    counts, index, rooms = memory.counts, memory.index, memory.rooms
    tokens = index.unit_tokens
    hits = {name: counts[f"hit_{name}"] for name in NAMES.values()}
    found = sum(hits.values())
    tiers = {tier.name: tier for tier in rooms.tiers.values()}
    uses = {use.link: use for use in memory.host.links.use(duration)}
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
        **_blocks(memory),
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
        "kv_stall_s": sum(memory.stall_s.values()),
        **{f"kv_stall_{reason}_s": seconds for reason, seconds in memory.stall_s.items()},
        **{f"kv_stalls_{reason}": memory.stalls[reason] for reason in memory.stall_s},
        "kv_loading_requests_left": len(memory.loading),
        **{
            f"kv_{tier}_bytes_{what}": getattr(tiers[tier], key) if tier in tiers else 0
            for tier in BELOW
            for what, key in (("capacity", "capacity"), ("peak", "peak"), ("end", "used"))
        },
        "kv_hbm_cached_blocks_end": len(rooms.orders[HBM]) * index.unit_blocks,
        **{f"kv_{link}_transfers": uses[link].transfers if link in uses else 0 for link in LINKS},
        **{f"kv_{link}_bytes": uses[link].bytes if link in uses else 0 for link in LINKS},
        **{f"kv_{link}_busy_s": uses[link].busy_s if link in uses else 0.0 for link in LINKS},
        **{f"kv_{link}_waited_s": uses[link].waited_s if link in uses else 0.0 for link in LINKS},
        "kv_transfers_end_s": max((use.last_end_s for use in uses.values()), default=0.0),
        "kv_transfers_unfinished": sum(use.unfinished for use in uses.values()),
        "kv_bytes_unfinished": sum(use.unfinished_bytes for use in uses.values()),
    }


def _blocks(memory: Memory) -> dict[str, object]:
    """Hits by the trace's blocks, as `trace inspect` counts them; None where units are larger."""
    keys = ("kv_prefix_lookup_blocks", "kv_prefix_found_blocks", "kv_prefix_block_hit_rate")
    if not memory.sharing.tails.counts:
        return dict.fromkeys(keys)
    asked, found = memory.counts["lookup_blocks"], memory.counts["found_blocks"]
    return dict(zip(keys, (asked, found, found / (asked or 1)), strict=True))
