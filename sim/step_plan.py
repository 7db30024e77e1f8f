"""Forms that a fit may choose: plans of terms, from the plainest on, and one fit of each.

A plan says which terms a kind of step has; its coefficients come from `fit`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from .nnls import robust
from .step_form import Form, Load, Regime, Term, design, grained, pad

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .step_form import Branch

_TRIM = 0.05
_SPLITS = (0.3, 0.6)
_BLOCKS = 10
_FOLDS = 5
_ROUNDS = 8
_EACH = 8
_LEVELS = 40

FAMILIES: dict[str, tuple[int, ...]] = {
    "powers of two": tuple(2**i for i in range(11)),
    "1, 2, 4 and multiples of 8": (1, 2, 4, *range(8, 1025, 8)),
    "1, 2, 4, multiples of 8 to 256, then of 16": (
        1, 2, 4, *range(8, 257, 8), *range(272, 1025, 16)
    ),
    "multiples of 16": tuple(range(16, 1025, 16)),
    "multiples of 32": tuple(range(32, 1025, 32)),
}  # fmt: skip
"""Sizes that engines capture graphs for, tried where nothing is said about them."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Which terms a form has."""

    terms: tuple[str, ...]
    """Those beside tokens."""
    knots: tuple[float, ...] = ()
    """Where the cost of a token changes; none: it is the same for all."""
    floor: tuple[str, ...] = ()
    """Terms of a second branch, the host's, below which a step cannot be; none: no such."""
    captured: tuple[int, ...] = ()
    grain: int = 1
    """Tokens are rounded up to a multiple of so many."""
    joint: bool = False
    """Whether steps with and without prefill count alike, however many there are of each."""

    @property
    def size(self) -> int:
        """Coefficients."""
        return len(self.terms) + 1 + len(self.knots) + len(self.floor)

    def branch(self) -> Branch:
        """The main branch without coefficients."""
        edges = (0.0, *self.knots)
        tokens = tuple(
            Term("tokens", 0.0, low, high)
            for low, high in zip(edges, (*self.knots, None), strict=True)
        )
        return (*(Term(name, 0.0) for name in self.terms), *tokens)


def knots_of(tokens: np.ndarray) -> tuple[float, ...]:
    """Powers of two inside what a log covers, seven at most."""
    low, high = np.quantile(tokens, (0.02, 0.95))
    found = [2.0**i for i in range(1, 21) if low < 2.0**i < high]
    if len(found) > 7:
        found = [found[i] for i in np.unique(np.linspace(0, len(found) - 1, 7).astype(int))]
    return tuple(found)


def levels_of(captured: tuple[int, ...], load: Load) -> tuple[float, ...]:
    """Token counts between which each captured size has a cost of its own: those that steps which
    only decode are padded to, the first and the last left out; of rare ones, none."""
    if not captured:
        return ()
    tokens = pad(load, captured).decode_tokens[load.prefill_tokens == 0]
    found, steps = np.unique(tokens, return_counts=True)
    kept = found[steps >= _EACH]
    return tuple(kept[1:-1].tolist()) if len(kept) <= _LEVELS else ()


def error(predicted: np.ndarray, seconds: np.ndarray) -> float:
    """Mean absolute relative error, its largest twentieth left out, with half of the bias."""
    relative = predicted / seconds - 1.0
    size = np.sort(np.abs(relative))
    kept = size[: max(1, len(size) - int(_TRIM * len(size)))]
    return float(kept.mean()) + 0.5 * abs(float(np.median(relative)))


def fit(plan: Plan, load: Load, seconds: np.ndarray) -> Regime:
    """The coefficients of *plan* for steps of *load* (as logged, not padded)."""
    padded = grained(pad(load, plan.captured), plan.grain)
    branch = plan.branch()
    weights = None
    if plan.joint:
        plain = load.prefill_tokens == 0
        share = (~plain).sum() / max(1, plain.sum())
        weights = np.where(plain, share, 1.0)
    own = robust(design(branch, padded), seconds, weights)
    single = Regime((_with(branch, own),))
    if not plan.floor:
        return replace(single, grain=plan.grain)
    floor = tuple(Term(name, 0.0) for name in plan.floor)
    best = single, error(single.seconds(padded), seconds)
    for share in _SPLITS:
        found = _two(branch, floor, padded, seconds, single, share)
        if found is not None:
            score = error(found.seconds(padded), seconds)
            if score < best[1]:
                best = found, score
    return replace(best[0], grain=plan.grain)


def _two(
    branch: Branch, floor: Branch, load: Load, seconds: np.ndarray, single: Regime, share: float
) -> Regime | None:
    """The larger of two branches, each fitted where it is the larger one; None if one is never."""
    above, below = design(branch, load), design(floor, load)
    light = single.seconds(load)
    light = light <= np.quantile(light, share)
    least = 2 * len(branch) + 10
    found = None
    for _ in range(_ROUNDS):
        if light.sum() < least or (~light).sum() < least:
            return found
        low = robust(below[light], seconds[light], rounds=5)
        high = robust(above[~light], seconds[~light], rounds=5)
        found = Regime((_with(floor, low), _with(branch, high)))
        now = below @ low >= above @ high
        if (now == light).all():
            break
        light = now
    return found


def _with(branch: Branch, seconds: np.ndarray) -> Branch:
    terms = (t._replace(seconds=float(s)) for t, s in zip(branch, seconds, strict=True))
    kept = tuple(term for term in terms if term.seconds > 0.0)
    return kept or (branch[0]._replace(seconds=1e-9),)


def scaled(regime: Regime, factor: float) -> Regime:
    """*regime* with all coefficients but those for turning times *factor*."""
    branches = tuple(
        tuple(term._replace(seconds=term.seconds * factor) for term in branch)
        for branch in regime.branches
    )
    return replace(regime, branches=branches)


def menu(
    plan: Plan, several: tuple[tuple[float, ...], ...], open_: Openings
) -> Iterator[Plan]:  # fmt: skip
    """Plans that differ from *plan* in one respect, and have what is *open_*.

    The knots in *several* come together; of the first ones also single ones.
    """
    knots = several[0]
    single = [knots[i] for i in sorted({len(knots) // 4, len(knots) // 2, 3 * len(knots) // 4})
              if i < len(knots)]  # fmt: skip
    for some in dict.fromkeys(((), *((one,) for one in single), *several)):
        if some != plan.knots:
            yield replace(plan, knots=some)
    for name in open_.terms:
        if name not in plan.terms:
            yield replace(plan, terms=(*plan.terms, name))
    if open_.floor and not plan.floor:
        yield replace(plan, floor=open_.floor)
    for grain in open_.grains:
        if grain != plan.grain:
            yield replace(plan, grain=grain)
    for sizes in open_.captured:
        if sizes != plan.captured:
            yield replace(plan, captured=sizes)


@dataclass(frozen=True, slots=True)
class Openings:
    """What a search may add to a plan."""

    terms: tuple[str, ...] = ()
    floor: tuple[str, ...] = ()
    captured: tuple[tuple[int, ...], ...] = ()
    grains: tuple[int, ...] = ()


def folds_of(load: Load, heavy: bool = True) -> list[np.ndarray]:
    """Masks of rows to leave out: blocks of time and, if asked for, the heaviest tenth."""
    rows = len(load.context)
    block = np.arange(rows) * _BLOCKS // rows % _FOLDS
    folds = [block == number for number in range(_FOLDS)]
    size = load.decode_tokens + load.prefill_tokens + load.context / 4096.0
    most = size > np.quantile(size, 0.9)
    if heavy and most.sum() >= 5:
        folds.append(most)
    return folds


def seconds_of(regime: Regime, captured: tuple[int, ...], load: Load) -> np.ndarray:
    """Seconds of steps of one kind."""
    return Form(regime, regime, captured, held=True).seconds(load)
