"""The traffic of a scenario: which requests arrive, when, and how long they are.

The one rule: either a file or a built-in source, and a key that means nothing beside it is an
error, since it would be read as if it had an effect.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from .node import Flag, Node, Place, refuse
from .trace.bounds import (
    BURSTINESS,
    MAX_REQUESTS,
    MAX_SECONDS,
    MAX_TOKENS,
    RATE_PER_S,
    RATE_SCALE,
    SIGMA,
)
from .units import Rate

FILE_ONLY = ("format", "sort", "bad_rows")
SYNTHETIC_ONLY = ("rate", "arrivals", "burstiness", "prompt_tokens", "output_tokens")


def _in_range(rate: float) -> float:
    low, high = RATE_PER_S
    if not low <= rate <= high:
        raise ValueError(f"must be {low:g} /s to {high:g} /s, got {rate:g} /s")
    return rate


Arrivals = Annotated[Rate, AfterValidator(_in_range)]
Tokens = Annotated[int, Field(strict=True, ge=1, le=MAX_TOKENS)]
MeanTokens = Annotated[float, Field(strict=True, ge=1, le=MAX_TOKENS)]
KINDS = ("fixed", "exponential", "uniform", "lognormal")


class Lognormal(Node):
    """A log-normal length."""

    median: MeanTokens
    """Tokens."""
    sigma: Annotated[float, Field(strict=True, ge=SIGMA[0], le=SIGMA[1])]
    """Standard deviation of the logarithm."""


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
        if self.uniform is not None and self.uniform[0] > self.uniform[1]:
            refuse([(("uniform",), f"{self.uniform[0]} is more than {self.uniform[1]}; swap them")])
        return self

    @property
    def kind(self) -> Literal["fixed", "exponential", "uniform", "lognormal"]:
        """Which distribution it is."""
        if self.exponential is not None:
            return "exponential"
        if self.uniform is not None:
            return "uniform"
        return "fixed" if self.lognormal is None else "lognormal"

    @property
    def mean(self) -> float:
        """Tokens, of a fixed or exponential length before its cap; 0 of the others."""
        return self.exponential or float(self.fixed or 0)

    @property
    def low(self) -> int:
        """The least of a uniform length; 0 of the others."""
        return self.uniform[0] if self.uniform else 0

    @property
    def high(self) -> int:
        """The largest of a uniform length; 0 of the others."""
        return self.uniform[1] if self.uniform else 0

    @property
    def median(self) -> float:
        """Tokens, of a log-normal length before its cap; 0 of the others."""
        return self.lognormal.median if self.lognormal else 0.0

    @property
    def sigma(self) -> float:
        """Of the logarithm, of a log-normal length; 0 of the others."""
        return self.lognormal.sigma if self.lognormal else 0.0


class Trace(Node):
    """Which requests arrive, and when: a file, or one of the built-in sources."""

    file: Annotated[str, Field(strict=True, min_length=1, max_length=4096)] | None = None
    """Path of a trace, relative to the YAML file that names it."""
    format: Literal["auto", "mooncake", "azure", "vidur", "parquet"] = "auto"
    """Format of `file`; auto looks at its columns."""
    sort: Flag = False
    """Whether to sort a file whose arrivals are out of order, which is an error otherwise."""
    bad_rows: Literal["error", "skip"] = "error"
    """What to do with rows of a file that cannot be used."""
    source: Literal["azure-conv-like", "mooncake-conversation-like", "synthetic"] | None = None
    """A built-in workload in place of a file."""
    requests: Annotated[int, Field(strict=True, ge=1, le=MAX_REQUESTS)] | None = None
    """Requests to generate; with a file, the first so many rows."""
    rate_scale: Annotated[float, Field(strict=True, ge=RATE_SCALE[0], le=RATE_SCALE[1])] = 1.0
    """Arrival times are divided by it: 2 is twice the load."""
    rate: Arrivals | None = None
    """Arrivals a second; synthetic only."""
    arrivals: Literal["poisson", "gamma", "constant"] = "poisson"
    """The process of arrivals; synthetic only."""
    burstiness: Annotated[float, Field(strict=True, ge=BURSTINESS[0], le=BURSTINESS[1])] = 1.0
    """Shape of gamma gaps: 1 is Poisson, less is burstier (as in vLLM's benchmark)."""
    prompt_tokens: Length | None = None
    """Tokens of a prompt; synthetic only."""
    output_tokens: Length | None = None
    """Tokens of an answer; synthetic only."""

    @model_validator(mode="after")
    def _one_origin(self) -> Trace:
        if self.file is not None and self.source is not None:
            refuse([(("source",), "not together with trace.file; remove one of them")])
        if self.file is None and self.source is None:
            refuse([((), "missing file or source; add e.g. `source: azure-conv-like`")])
        given = {key for key in self.model_fields_set if getattr(self, key) is not None}
        faults: list[tuple[Place, str]] = [
            ((key,), f"only with {where}; remove it")
            for keys, where in ((FILE_ONLY, "trace.file"), (SYNTHETIC_ONLY, "source: synthetic"))
            for key in keys
            if key in given and not self.takes(key)
        ]
        needed: dict[str, str] = {} if self.source is None else {"requests": "2000"}
        if self.source == "synthetic":
            needed |= {"rate": "6 /s", "prompt_tokens": "1024", "output_tokens": "200"}
        for key, example in needed.items():
            if getattr(self, key) is None:
                what = f"missing; `source: {self.source}` needs it, e.g. `{key}: {example}`"
                faults.append(((key,), what))
        if self.source == "synthetic" and self.rate and self.requests:
            span = self.requests / self.rate / self.rate_scale
            if span > MAX_SECONDS:
                what = f"{self.requests} requests arrive within {span:.4g} s, {MAX_SECONDS:g} s"
                faults.append((("rate",), f"{what} (31 years) is the most; raise it"))
        refuse(faults)
        return self

    def takes(self, key: str) -> bool:
        """Whether *key* means something beside this file or source."""
        if key in FILE_ONLY or key == "file":
            return self.source is None
        if key in SYNTHETIC_ONLY:
            return self.source == "synthetic"
        return key != "source" or self.source is not None
