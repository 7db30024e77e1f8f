"""The section `search` of a study: what is sought, within which limits, by which method.

The one rule: a limit is a metric's name with a value in its unit, and on which side of it is good
follows from the metric; nothing is sought that the file does not name.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Field, ValidationInfo, model_validator

from sim.errors import shown
from sim.node import Node, Place, refuse
from sim.units import RATE, SECONDS, Rate

MetricName = Annotated[str, Field(strict=True, pattern=r"^[a-z][a-z0-9_.]{0,63}$")]
PathName = Annotated[
    str, Field(strict=True, max_length=200, pattern=r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*){0,9}$")
]
LATENCIES = ("ttft", "tpot", "itl", "e2el", "queue")
"""Ends of the names of metrics whose limits are times."""
MOST_REQUESTS = 10_000_000


def _limits(given: Any, info: ValidationInfo) -> Any:
    """Limits in SI by metric: times and rates with a unit, all else plain numbers."""
    if not isinstance(given, dict) or (info.context and info.context.get("si")):
        return given
    found: dict[Any, Any] = {}
    faults: list[tuple[Place, str]] = []
    for name, value in given.items():
        try:
            found[name] = _limit(str(name), value)
        except ValueError as error:
            faults.append(((name,), str(error)))
    refuse(faults)
    return found


def _limit(name: str, value: Any) -> float:
    if name.endswith("_ms"):
        raise ValueError(f"write it as `{name.removesuffix('_ms')}`, a time with its unit")
    if is_time(name):
        return SECONDS.parse(value)
    if isinstance(value, str):
        return _rate(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"expected a number, got {shown(value)}")
    if not 0 <= value <= 1e18:  # nan too
        raise ValueError(f"{shown(value)} is no finite number from 0 on")
    return float(value)


def _rate(text: str) -> float:
    """*text* as a rate; a time belongs to a latency, so its metric's name is not known."""
    try:
        SECONDS.parse(text)
    except ValueError:
        return RATE.parse(text)
    ends = ", ".join(LATENCIES)
    raise ValueError(f"{shown(text)} is a time, and only latencies have such limits, *_{{{ends}}}")


def is_time(metric: str) -> bool:
    """Whether *metric* is a latency by its name, whose limit is a time."""
    return metric.rpartition("_")[2] in LATENCIES


Limits = Annotated[dict[MetricName, float], BeforeValidator(_limits)]


class Goal(Node):
    """What is best among what keeps the limits; exactly one of the two."""

    maximize: MetricName | None = None
    minimize: MetricName | None = None

    @model_validator(mode="after")
    def _one(self) -> Goal:
        if (self.maximize is None) == (self.minimize is None):
            refuse([((), "give one of maximize and minimize, e.g. `maximize: request_goodput`")])
        return self

    @property
    def metric(self) -> str:
        """The metric's name."""
        return self.maximize or self.minimize or ""

    @property
    def sign(self) -> float:
        """1 if more is better, else -1."""
        return 1.0 if self.maximize else -1.0


Plain = Annotated[float, Field(strict=True, gt=0, le=1e15)]


class Range(Node):
    """Where capacity is sought on one path; on a key of whole numbers only these are probed."""

    model_config = ConfigDict(populate_by_name=True, serialize_by_alias=True)

    low: Plain = Field(alias="from")
    high: Plain = Field(alias="to")

    @model_validator(mode="after")
    def _ordered(self) -> Range:
        if self.low >= self.high:
            refuse([(("to",), f"{self.high:g} is not above from ({self.low:g})")])
        return self


class Halving(Node):
    """Successive halving: rungs of more and more requests, and who goes on."""

    requests: Annotated[
        tuple[Annotated[int, Field(strict=True, ge=1, le=MOST_REQUESTS)], ...],
        Field(min_length=2, max_length=20),
    ]
    """Requests of each rung's runs (`trace.requests`)."""
    keep: Annotated[float, Field(strict=True, gt=0, lt=1)] = 0.34
    """Share of a rung's configurations that go on to the next, at least one."""

    @model_validator(mode="after")
    def _rising(self) -> Halving:
        for i, (lower, upper) in enumerate(zip(self.requests, self.requests[1:], strict=False), 1):
            if upper <= lower:
                refuse([(("requests", i), f"{upper} after {lower}; rungs must grow")])
        return self


class Target(Node):
    """How many GPUs, if so many requests a second are to be served."""

    rate: Annotated[Rate, Field(gt=0)]
    """Requests a second."""
    verify: Annotated[bool, Field(strict=True)] = True
    """Whether the answer is tried in one run with `replicas.count`, where that is possible."""


class Search(Node):
    """Capacity over one path (`over`), or successive halving over configurations (`halving`)."""

    goal: Goal | None = None
    """What ranks configurations; a search for capacity without one ranks by capacity."""
    subject_to: Limits = Field(default={})
    """Limits by metric, e.g. `p99_ttft: 2 s`; all must be kept."""
    over: Annotated[dict[PathName, Range], Field(min_length=1, max_length=1)] | None = None
    """The path of numbers whose largest value within the limits is the capacity."""
    tolerance: Annotated[float, Field(strict=True, ge=1e-4, lt=1)] = 0.02
    """The bracket's width over its lower end at which bisection ends."""
    judge: Literal["mean", "bound"] = "mean"
    """With seeds: whether the estimate keeps the limit, or the worse bound of its interval."""
    halving: Halving | None = None
    target: Target | None = None
    """A rate to provide GPUs for; with `over: {trace.rate_scale: ...}`."""

    @model_validator(mode="after")
    def _method(self) -> Search:
        faults: list[tuple[Place, str]] = []
        if (self.over is None) == (self.halving is None):
            example = "`over: {trace.rate_scale: {from: 1, to: 64}}` or `halving: {requests: ...}`"
            faults.append(((), f"give one of over and halving, e.g. {example}"))
        elif self.over is not None and not self.subject_to:
            faults.append(((), "capacity needs limits; add e.g. `subject_to: {p99_ttft: 2 s}`"))
        elif self.halving is not None and self.goal is None:
            what = "halving ranks by a goal; add e.g. `goal: {maximize: request_goodput}`"
            faults.append(((), what))
        if self.target is not None and (self.over is None or "trace.rate_scale" not in self.over):
            what = "needs the capacity in requests a second; search over trace.rate_scale"
            faults.append((("target",), what))
        refuse(faults)
        return self

    @property
    def path(self) -> str:
        """The path of `over`."""
        assert self.over is not None, "halving has no path"
        return next(iter(self.over))

    @property
    def metrics(self) -> list[str]:
        """All metrics that goal and limits name."""
        goal = [] if self.goal is None else [self.goal.metric]
        return list(dict.fromkeys([*goal, *self.subject_to]))
