"""What an engine loses on shapes of prompts that it meets for the first time.

Libraries plan, choose or compile a kernel for each shape, and keep it: a step with such a chunk
may take several times as long as the same step later. A log of totals shows it as steps that lie
whole multiples above the others; which prompts are to blame, only their numbers of tokens tell.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from .nnls import robust

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .cost import Chunk
    from .step_form import Load

    Shapes = tuple[tuple[float, float], ...]

SHAPES = ("tokens", "chunk")
"""What a shape may be: a chunk's tokens, or these and the tokens before it."""
LEAST = 60
_ROUNDS = 6
_NOTABLE = 0.5
"""Share of the usual step from which on a new shape is worth a term."""
_OFTEN = 0.05
"""Share of steps with prompts that must meet new shapes."""
_CLEAR = 0.75
"""Share of steps that must lie near a whole number of new shapes."""
_APART = 0.3
"""By how much more often a shape seen first must be slow than one that was seen before."""
_FINE = 0.15
"""Share of shapes seen before that are slow, from which on a shape is more than its tokens."""
_RECENT = 50
_SEEN = 8


class Cold(NamedTuple):
    """*seconds* for each shape that is new; *by* one of `SHAPES`."""

    seconds: float
    by: str

    def taken(self, load: Load) -> np.ndarray | float:
        """Seconds of each step of *load* for its new shapes, as far as a log tells."""
        if load.fresh is None:
            return 0.0
        found: np.ndarray = self.seconds * load.fresh[:, SHAPES.index(self.by)]
        return found

    def shape(self, chunk: Chunk) -> tuple[int, ...]:
        """What decides whether *chunk* is new."""
        return (chunk.tokens,) if self.by == "tokens" else (chunk.tokens, chunk.offset)


def fresh(
    tokens: np.ndarray, prompts: np.ndarray, before: np.ndarray | None, run: np.ndarray,
    chunks: np.ndarray | None = None,
) -> np.ndarray:  # fmt: skip
    """rows x 2: new shapes in each step, by each of `SHAPES`; *run* numbers engines that began
    knowing nothing. *chunks* are pairs (tokens, tokens before) of each step's prompts where a log
    has them; without *before* or these both are the same."""
    found = np.zeros((len(tokens), 2))
    offsets = np.zeros(len(tokens)) if before is None else before
    alone = [((size, past),) for size, past in zip(tokens.tolist(), offsets.tolist(), strict=True)]
    told = [None] * len(tokens) if chunks is None else chunks.tolist()
    shapes = [
        known or (one if count == 1 else None)
        for known, one, count in zip(told, alone, prompts.tolist(), strict=True)
    ]
    for number in np.unique(run):
        rows = np.flatnonzero((run == number) & (tokens > 0))
        own = [shapes[row] for row in rows.tolist()]
        found[rows, 1] = _first(own, prompts[rows])
        short = [step and tuple((size, 0.0) for size, _ in step) for step in own]
        found[rows, 0] = _first(short, prompts[rows])
    return found


def _first(steps: Iterable[Shapes | None], prompts: np.ndarray) -> list[float]:
    """New shapes of each step; several prompts at once, whose shapes a total does not tell, are
    new as often as known ones are about then."""
    met: set[tuple[float, float]] = set()
    recent: deque[bool] = deque([True], _RECENT)
    found = []
    for shapes, count in zip(steps, prompts.tolist(), strict=True):
        if shapes is None:
            found.append(float(round(count * sum(recent) / len(recent))))
            continue
        before = len(met)
        for shape in shapes:
            recent.append(shape not in met)
            met.add(shape)
        found.append(float(len(met) - before))
    return found


def learned(load: Load, seconds: np.ndarray) -> tuple[Cold | None, np.ndarray]:
    """What a new shape takes in steps of *load*, and the seconds of each step that went there.

    None, and zeros, where steps are not told apart by it: shapes that are new must be slow far
    more often than others, and nearly all steps lie near whole numbers of slow shapes.
    """
    lost = np.zeros(len(seconds))
    own = np.flatnonzero(load.prefill_tokens > 0)
    if load.fresh is None or len(own) < LEAST:
        return None, lost
    prompts, new, taken = load.prefill_requests[own], load.fresh[own], seconds[own]
    tokens = load.decode_tokens[own] + load.prefill_tokens[own]
    usual = np.stack([np.ones(len(own)), prompts, tokens, load.context[own]], axis=1)
    times = new[:, 1]
    for _ in range(_ROUNDS):
        both = np.column_stack([usual, times])
        found = robust(both, taken)
        each, warm = float(found[-1]), usual @ found[:-1]
        if each <= 0.0:
            return None, lost
        # Model: all new shapes take as long; a step's surplus is a whole number of them.
        times = np.clip(np.round((taken - warm) / each), 0.0, prompts)
    near = np.abs((taken - warm) / each - times) < 0.25
    single = prompts == 1
    slow = times > 0
    notable = each >= _NOTABLE * float(np.median(warm))
    if not notable or slow.mean() < _OFTEN or near.mean() < _CLEAR:
        return None, lost
    by = [_slow_share(slow[single], new[single, at] > 0) for at in range(2)]
    at = 1 if by[1][0] - by[1][1] > by[0][0] - by[0][1] else 0
    if by[at][0] - by[at][1] < _APART:
        return None, lost
    at = 1 if by[at][1] > _FINE else at
    lost[own] = each * times
    return Cold(each, SHAPES[at]), lost


def _slow_share(slow: np.ndarray, new: np.ndarray) -> tuple[float, float]:
    """How many of the new shapes and of the others are slow; the same of both if few tell."""
    if min(new.sum(), (~new).sum()) < _SEEN:
        return 0.0, 0.0
    return float(slow[new].mean()), float(slow[~new].mean())


def said(cold: Cold | None, load: Load, lost: np.ndarray) -> list[str]:
    """What new shapes take, in words."""
    if cold is None:
        return []
    share = (lost[load.prefill_tokens > 0] > 0).mean()
    kind = "length" if cold.by == "tokens" else "shape (its tokens, and those before it)"
    return [
        f"a chunk of a prompt whose {kind} is new takes {cold.seconds * 1e3:.3g} ms more, in "
        f"{share:.0%} of the steps with prefill: the engine plans or compiles kernels for each; "
        "a run begins without any"
    ]
