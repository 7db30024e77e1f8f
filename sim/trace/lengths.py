"""Distributions of prompt and output lengths: plain ones, mixtures, and tables.

One rule: every distribution is used as a table of (edge, share of lengths below it), straight in
between, so that each can be mixed, cut, given a Pareto tail, and drawn together with another one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np

from sim.errors import InputError, shown

from .bounds import ALPHA, MAX_PARTS, MAX_TOKENS, SIGMA
from .normal import normal_below, normal_quantile

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

Kind = Literal["fixed", "exponential", "uniform", "lognormal", "pareto", "mixture", "table"]
KINDS = get_args(Kind)
Knots = tuple["NDArray[np.float64]", "NDArray[np.float64]"]  # edges, share of lengths below each

_EXACT = 2048  # edges are whole numbers up to here, and 0.2 % apart above
_STEP = 1.002


def _grid() -> NDArray[np.float64]:
    steps = int(math.log(MAX_TOKENS / _EXACT) / math.log(_STEP)) + 1
    above = np.round(_EXACT * np.exp(np.linspace(0, math.log(MAX_TOKENS / _EXACT), steps)))
    return np.unique(np.concatenate([np.arange(1.0, _EXACT), above, [MAX_TOKENS + 1.0]]))


@dataclass(frozen=True)
class Length:
    """A distribution of lengths in tokens; each kind uses its own fields.

    fixed: `mean`. exponential: `mean` (geometric on 1, 2, 3, ...). uniform: `low` to `high`, both
    included. lognormal: `median` and `sigma` (of the logarithm). pareto: `low` and `alpha` (the
    share above x is (low / x)^alpha). mixture: `parts`, each a weight and a length. table:
    `atoms`, each a length and its weight, or `knots`.

    Then, of any kind and in this order: `tail` (share, alpha) makes the longest share of them
    Pareto-distributed from where it begins; `within` keeps only lengths from the least to the
    largest, both included; `cap` makes longer ones this long.
    """

    kind: Kind
    mean: float = 0.0
    low: int = 0
    high: int = 0
    median: float = 0.0
    sigma: float = 0.0
    alpha: float = 0.0
    parts: tuple[tuple[float, Length], ...] = ()
    atoms: tuple[tuple[int, float], ...] = ()
    knots: tuple[tuple[float, float], ...] = ()
    tail: tuple[float, float] | None = None
    within: tuple[int, int] | None = None
    cap: int | None = None

    def check(self, name: str) -> None:
        """Raise `InputError` about the field of *name* that makes no distribution."""
        self._check_kind(name)
        if self.tail is not None:
            in_range(f"{name}: tail: share", self.tail[0], 1e-9, 1.0)
            in_range(f"{name}: tail: alpha", self.tail[1], *ALPHA)
        if self.within is not None:
            _whole(f"{name}: within: least length", self.within[0], 1)
            _whole(f"{name}: within: largest length", self.within[1], self.within[0])
            if not np.ptp(self._below(np.array([self.within[0], self.within[1] + 1.0]))) > 0:
                low, high = self.within
                raise InputError(
                    f"{name}: within: no length is from {low:.10g} to {high:.10g}; widen it"
                )
        if self.cap is not None:
            _whole(f"{name}: cap", self.cap, 1)

    def _check_kind(self, name: str) -> None:
        match self.kind:
            case "fixed":
                _whole(f"{name}: length", self.mean, 1)
            case "exponential":
                in_range(f"{name}: mean", self.mean, 1)
            case "uniform":
                _whole(f"{name}: least length", self.low, 1)
                _whole(f"{name}: largest length", self.high, self.low)
            case "lognormal":
                in_range(f"{name}: median", self.median, 1)
                in_range(f"{name}: sigma", self.sigma, *SIGMA)
            case "pareto":
                _whole(f"{name}: least length", self.low, 1)
                in_range(f"{name}: alpha", self.alpha, *ALPHA)
            case "mixture":
                in_range(f"{name}: number of parts", len(self.parts), 1, MAX_PARTS)
                for number, (weight, part) in enumerate(self.parts, 1):
                    in_range(f"{name}: part {number}: weight", weight, 1e-9, 1e9)
                    part.check(f"{name}: part {number}")
            case "table":
                _check_table(name, self.atoms, self.knots)
            case _:
                raise InputError(
                    f"{name}: {shown(self.kind)} is no kind of length; write "
                    f"{', '.join(KINDS[:-1])} or {KINDS[-1]}"
                )

    def draw(self, rng: np.random.Generator, n: int) -> NDArray[np.int64]:
        """*n* lengths, each from 1 to the cap.

        The plain kinds have samplers of their own: results are found again by a scenario's hash,
        and so must be what its seed means.
        """
        if self.tail is not None or self.within is not None:
            return self.quantile(rng.random(n))
        match self.kind:
            case "fixed":
                drawn = np.full(n, round(self.mean), dtype=np.int64)
            case "exponential":
                drawn = rng.geometric(1.0 / self.mean, n)
            case "uniform":
                drawn = rng.integers(self.low, self.high, n, endpoint=True)
            case "lognormal":
                spread = np.exp(self.sigma * rng.standard_normal(n))
                drawn = np.rint(np.minimum(self.median * spread, MAX_TOKENS)).astype(np.int64)
            case _:
                return self.quantile(rng.random(n))
        return np.clip(drawn, 1, min(self.cap or MAX_TOKENS, MAX_TOKENS))

    def quantile(self, share: NDArray[np.float64]) -> NDArray[np.int64]:
        """The length below which each *share*, from 0 to below 1, of the lengths lies."""
        edges, shares = self.table
        drawn = np.floor(np.interp(share, shares, edges)).astype(np.int64)
        return np.clip(drawn, 1, int(edges[-1]) - 1)

    @cached_property
    def table(self) -> Knots:
        """The whole distribution as edges and the share of lengths below each."""
        if self.kind == "table" and self.knots and not (self.tail or self.within or self.cap):
            edges, shares = np.array(self.knots, dtype=np.float64).T
            return edges, shares
        edges = np.unique(np.concatenate([_grid(), self._corners()]))
        shares = self._below(edges)
        if self.within is not None:
            low, high = self._below(np.array([self.within[0], self.within[1] + 1.0]))
            shares = np.clip((shares - low) / (high - low), 0.0, 1.0)
        shares = np.where(edges > min(self.cap or MAX_TOKENS, MAX_TOKENS), 1.0, shares)
        first = max(0, int(np.searchsorted(shares, 0.0, side="right")) - 1)
        last = int(np.searchsorted(shares, 1.0)) + 1
        return edges[first:last], shares[first:last]

    def _corners(self) -> NDArray[np.float64]:
        """Edges at which the distribution jumps or bends."""
        found: list[float] = [self.mean, self.mean + 1, self.low, self.high + 1]
        for at in (self.within or (), (self.cap,) if self.cap else ()):
            found += [edge for length in at for edge in (length, length + 1)]
        found += [edge for length, _ in self.atoms for edge in (length, length + 1)]
        found += [edge for edge, _ in self.knots]
        own = [edge for edge in found if 1 <= edge <= MAX_TOKENS + 1]
        return np.concatenate([own, *(part._corners() for _, part in self.parts)])

    def _below(self, edges: NDArray[np.float64]) -> NDArray[np.float64]:
        """The share of lengths below each of *edges*, before `within` and `cap`."""
        shares = np.clip(self._body(edges), 0.0, 1.0)
        if self.tail is None:
            return shares
        share, alpha = self.tail
        grid = np.unique(np.concatenate([_grid(), self._corners()]))
        start = max(1.0, float(np.interp(1.0 - share, np.clip(self._body(grid), 0.0, 1.0), grid)))
        return np.where(
            edges < start, shares, 1.0 - share * (start / np.maximum(edges, 1)) ** alpha
        )

    def _body(self, edges: NDArray[np.float64]) -> NDArray[np.float64]:
        match self.kind:
            case "fixed":
                return np.asarray(edges - self.mean, dtype=np.float64)
            case "exponential":
                return np.asarray(1.0 - (1.0 - 1.0 / self.mean) ** (edges - 1), dtype=np.float64)
            case "uniform":
                return (edges - self.low) / (self.high + 1 - self.low)
            case "lognormal":
                if not self.sigma:
                    return np.asarray(edges - np.rint(self.median), dtype=np.float64)
                z = np.log(np.maximum(edges - 0.5, 0.5) / self.median) / self.sigma
                return np.where(edges <= 1, 0.0, normal_below(z))
            case "pareto":
                return 1.0 - (self.low / np.maximum(edges, self.low)) ** self.alpha
            case "mixture":
                total = sum(weight for weight, _ in self.parts)
                shares = [weight / total * part._whole_below(edges) for weight, part in self.parts]
                return np.asarray(np.sum(shares, axis=0), dtype=np.float64)
            case "table":
                if self.knots:
                    return np.interp(edges, *np.array(self.knots, dtype=np.float64).T)
                lengths, weights = np.array(sorted(self.atoms), dtype=np.float64).T
                ends = np.concatenate([[0.0], np.cumsum(weights)]) / weights.sum()
                return np.asarray(ends[np.searchsorted(lengths, edges)], dtype=np.float64)

    def _whole_below(self, edges: NDArray[np.float64]) -> NDArray[np.float64]:
        """As `_below`, after `within` and `cap`."""
        own, shares = self.table
        return np.interp(edges, own, shares, left=0.0, right=1.0)


def in_range(name: str, value: float, low: float, high: float = MAX_TOKENS) -> None:
    """Raise `InputError` about *name* unless *value* is from *low* to *high*."""
    if not (math.isfinite(value) and low <= value <= high):
        raise InputError(
            f"{name}: {shown(value)} is not in {low:,.10g} to {high:,.10g}; correct it"
        )


def _whole(name: str, value: float, low: float) -> None:
    in_range(name, value, low)
    if value != int(value):
        raise InputError(f"{name}: {shown(value)} is not a whole number; correct it")


def _check_table(
    name: str, atoms: Sequence[tuple[int, float]], knots: Sequence[tuple[float, float]]
) -> None:
    if bool(atoms) == bool(knots):
        raise InputError(f"{name}: a table has either atoms or knots; give one of them")
    for length, weight in atoms:
        _whole(f"{name}: length", length, 1)
        in_range(f"{name}: weight of length {length}", weight, 0.0, 1e18)
    if atoms and not sum(weight for _, weight in atoms) > 0:
        raise InputError(f"{name}: all weights are 0; correct the table")
    if knots and (np.diff(np.array(knots), axis=0) < 0).any():
        raise InputError(f"{name}: the knots do not ascend; correct the table")


def knots_of(knots: Sequence[tuple[float, float]]) -> Length:
    """The lengths of a table of (edge, share below it)."""
    return Length("table", knots=tuple(knots))


def correlated(
    first: NDArray[np.float64], second: NDArray[np.float64], rank_correlation: float
) -> NDArray[np.float64]:
    """*second*, uniform and independent of the uniform *first*, made to follow it.

    What comes out is uniform as well, and has the rank correlation (Spearman's) with *first*:
    a Gaussian copula, whose correlation is 2 sin(pi / 6 of the rank correlation).
    """
    if not rank_correlation:
        return second
    r = 2.0 * math.sin(math.pi / 6.0 * rank_correlation)
    rest = math.sqrt(max(0.0, 1.0 - r * r))
    return normal_below(r * normal_quantile(first) + rest * normal_quantile(second))
