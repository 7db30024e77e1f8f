"""What verification and commit compute: float64, one request after the other.

A sampled result counts as right in two cases. Either it equals the reference, or the one float32
decision in which they part is a close call: a test u q < p whose sides differ by less than `CLOSE`
of the larger, or a level that lies within `CLOSE` (of the row's total probability) of the chosen
token's interval of the cumulative weights.
"""

from __future__ import annotations

from typing import Any

import numpy as np

CLOSE = 1e-5
Ints = np.ndarray[Any, Any]


def greedy(target: Any, draft: Any) -> list[int]:
    """Accepted tokens and the bonus token for *target* [T, V] and *draft* [T - 1]."""
    best = np.argmax(np.where(np.isnan(target), -np.inf, target), axis=1)
    accepted = 0
    while accepted < len(draft) and draft[accepted] == best[accepted]:
        accepted += 1
    return [int(token) for token in best[: accepted + 1]]


def softmax(logits: Any, temperature: float) -> Any:
    """Probabilities of *logits* [..., V] at *temperature*."""
    scaled = np.asarray(logits, np.float64) / temperature
    power = np.exp(scaled - scaled.max(axis=-1, keepdims=True))
    return power / power.sum(axis=-1, keepdims=True)


def weights(p: Any, q: Any, draft: Any, accepted: int) -> Any:
    """What the token after *accepted* ones is drawn from; *p* [T, V], *q* [T - 1, V] or None."""
    if accepted == len(draft):
        return p[accepted]
    if q is not None:
        return np.maximum(p[accepted] - q[accepted], 0)
    left = p[accepted].copy()
    left[draft[accepted]] = 0
    return left


def rejection(p: Any, q: Any, draft: Any, uniforms: Any) -> list[int]:
    """Tokens that leave the chain: accepted draft tokens and one sampled."""
    accepted = 0
    while accepted < len(draft):
        token = draft[accepted]
        if not uniforms[accepted] * (1 if q is None else q[accepted][token]) < p[accepted][token]:
            break
        accepted += 1
    total = np.cumsum(weights(p, q, draft, accepted))
    sampled = np.searchsorted(total, uniforms[-1] * total[-1], side="right")
    return [*(int(t) for t in draft[:accepted]), int(min(sampled, len(total) - 1))]


def is_close_call(p: Any, q: Any, draft: Any, uniforms: Any, got: list[int]) -> bool:
    """Whether *got* is a result that float32 rounding may give, see above."""
    accepted = len(got) - 1
    if list(draft[:accepted]) != got[:-1]:
        return False
    for i in range(min(accepted + 1, len(draft))):
        left = uniforms[i] * (1 if q is None else q[i][draft[i]])
        right = p[i][draft[i]]
        slack = CLOSE * max(left, right)
        if left >= right + slack if i < accepted else left < right - slack:
            return False
    left_over = weights(p, q, draft, accepted)
    total = np.cumsum(left_over)
    level, token = uniforms[-1] * total[-1], got[-1]
    return bool(
        left_over[token] > -CLOSE / 100
        and total[token] - left_over[token] - CLOSE <= level <= total[token] + CLOSE
    )


def commit(
    state: dict[str, Any], emitted: Ints, tokens: Ints, new_tokens: int, page_tokens: int
) -> None:
    """Changes *state* (the fields of `Slots`, NumPy), *emitted* and *tokens* as one step does."""
    ring, capacity = state["free_ring"], len(state["free_ring"])
    head, tail = int(state["free_head"][0]), int(state["free_tail"][0])
    wanted = []
    for b, length in enumerate(int(n) for n in state["lengths"]):
        if length == -1:
            continue
        if length >= 0:
            emitted[b] = min(emitted[b], state["remaining"][b])
            tokens[b, emitted[b] :] = -1
            state["remaining"][b] -= emitted[b]
            length += int(emitted[b])
        else:
            length = -2 - length
        finished = state["remaining"][b] == 0
        needed = 0 if finished else -(-(length + new_tokens) // page_tokens)
        held = int(state["page_counts"][b])
        state["lengths"][b] = -1 if finished else length
        for page in state["table"][b, needed:held]:
            ring[tail % capacity] = page
            tail += 1
        state["page_counts"][b] = min(held, needed)
        if needed > held:
            wanted.append((b, held, needed))
    free, used, short = tail - head, 0, 0
    for b, held, needed in wanted:
        fits = needed <= state["table"].shape[1]
        used += needed - held if fits else 0
        if fits and used <= free:
            for i in range(held, needed):
                state["table"][b, i] = ring[head % capacity]
                head += 1
            state["page_counts"][b] = needed
        else:
            short += 1
            state["lengths"][b] = -2 - state["lengths"][b]
    state["free_head"][0], state["free_tail"][0] = head, tail
    state["status"][0] = short
