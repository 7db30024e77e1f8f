"""The length of a prompt or an answer in a scenario: a number, or a distribution of tokens."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field, model_validator

from .identity import file_identity
from .node import Node, refuse
from .trace.bounds import ALPHA, MAX_PARTS, MAX_TOKENS, SIGMA

if TYPE_CHECKING:
    from .trace.lengths import Length as Law

Tokens = Annotated[int, Field(strict=True, ge=1, le=MAX_TOKENS)]
MeanTokens = Annotated[float, Field(strict=True, ge=1, le=MAX_TOKENS)]
Alpha = Annotated[float, Field(strict=True, ge=ALPHA[0], le=ALPHA[1])]
KINDS = ("fixed", "exponential", "uniform", "lognormal", "pareto", "mixture", "table")


class Lognormal(Node):
    """A log-normal length."""

    median: MeanTokens
    """Tokens."""
    sigma: Annotated[float, Field(strict=True, ge=SIGMA[0], le=SIGMA[1])]
    """Standard deviation of the logarithm."""


class Pareto(Node):
    """A Pareto-distributed length: the share above x is (least / x) to the power of alpha."""

    least: Tokens
    """Tokens."""
    alpha: Alpha
    """Less is a heavier tail."""


class Tail(Node):
    """The longest share of a length, Pareto-distributed from where it begins."""

    share: Annotated[float, Field(strict=True, gt=0, le=1)]
    """Of the draws."""
    alpha: Alpha
    """Less is a heavier tail."""


class Length(Node):
    """A length in tokens: a number, or exactly one distribution, drawn at least 1 token long."""

    fixed: Tokens | None = None
    """Always this many tokens; a bare number says the same."""
    exponential: MeanTokens | None = None
    """The mean, in tokens."""
    uniform: tuple[Tokens, Tokens] | None = None
    """The least and the largest, both included."""
    lognormal: Lognormal | None = None
    """Median in tokens and sigma of the logarithm."""
    pareto: Pareto | None = None
    """The least in tokens, and the exponent."""
    mixture: Annotated[tuple[Weighted, ...], Field(min_length=1, max_length=MAX_PARTS)] | None = (
        None
    )
    """Several lengths, each with its weight."""
    table: Annotated[str, Field(strict=True, min_length=1, max_length=4096)] | None = None
    """Path of a CSV with the columns tokens and weight, or of a JSON object of them."""
    tail: Tail | None = None
    """Makes the longest draws heavier."""
    within: tuple[Tokens, Tokens] | None = None
    """Only draws from the least to the largest."""
    cap: Tokens | None = None
    """Longer draws become this long."""

    @model_validator(mode="before")
    @classmethod
    def _number(cls, value: Any) -> Any:
        return {"fixed": value} if type(value) is int else value

    @model_validator(mode="after")
    def _one_kind(self) -> Length:
        given = [kind for kind in KINDS if getattr(self, kind) is not None]
        if len(given) != 1:
            had = f"both {' and '.join(given)}" if given else "none of them"
            refuse([((), f"a length has one of {', '.join(KINDS)}, and this has {had}")])
        for key in ("uniform", "within"):
            pair = getattr(self, key)
            if pair is not None and pair[0] > pair[1]:
                refuse([((key,), f"{pair[0]} is more than {pair[1]}; swap them")])
        for i, part in enumerate(self.mixture or ()):
            if part.mixture is not None:
                what = "not inside a mixture; list all parts in one"
                refuse([(("mixture", i, "mixture"), what)])
        return self

    def law(self) -> Law:
        """The distribution; raises `InputError` for a table that cannot be read."""
        from .trace.lengths import Length as Law
        from .trace.lengths_text import read_table

        low, high = self.uniform or (0, 0)
        atoms: tuple[tuple[int, float], ...] = ()
        if self.table is not None:
            atoms = read_table("table", Path(self.table)).atoms
        if self.pareto is not None:
            low = self.pareto.least
        kind: Any = next(kind for kind in KINDS if getattr(self, kind) is not None)
        return Law(
            kind,
            mean=float(self.exponential or self.fixed or 0),
            low=low,
            high=high,
            median=self.lognormal.median if self.lognormal else 0.0,
            sigma=self.lognormal.sigma if self.lognormal else 0.0,
            alpha=self.pareto.alpha if self.pareto else 0.0,
            parts=tuple((part.weight, part.law()) for part in self.mixture or ()),
            atoms=atoms,
            tail=(self.tail.share, self.tail.alpha) if self.tail else None,
            within=self.within,
            cap=self.cap,
        )


class Weighted(Length):
    """A part of a mixture."""

    weight: Annotated[float, Field(strict=True, gt=0, le=1e9)]
    """Its share, in proportion to the other weights."""


Length.model_rebuild()


def resolved(data: Any) -> Any:
    """A length as plain data, with what it has only; tables stand there as name and digest."""
    if isinstance(data, dict):
        kept = {key: resolved(value) for key, value in data.items() if value is not None}
        if "table" in kept:
            kept["table"] = file_identity(kept["table"])
        return kept
    if isinstance(data, list):
        return [resolved(item) for item in data]
    return data
