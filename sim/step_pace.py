"""How long each step of a log lasted for the loop: until the next could start, idle time left out.

A log's duration may leave out what the engine does between steps, or, where steps overlap, cover
what runs beside the next step. Where starts are known, they decide.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from .nnls import robust

if TYPE_CHECKING:
    from .step_log import StepLog

_NOTABLE = 0.02
"""Share of a step below which what lies between steps is left alone."""
_OVERLAP = 0.1
"""Share of a step from which on steps that overlap are no matter of a coarse timer."""
_FEW = 20
_STALL = 5.0
"""Typical times between two steps above which one is a stall and not the engine's work."""
_WARM = 1.5


@dataclass(frozen=True, slots=True)
class Pace:
    """*seconds* of each step for the loop (nan where unknown), and what was found on the way."""

    seconds: np.ndarray
    basis: str
    """duration (as logged), start (from a start to the next) or end (from an end to the next)."""
    between_s: float
    """Median from a step's logged end to the next one's start; negative where they overlap."""
    overlap: bool
    idle_share: float
    """Share of the log's time in which nothing ran."""


def pace(log: StepLog, basis: str = "auto") -> Pace:
    """The pace of *log*; *basis* `duration`, `start`, or `auto` for what the log itself shows."""
    duration = log.columns["duration_s"]
    if "start_s" not in log.columns or basis == "duration":
        return Pace(duration, "duration", 0.0, False, 0.0)
    start, later, before = _times(log)
    gap = later - (start + duration)
    # A step that decodes goes on with requests of the step before, so no time passed idle.
    going = (log.columns["next_decodes"] > 0) & np.isfinite(gap)
    known = gap[going]
    idle = float(np.nansum(np.where(~going & (gap > 0), gap, 0.0)))
    span = float(np.nansum(np.where(np.isfinite(gap), duration + np.maximum(gap, 0.0), 0.0)))
    share = idle / span if span > 0 else 0.0
    if not len(known):
        return Pace(duration, "duration", 0.0, False, share)
    middle, step = float(np.median(known)), float(np.median(duration))
    if basis == "auto" and abs(middle) < _NOTABLE * step:
        return Pace(duration, "duration", middle, False, share)
    overlap = -middle > _OVERLAP * step
    if middle < 0.0:
        starts = np.where(going & (later > start), later - start, np.nan)
        ends = start + duration - np.fmax(start, before)
        ends = np.where(ends > 0, ends, np.nan)
        # Between two starts an engine may wait for the step before; then ends tell steps apart.
        if basis == "auto" and overlap and _unexplained(log, ends) < _unexplained(log, starts):
            return Pace(ends, "end", middle, overlap, share)
        return Pace(starts, "start", middle, overlap, share)
    usual = np.where(going & (gap >= 0.0) & (gap <= _STALL * max(middle, 1e-9)), gap, middle)
    return Pace(duration + usual, "start", middle, False, share)


def _times(log: StepLog) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Starts of steps, of the next ones, and ends of those before.

    Some logs stamp a step when it ends: the time to the next stamp is then the next step's.
    """
    start, seconds = log.columns["start_s"], log.columns["duration_s"]
    later, before = log.columns["next_start_s"], log.columns["prev_end_s"]
    following = log.columns["next_duration_s"]
    good = (log.columns["next_decodes"] > 0) & np.isfinite(later)
    if good.sum() < _FEW:
        return start, later, before
    to_next = (later - start)[good]
    as_start = np.abs(to_next - seconds[good])
    as_end = np.abs(to_next - following[good])
    spread = [one - np.median(one) for one in (as_start, as_end)]
    own, other = (float(np.mean(np.minimum(np.abs(one), np.median(seconds)))) for one in spread)
    if other < 0.5 * own and own > _NOTABLE * float(np.median(seconds)):
        # The end of the step before is its stamp, to which `prev_end_s` has added its length.
        return start - seconds, later - following, log.columns["prev_start_s"]
    return start, later, before


def _unexplained(log: StepLog, seconds: np.ndarray) -> float:
    """Mean error of straight lines in what steps compute."""
    good = np.flatnonzero(np.isfinite(seconds) & (seconds > 0))
    good = good[:: -(-len(good) // 5000)]
    names = ("decode_requests", "prefill_tokens", "context_tokens")
    columns = np.stack([np.ones(len(good)), *(log.get(name)[good] for name in names)], axis=1)
    found = robust(columns, seconds[good], np.ones(len(good)))
    return float(np.mean(np.minimum(1.0, np.abs(columns @ found / seconds[good] - 1.0))))


def warm_up(ratio: np.ndarray) -> int:
    """How many steps at the head of a log are compilation and warm-up, by measured/predicted."""
    slow = ratio > _WARM
    limit = min(len(slow), max(20, len(slow) // 20))
    count = 0
    for at in range(limit):
        if slow[at] and slow[count : at + 1].mean() >= 0.3:
            count = at + 1
    return count


def noise_floor(log: StepLog, seconds: np.ndarray) -> tuple[float | None, int]:
    """The median error of a model that knows all but the noise, and from how many pairs of steps.

    From pairs of alike steps: the same requests and prefill tokens, context within 2 %.
    """
    keys = [log.get(n) for n in ("decode_requests", "prefill_requests", "prefill_tokens")]
    context = log.get("context_tokens")
    order = np.lexsort((context, *keys[::-1]))
    first, second = order[:-1], order[1:]
    alike = np.abs(context[second] - context[first]) <= 0.02 * np.maximum(context[first], 1.0)
    for key in keys:
        alike &= key[first] == key[second]
    alike &= np.isfinite(seconds[first]) & np.isfinite(seconds[second])
    alike[1::2] = False  # pairs, not chains
    if np.count_nonzero(alike) < 10:
        return None, int(np.count_nonzero(alike))
    a, b = seconds[first[alike]], seconds[second[alike]]
    # Two draws differ by root two of what one differs from their mean.
    return float(np.median(np.abs(a - b) / (a + b)) * np.sqrt(2.0)), len(a)
