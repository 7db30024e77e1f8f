"""How a selection changes from step to step, and what then has to be fetched into HBM.

The one rule: the process is explicit (`sparse/walk.py` runs it), and every formula here is its
expectation. Locality is an input of a scenario, never a result.

What was measured, as the share of a step's selection that the next one has too:

- 0.6 with chunks of 8 tokens, 1.56 % of 128k selected, Llama-3-8B-1M and others: ShadowKV, arXiv
  2410.21465, section 4.1 (fetches less 60 %); its authors in github.com/ByteDance-Seed/ShadowKV,
  issue 3, call it a repetition of about 60 % between adjacent steps.
- 0.35 to 0.50 with single tokens in layers 20-60 and near 0 in layers 0 and 1, 2048 of 68,665
  tokens selected, DeepSeek-V3.2, one SWE-bench prompt and 2,025 steps: NVIDIA/TensorRT-LLM,
  docs/source/blogs/tech_blog/blog21_Temporal_Correlation_Meets_Sparse_Attention.md, figure 2.

A block of 16 tokens or more hides moves by a token or two, so it should keep at least as much as
chunks of 8; no measurement of that was found. The default 0.6 is therefore estimated for our
blocks, and so is `returning`, for which nothing published was found: 0 is the end at which it
helps least that HBM keeps more than one selection.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from .numbers import Real, Whole, least, most, power

NEVER = 1 << 62


@dataclass(frozen=True, slots=True)
class Locality:
    """A selection of *chosen* of *pool* units.

    Each unit selected stays with probability `stay`. Who leaves is replaced by units that were not
    selected: with probability `returning` by one of the *chosen* that left most recently, else by
    any. So each unit's selection is a chain of two states, exactly if `returning` is 0.
    """

    stay: float
    returning: float = 0.0

    def newcomers(self, pool: Real, chosen: int, advance: Whole = 1) -> Real:
        """Units of a selection that were not in the one *advance* tokens before."""
        # Model: `stay` was measured between steps of one token; a step that committed more moves
        # the selection on as that many steps, each with the same chain: what is left of the
        # correlation decays as a power. Never less than chance, chosen / pool, stays.
        others = most(pool - chosen, 0)
        kept = most(self.stay * pool - chosen, 0.0) / most(others, 1)
        return chosen * others / most(pool, 1) * (1.0 - power(kept, advance))

    def missed(self, pool: Real, chosen: int, resident: Real) -> Real:
        """Probability that a newcomer is not among the *resident* units last selected."""
        # Model: Spirn's LRU stack model: a newcomer's depth in the stack of units, ordered by when
        # they were last selected, is uniform beyond the present selection, plus a part `returning`
        # that is uniform among the next `chosen`. LRU misses what is deeper than it holds.
        others = most(pool - chosen, 1)
        depth = least(most(resident - chosen, 0), others)
        recent = least(others, chosen)
        near = most(recent - depth, 0) / recent
        return self.returning * near + (1.0 - self.returning) * ((others - depth) / others)

    def fetched(self, pool: Real, chosen: int, resident: Real, advance: Whole = 1) -> Real:
        """Units that a step fetches when the *resident* units last selected are in HBM."""
        return self.newcomers(pool, chosen, advance) * self.missed(pool, chosen, resident)

    def touched(self, pool: int, chosen: int, steps: int) -> float:
        """Different units that *steps* >= 1 consecutive steps select, the working set."""
        # Model: what was touched is the top of the stack, so a step adds its newcomers that are
        # deeper: a recursion linear in two pieces, solved in each. Exact with `returning` 0.
        if pool <= chosen:
            return float(max(pool, 0))
        fresh, others = float(self.newcomers(pool, chosen)), pool - chosen
        left, added = steps - 1, 0.0
        if self.returning > 0.0:
            near = min(chosen, others)
            slope = self.returning / near + (1.0 - self.returning) / others
            jump = min(left, _steps_beyond(near, fresh, slope))
            added, left = (1.0 - (1.0 - fresh * slope) ** jump) / slope, left - jump
        far = fresh * (1.0 - self.returning) / others
        return chosen + others - (others - added) * (1.0 - far) ** left


def _steps_beyond(near: int, fresh: float, slope: float) -> int:
    """Steps until x >= *near*, with x from 0 on growing by *fresh* (1 - *slope* x) a step."""
    if fresh <= 0.0 or slope * near >= 1.0:
        return NEVER
    if fresh * slope >= 1.0:
        return 1
    return math.ceil(math.log1p(-slope * near) / math.log1p(-fresh * slope))
