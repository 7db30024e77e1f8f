"""Requests from nothing: two sources shaped like public traces, and one of plain distributions.

One rule: row i depends on the seed and on i only, never on how many rows are asked for, so a
longer run begins with the shorter one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError, shown
from ..rng import stream
from . import knots
from .chunk import Chunk
from .rows import MAX_TOKENS
from .sessions import Sessions

SOURCES = ("azure-conv-like", "mooncake-conversation-like", "synthetic")
Arrivals = Literal["poisson", "gamma", "constant"]

_ROWS = 16384  # drawn at once; part of what a seed means
_MINUTE_S = 60.0
# Model: within a minute of the rate profile the Azure gaps are gamma with this shape; with the
# profile it gives the trace's gap CV (1.09) and its index of dispersion at 1, 10 and 60 s.
_AZURE_SHAPE = 0.9
# Model: Mooncake's time stamps lie on a 3 s grid; spread over the tick they are Poisson about
# their rate profile (gap CV 1.01), so the grid is taken for an artefact and not reproduced.
_MOONCAKE_SHAPE = 1.0

Lengths = Callable[[np.random.Generator, int], NDArray[np.int64]]
Gaps = Callable[[np.random.Generator, int], NDArray[np.float64]]


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
            case "fixed" | "exponential":
                _in_range(f"{name}.mean", self.mean, 1)
            case "uniform":
                _in_range(f"{name}.low", self.low, 1)
                _in_range(f"{name}.high", self.high, self.low)
            case "lognormal":
                _in_range(f"{name}.median", self.median, 1)
                _in_range(f"{name}.sigma", self.sigma, 0, 10)
            case _:
                raise InputError(
                    f"{name}.kind: {shown(self.kind)} is unknown; "
                    "write fixed, exponential, uniform or lognormal"
                )
        if self.cap is not None:
            _in_range(f"{name}.cap", self.cap, 1)

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


def _in_range(name: str, value: float, low: float, high: float = MAX_TOKENS) -> None:
    if not (math.isfinite(value) and low <= value <= high):
        raise InputError(f"{name}: {shown(value)} is not in {low:g} to {high:g}; correct it")


def generate(
    source: str,
    requests: int,
    seed: int,
    *,
    rate_per_s: float | None = None,
    arrivals: Arrivals = "poisson",
    burstiness: float = 1.0,
    prompt: Length | None = None,
    output: Length | None = None,
    chunk_rows: int = 16384,
) -> Iterator[Chunk]:
    """*requests* requests of *source* (one of `SOURCES`), the first at 0 s.

    "synthetic" needs *rate_per_s*, *prompt* and *output*; the other sources take none of them.
    *arrivals* "gamma" has gaps of shape *burstiness*, as vLLM's serving benchmark means it: 1 is
    Poisson, less is burstier. Raises `InputError` for arguments that make no trace.
    """
    if requests < 1:
        raise InputError(f"requests: {requests} is not a number of requests; write 1 or more")
    if seed < 0:
        raise InputError(f"seed: {seed} is negative; write a whole number from 0")
    given = {"rate_per_s": rate_per_s, "prompt": prompt, "output": output}
    if source == "synthetic":
        missing = [name for name, value in given.items() if value is None]
        if missing:
            raise InputError(f"source synthetic: {', '.join(missing)} missing; give all of them")
        assert rate_per_s is not None
        assert prompt is not None
        assert output is not None
        prompt.check("prompt")
        output.check("output")
        gaps = _plain_gaps(rate_per_s, arrivals, burstiness)
        return _stream(source, requests, seed, gaps, None, prompt.draw, output.draw, chunk_rows)
    extra = [name for name, value in given.items() if value is not None]
    if extra and source in SOURCES:
        raise InputError(
            f"source {source}: {', '.join(extra)} belongs to source synthetic only; leave it out"
        )
    return _like(source, requests, seed, chunk_rows)


def _like(source: str, requests: int, seed: int, chunk_rows: int) -> Iterator[Chunk]:
    match source:
        case "azure-conv-like":
            shape, rate, per_minute = (
                _AZURE_SHAPE,
                knots.AZURE_RATE_PER_S,
                knots.AZURE_PER_MINUTE,
            )
            tables = (knots.AZURE_PROMPT, knots.AZURE_OUTPUT)
        case "mooncake-conversation-like":
            shape, rate, per_minute = (
                _MOONCAKE_SHAPE,
                knots.MOONCAKE_RATE_PER_S,
                knots.MOONCAKE_PER_MINUTE,
            )
            tables = (knots.MOONCAKE_PROMPT, knots.MOONCAKE_OUTPUT)
        case _:
            raise InputError(
                f"source: {shown(source)} is unknown; write one of {', '.join(SOURCES)}"
            )
    profile = _Profile.of(per_minute, rate)
    prompt, output = (_from_table(table) for table in tables)
    chunks = _stream(
        source, requests, seed, _gamma(shape, 1.0), profile, prompt, output, chunk_rows
    )
    return _with_sessions(chunks, seed) if source.startswith("mooncake") else chunks
