"""Block ids as a target wants them: global, dense from 0, one for every block of every prompt.

One rule: equal ids never appear where the source had none; where the sizes of the blocks do not
divide, or a prompt has no ids, reuse is rather lost than made up, and that is said.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sim.trace.blocks import id_count
from sim.trace.numbering import Numbering, mixed
from sim.trace.ragged import Ragged

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sim.trace.chunk import Chunk

    from .target import Target


class KeptIds:
    """Ids as the source has them, or regrouped where the target's blocks are of another size."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._global: GlobalIds | None = None

    @property
    def regrouped(self) -> bool:
        """Whether the ids given out are of the target's blocks, and not of the source's."""
        return self._global is not None

    def of(self, chunk: Chunk) -> Ragged:
        """The ids of a chunk's prompts; none where it has none."""
        if chunk.block_ids is None:
            return Ragged.empty(len(chunk))
        size = self._target.block_tokens
        if size is None or (size == self._target.source_tokens and not self.regrouped):
            return chunk.block_ids
        if self._global is None:
            self._global = GlobalIds(self._target, size)
        return self._global.of(chunk)


class GlobalIds:
    """Ids for blocks of *tokens*, the last one of a prompt included, chunk by chunk."""

    def __init__(self, target: Target, tokens: int) -> None:
        self._target = target
        self._tokens = tokens
        self._numbers = Numbering()

    def of(self, chunk: Chunk) -> Ragged:
        """The ids of a chunk's prompts, ceil(prompt / tokens) each."""
        prompt = chunk.prompt_tokens
        needed = id_count(prompt, self._tokens, "partial")
        ids = Ragged.empty(len(chunk)) if chunk.block_ids is None else chunk.block_ids
        known = self._known(prompt, ids)
        if self._alike and known.all():
            return Ragged(self._numbers.of(ids.values), ids.offsets)
        owner = np.repeat(np.arange(len(chunk)), needed)
        offsets = np.concatenate([[0], np.cumsum(needed)])
        keys = np.zeros(len(owner), dtype=np.int64)
        fresh = ~known[owner]
        if known.any():
            if not known.all():
                ids = ids.take(np.flatnonzero(known))
            keys[~fresh], unknown = self._keys(prompt[known], ids, needed[known])
            fresh[~fresh] = unknown
        return Ragged(self._numbers.of(keys, fresh if fresh.any() else None), offsets)

    @property
    def _alike(self) -> bool:
        """Whether the source's blocks are the target's."""
        target = self._target
        return target.source_tokens == self._tokens and target.source_last == "partial"

    def _known(self, prompt: NDArray[np.int64], ids: Ragged) -> NDArray[np.bool_]:
        """Which rows have as many ids as they should, at least one."""
        counts = ids.lengths
        target = self._target
        fits = counts == id_count(prompt, target.source_tokens, target.source_last)
        if target.source_last == "full":  # merged with one that has ids for partial blocks too
            fits |= counts == id_count(prompt, target.source_tokens, "partial")
        known: NDArray[np.bool_] = fits & (counts > 0)
        target.lose("# requests without block ids got ids of their own", int((counts == 0).sum()))
        target.lose(
            f"# requests have not one id a block of {target.source_tokens:,} tokens, "
            "and got ids of their own",
            int((~fits & (counts > 0)).sum()),
        )
        return known

    def _keys(
        self, prompt: NDArray[np.int64], ids: Ragged, needed: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """A key for each block to be written of rows with ids, and which blocks are unknown."""
        if self._alike:
            return ids.values, np.zeros(len(ids.values), dtype=np.bool_)
        size, tokens = self._target.source_tokens, self._tokens
        self._say_sizes(size, tokens)
        owner = np.repeat(np.arange(len(prompt)), needed)
        block = np.arange(len(owner)) - np.repeat(np.cumsum(needed) - needed, needed)
        start, end = block * tokens, np.minimum((block + 1) * tokens, prompt[owner])
        # the source's blocks that lie in a block, at least in part
        first, last = start // size, (end - 1) // size
        there = ids.lengths[owner]
        unknown = last >= there
        self._target.lose(
            "# last blocks that are not full have no id in the source, and got one of their own",
            int(unknown.sum()),
        )
        at = np.arange(len(ids.values)) - np.repeat(ids.offsets[:-1], ids.lengths)
        summed = np.zeros(len(ids.values) + 1, dtype=np.uint64)
        # a block is what the source's blocks in it are, each in its place; sums wrap around
        places = mixed(at.astype(np.uint64) + np.uint64(1))
        np.cumsum(mixed(ids.values.view(np.uint64) ^ places), out=summed[1:])
        base = ids.offsets[:-1][owner]
        group = summed[base + np.minimum(last + 1, there)] - summed[base + np.minimum(first, there)]
        keys = mixed(group + mixed(block.astype(np.uint64)))
        return keys.view(np.int64), unknown

    def _say_sizes(self, size: int, tokens: int) -> None:
        if tokens == size:
            return
        text = f"block ids are of {tokens:,} tokens, those of the source of {size:,}"
        if tokens % size and size % tokens:
            text += ": blocks that agree in part count as different"
        elif tokens > size:
            text += f": prefixes are shared in steps of {tokens:,} tokens only"
        self._target.lose(text)
