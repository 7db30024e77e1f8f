"""The search for a form: the plainest plan that no richer one beats on steps left out."""

from __future__ import annotations

from typing import Any

import numpy as np

from .step_form import Load, rows_of
from .step_plan import Openings, Plan, error, fit, folds_of, knots_of, levels_of, menu, seconds_of

_SELECT = 1500
_GAIN = 0.03
"""Share by which a richer form must be better on unseen steps."""
_TRIED = 3
"""Richer forms that are judged on unseen steps, of those that fit best."""


def search(plan: Plan, load: Load, seconds: np.ndarray, open_: Openings) -> Plan:
    """*plan*, or a richer one that is better on steps left out."""
    if len(seconds) > _SELECT:
        rows = np.arange(0, len(seconds), -(-len(seconds) // _SELECT))
        load, seconds = rows_of(load, rows), seconds[rows]
    folds = folds_of(load)
    knots = knots_of(load.decode_tokens + load.prefill_tokens)
    best, own = _score(plan, load, seconds, folds), _inside(plan, load, seconds)
    for _ in range(5):
        if best < 1e-3:
            break
        levels = levels_of(plan.captured, load)
        others = [one for one in menu(plan, (knots, levels), open_) if one.size * 3 < len(seconds)]
        # What does not fit better where it may see all does not hold better where it may not.
        ranked = sorted(((_inside(one, load, seconds), one) for one in others), key=_first)
        found = [
            (_score(one, load, seconds, folds), error_, one)
            for error_, one in ranked[:_TRIED] if error_ < (1.0 - _GAIN) * own
        ]  # fmt: skip
        if not found:
            break
        score, error_, other = min(found, key=_first)
        if score > (1.0 - _GAIN) * best:
            break
        plan, best, own = other, score, error_
    return plan


def _first(pair: tuple[Any, ...]) -> float:
    return float(pair[0])


def _inside(plan: Plan, load: Load, seconds: np.ndarray) -> float:
    """The error of *plan* on the steps that it is fitted to."""
    return error(seconds_of(fit(plan, load, seconds), plan.captured, load), seconds)


def _score(plan: Plan, load: Load, seconds: np.ndarray, folds: list[np.ndarray]) -> float:
    scores = []
    for out in folds:
        regime = fit(plan, rows_of(load, ~out), seconds[~out])
        scores.append(error(seconds_of(regime, plan.captured, rows_of(load, out)), seconds[out]))
    return float(np.mean(scores))
