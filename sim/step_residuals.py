"""How well a fitted form holds: errors on steps left out, by region of load, and in words."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from .step_form import Form, Load, Regime, pad, rows_of
from .step_plan import Plan, fit, folds_of, seconds_of

if TYPE_CHECKING:
    from .step_log import StepLog
    from .step_pace import Pace

_LEAST = 30
_BLOCKS = 10
_DRIFT = 0.03
"""Share by which parts of a log must differ to be worth a word."""


def held_out(form: Form, load: Load, seconds: np.ndarray) -> np.ndarray:
    """Each step predicted by a fit of the same form to the other blocks of time."""
    load = (load if form.held else load._replace(held=None)).counted(form.context_of)
    found = np.empty(len(seconds))
    for out in folds_of(load, heavy=False):
        for own, regime in (
            (load.prefill_tokens == 0, form.decode), (load.prefill_tokens > 0, form.mixed)
        ):  # fmt: skip
            rows, rest = own & out, own & ~out
            if not rows.any():
                continue
            if rest.sum() < _LEAST:
                found[rows] = seconds_of(regime, form.captured, rows_of(load, rows))
                continue
            plan = _plan_of(regime, form.captured)
            turning = regime.turning(pad(rows_of(load, rest), form.captured))
            other = fit(plan, rows_of(load, rest), seconds[rest] - turning)
            other = replace(other, turn=regime.turn)
            found[rows] = seconds_of(other, plan.captured, rows_of(load, rows))
    return found


def _plan_of(regime: Regime, captured: tuple[int, ...]) -> Plan:
    """The plan that *regime* came from, but for terms that turned out to be nothing."""
    main = regime.branches[-1]
    first = tuple(t.name for t in regime.branches[0])
    floor = first if len(regime.branches) > 1 and "tokens" not in first else ()
    edges = {t.low for t in main if t.name == "tokens"} - {0.0}
    edges |= {t.high for t in main if t.name == "tokens" and t.high is not None}
    names = tuple(t.name for t in main if t.name != "tokens")
    return Plan(names, tuple(sorted(edges)), floor, captured, regime.grain)


def residuals(load: Load, predicted: np.ndarray, seconds: np.ndarray) -> dict[str, Any]:
    """Errors of all steps and by region of load, as shares."""
    plain = load.prefill_tokens == 0
    each = load.context / np.maximum(load.decode_requests, 1.0)
    heavy = load.decode_requests > np.median(load.decode_requests)
    far = each > np.median(each)
    regions = {
        "all": np.ones(len(seconds), bool),
        "decode only": plain,
        "with prefill": ~plain,
        "decode only, small batch": plain & ~heavy,
        "decode only, large batch": plain & heavy,
        "decode only, short context": plain & ~far,
        "decode only, long context": plain & far,
        "mixed with decode": ~plain & (load.decode_requests > 0),
        "prefill only": ~plain & (load.decode_requests == 0),
    }
    relative = predicted / seconds - 1.0
    return {name: figures(relative[rows]) for name, rows in regions.items() if rows.any()}


def figures(relative: np.ndarray) -> dict[str, float]:
    """n, median, p90 and max of |relative|, and the median of *relative* itself."""
    size = np.abs(relative)
    return {
        "n": len(size), "median": float(np.median(size)), "p90": float(np.quantile(size, 0.9)),
        "max": float(size.max()), "signed_median": float(np.median(relative)),
    }  # fmt: skip


def drift(load: Load, ratio: np.ndarray) -> str | None:
    """Says if steps that only decode grow slower or faster over the log; *ratio* is measured /
    predicted of each step. None where they do not, or are too few."""
    own = ratio[load.prefill_tokens == 0]
    if len(own) < _BLOCKS * _LEAST:
        return None
    blocks = np.array_split(own, _BLOCKS)
    middle = np.array([np.median(block) for block in blocks])
    within = max(float(np.quantile(block, 0.75) - np.quantile(block, 0.25)) for block in blocks)
    low, high = int(middle.argmin()), int(middle.argmax())
    apart = float(middle[high] - middle[low])
    # The medians of blocks without drift differ by chance, the more so the more steps scatter.
    chance = 4.0 * within / np.sqrt(min(map(len, blocks)))
    if apart < max(_DRIFT, chance):
        return None
    return (
        f"the same decode steps take {apart:.1%} longer in part {high + 1} of {_BLOCKS} of the log "
        f"than in part {low + 1} (clocks, warm-up, other work?); the profile is of their mean"
    )


def remarks(log: StepLog, found: Pace, form: Form, gpu: Form | None) -> list[str]:
    notes = []
    if found.overlap:
        notes.append(
            f"steps overlap by {-found.between_s * 1e3:.3g} ms (asynchronous scheduling): the pace "
            f"is from one {found.basis} to the next; simulate with schedule.asynchronous: true"
        )
    elif found.basis == "start":
        more = f"{found.between_s * 1e3:.3g} ms a step between starts and logged durations"
        notes.append(f"{more}: the starts decide")
    if found.idle_share > 0.01:
        notes.append(f"{found.idle_share:.0%} of the log's time nothing ran; left out")
    if "context_tokens" not in log.columns:
        notes.append("no context_tokens: a step costs the same however long its contexts are")
    host = log.columns.get("host_s")
    if host is not None and gpu is not None:
        total, own = log.get("gpu_s") + host, np.maximum(log.get("gpu_s"), host)
        seconds = log.get("duration_s")
        hidden = np.median(np.abs(seconds - own)) < np.median(np.abs(seconds - total))
        what = "hidden behind the GPU" if hidden else "added to the GPU's"
        notes.append(f"the host's time is {what}")
    if form.captured:
        notes.append(f"decode batches are padded to {', '.join(map(str, form.captured[:12]))}"
                     + (", ..." if len(form.captured) > 12 else ""))  # fmt: skip
    return notes
