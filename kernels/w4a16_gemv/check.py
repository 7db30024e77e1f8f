"""Random products checked against `reference`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ..checking import CheckError, close, on_device, on_host, poisoned
from ..element import decode, encode
from . import launch, pack, reference

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..backend import Backend

LIMIT = launch.SHARED_LIMIT
TOLERANCE = {"bf16": 4e-3, "fp16": 1e-3}
"""The output's own rounding is 2^-9 and 2^-12 at most; the rest is accumulation."""


def cases(small: bool) -> Iterator[dict[str, Any]]:
    """Shapes to check: *small* ones for the CPU, the models' own for the GPU.

    `pieces` 0 leaves the cut to the launcher; `blocks` 0 takes one block an SM.
    """
    shapes: list[tuple[int, int, int, int]] = [
        (16, 128, 1, 1),
        (40, 640, 1, 1),
        (160, 1024, 4, 3),
        (48, 512, 1, 7),
    ]
    tokens = [1, 5, 16]
    if not small:
        shapes = [(2048, 2048, 0, 0), (3072, 2048, 0, 0), (4096, 14336, 0, 0), (6144, 4096, 2, 0)]
        shapes += [(16384, 4096, 0, 0), (8200, 8320, 0, 264), (128256, 2048, 3, 131)]
        tokens = [1, 2, 3, 4, 8, 9, 16]
    for bits in (4, 16):
        for n, k, pieces, blocks in shapes:
            for m in tokens if bits == 4 or not small else [1, 16]:
                element = "fp16" if (m + n // 8) % 3 == 0 and not small else "bf16"
                yield {
                    "n": n,
                    "k": k,
                    "tokens": m,
                    "bits": bits,
                    "element": element,
                    "pieces": pieces,
                    "blocks": blocks,
                }


def check(backend: Backend, case: dict[str, Any], rng: np.random.Generator) -> float:
    """Relative error of *case*, launched twice; raises `CheckError` if it is too large."""
    n, k, tokens, bits, element = (case[f] for f in ("n", "k", "tokens", "bits", "element"))
    xp = backend.xp
    # A mean away from zero: the zero points must cancel the sums of x.
    x = encode(rng.standard_normal((tokens, k), np.float32) + np.float32(0.5), element)
    if bits == 4:
        nibbles = rng.integers(0, 16, (n, k), np.uint8)
        scales = rng.uniform(0.01, 0.1, (n, k // pack.GROUP)).astype(np.float16)
        zeros = rng.integers(0, 16, scales.shape, np.uint8)
        packed = pack.pack4(xp, *(on_device(backend, a) for a in (nibbles, scales, zeros)))
        spread = np.repeat(scales.astype(np.float32), pack.GROUP, axis=1)
        weights = spread * (nibbles.astype(np.float32) - np.repeat(zeros, pack.GROUP, axis=1))
    else:
        coded = encode(rng.standard_normal((n, k), np.float32), element)
        packed, weights = pack.pack16(xp, on_device(backend, coded)), decode(coded, element)
    blocks = case["blocks"] or backend.sms
    cut = launch.plan(n, k, tokens, bits, blocks)
    if case["pieces"]:
        cut = forced(cut, case["pieces"], tokens, bits, k)
    space = launch.workspace(backend, n, tokens, cut.pieces)
    results = []
    for _ in range(2):
        y = poisoned(backend, (tokens, n), x.dtype)
        launch.gemv(
            backend, on_device(backend, x), packed, y, bits, element,
            cut=cut, space=space, blocks=blocks,
        )  # fmt: skip
        results.append(on_host(backend, y))
    if not (results[0] == results[1]).all():
        raise CheckError("w4a16_gemv: two launches differ")
    if int(space[1].sum()):
        raise CheckError("w4a16_gemv: tickets left behind")
    want = reference.gemv(decode(x, element), weights)
    return close(decode(results[0], element), want, TOLERANCE[element])


def forced(cut: launch.Plan, pieces: int, tokens: int, bits: int, k: int) -> launch.Plan:
    """*cut* with k in *pieces*, as deep as fits."""
    units = -(-k // pack.UNIT_K[bits])
    each, depth = -(-units // pieces), cut.depth
    while depth and launch.shared_bytes(tokens, bits, launch.THREADS, depth, each) > LIMIT:
        depth -= 1
    return launch.Plan(
        pieces, depth, launch.shared_bytes(tokens, bits, launch.THREADS, depth, each)
    )
