"""The functional form of a step: seconds over what a step computes, as sums and maxima of terms.

Every term is linear in the context tokens while the batch stands still, so a step's length is the
largest of a few straight lines in them. The one rule: fit and cost model evaluate the same terms.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .step_cold import Cold

UNITS = {
    "step": "s a step",
    "prefill_step": "s a step with prefill",
    "decode_request": "s a decoding request",
    "prefill_request": "s a prefilling request",
    "tokens": "s a token computed",
    "context": "s a context token read",
    "prefill_context": "s a token before a chunk",
    "prefill_pair": "s a pair of a prompt's tokens",
    "all_pair": "s a pair of a computed and a held token",
}
"""Terms and the unit of their coefficient."""

Number = Any
"""A float or an array of floats."""


class Load(NamedTuple):
    """What a step computes; numbers, or arrays over steps. Decode counts as it is padded."""

    decode_requests: Number
    decode_tokens: Number
    context: Number
    prefill_requests: Number
    prefill_tokens: Number
    prefill_context: Number
    pairs: Number = None
    """Of prefilled tokens and what they attend to, where single prompts are known."""
    turned: Number = None
    """1 for the first step that only decodes after one with prefill, and the other way round."""
    held: Number = None
    """The decode batch as the log says that it was padded; None where that follows from sizes."""
    fresh: Number = None
    """New shapes among the prompts (rows x 2, as `step_cold.fresh`); None where nobody counts."""

    def counted(self, meaning: str) -> Load:
        """With the context tokens that the log's column means: of decode, or of all requests."""
        if meaning == "decode":
            return self
        more = self.prefill_context + (self.prefill_tokens if meaning == "all" else 0.0)
        return self._replace(context=self.context + more)


def rows_of(load: Load, rows: Any) -> Load:
    """Those *rows* (numbers or a mask) of it."""
    return Load(*(None if values is None else values[rows] for values in load))


class Term(NamedTuple):
    """A coefficient in seconds times what *name* counts; of tokens those from *low* to *high*."""

    name: str
    seconds: float
    low: float = 0.0
    high: float | None = None

    def counts(self, load: Load) -> tuple[Number, Number]:
        """(a, b) so that the term counts a + b * context."""
        name = self.name
        if name == "context":
            return 0.0, 1.0
        if name == "step":
            return 1.0, 0.0
        tokens = load.decode_tokens + load.prefill_tokens
        if name == "tokens":
            return _between(tokens, self.low, self.high), 0.0
        if name == "decode_request":
            return load.decode_requests, 0.0
        if name == "prefill_step":
            return (load.prefill_tokens > 0) * 1.0, 0.0
        if name == "prefill_request":
            return load.prefill_requests, 0.0
        if name == "prefill_context":
            return load.prefill_context, 0.0
        if name == "prefill_pair" and load.pairs is not None:
            return load.pairs, 0.0
        if name == "prefill_pair":
            # Model: prompts of one step are taken as equally long; a token attends to what is
            # before its chunk and to half of the chunk.
            each = load.prefill_requests + (load.prefill_requests < 1) * 1.0
            before = load.prefill_context + 0.5 * load.prefill_tokens
            return load.prefill_tokens * before / each, 0.0
        assert name == "all_pair"
        # Model: attention without paging reads all KV of the step for each of its tokens.
        return tokens * (load.prefill_context + load.prefill_tokens), tokens


def _between(tokens: Number, low: float, high: float | None) -> Number:
    if isinstance(tokens, np.ndarray):
        over = np.maximum(tokens - low, 0.0)
        return over if high is None else np.minimum(over, high - low)
    above = max(float(tokens) - low, 0.0)
    return above if high is None else min(above, high - low)


Branch = tuple[Term, ...]


def line(branch: Branch, load: Load) -> tuple[Number, Number]:
    """(const, slope) of *branch* in the context tokens."""
    const: Number = 0.0
    slope: Number = 0.0
    for term in branch:
        a, b = term.counts(load)
        const = const + term.seconds * a
        slope = slope + term.seconds * b
    return const, slope


def design(branch: Branch, load: Load) -> np.ndarray:
    """What each term of *branch* counts in each step of *load*: rows x terms."""
    rows = len(load.decode_requests)
    found = np.empty((rows, len(branch)))
    for at, term in enumerate(branch):
        a, b = term.counts(load)
        found[:, at] = a + b * load.context
    return found


def grained(load: Load, grain: int) -> Load:
    """*load* with its tokens rounded up to a multiple of *grain*; the rest is as if decoded."""
    if grain == 1:
        return load
    tokens = load.decode_tokens + load.prefill_tokens
    return load._replace(decode_tokens=load.decode_tokens + (-tokens) % grain)


@dataclass(frozen=True, slots=True)
class Regime:
    """A kind of step: the largest of its *branches*, each a sum of terms."""

    branches: tuple[Branch, ...]
    grain: int = 1
    """Tokens are rounded up to a multiple of so many."""
    turn: Branch = ()
    """What the first step of this kind takes beyond, straight after one of the other."""

    def grained(self, load: Load) -> Load:
        """*load* with as many tokens as are computed."""
        return grained(load, self.grain)

    def lines(self, load: Load) -> tuple[tuple[float, float], ...]:
        """The straight lines in the context tokens at *load*."""
        load = self.grained(load)
        return tuple(line(branch, load) for branch in self.branches)

    def seconds(self, load: Load) -> np.ndarray:
        """Seconds of each step of *load* (arrays)."""
        found: np.ndarray | None = None
        load = self.grained(load)
        for branch in self.branches:
            const, slope = line(branch, load)
            own = const + slope * load.context
            own = np.broadcast_to(own, np.shape(load.decode_requests)).astype(np.float64)
            found = own if found is None else np.maximum(found, own)
        assert found is not None
        found += self.turning(load)
        return found

    def turning(self, load: Load) -> Number:
        """The part of the seconds that is for turning to this kind of step."""
        if not self.turn or load.turned is None:
            return 0.0
        taken: Number = line(self.turn, load)[0] * load.turned
        return taken


@dataclass(frozen=True, slots=True)
class Form:
    """Steps that only decode and steps with prefill; sizes to which decode batches are padded."""

    decode: Regime
    mixed: Regime
    captured: tuple[int, ...] = ()
    context_of: str = "decode"
    """Whose tokens the log's context column counts: decode, prefix (and those before chunks), all
    (and the chunks' own)."""
    held: bool = False
    """Whether decode batches stay as large as at the first step after prefill, whoever ends."""
    cold: Cold | None = None
    """What shapes of prompts take that the engine has not met before; None: nothing."""

    def seconds(self, load: Load) -> np.ndarray:
        """Seconds of each step of *load*, whose decode counts are not padded yet."""
        plain = np.asarray(load.prefill_tokens) == 0
        load = load if self.held else load._replace(held=None)
        padded = pad(load, self.captured).counted(self.context_of)
        found = np.empty(len(plain))
        for rows, regime in ((plain, self.decode), (~plain, self.mixed)):
            if rows.any():
                found[rows] = regime.seconds(rows_of(padded, rows))
        return found if self.cold is None else found + self.cold.taken(load)


def pad(load: Load, captured: Sequence[int]) -> Load:
    """*load* (arrays) with the decode batches of steps without prefill as large as captured ones.

    Batches beyond the largest size run as they are; those that are held, at least as held.
    """
    if not captured:
        return load
    sizes = np.asarray(captured, np.float64)
    batch = np.asarray(load.decode_requests)
    place = np.searchsorted(sizes, batch)
    fits = (place < len(sizes)) & (np.asarray(load.prefill_tokens) == 0) & (batch > 0)
    padded = np.where(fits, sizes[np.minimum(place, len(sizes) - 1)], batch)
    if load.held is not None:
        padded = np.where(fits, np.maximum(padded, load.held), padded)
    each = np.ceil(load.decode_tokens / np.maximum(batch, 1.0))
    tokens = np.where(fits, padded * each, load.decode_tokens)
    return load._replace(decode_requests=padded, decode_tokens=tokens)
