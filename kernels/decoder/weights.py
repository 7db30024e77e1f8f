"""Random weights of a model, made where they are used."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

import numpy as np

from ..w4a16_gemv.pack import GROUP, pack4

if TYPE_CHECKING:
    from ..backend import Array, Backend
    from .shape import Shape

DEVIATION, NORM_DEVIATION = 0.02, 0.1
STREAM_STEP = 1 << 20
"""Seeds of two arrays lie this far apart."""


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer's weights, row-major bf16 (uint16) arrays on the backend."""

    qkv: Array
    """[(Hq + 2 Hkv) D, hidden]: queries, keys, values."""
    out: Array
    """[hidden, Hq D]."""
    gate_up: Array
    """[2 ffn, hidden]: all gates, then all ups."""
    down: Array
    """[hidden, ffn]."""
    attention_norm: Array
    """[hidden]."""
    mlp_norm: Array
    """[hidden]."""


@dataclass(frozen=True, slots=True)
class Packed:
    """The same matrices in 4 bits, as `w4a16_gemv` reads them; norms stay as they are."""

    qkv: Array
    out: Array
    gate_up: Array
    down: Array


class Weights:
    """Matrices N(0, 0.02), norms 1 + 0.1 N(0, 1); the same for a seed on one kind of backend.

    `embedding` and `head` are [vocabulary, hidden], `final_norm` is [hidden], `layers` a list of
    `Layer`. `pack` adds `packed` (one `Packed` a layer) and `packed_head`.
    """

    def __init__(self, backend: Backend, shape: Shape, seed: int = 1) -> None:
        self.backend, self.shape = backend, shape
        self._stream = seed * STREAM_STEP
        rows = (shape.vocabulary, shape.hidden)
        self.embedding = self._matrix(rows)
        self.head = self._matrix(rows)
        self.final_norm = self._norm()
        self.layers = [
            Layer(
                **{name: self._matrix(size) for name, size in shape.products.items()},
                attention_norm=self._norm(),
                mlp_norm=self._norm(),
            )
            for _ in range(shape.layers)
        ]
        self.packed: list[Packed] = []
        self.packed_head: Array = None

    def pack(self) -> None:
        """Makes the 4-bit copies, once."""
        if not self.packed:
            names = [field.name for field in fields(Packed)]
            self.packed = [
                Packed(**{name: quantise(self.backend, getattr(layer, name)) for name in names})
                for layer in self.layers
            ]
            self.packed_head = quantise(self.backend, self.head)

    def _matrix(self, shape: tuple[int, ...]) -> Array:
        self._stream += 1
        return random_bf16(self.backend, shape, self._stream, 0.0, DEVIATION)

    def _norm(self) -> Array:
        self._stream += 1
        return random_bf16(self.backend, (self.shape.hidden,), self._stream, 1.0, NORM_DEVIATION)


def random_bf16(
    backend: Backend, shape: tuple[int, ...], stream: int, mean: float, deviation: float
) -> Array:
    """Normal bf16 values (uint16) of *shape*, whose size is a multiple of 8.

    A number depends on *stream* and its place alone.
    """
    array = backend.xp.empty(shape, np.uint16)
    if array.size % 8:
        raise ValueError(f"random_bf16: shape {shape}, expected a multiple of 8 values")
    kernel = backend.function("decoder", "fill_normal")
    args = (np.int64(array.size), np.uint64(stream), np.float32(mean), np.float32(deviation))
    blocks = max(1, min(-(-array.size // 8 // 256), 8 * backend.sms))
    kernel(blocks, 256, (array, *args))
    return array


def quantise(backend: Backend, matrix: Array, rows: int = 1 << 14) -> Array:
    """*matrix* [n, k] in 4 bits, packed: scale and zero point of each row's 128 columns.

    Works on *rows* rows at a time; n is a multiple of 16.
    """
    xp = backend.xp
    parts = []
    for begin in range(0, len(matrix), rows):
        values = (matrix[begin : begin + rows].astype(np.uint32) << np.uint32(16)).view(np.float32)
        n, k = values.shape
        groups = values.reshape(n, k // GROUP, GROUP)
        low, high = xp.minimum(groups.min(2), 0), xp.maximum(groups.max(2), 0)
        scales = ((high - low) / np.float32(15)).clip(1e-6).astype(np.float16)
        exact = scales.astype(np.float32)
        zeros = xp.rint(-low / exact).clip(0, 15)
        nibbles = (xp.rint(groups / exact[..., None]) + zeros[..., None]).clip(0, 15)
        parts.append(
            pack4(xp, nibbles.astype(np.uint8).reshape(n, k), scales, zeros.astype(np.uint8))
        )
    return xp.concatenate(parts) if len(parts) > 1 else parts[0]
