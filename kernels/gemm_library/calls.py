"""PyTorch's operations as calls that a CuPy stream can capture, and random tensors for them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

COLD_BYTES = 300e6
"""Buffers that rotate span at least this much, five times the L2 cache."""
SHAPES = {
    "1b": {
        "qkv": (3072, 2048),
        "o": (2048, 2048),
        "gate_up": (16384, 2048),
        "down": (2048, 8192),
        "lm_head": (128256, 2048),
    },
    "8b": {
        "qkv": (6144, 4096),
        "o": (4096, 4096),
        "gate_up": (28672, 4096),
        "down": (4096, 14336),
        "lm_head": (128256, 4096),
    },
    "70b": {
        "qkv": (10240, 8192),
        "o": (8192, 8192),
        "gate_up": (57344, 8192),
        "down": (8192, 28672),
        "lm_head": (128256, 8192),
    },
}
"""(N, K) of the products of three models: 32/8/64, 32/8/128 and 64/8/128 heads."""


def copies(bytes_each: float) -> int:
    """How many buffers of *bytes_each* must rotate to stay out of the L2 cache."""
    return max(1, -(-int(COLD_BYTES) // int(bytes_each)))


def on_cupy_stream(run: Callable[[], Any]) -> Callable[[], None]:
    """*run* with CuPy's current stream as PyTorch's, so that a graph capture sees its launches."""
    import cupy
    import torch

    def call() -> None:
        pointer = cupy.cuda.get_current_stream().ptr
        with torch.cuda.stream(torch.cuda.ExternalStream(pointer)):
            run()

    return call


def bf16_matmul(rng: Any, m: int, n: int, k: int) -> Sequence[Callable[[], None]]:
    """Calls of cuBLAS: random bf16 x [m, k] times the transpose of W [n, k], W rotating."""
    import torch

    torch.manual_seed(int(rng.integers(2**31)))
    x = torch.randn(m, k, device="cuda", dtype=torch.bfloat16)
    weights = torch.randn(copies(2 * n * k), n, k, device="cuda", dtype=torch.bfloat16)
    y = torch.empty(m, n, device="cuda", dtype=torch.bfloat16)

    def one(w: Any) -> Callable[[], None]:
        return on_cupy_stream(lambda: torch.matmul(x, w.T, out=y))

    return [one(w) for w in weights]
