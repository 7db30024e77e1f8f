"""Where an engine turns from steps with prefill to steps that only decode, and back.

The first step after a turn may take longer: a loop on the device is entered again, eager execution
gives way to graphs, caches have lost what decode reads, or a loop must be left for a prompt.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from .nnls import nonnegative
from .step_form import Branch, Form, Load, Regime, Term, design, pad, rows_of
from .step_plan import Plan, fit, folds_of, seconds_of

if TYPE_CHECKING:
    from collections.abc import Sequence

LEAST = 20
"""Steps at turns from which on they get a term."""
_GAIN = 0.03
_NOTABLE = 0.01
"""Share of a step below which turning is nothing."""
_ROUNDS = 3
_SELECT = 1000
_CUT = 4.0


def calm(load: Load) -> np.ndarray:
    """The steps that are at no turn, if these are the most; else all."""
    turned = _mask(load)
    return ~turned if turned.mean() < 0.5 else np.ones(len(turned), bool)


def with_turns(regime: Regime, plan: Plan, load: Load, seconds: np.ndarray) -> Regime:
    """*regime*, fitted to *plan* over *load* (as logged), and what turning to it takes, if that
    pays on blocks of time left out."""
    turned = _mask(load)
    if min(turned.sum(), (~turned).sum()) < LEAST:
        return regime
    rows = _thinned(turned)
    names = _chosen(plan, rows_of(load, rows), seconds[rows])
    if not names:
        return regime
    found = _refitted(names, plan, load, seconds)
    part = found.turning(pad(rows_of(load, turned), plan.captured))
    return found if np.median(part / seconds[turned]) > _NOTABLE else regime


def _thinned(turned: np.ndarray) -> np.ndarray:
    """Rows enough to choose by: all at turns up to a number, and as many of the others."""
    kept = [np.flatnonzero(own) for own in (turned, ~turned)]
    return np.sort(np.concatenate([one[:: -(-len(one) // _SELECT)] for one in kept]))


def _chosen(plan: Plan, load: Load, seconds: np.ndarray) -> tuple[str, ...]:
    """The terms for turning that hold best on blocks of time left out; none if nothing does."""
    turned = _mask(load)
    found: tuple[str, ...] = ()
    least = np.inf
    for names in ((), ("step",), ("step", "decode_request")):
        sizes = np.empty(len(seconds))
        for out in folds_of(load, heavy=False):
            regime = _refitted(names, plan, rows_of(load, ~out), seconds[~out])
            own = seconds_of(regime, plan.captured, rows_of(load, out))
            sizes[out] = np.minimum(np.abs(own / seconds[out] - 1.0), 1.0)
        score = float(sizes[turned].mean() + sizes[~turned].mean())
        if score < (1.0 - _GAIN) * least:
            found, least = names, score
    return found


def _refitted(
    names: tuple[str, ...], plan: Plan, load: Load, seconds: np.ndarray
) -> Regime:  # fmt: skip
    """*plan* fitted with the terms *names* for turning, in turns."""
    regime = fit(plan, load, seconds)
    if not names:
        return regime
    turned, padded = _mask(load), pad(load, plan.captured)
    branch: Branch = ()
    for _ in range(_ROUNDS):
        branch = _excess(names, regime, padded, seconds, turned)
        part = replace(regime, turn=branch).turning(regime.grained(padded))
        regime = fit(plan, load, np.maximum(seconds - part, 0.1 * seconds))
    return replace(regime, turn=branch)


def _mask(load: Load) -> np.ndarray:
    if load.turned is None:
        return np.zeros(len(load.context), bool)
    found: np.ndarray = load.turned > 0
    return found


def _excess(
    names: Sequence[str], regime: Regime, load: Load, seconds: np.ndarray, turned: np.ndarray
) -> Branch:
    """What steps at turns take beyond the others' residuals, >= 0; outliers left out."""
    rest = seconds - regime.seconds(load)
    rows = np.flatnonzero(turned)
    if not len(rows) or len(rows) == len(rest):
        return ()
    goal = rest[rows] - np.median(rest[~turned])
    spread = np.abs(goal - np.median(goal))
    near = spread <= _CUT * max(float(np.median(spread)), 1e-9)
    rows, goal = rows[near], goal[near]
    columns = design(tuple(Term(name, 0.0) for name in names), rows_of(load, rows))
    relative = columns / seconds[rows][:, None]
    found = nonnegative(relative.T @ relative, relative.T @ (goal / seconds[rows]))
    terms = (Term(name, float(value)) for name, value in zip(names, found, strict=True))
    return tuple(term for term in terms if term.seconds > 0.0)


def said(form: Form) -> list[str]:
    """What turning takes, in words."""
    found = []
    for regime, words in (
        (form.decode, "the first step that only decodes after prefill"),
        (form.mixed, "the first step with prefill after decode"),
    ):  # fmt: skip
        if regime.turn:
            parts = [
                f"{term.seconds * 1e3:.3g} ms"
                + (" a request" if term.name == "decode_request" else "")
                for term in regime.turn
            ]
            found.append(f"{words} takes {' and '.join(parts)} more")
    return found
