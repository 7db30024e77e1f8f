"""Sizes of the decoder's models, and the bytes that one step must move."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..cache_layout import page_bytes
from ..w4a16_gemv.pack import UNIT_BYTES, UNIT_K

if TYPE_CHECKING:
    from collections.abc import Iterator

READ_BANDWIDTH = 4.61e12
"""Bytes a second that a kernel which only reads reaches on an H200."""


@dataclass(frozen=True, slots=True)
class Shape:
    """A Llama-shaped model: rms norms, rotary positions, grouped queries, a gated MLP."""

    name: str
    layers: int
    hidden: int
    q_heads: int
    kv_heads: int
    head_dim: int
    ffn: int
    vocabulary: int
    theta: float = 500_000.0
    epsilon: float = 1e-5

    @property
    def q_width(self) -> int:
        """Elements of a token's queries."""
        return self.q_heads * self.head_dim

    @property
    def kv_width(self) -> int:
        """Elements of a token's keys, and of its values."""
        return self.kv_heads * self.head_dim

    @property
    def group(self) -> int:
        """Query heads of a KV head."""
        return self.q_heads // self.kv_heads

    @property
    def products(self) -> dict[str, tuple[int, int]]:
        """(N, K) of a layer's four matrices, row-major [N, K]."""
        return {
            "qkv": (self.q_width + 2 * self.kv_width, self.hidden),
            "out": (self.hidden, self.q_width),
            "gate_up": (2 * self.ffn, self.hidden),
            "down": (self.hidden, self.ffn),
        }

    def bytes_streamed(self, weight_bits: int = 16) -> int:
        """Weight bytes that a step reads: all but the embedding table.

        With 4 *weight_bits* the layers' matrices and the head are packed, scales included.
        """
        sizes = list(self._streamed())
        if weight_bits == 4:
            return (
                sum(-(-n // 16) * -(-k // UNIT_K[4]) * UNIT_BYTES[4] for n, k in sizes)
                + self._norm_bytes
            )
        return sum(2 * n * k for n, k in sizes) + self._norm_bytes

    def kv_bytes(self, tokens: int, bits: int = 16) -> int:
        """Bytes of the keys and values of *tokens* tokens in all layers, scales included."""
        return self.layers * self.kv_heads * page_bytes(16, self.head_dim, bits) * tokens // 16

    @property
    def _norm_bytes(self) -> int:
        return 2 * self.hidden * (2 * self.layers + 1)

    def _streamed(self) -> Iterator[tuple[int, int]]:
        for _ in range(self.layers):
            yield from self.products.values()
        yield self.vocabulary, self.hidden


def floor_seconds(bytes_: float, bandwidth: float = READ_BANDWIDTH) -> float:
    """Seconds that reading *bytes_* takes at least, at *bandwidth* bytes a second."""
    return bytes_ / bandwidth


LLAMA_1B = Shape("1b", 16, 2048, 32, 8, 64, 8192, 128256)
LLAMA_8B = Shape("8b", 32, 4096, 32, 8, 128, 14336, 128256)
TINY = Shape("tiny", 2, 512, 8, 2, 64, 1024, 2048)
"""Small enough for the CPU."""
SHAPES = {shape.name: shape for shape in (LLAMA_1B, LLAMA_8B, TINY)}
