"""What is drafted for one step: a chain of tokens, or a tree of candidates.

The one rule: a width is a number of levels, whether a level holds one draft token (chain) or
several (tree). Of a level at most one token is accepted, so levels are what controllers count.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from operator import mul

MAX_LEVELS = 64
"""Draft tokens of a chain, or levels of a tree."""
MAX_NODES = 1024
"""Draft tokens of one step of a request."""


@dataclass(frozen=True)
class Tree:
    """Candidates for one more token, by level: *children* of every node of the level above.

    `(1, 1, 1)` is a chain of three tokens; `(4, 2, 1)` has 4 + 8 + 8 nodes. All nodes and the
    last committed token go through the model in one pass, with a mask by ancestry (tree attention:
    SpecInfer, Miao et al. 2024; Medusa, Cai et al. 2024).
    """

    children: tuple[int, ...]

    @property
    def levels(self) -> int:
        """The greatest width."""
        return len(self.children)

    @cached_property
    def nodes_of_level(self) -> tuple[int, ...]:
        """Draft tokens of each level."""
        return tuple(accumulate(self.children, mul))

    @cached_property
    def nodes(self) -> tuple[int, ...]:
        """Draft tokens of the first 0, 1, 2, ... levels."""
        return tuple(accumulate(self.nodes_of_level, initial=0))

    @cached_property
    def is_chain(self) -> bool:
        """Whether every level has one token."""
        return self.nodes[-1] == self.levels

    @property
    def spare_tokens(self) -> int:
        """Draft tokens beyond the one a level that may be committed; their KV is never kept.

        While a request verifies its last tokens, it holds so much more KV than it has at its end.
        """
        return self.nodes[-1] - self.levels

    def passing(self, chances: tuple[float, ...]) -> tuple[float, ...]:
        """Chance that a level has an accepted token, if one token is accepted with *chances*."""
        return tuple(
            passing(chance, width) for chance, width in zip(chances, self.children, strict=False)
        )


def passing(chance: float, width: int) -> float:
    """Chance that one of *width* candidates is accepted, each with *chance*."""
    # Model: candidates of one node are accepted independently of each other. Real ones exclude
    # each other and come in falling order of chance, so this flatters wide levels; the rate to put
    # in is that of the first candidate of a level (as in the analysis of SpecInfer and Sequoia).
    return chance if width == 1 else 1.0 - (1.0 - chance) ** width


def chain(levels: int) -> Tree:
    """A chain of *levels* draft tokens."""
    return Tree((1,) * levels)
