"""All figures of an inspected trace as one dictionary, units in the keys: what `--json` prints."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Any

import numpy as np

from sim.trace.transforms.record import said

from .curve import MOST_FOR_BOUND
from .inspection import CAPACITIES_BLOCKS

if TYPE_CHECKING:
    from sim.trace.chunk import Tally

    from .curve import Curve
    from .inspection import Inspection
    from .lengths import Lengths

WINDOWS_S = (1.0, 10.0, 60.0)
_RATE_BARS = 60


def summary(inspection: Inspection, tally: Tally) -> dict[str, Any]:
    """All figures; None where a trace is too short for one or has nothing of the kind."""
    peaks = {windows.size_s: windows.peak for windows in inspection.windows}
    dispersion = inspection.dispersion()
    empty = inspection.empty_windows()
    gaps = inspection.gaps
    return {
        "requests": inspection.requests,
        "duration_s": inspection.duration_s,
        "mean_rate_per_s": inspection.mean_rate_per_s,
        "peak_requests_in_1s": peaks[1.0],
        "peak_requests_in_60s": peaks[60.0],
        "rates": _rates(inspection),
        "hour_of_day_rate_over_mean": _hours(inspection),
        "inter_arrival_cv": gaps.cv,
        "inter_arrival_s": _gap_quantiles(inspection),
        "inter_arrival_method": "exact" if gaps.exact else "histogram, bins of 1.2 %",
        "duplicate_times_share": gaps.zero / max(1, inspection.requests),
        "index_of_dispersion": {f"{size:g}s": dispersion.get(size) for size in WINDOWS_S},
        "index_of_dispersion_by_window_s": {f"{size:g}": v for size, v in dispersion.items()},
        "empty_windows_share": {f"{size:g}s": empty.get(size) for size in WINDOWS_S},
        "on_off_traffic": inspection.on_off,
        "prompt_tokens": inspection.prompt.summary(),
        "output_tokens": inspection.output.summary(),
        "total_prompt_tokens": inspection.prompt.total,
        "total_output_tokens": inspection.output.total,
        "prompt_tokens_density": _density(inspection.prompt),
        "output_tokens_density": _density(inspection.output),
        "prompt_output_spearman": inspection.pairs.spearman(),
        "prefix": _prefix(inspection),
        "sessions": inspection.sessions.summary(),
        "bad_rows": {
            "skipped": tally.skipped,
            "reasons": dict(tally.reasons),
            "examples": list(tally.examples),
        },
        "notes": notes(inspection, tally),
    }


def _rates(inspection: Inspection) -> dict[str, Any]:
    width_s, sums = inspection.timeline.bars(_RATE_BARS)
    return {
        "bar_s": width_s,
        "requests_per_s": (sums[0] / width_s).tolist(),
        "prompt_tokens_per_s": (sums[3] / width_s).tolist(),
        "output_tokens_per_s": (sums[4] / width_s).tolist(),
    }


def _hours(inspection: Inspection) -> list[float] | None:
    profile = inspection.hours.profile(inspection.duration_s)
    return None if profile is None else profile.tolist()


def _gap_quantiles(inspection: Inspection) -> dict[str, float] | None:
    gaps = inspection.gaps
    if not gaps.count:
        return None
    p50, p90, p99 = gaps.quantiles((0.5, 0.9, 0.99))
    return {"p50": p50, "p90": p90, "p99": p99, "max": gaps.most}


def _density(lengths: Lengths) -> dict[str, list[float]]:
    edges, counts = lengths.density()
    return {"edges_tokens": edges.tolist(), "requests": counts.tolist()}


def _prefix(inspection: Inspection) -> dict[str, Any] | None:
    reuse, curve = inspection.reuse, inspection.curve()
    if curve is None:
        return None
    infinite = curve.hit_rate(inf)
    saved = reuse.saved_tokens if reuse.exact else round(infinite * inspection.prompt.total)
    whole = reuse.reusable_blocks * reuse.block_tokens if reuse.exact else None
    return {
        "block_tokens": reuse.block_tokens,
        "blocks": reuse.blocks,
        "distinct_blocks": reuse.distinct if reuse.exact else round(curve.cold),
        "infinite_cache_hit_rate": infinite,
        "whole_blocks": reuse.whole_blocks if reuse.exact else None,
        "infinite_cache_whole_block_hit_rate": reuse.whole_hit_rate,
        "saved_prompt_tokens": saved,
        "saved_prompt_share": saved / inspection.prompt.total,
        "saved_in_whole_blocks_tokens": whole,
        "saved_in_whole_blocks_share": None if whole is None else whole / inspection.prompt.total,
        "lru": {
            "method": "exact" if curve.exact else "sampled blocks (SHARDS)",
            "sampled_blocks_share": curve.rate,
            "standard_error_at_most": max(curve.error(size) for size in CAPACITIES_BLOCKS),
            "hit_rate_by_capacity_blocks": {
                str(size): curve.hit_rate(size) for size in inspection.shown_capacities()
            },
            "blocks_for_share_of_infinite": _working_sets(curve),
        },
        "belady": _bound(inspection),
        "reuse_time_s": _quantiles(curve.reuse_s),
        "references_per_block": _quantiles(curve.popularity),
        "used_once_blocks_share": float((curve.popularity == 1).mean()),
        "references_to_top_1pct_blocks_share": _top(curve),
    }


def _bound(inspection: Inspection) -> dict[str, Any]:
    """Hit rates that no policy beats, or why they are not there."""
    rates = inspection.bound()
    if rates is None:
        method = f"not worked out above {MOST_FOR_BOUND:,} references"
        return {"method": method, "hit_rate_by_capacity_blocks": None}
    by_size = {str(size): rate for size, rate in rates.items()}
    return {"method": "exact", "hit_rate_by_capacity_blocks": by_size}


def _working_sets(curve: Curve) -> dict[str, float] | None:
    """The blocks an LRU cache needs for half, 90 % and 99 % of the hits of an infinite one."""
    if not len(curve.distances):
        return None
    hits = curve.hit_rate(inf) * curve.references
    found = {}
    for share in (0.5, 0.9, 0.99):
        misses = (1.0 - share) * hits * curve.rate  # of the sampled, that may be farther
        at = len(curve.distances) - 1 - int(misses)
        found[f"p{100 * share:g}"] = float(np.ceil(curve.distances[max(0, at)]))
    return found


def _quantiles(values: np.ndarray) -> dict[str, float] | None:
    if not len(values):
        return None
    p50, p90, p99 = (float(value) for value in np.quantile(values, (0.5, 0.9, 0.99)))
    return {
        "p50": p50, "mean": float(values.mean()), "p90": p90, "p99": p99,
        "max": float(values.max()),
    }  # fmt: skip


def _top(curve: Curve) -> float:
    hottest = curve.popularity[-max(1, round(0.01 * len(curve.popularity))) :]
    return float(hottest.sum() / curve.popularity.sum())


def notes(inspection: Inspection, tally: Tally) -> list[str]:
    """What a reader of the figures should know."""
    found = [*tally.notes, *(said(change) for change in tally.changes)]
    grid_s = inspection.gaps.grid_s()
    if grid_s is not None:
        found.append(
            f"time stamps lie on a grid of {grid_s:.3g} s, so burstiness below that is an "
            "artefact; spread the requests within the step before replaying them "
            "(--dither does it for these figures)"
        )
    reuse, curve = inspection.reuse, inspection.curve()
    if curve is not None and not curve.exact:
        worst = max(curve.error(size) for size in CAPACITIES_BLOCKS)
        found.append(
            f"prefix reuse by cache size is from 1/{round(1 / curve.rate)} of the blocks, chosen "
            f"by a hash of their ids; standard error at most {100 * worst:.2f} points"
        )
    if curve is not None and inspection.bound() is None:
        found.append(
            f"Belady's bound on prefix reuse is not worked out above {MOST_FOR_BOUND:,} "
            f"references to blocks; these are {curve.references:,} (--limit takes fewer requests)"
        )
    if reuse.blocks and not reuse.exact:
        found.append(
            "more block ids above 67 million than are remembered: hits of an infinite cache and "
            "saved tokens are estimates by the sample"
        )
    if tally.skipped:
        found.append(f"{tally.skipped} bad rows were left out of all figures")
    return found
