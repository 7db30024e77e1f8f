"""Distributions of prompt and output lengths: plain ones, and tables measured on a trace."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from sim.errors import InputError, shown

from .bounds import MAX_TOKENS, SIGMA

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .knots import Knots


@dataclass(frozen=True)
class Length:
    """A distribution of lengths in tokens; each kind uses its own fields.

    fixed: `mean`. exponential: `mean` (geometric on 1, 2, 3, ...). uniform: `low` to `high`, both
    included. lognormal: `median` and `sigma` (of the logarithm). `cap` cuts any of them.
    """

    kind: Literal["fixed", "exponential", "uniform", "lognormal"]
    mean: float = 0.0
    low: int = 0
    high: int = 0
    median: float = 0.0
    sigma: float = 0.0
    cap: int | None = None

    def check(self, name: str) -> None:
        """Raise `InputError` about the field of *name* that makes no distribution."""
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
            case _:
                raise InputError(
                    f"{name}: {shown(self.kind)} is no kind of length; "
                    "write fixed, exponential, uniform or lognormal"
                )
        if self.cap is not None:
            _whole(f"{name}: cap", self.cap, 1)

    def draw(self, rng: np.random.Generator, n: int) -> NDArray[np.int64]:
        """*n* lengths, each from 1 to the cap."""
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
        return np.clip(drawn, 1, min(self.cap or MAX_TOKENS, MAX_TOKENS))


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


def draw_table(table: Knots, rng: np.random.Generator, n: int) -> NDArray[np.int64]:
    """*n* lengths from a table of (edge, share below it), by the inverse of its straight lines."""
    edges, shares = (np.array(column, dtype=np.float64) for column in zip(*table, strict=True))
    drawn = np.floor(np.interp(rng.random(n), shares, edges)).astype(np.int64)
    return np.minimum(drawn, int(edges[-1]) - 1)


def parse_length(name: str, text: str) -> Length:
    """The distribution that *text* writes, as `lognormal:300:0.8`; raises `InputError`."""
    fields = {
        "fixed": ("mean",),
        "exponential": ("mean",),
        "uniform": ("low", "high"),
        "lognormal": ("median", "sigma"),
    }
    kind, *parts = text.split(":")
    try:
        names = fields[kind]
        values = dict(zip(names, map(float, parts), strict=True))
    except (KeyError, ValueError):
        raise InputError(
            f"{name}: {shown(text)} is no length; write fixed:MEAN, exponential:MEAN, "
            "uniform:LOW:HIGH or lognormal:MEDIAN:SIGMA"
        ) from None
    length = Length(**{"kind": kind} | values)  # type: ignore[arg-type]
    length.check(name)
    return length
