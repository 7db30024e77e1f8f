"""How many prompt tokens a prefix block id stands for, and whether rows have ids to match.

One rule: the size is never assumed in silence. It is given, or stated by the file, or found out
by the ids of the first rows; a row whose number of ids does not fit is a bad row. A row without
ids has a prefix that is not known, and is fine.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from sim.errors import InputError, shown

from .bounds import MAX_BLOCK_TOKENS
from .naming import said
from .rows import BadRowError

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from .chunk import Tally
    from .ragged import Ragged

LastBlock = Literal["partial", "full"]
"""Whether a prompt's last block has an id although it is not full (ceil), or not (floor)."""

# Model: block sizes and roundings as the publishers give them: Mooncake (FAST'25) and what
# extends it 512, Qwen-Bailian 16, Weka's Claude Code sessions 64 and full blocks only.
_USUAL: dict[str, tuple[int, LastBlock]] = {"bailian": (16, "partial"), "weka": (64, "full")}
_EITHER = ("parquet", "vidur")  # a file of these may hold ids of either rounding
_KEYS = {"parquet": "block_ids", "vidur": "block_hash_ids"}  # what the others call hash_ids
USUAL_TOKENS = 512
_SIZES = tuple(2**power for power in range(MAX_BLOCK_TOKENS.bit_length()))
_FIRST_ROWS = 4096  # that decide on the size
_MOST = 0.9  # of them have to fit a size that is not the usual one
REASON = "wrong number of hash_ids"
REMEDY = "say the size with --block-tokens (trace.block_tokens)"


def usual(format: str) -> tuple[int, LastBlock]:
    """Block size and rounding that files of *format* have unless they say otherwise."""
    return _USUAL.get(format, (USUAL_TOKENS, "partial"))


def check_size(key: str, value: Any) -> int:
    """*value* if it can be a block size; raises `InputError` about *key*."""
    if type(value) is not int or not 1 <= value <= MAX_BLOCK_TOKENS:
        raise InputError(f"{key}: {shown(value)} is no size; write 1 to {MAX_BLOCK_TOKENS}")
    return value


def id_count(prompt_tokens: Any, block_tokens: int, last_block: LastBlock) -> Any:
    """How many ids prompts of so many tokens have."""
    if last_block == "full":
        return prompt_tokens // block_tokens
    return -(-prompt_tokens // block_tokens)


class Blocks:
    """The block size of one trace file, and the check of its rows against it.

    *given* is what the user asked for, which goes before what the file says of itself (a reader
    puts that into the tally's `block_tokens` and `last_block` before the first check). `tally` has
    the size in use from the first row with ids on.
    """

    def __init__(self, path: Path, tally: Tally, given: int | None = None) -> None:
        if given is not None:
            check_size("block tokens", given)
        self._name = said(path)
        self._tally = tally
        self._given = given
        self._tokens: int | None = None
        self._key = _KEYS.get(tally.format, "hash_ids")

    @property
    def known(self) -> bool:
        """Whether the size is decided."""
        return self._tokens is not None

    def look(self, prompt_tokens: NDArray[np.int64], ids: Ragged | None) -> None:
        """Decide on the size by these rows, unless it is, or none of them has ids.

        Raises `InputError` if they fit none.
        """
        if self.known or ids is None or not len(ids.values):
            return
        counts = ids.lengths
        some = np.flatnonzero(counts)[:_FIRST_ROWS]
        self._decide(prompt_tokens[some], counts[some])

    def wrong(self, prompt_tokens: NDArray[np.int64], ids: Ragged | None) -> NDArray[np.bool_]:
        """Which rows have ids, but not as many as their prompt needs, [n]; decides like `look`."""
        self.look(prompt_tokens, ids)
        if ids is None or self._tokens is None:
            return np.zeros(len(prompt_tokens), dtype=np.bool_)
        counts = ids.lengths
        needed = id_count(prompt_tokens, self._tokens, self._tally.last_block)
        wrong: NDArray[np.bool_] = (counts != needed) & (counts > 0)
        return wrong

    def bad(self, prompt_tokens: int, count: int) -> BadRowError:
        """The finding about a row that `wrong` names."""
        assert self._tokens is not None
        needed = id_count(prompt_tokens, self._tokens, self._tally.last_block)
        return BadRowError(
            REASON,
            f"{self._key}: {count:,} ids for a prompt of {prompt_tokens:,} tokens, which has "
            f"{needed:,} blocks of {self._tokens:,}; correct the row, or {REMEDY}",
        )

    def _decide(self, prompt: NDArray[np.int64], counts: NDArray[np.int64]) -> None:
        tally = self._tally
        stated = tally.block_tokens
        tokens, last_block = usual(tally.format)
        if self._given is not None:
            if stated is None:
                tally.last_block = last_block
                if tally.format in _EITHER:
                    tally.last_block = _better(prompt, counts, self._given)
            elif stated != self._given:
                tally.note(
                    f"a block id stands for {self._given:,} prompt tokens, as asked for; the file "
                    f"says {stated:,}"
                )
            tokens = self._given
        elif stated is not None:
            tokens = stated
            tally.note(f"a block id stands for {tokens:,} prompt tokens: the file says so")
        elif _share(prompt, counts, tokens, last_block) >= 0.5:
            tally.last_block = last_block
            tally.note(f"a block id stands for {tokens:,} prompt tokens: usual, and the ids fit")
        else:
            tokens, tally.last_block = self._found(prompt, counts, last_block)
            tally.note(
                f"a block id stands for {tokens:,} prompt tokens: told by how many there are"
            )
        self._tokens = tally.block_tokens = tokens

    def _found(
        self, prompt: NDArray[np.int64], counts: NDArray[np.int64], last_block: LastBlock
    ) -> tuple[int, LastBlock]:
        """The only power of two that fits most of the first rows; raises `InputError`."""
        kinds: tuple[LastBlock, ...] = (last_block,)
        if self._tally.format in _EITHER:
            kinds = ("partial", "full")
        fits = {
            (size, kind): _share(prompt, counts, size, kind) for kind in kinds for size in _SIZES
        }
        best = max(fits.values())
        found = [key for key, share in fits.items() if share == best]
        if best < _MOST:
            raise InputError(
                f"{self._name}: {self._key}: the numbers of ids fit no block size; the first row "
                f"with ids has {counts[0]:,} for {prompt[0]:,} prompt tokens; {REMEDY}"
            )
        sizes = sorted({size for size, _ in found})
        if len(sizes) > 1:
            raise InputError(
                f"{self._name}: {self._key}: the numbers of ids fit blocks of "
                f"{', '.join(map(str, sizes))} tokens alike; {REMEDY}"
            )
        return found[0]


def _share(
    prompt: NDArray[np.int64], counts: NDArray[np.int64], tokens: int, last_block: LastBlock
) -> float:
    return float(np.mean(id_count(prompt, tokens, last_block) == counts))


def _better(prompt: NDArray[np.int64], counts: NDArray[np.int64], tokens: int) -> LastBlock:
    """The rounding that fits more rows; "partial" if both do alike."""
    partial = _share(prompt, counts, tokens, "partial")
    return "full" if _share(prompt, counts, tokens, "full") > partial else "partial"
