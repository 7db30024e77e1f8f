"""What paged decode attention computes, in float64; NumPy or CuPy."""

from __future__ import annotations

from typing import Any


def attention_rows(q: Any, k: Any, v: Any, positions: Any, length: int, scale: float) -> Any:
    """Attention of one request and KV head: *q* [T, G, D] over tokens *k*, *v* [N, D] -> like *q*.

    *positions* [N] are the tokens' places in the request; query token t sees those up to
    *length* + t.
    """
    q, k, v = (x.astype("float64") for x in (q, k, v))
    logits = q @ k.T * scale
    for t in range(q.shape[0]):
        logits[t][:, positions > length + t] = -float("inf")
    weights = logits - logits.max(axis=-1, keepdims=True)
    weights = 2.718281828459045**weights
    return weights @ v / weights.sum(axis=-1, keepdims=True)
