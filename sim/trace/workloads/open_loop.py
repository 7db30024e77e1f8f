"""Open-loop workloads: requests whose times, lengths and blocks are drawn apart from each other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sim.rng import stream
from sim.trace.chunk import Chunk
from sim.trace.lengths import correlated

from .arrivals import ROWS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import numpy as np
    from numpy.typing import NDArray

    from sim.trace.lengths import Length
    from sim.trace.ragged import Ragged

    from .arrivals import Arrivals

    Blocks = Callable[
        [NDArray[np.float64], NDArray[np.int64], NDArray[np.float64]], Ragged
    ]  # times, prompt tokens and uniform draws [n, 3] to block ids


@dataclass(frozen=True, slots=True)
class Recipe:
    """What rows are made from; lengths do not depend on the time."""

    arrivals: Arrivals
    prompt: Length
    output: Length
    rank_correlation: float = 0.0
    blocks: Blocks | None = None


def rows(recipe: Recipe, source: str, requests: int, seed: int) -> Iterator[Chunk]:
    """*requests* requests of *recipe*, in chunks of `ROWS`, whose draws depend on their number."""
    for number, start in enumerate(range(0, requests, ROWS)):
        count = min(ROWS, requests - start)
        arrival_s = recipe.arrivals.take()[:count]
        prompt, output = (tokens[:count] for tokens in _lengths(recipe, source, number, seed))
        ids = None
        if recipe.blocks is not None:
            draws = stream(seed, f"trace.{source}.sessions", number).random((ROWS, 3))
            ids = recipe.blocks(arrival_s, prompt, draws[:count])
        yield Chunk(arrival_s, prompt, output, ids)


def _lengths(
    recipe: Recipe, source: str, number: int, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Prompt and output tokens of chunk *number*, `ROWS` each."""
    first, second = (stream(seed, f"trace.{source}.{of}", number) for of in ("prompt", "output"))
    if not recipe.rank_correlation:
        return recipe.prompt.draw(first, ROWS), recipe.output.draw(second, ROWS)
    shares = first.random(ROWS), second.random(ROWS)
    output = correlated(*shares, recipe.rank_correlation)
    return recipe.prompt.quantile(shares[0]), recipe.output.quantile(output)
