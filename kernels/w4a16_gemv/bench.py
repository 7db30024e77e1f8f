"""Points of the product of few tokens: the shapes of three models and of published figures."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ..checking import close, poisoned
from ..element import decode, encode
from ..gemm_library.calls import SHAPES, bf16_matmul, copies
from ..work import Work
from . import launch, pack, reference

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..backend import Array, Gpu

TARGETS = [(16384, 4096), (4096, 12288)]
SAMPLE_STRIPS = 32
"""Strips of 16 rows that are compared with the reference."""


def points() -> list[dict[str, Any]]:
    """The grid: (N, K), tokens, bits."""
    grid: list[dict[str, Any]] = []
    for model, shapes in SHAPES.items():
        named = [*shapes.items()]
        if model == "8b":
            named += [("target", shape) for shape in TARGETS]
        for name, (n, k) in named:
            for tokens in (1, 2, 4, 8, 16) if model == "8b" else (1, 4, 16):
                shape = {"model": model, "matrix": name, "n": n, "k": k, "m": tokens}
                grid += [{**shape, "bits": bits} for bits in (4, 16)]
    return grid


def prepare(gpu: Gpu, point: dict[str, Any], rng: np.random.Generator) -> Work:
    """Cold random weights, hot activations; see `Work`."""
    xp: Any = gpu.xp
    n, k, tokens, bits = (int(point[f]) for f in ("n", "k", "m", "bits"))
    random = xp.random.default_rng(int(rng.integers(2**31)))
    x = encode(random.standard_normal((tokens, k), dtype=np.float32), "bf16")
    strips, units = -(-n // 16), -(-k // pack.UNIT_K[bits])
    weights = random_weights(xp, random, copies(weight_bytes(n, k, bits)), n, k, bits)
    y = poisoned(gpu, (tokens, n), x.dtype)
    cut = launch.plan(n, k, tokens, bits, gpu.sms)
    space = launch.workspace(gpu, n, tokens, cut.pieces)

    def one(packed: Array) -> Callable[[], None]:
        return lambda: launch.gemv(gpu, x, packed, y, bits, cut=cut, space=space)

    def check() -> float:
        y.view(np.uint8)[...] = 0xFF
        calls[-1]()
        picked = xp.asarray(np.sort(rng.permutation(strips)[:SAMPLE_STRIPS]))
        rows = pack.unpack(xp, weights[-1][picked], bits)
        rows = decode(rows, "bf16") if bits == 16 else rows
        index = (picked[:, None] * 16 + xp.arange(16)).ravel()
        want = reference.gemv(decode(x, "bf16"), rows[:, :k])
        return close(decode(y, "bf16")[:, index], want, 4e-3)

    calls = [one(packed) for packed in weights]
    assert weights.shape[1:] == (strips, units, pack.UNIT_BYTES[bits])
    return Work(
        calls,
        check,
        bytes=weight_bytes(n, k, bits) + 2 * tokens * (k + n),
        flops=2.0 * tokens * n * k,
        baselines={"cublas_bf16": bf16_matmul(rng, tokens, n, k)},
    )


def weight_bytes(n: int, k: int, bits: int) -> float:
    """Bytes of the weights, with scale and zero point of each group."""
    return n * k / 2 + n * k / pack.GROUP * 2.5 if bits == 4 else 2.0 * n * k


def random_weights(xp: Any, random: Any, count: int, n: int, k: int, bits: int) -> Array:
    """uint8 [count, strips, units, bytes] of random weights, as packed."""
    strips, units = -(-n // 16), -(-k // pack.UNIT_K[bits])
    shape = (count, strips, units, pack.UNIT_BYTES[bits])
    if bits == 4:
        return pack.random4(xp, random, count * strips * 16, k).reshape(shape)
    words = random.integers(0, 2**32, (count * strips, units * 512), dtype=np.uint32)
    # bf16 of random sign and mantissa, magnitude 2^-7 to 2^-5.
    words &= np.uint32(0x80FF80FF)
    words |= np.uint32(0x3C003C00)
    return words.view(np.uint8).reshape(shape)
