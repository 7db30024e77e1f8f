"""Steps of several tokens against steps of one: the same text, whoever guesses."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ..checking import CheckError, on_host
from .reference import check_tokens, snapshot

if TYPE_CHECKING:
    from .reference import Reference


def follow(
    one: Any, many: Any, reference: Reference, guesses: str, steps: int, rng: np.random.Generator
) -> tuple[float, int]:
    """Runs *steps* steps of *one* and as many tokens of *many*; both have the same committed text.

    With `true` *guesses* all must be accepted, with `random` ones none needs be. Where the two
    part, float64 must find a tie, and the first run's tokens are put in place. Returns the worst of
    those ties and how often the two parted; raises `CheckError`.
    """
    backend, state = many.backend, many.state
    for _ in range(steps):
        one.launch()
    truth = on_host(backend, one.state.text).copy()
    state.text[...] = backend.xp.asarray(truth)
    end = snapshot(state)["lengths"] + steps
    worst, apart = 0.0, 0
    while True:
        before = snapshot(state)
        held = before["lengths"]
        if (held + state.tokens > end).any():
            return worst, apart
        if guesses == "random":
            for b in range(state.batch):
                before["text"][b, held[b] + 1 :] = rng.integers(
                    0, state.shape.vocabulary, state.text_size - held[b] - 1
                )
            state.text[...] = backend.xp.asarray(before["text"])
        many.launch()
        after = snapshot(state)
        for b in range(state.batch):
            count, begin = int(after["emitted"][b]), int(held[b]) + 1
            got, want = after["tokens"][b, :count], truth[b, begin : begin + count]
            if not np.array_equal(got, want):
                apart += 1
                exact = on_host(backend, reference.step(state, before).logits)
                rows = exact[b * state.tokens :][:count]
                worst = max(worst, check_tokens(rows, got), check_tokens(rows, want))
                state.text[b, begin : begin + count] = backend.xp.asarray(want)
            elif guesses == "true" and count != state.tokens:
                raise CheckError(f"request {b}: {count} of {state.tokens} true tokens accepted")
