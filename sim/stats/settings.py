"""The section `statistics` of a study: what is left out, what is compared with, how sure."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, Field, model_validator

from sim.errors import shown
from sim.node import Node, refuse
from sim.units import SECONDS


def _warm_up(value: object) -> object:
    """A time with its unit, a share of the run, or auto; kept as it is written."""
    if value is None or value == "auto":
        return value
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError(f"expected '60 s', a share such as 0.1, or auto, got {shown(value)}")
    if isinstance(value, str):
        SECONDS.parse(value)
        return value
    if not 0 <= value < 1:
        raise ValueError(f"{shown(value)} is no share below 1; a time has a unit, e.g. '60 s'")
    return float(value)


class Statistics(Node):
    """What metrics of a study are estimated from, and how runs are compared."""

    warm_up: Annotated[str | float | None, BeforeValidator(_warm_up)] = None
    """Requests that arrive before this are left out: a time ('60 s'), a share of the run's
    duration (0.1), or `auto`, which finds where each run settles; not given, all count."""
    baseline: dict[str, Any] | None = None
    """Values on axes that the others are compared with, e.g. {loop.mode: graph}; not given, the
    first value of the first axis."""
    confidence: Annotated[float, Field(strict=True, ge=0.5, le=0.9999)] = 0.95
    """Level of intervals, and of all verdicts of a table together."""

    @model_validator(mode="after")
    def _not_empty(self) -> Statistics:
        if self.baseline is not None and not self.baseline:
            refuse([(("baseline",), "an empty map; name a value on an axis, or leave it out")])
        return self

    @property
    def warm_up_s(self) -> float | None:
        """The warm-up as a time in seconds, None if it is none."""
        text = self.warm_up
        return SECONDS.parse(text) if isinstance(text, str) and text != "auto" else None

    @property
    def warm_up_share(self) -> float | None:
        """The warm-up as a share of the run, None if it is none."""
        return self.warm_up if isinstance(self.warm_up, float) else None
