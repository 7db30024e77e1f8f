"""A whole sequence through the model in float64: what every token of a served answer is held to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ..decoder.reference import Reference
from ..element import decode
from ..small_ops.reference import rmsnorm, silu_mul

if TYPE_CHECKING:
    from ..backend import Array
    from ..decoder.weights import Weights


class Sequence:
    """Logits of the model of *weights* after every token of a text; NumPy or CuPy."""

    def __init__(self, weights: Weights) -> None:
        self.weights, self.shape, self.twin = weights, weights.shape, Reference(weights)

    def logits(self, ids: Any, first: int = 0) -> Array:
        """float64 [len(ids) - first, V]: logits after tokens *first* and later of int32 *ids*."""
        xp, shape, weights = self.weights.backend.xp, self.shape, self.weights
        at = xp.arange(len(ids))
        h = decode(weights.embedding[xp.asarray(ids)], "bf16").astype(np.float64)
        for i, layer in enumerate(weights.layers):
            x = rmsnorm(h, decode(layer.attention_norm, "bf16"), shape.epsilon)
            q, k, v = self.twin.rotated(x @ self.twin.matrix("qkv", i).T, at)
            h = h + self._attention(q, k, v) @ self.twin.matrix("out", i).T
            x = rmsnorm(h, decode(layer.mlp_norm, "bf16"), shape.epsilon)
            x = silu_mul(xp, x @ self.twin.matrix("gate_up", i).T)
            h = h + x @ self.twin.matrix("down", i).T
        x = rmsnorm(h[first:], decode(weights.final_norm, "bf16"), shape.epsilon)
        return x @ self.twin.matrix("head").T

    def _attention(self, q: Array, k: Array, v: Array) -> Array:
        """[n, Hq D] of causal attention over the n tokens themselves."""
        xp, shape = self.weights.backend.xp, self.shape
        places = xp.arange(len(q))
        ahead = places > places[:, None]
        out = xp.zeros(q.shape, np.float64)
        for head in range(shape.q_heads):
            logits = q[:, head] @ k[:, head // shape.group].T * shape.head_dim**-0.5
            logits[ahead] = -np.inf
            weights = xp.exp(logits - logits.max(axis=1, keepdims=True))
            sums = weights.sum(axis=1, keepdims=True)
            out[:, head] = weights @ v[:, head // shape.group] / sums
        return out.reshape(len(q), -1)
