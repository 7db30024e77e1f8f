"""Whether a draft token is accepted: laws of chance, and what their number means by rule.

The one rule: the draw for the draft of output position p of request r belongs to (r, p). Width,
controller, loop mode and the order of events change which draws are looked at, never a draw.

A chance is that of a draft token *if all before it were accepted*. Acceptance rates are inputs of
a scenario, from measurements of a drafter on a workload; nothing here derives them.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import exp, lgamma
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np

from sim.errors import InputError
from sim.rng import stream, uniforms

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .trees import Tree

DRAWS = "acceptance"
"""Name of the stream of draws by position."""
RATES = "acceptance rate"
"""Name of the stream of rates by request."""


class Rule(NamedTuple):
    """How drafts are verified, and what an acceptance rate means then."""

    lossless: bool
    """Whether outputs are distributed as without speculation."""
    verify: str
    """Kernel that decides: `greedy` reads an arg-max a row, `rejection` probabilities too."""
    meaning: str
    """What a rate is the probability of."""


# Model: typical acceptance needs probabilities and an entropy, agreement with the top k an order of
# logits; neither kernel was measured, and both look at each row once, as rejection does.
RULES = {
    "greedy": Rule(
        True,
        "greedy",
        "that the draft token is the model's most likely one (temperature 0; output is that of "
        "greedy decoding to the token)",
    ),
    "rejection": Rule(
        True,
        "rejection",
        "expected overlap of the two distributions, sum of min(p, q) over the vocabulary: accept "
        "with min(1, p/q), else draw from the rest (Leviathan et al. 2023, Chen et al. 2023); q of "
        "an n-gram draft is 1, so it is the model's own probability of the token",
    ),
    "typical": Rule(
        False,
        "rejection",
        "that the model gives the draft token more than min(epsilon, delta exp(-entropy)) (Medusa, "
        "Cai et al. 2024; outputs are plausible, not those of the model's distribution)",
    ),
    "top_k": Rule(
        False,
        "rejection",
        "that the draft token is among the model's k most likely ones (outputs differ from the "
        "model's own wherever it is not the first)",
    ),
}


class Law(Protocol):
    """What decides about the drafts of a request."""

    def chances(self, request_id: int) -> tuple[float, ...]:
        """Chance by level of one candidate, given acceptance of the level above."""

    def draws(self, seed: int, request_id: int, positions: np.ndarray) -> np.ndarray:
        """Draws of output *positions*: below its chance a draft is accepted."""

    def draw(self, seed: int, request_id: int, position: int) -> float:
        """One of `draws`."""

    def reached(self, tree: Tree) -> tuple[float, ...]:
        """Chance that 1, 2, 3, ... levels are accepted, over all requests."""


class Chance:
    """Laws that decide by a uniform draw a position."""

    __slots__ = ()

    def draws(self, seed: int, request_id: int, positions: np.ndarray) -> np.ndarray:
        return uniforms(seed, DRAWS, request_id, positions)

    def draw(self, seed: int, request_id: int, position: int) -> float:
        return uniforms(seed, DRAWS, request_id, position)


@dataclass(frozen=True, slots=True)
class PerPosition(Chance):
    """The same chances for all requests: one a level, the last one for all further levels.

    With one rate a for all, i drafts in a row are accepted with a**i, and a step of width K
    commits (1 - a**(K + 1)) / (1 - a) tokens on average (Leviathan et al. 2023).
    """

    by_level: tuple[float, ...]

    def chances(self, request_id: int) -> tuple[float, ...]:
        return self.by_level

    def reached(self, tree: Tree) -> tuple[float, ...]:
        return tuple(np.cumprod(tree.passing(self.by_level)).tolist())


def per_position(rates: Sequence[float], levels: int) -> PerPosition:
    """Conditional *rates* by position; the last one holds for all further ones."""
    given = tuple(map(float, rates))
    return PerPosition((given + given[-1:] * levels)[:levels])


def conditional(survival: Sequence[float]) -> tuple[float, ...]:
    """Conditional rates from the share of steps in which each position is accepted.

    The latter is what vLLM reports (`spec_decode_num_accepted_tokens_per_pos` over
    `spec_decode_num_drafts`); a draft counts there only with all before it.
    """
    before = (1.0, *survival)
    return tuple(
        now / last if last > 0.0 else 0.0 for last, now in zip(before, survival, strict=False)
    )


@dataclass(frozen=True, slots=True)
class BetaRate(Chance):
    """One rate a request, drawn from a Beta distribution of *mean* and *concentration*.

    Easy and hard texts: with small concentration (the sum of Beta's two parameters) requests
    differ much. Within a request drafts are accepted independently at its rate.
    """

    mean: float
    concentration: float
    levels: int
    seed: int

    def chances(self, request_id: int) -> tuple[float, ...]:
        hits = self.mean * self.concentration
        rate = stream(self.seed, RATES, request_id).beta(hits, self.concentration - hits)
        return (float(rate),) * self.levels

    def reached(self, tree: Tree) -> tuple[float, ...]:
        # Levels of one candidate give a power of the rate a. Others give 1 - (1 - a)**w, so their
        # product is a polynomial in (1 - a), of few terms since trees are small.
        found, power, terms = [], 0, {0: 1.0}
        for width in tree.children:
            if width == 1:
                power += 1
            else:
                wider = dict(terms)
                for degree, factor in terms.items():
                    wider[degree + width] = wider.get(degree + width, 0.0) - factor
                terms = wider
            found.append(sum(f * self._moment(power, degree) for degree, f in terms.items()))
        return tuple(found)

    def _moment(self, accepted: int, rejected: int) -> float:
        """Mean of a**accepted * (1 - a)**rejected."""
        hits = self.mean * self.concentration
        misses = self.concentration - hits
        return exp(
            lgamma(hits + accepted) - lgamma(hits) + lgamma(misses + rejected) - lgamma(misses)
            + lgamma(self.concentration) - lgamma(self.concentration + accepted + rejected)
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Recorded(Chance):
    """One rate a request, from a column: the request at position i of the trace has row i."""

    rates: np.ndarray
    levels: int
    name: str
    """How messages call the file."""

    def chances(self, request_id: int) -> tuple[float, ...]:
        if request_id >= len(self.rates):
            what = f"{len(self.rates)} acceptance rates, and the trace has more requests"
            raise InputError(f"{self.name}: {what}; give one row a request")
        return (float(self.rates[request_id]),) * self.levels

    def reached(self, tree: Tree) -> tuple[float, ...]:
        levels = [1.0 - (1.0 - self.rates) ** width for width in tree.children]
        return tuple(np.cumprod(levels, axis=0).mean(axis=1).tolist())


@dataclass(frozen=True, slots=True)
class MismatchStride:
    """A drafter that errs after every *stride*-th output token: no chance in it.

    The token at a multiple of *stride*, counted from 1, ends what is accepted of its draft, unless
    it is the last one of the draft; the next draft begins right again.
    """

    stride: int
    levels: int

    def chances(self, request_id: int) -> tuple[float, ...]:
        return (1.0, *(0.5,) * (self.levels - 1))

    def draws(self, seed: int, request_id: int, positions: np.ndarray) -> np.ndarray:
        return np.where(positions % self.stride == 0, 0.75, 0.25)

    def draw(self, seed: int, request_id: int, position: int) -> float:
        return 0.75 if position % self.stride == 0 else 0.25

    def reached(self, tree: Tree) -> tuple[float, ...]:
        """As if drafts began at any position alike."""
        return tuple(max(0.0, 1.0 - level / self.stride) for level in range(tree.levels))
