"""What the small stages compute, in float64; NumPy or CuPy arrays."""

from __future__ import annotations

from typing import Any

import numpy as np


def rmsnorm(x: Any, weight: Any, epsilon: float) -> Any:
    """*x* [rows, width] over its root mean square, times *weight* [width]."""
    x = x.astype(np.float64)
    return x / ((x * x).mean(axis=1, keepdims=True) + epsilon) ** 0.5 * weight


def silu_mul(xp: Any, gate_up: Any) -> Any:
    """silu of the first half of *gate_up* [rows, 2 width], times the second half."""
    gate, up = xp.split(gate_up.astype(np.float64), 2, axis=1)
    return gate / (1 + xp.exp(-gate)) * up


def rope(xp: Any, heads: Any, positions: Any, theta: float) -> Any:
    """*heads* [rows, heads, size], pair (d, d + size / 2) turned by position * theta^(-2 d / size).

    Rows of negative position stay as they are.
    """
    half = heads.shape[2] // 2
    angle = xp.maximum(positions, 0)[:, None] * theta ** (-xp.arange(half) / half)
    sine, cosine = xp.sin(angle)[:, None], xp.cos(angle)[:, None]
    low, high = heads[..., :half].astype(np.float64), heads[..., half:].astype(np.float64)
    return xp.concatenate([low * cosine - high * sine, high * cosine + low * sine], axis=2)


def shares_below(xp: Any, logits: Any, temperatures: Any, tokens: Any) -> tuple[Any, Any]:
    """Probability of all tokens before *tokens* [rows], and of those up to and with them."""
    scaled = logits.astype(np.float64) / temperatures[:, None]
    weights = xp.exp(scaled - scaled.max(axis=1, keepdims=True))
    sums = xp.cumsum(weights, axis=1) / weights.sum(axis=1, keepdims=True)
    rows = xp.arange(len(tokens))
    upper = sums[rows, tokens]
    return upper - weights[rows, tokens] / weights.sum(axis=1), upper
