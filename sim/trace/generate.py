"""Requests from nothing: two sources shaped like public traces, and one of plain distributions.

One rule: row i depends on the seed and on i only, never on how many rows are asked for, so a
longer run begins with the shorter one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from sim.errors import InputError, shown
from sim.rng import stream

from . import knots
from .bounds import MAX_REQUESTS, MAX_SECONDS
from .chunk import Chunk
from .gaps import Arrivals, Gaps, Warp, gamma_gaps, minute_profile, plain_gaps
from .lengths import Length, draw_table
from .sessions import Sessions

SOURCES = ("azure-conv-like", "mooncake-conversation-like", "synthetic")

_ROWS = 16384  # drawn at once; part of what a seed means
# Model: within a minute of the rate profile the Azure gaps are gamma with this shape; with the
# profile it gives the trace's gap CV (1.09) and its index of dispersion at 1, 10 and 60 s.
_AZURE_SHAPE = 0.9
# Model: Mooncake's time stamps lie on a 3 s grid; spread over the tick they are Poisson about
# their rate profile (gap CV 1.01), so the grid is taken for an artefact and not reproduced.
_MOONCAKE_SHAPE = 1.0

Draw = Callable[[np.random.Generator, int], NDArray[np.int64]]


@dataclass(frozen=True)
class _Recipe:
    """What rows are made from. Model: prompt and output lengths are independent of each other
    (rank correlation 0.07 in both traces) and of time."""

    gaps: Gaps
    prompt: Draw
    output: Draw
    warp: Warp | None = None
    sessions: Sessions | None = None


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
    if not 1 <= requests <= MAX_REQUESTS:
        raise InputError(f"requests: {shown(requests)} is not in 1 to {MAX_REQUESTS:,}; correct it")
    if seed < 0:
        raise InputError(f"seed: {seed} is negative; write a whole number from 0")
    check_source("source", source)
    if source == "synthetic":
        recipe = _synthetic(rate_per_s, arrivals, burstiness, prompt, output)
    elif (rate_per_s, prompt, output) != (None, None, None):
        raise InputError(
            f"source {source}: rate_per_s, prompt and output are for source synthetic only; "
            "leave them out"
        )
    else:
        recipe = _like_azure() if source == SOURCES[0] else _like_mooncake()
    chunks = _chunks(recipe, source, requests, seed)
    return (part for chunk in chunks for part in chunk.split(chunk_rows))


def check_source(name: str, source: str) -> None:
    """Raise `InputError` about the argument *name* if it is none of `SOURCES`."""
    if source not in SOURCES:
        raise InputError(f"{name}: {shown(source)} is unknown; write one of {', '.join(SOURCES)}")


def _synthetic(
    rate_per_s: float | None,
    arrivals: Arrivals,
    burstiness: float,
    prompt: Length | None,
    output: Length | None,
) -> _Recipe:
    if rate_per_s is None or prompt is None or output is None:
        given = {"rate_per_s": rate_per_s, "prompt": prompt, "output": output}
        missing = ", ".join(name for name, value in given.items() if value is None)
        raise InputError(f"source synthetic: {missing} missing; give all of them")
    prompt.check("prompt")
    output.check("output")
    return _Recipe(plain_gaps(rate_per_s, arrivals, burstiness), prompt.draw, output.draw)


def _like_azure() -> _Recipe:
    return _Recipe(
        gamma_gaps(_AZURE_SHAPE, 1.0),
        partial(draw_table, knots.AZURE_PROMPT),
        partial(draw_table, knots.AZURE_OUTPUT),
        minute_profile(knots.AZURE_PER_MINUTE, knots.AZURE_RATE_PER_S),
    )


def _like_mooncake() -> _Recipe:
    return _Recipe(
        gamma_gaps(_MOONCAKE_SHAPE, 1.0),
        partial(draw_table, knots.MOONCAKE_PROMPT),
        partial(draw_table, knots.MOONCAKE_OUTPUT),
        minute_profile(knots.MOONCAKE_PER_MINUTE, knots.MOONCAKE_RATE_PER_S),
        Sessions(),
    )


def _chunks(recipe: _Recipe, source: str, requests: int, seed: int) -> Iterator[Chunk]:
    """Chunks of `_ROWS` requests, each always drawn whole, the last one cut."""
    clock = 0.0
    for number, start in enumerate(range(0, requests, _ROWS)):
        gaps = recipe.gaps(stream(seed, f"trace.{source}.gaps", number), _ROWS)
        if number == 0:
            gaps[0] = 0.0
        clocks = clock + np.cumsum(gaps)
        clock = float(clocks[-1])
        rows = min(_ROWS, requests - start)
        arrival_s = clocks if recipe.warp is None else recipe.warp(clocks)
        prompt = recipe.prompt(stream(seed, f"trace.{source}.prompt", number), _ROWS)
        output = recipe.output(stream(seed, f"trace.{source}.output", number), _ROWS)
        chunk = Chunk(arrival_s, prompt, output).part(0, rows)
        if chunk.arrival_s[-1] > MAX_SECONDS:
            raise InputError(
                f"source {source}: of {requests:,} requests one arrives after more than "
                f"{MAX_SECONDS:,.10g} s (31 years); ask for fewer requests or a higher rate"
            )
        if recipe.sessions is not None:
            draws = stream(seed, f"trace.{source}.sessions", number).random((_ROWS, 3))
            ids = recipe.sessions.assign(chunk.arrival_s, chunk.prompt_tokens, draws[:rows])
            chunk = Chunk(chunk.arrival_s, chunk.prompt_tokens, chunk.output_tokens, ids)
        yield chunk
