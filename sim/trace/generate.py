"""Requests from nothing: workloads shaped like public traces, and plain ones.

One rule: row i depends on the seed and on i only, never on how many rows are asked for, so a
longer run begins with the shorter one, sessions included.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from sim.errors import InputError, shown

from .bounds import MAX_REQUESTS, MAX_SECONDS
from .chunk import Tally
from .workloads import (
    agent,
    azure_code,
    azure_conv,
    mooncake_conversation,
    mooncake_synthetic,
    open_loop,
    processes,
    servegen,
)
from .workloads.arrivals import Shaped
from .workloads.catalog import WORKLOADS
from .workloads.diurnal import DayShape
from .workloads.knobs import Knobs, check_given, check_source

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .chunk import Chunk
    from .workloads.open_loop import Recipe

SOURCES = tuple(WORKLOADS)


def generate(
    source: str,
    requests: int,
    seed: int,
    *,
    chunk_rows: int = 16384,
    tally: Tally | None = None,
    **given: Any,
) -> Iterator[Chunk]:
    """*requests* requests of the workload *source*, the first at 0 s.

    *given* are its knobs, by the names in `workloads.catalog.KNOBS`. *tally* gets the size of the
    blocks that prefix ids stand for. Raises `InputError` for arguments that make no trace.
    """
    if not 1 <= requests <= MAX_REQUESTS:
        raise InputError(f"requests: {shown(requests)} is not in 1 to {MAX_REQUESTS:,}; correct it")
    if seed < 0:
        raise InputError(f"seed: {seed} is negative; write a whole number from 0")
    check_source("source", source)
    knobs = Knobs(**given)
    check_given(source, {*knobs.given}, str)
    chunks = _rows(source, requests, seed, knobs, Tally() if tally is None else tally)
    return (
        part for chunk in _in_time(chunks, source, requests) for part in chunk.split(chunk_rows)
    )


def _rows(source: str, requests: int, seed: int, knobs: Knobs, tally: Tally) -> Iterator[Chunk]:
    if source in (servegen.NAME, servegen.REASONING):
        return servegen.rows(source, seed, requests, knobs, tally)
    if source == agent.NAME:
        tally.block_tokens, tally.last_block = agent.BLOCK_TOKENS, "full"
        return agent.rows(seed, requests, knobs)
    recipe = _recipe(source, seed, knobs, tally)
    if knobs.diurnal is not None:
        warp = DayShape(knobs.diurnal, knobs.start_hour or 0.0)
        recipe = replace(recipe, arrivals=Shaped(recipe.arrivals, warp))
    return open_loop.rows(recipe, source, requests, seed)


def _recipe(source: str, seed: int, knobs: Knobs, tally: Tally) -> Recipe:
    match source:
        case azure_conv.NAME:
            return azure_conv.recipe(seed)
        case azure_code.NAME:
            return azure_code.recipe(seed)
        case mooncake_conversation.NAME:
            tally.block_tokens = mooncake_conversation.BLOCK_TOKENS
            return mooncake_conversation.recipe(seed)
        case mooncake_synthetic.NAME:
            tally.block_tokens = mooncake_synthetic.BLOCK_TOKENS
            return mooncake_synthetic.recipe(seed)
        case _:
            return processes.recipe(source, seed, knobs)


def _in_time(chunks: Iterator[Chunk], source: str, requests: int) -> Iterator[Chunk]:
    """*chunks* themselves; raises `InputError` at a time that is no longer exact."""
    for chunk in chunks:
        if chunk.arrival_s[-1] > MAX_SECONDS:
            raise InputError(
                f"source {source}: of {requests:,} requests one arrives after more than "
                f"{MAX_SECONDS:,.10g} s (31 years); ask for fewer requests or a higher rate"
            )
        yield chunk
