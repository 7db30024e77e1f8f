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
from .step_plan import Plan, fit, folds_of

if TYPE_CHECKING:
    from collections.abc import Sequence

LEAST = 20
"""Steps at turns from which on they get a term."""
_GAIN = 0.03
_NOTABLE = 0.01
"""Share of a step below which turning is nothing."""
_ROUNDS = 3
_CUT = 4.0


def calm(load: Load) -> np.ndarray:
    """The steps that are at no turn, if these are the most; else all."""
    turned = _mask(load)
    return ~turned if turned.mean() < 0.5 else np.ones(len(turned), bool)


def with_turns(
    regime: Regime, plan: Plan, load: Load, seconds: np.ndarray
) -> Regime:  # fmt: skip
    """*regime*, fitted to *plan* over *load* (as logged), and what turning to it takes, if that
    pays on blocks of time left out."""
    turned = _mask(load)
    if turned.sum() < LEAST or (~turned).sum() < LEAST:
        return regime
    padded = pad(load, plan.captured)
    best = _best(regime, padded, seconds, turned)
    if not best:
        return regime
    for _ in range(_ROUNDS):
        part = replace(regime, turn=best).turning(regime.grained(padded))
        rest = np.maximum(seconds - part, 0.1 * seconds)
        regime = fit(plan, load, rest)
        best = _excess(_names(best), regime, padded, seconds, turned)
    return replace(regime, turn=best)


def _mask(load: Load) -> np.ndarray:
    if load.turned is None:
        return np.zeros(len(load.context), bool)
    found: np.ndarray = load.turned > 0
    return found


def _names(branch: Branch) -> tuple[str, ...]:
    return tuple(term.name for term in branch)


def _best(regime: Regime, load: Load, seconds: np.ndarray, turned: np.ndarray) -> Branch:
    """The terms for turning that hold best on blocks left out; none if nothing does."""
    base = regime.seconds(load._replace(turned=None))
    folds = folds_of(load, heavy=False)

    def score(names: tuple[str, ...]) -> float:
        total = 0.0
        for out in folds:
            found = _excess(names, regime, load, seconds, turned, ~out) if names else ()
            rows = turned & out
            part = replace(regime, turn=found).turning(rows_of(load, rows))
            total += float(np.minimum(np.abs((base[rows] + part) / seconds[rows] - 1.0), 1.0).sum())
        return total

    found: tuple[str, ...] = ()
    least = score(found)
    for names in (("step",), ("step", "decode_request")):
        own = score(names)
        if own < (1.0 - _GAIN) * least:
            found, least = names, own
    branch = _excess(found, regime, load, seconds, turned) if found else ()
    part = replace(regime, turn=branch).turning(rows_of(load, turned))
    return branch if np.median(part / seconds[turned]) > _NOTABLE else ()


def _excess(
    names: Sequence[str], regime: Regime, load: Load, seconds: np.ndarray, turned: np.ndarray,
    seen: np.ndarray | None = None,
) -> Branch:  # fmt: skip
    """What steps at turns take beyond the others' residuals, >= 0; outliers left out."""
    seen = np.ones(len(seconds), bool) if seen is None else seen
    rest = seconds - regime.seconds(load._replace(turned=None))
    still = rest[seen & ~turned]
    rows = np.flatnonzero(seen & turned)
    if not len(still) or not len(rows):
        return ()
    goal = rest[rows] - np.median(still)
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
