"""Requests that do not fit into a context: prompts cut, and the ids of their blocks with them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from sim.trace.ragged import Ragged

from .record import recorded

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from sim.trace.chunk import Chunk, Tally

BLOCK_TOKENS = 512
"""Of ids whose block size nobody knows: Mooncake's."""
_TOP = np.uint64(1) << np.uint64(62)


@dataclass(frozen=True, slots=True)
class Clip:
    """The context in tokens, prompt and output together, and which end of a prompt is kept."""

    tokens: int
    keep: Literal["first", "last"] = "last"


def clip_prompt(chunks: Iterator[Chunk], clip: Clip, tally: Tally) -> Iterator[Chunk]:
    """Makes each request fit into `clip.tokens`, prompt and output together.

    A prompt is cut until the output fits beside it, to one token at the least; what is left of an
    output longer than the context is clipped then. Kept first: the ids of the blocks that are left,
    the last of which may now be cut short. Kept last: a block id stands for all that precedes it,
    so a prompt that begins later shares no block with one that does not; ids are new ones, equal
    where the old ids are and as much was cut.
    """
    given = {"to": clip.tokens, "keep": clip.keep}

    def made(chunks: Iterator[Chunk], record: dict[str, Any]) -> Iterator[Chunk]:
        record |= {"prompts_cut": 0, "outputs_cut": 0, "block_ids_in": 0, "block_ids_out": 0}
        for chunk in chunks:
            size = tally.block_tokens or BLOCK_TOKENS
            clipped = _clipped(chunk, clip, size, tally.last_block == "full")
            prompts = clipped.prompt_tokens < chunk.prompt_tokens
            outputs = clipped.output_tokens < chunk.output_tokens
            record["prompts_cut"] += int(prompts.sum())
            record["outputs_cut"] += int(outputs.sum())
            record["requests_changed"] += int((prompts | outputs).sum())
            for way, one in (("in", chunk), ("out", clipped)):
                ids = one.block_ids
                record[f"block_ids_{way}"] += 0 if ids is None else len(ids.values)
            yield clipped

    return recorded("clip_prompt", given, chunks, tally, made)


def _clipped(chunk: Chunk, clip: Clip, block_tokens: int, full_only: bool) -> Chunk:
    prompt = np.minimum(chunk.prompt_tokens, np.maximum(1, clip.tokens - chunk.output_tokens))
    output = np.minimum(chunk.output_tokens, clip.tokens - prompt)
    ids = chunk.block_ids
    if ids is not None and (prompt < chunk.prompt_tokens).any():
        ids = _cut_ids(ids, chunk.prompt_tokens, prompt, clip.keep, block_tokens, full_only)
    return replace(chunk, prompt_tokens=prompt, output_tokens=output, block_ids=ids)


def _cut_ids(
    ids: Ragged,
    was: NDArray[np.int64],
    prompt: NDArray[np.int64],
    keep: Literal["first", "last"],
    block_tokens: int,
    full_only: bool,
) -> Ragged:
    """The ids of prompts that were *was* tokens long and are *prompt*, both [n]."""
    had, front = ids.lengths, (was - prompt) * (keep == "last")
    has = prompt // block_tokens if full_only else -(-prompt // block_tokens)
    has = np.where(prompt < was, np.minimum(had, has), had)
    offsets = np.concatenate([[0], np.cumsum(has)]).astype(np.int64)
    row = np.repeat(np.arange(len(has)), has)
    number = np.arange(offsets[-1]) - offsets[row]  # of the block within its prompt
    # the old block in which the new one ends: it says all that the new one holds
    old = (front[row] + (number + 1) * block_tokens - 1) // block_tokens
    last = had[row] - 1
    values = ids.values[ids.offsets[row] + np.minimum(old, last)]
    # but for a tail without an id, of which only the length is known
    tail = np.where(full_only & (old > last), was[row] << 32, 0)
    # the number tells a last block that is cut short from the full one before it
    other = renamed(renamed(values, front[row] + tail), number)
    return Ragged(np.where(front[row] > 0, other, values), offsets)


def renamed(ids: NDArray[np.int64], by: NDArray[np.int64] | int) -> NDArray[np.int64]:
    """Other ids, equal where *ids* and *by* are, in the upper half of what an id can be.

    A hash (the finalizer of splitmix64), so nothing has to be remembered: two of ten million ids
    meet with a probability of about 1e-5.
    """
    with np.errstate(over="ignore"):
        mixed = _mixed(ids.astype(np.uint64) ^ _mixed(np.asarray(by, dtype=np.uint64)))
    return ((mixed & (_TOP - np.uint64(1))) | _TOP).astype(np.int64)


def _mixed(value: NDArray[np.uint64]) -> NDArray[np.uint64]:
    value = value + np.uint64(0x9E3779B97F4A7C15)
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))
