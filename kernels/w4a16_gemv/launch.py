"""Launcher of the product of few tokens with packed weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..backend import Struct, layout
from ..element import C_TYPES
from .pack import GROUP, UNIT_BYTES, UNIT_K

if TYPE_CHECKING:
    from ..backend import Array, Backend

PARAMS = layout(
    ("x", "u8"),
    ("weights", "u8"),
    ("y", "u8"),
    ("partials", "u8"),
    ("tickets", "u8"),
    ("tokens", "i4"),
    ("n", "i4"),
    ("k", "i4"),
    ("strips", "i4"),
    ("units", "i4"),
    ("pieces", "i4"),
    ("piece_units", "i4"),
    ("depth", "i4"),
)
SHARED_LIMIT = 232448
"""Bytes of shared memory that a block of sm_90 may have."""
TEAM, MAX_CONSUMERS = 8, 16
THREADS = 32 * (MAX_CONSUMERS + 2)
"""16 warps that compute, one that adds up and one that copies."""
TOKEN_STRIDE = 20


@dataclass(frozen=True, slots=True)
class Plan:
    """How one product is cut; see stage.cuh."""

    pieces: int
    depth: int
    shared: int
    """Bytes of dynamic shared memory."""


def padded_tokens(tokens: int) -> int:
    """The TOKENS macro that serves *tokens*: the next power of two."""
    return 1 << (tokens - 1).bit_length()


def plan(
    n: int,
    k: int,
    tokens: int,
    bits: int,
    blocks: int,
    threads: int = THREADS,
    limit: int = SHARED_LIMIT,
) -> Plan:
    """The fewest pieces whose x fits beside a ring; raises `ValueError` if none does.

    More pieces were slower wherever both were measured: each costs a trip through L2.
    """
    units, strips = -(-k // UNIT_K[bits]), -(-n // 16)
    for pieces in range(1, min(units, 64) + 1):
        piece_units = -(-units // pieces)
        if -(-units // piece_units) != pieces:
            continue
        items = -(-strips * pieces // blocks)
        fixed = shared_bytes(tokens, bits, threads, 0, piece_units)
        slot = shared_bytes(tokens, bits, threads, 1, piece_units) - fixed
        enough = -(-items * piece_units // (threads // 32 - 2))
        depth = min((limit - fixed) // slot, enough)
        if depth >= min(2 if bits == 16 else 1, enough):
            return Plan(pieces, depth, fixed + slot * depth)
    raise ValueError(f"w4a16_gemv: no plan for n {n}, k {k}, tokens {tokens}, limit {limit}")


def shared_bytes(tokens: int, bits: int, threads: int, depth: int, piece_units: int) -> int:
    """Twin of `gemv::shared_bytes`."""
    padded, piece_k = padded_tokens(tokens), piece_units * UNIT_K[bits]
    sums = piece_k // GROUP * 8 * -(-padded // 8) * 4 if bits == 4 else 0
    x = padded * (piece_k * 2 + 16)
    consumers = threads // 32 - 2
    open_items = 4 if padded <= 4 else 1 if padded > 8 and bits == 16 else 2
    partial = open_items * (consumers * padded * TOKEN_STRIDE * 4 + 16)
    ring = consumers * depth * UNIT_BYTES[bits] + -(-consumers // TEAM) * depth * 16
    return ring + x + sums + partial + 8


def defines(tokens: int, bits: int, element: str) -> tuple[str, ...]:
    """Macros of the compiled kernel that serves *tokens*."""
    return (
        f"ELEMENT={C_TYPES[element]}",
        f"WEIGHT_BITS={bits}",
        f"TOKENS={padded_tokens(tokens)}",
    )


def workspace(backend: Backend, n: int, tokens: int, pieces: int) -> tuple[Array, Array]:
    """`partials` float32 and `tickets` uint32 (zero) for a launch with *pieces*."""
    strips = -(-n // 16)
    floats = strips * pieces * 16 * padded_tokens(tokens) if pieces > 1 else 1
    return backend.xp.empty(floats, np.float32), backend.xp.zeros(strips, np.uint32)


def params(
    backend: Backend,
    x: Array,
    weights: Array,
    y: Array,
    bits: int,
    cut: Plan,
    space: tuple[Array, Array],
) -> Struct:
    """The kernel's argument; raises `ValueError` if a shape is off."""
    tokens, k = x.shape
    n = y.shape[1]
    want = (-(-n // 16), -(-k // UNIT_K[bits]), UNIT_BYTES[bits])
    if not 1 <= tokens <= 16 or k % 8 or (bits == 4 and k % GROUP):
        raise ValueError(f"w4a16_gemv: x {x.shape}: 1 to 16 tokens, k % 8, with 4 bits k % {GROUP}")
    if weights.shape != want or y.shape[0] != tokens:
        raise ValueError(f"w4a16_gemv: weights {weights.shape}, expected {want}; y {y.shape}")
    partials, tickets = space
    return Struct(
        backend,
        PARAMS,
        x=x,
        weights=weights,
        y=y,
        partials=partials,
        tickets=tickets,
        tokens=tokens,
        n=n,
        k=k,
        strips=want[0],
        units=want[1],
        pieces=cut.pieces,
        piece_units=-(-want[1] // cut.pieces),
        depth=cut.depth,
    )


def gemv(
    backend: Backend,
    x: Array,
    weights: Array,
    y: Array,
    bits: int = 4,
    element: str = "bf16",
    *,
    cut: Plan | None = None,
    space: tuple[Array, Array] | None = None,
    blocks: int = 0,
    threads: int = THREADS,
) -> None:
    """y [tokens, n] = x [tokens, k] times the transpose of W, packed by `pack4` or `pack16`.

    *cut*, *space* and *blocks* default to the plan for one block an SM. Raises `ValueError` if a
    shape is off.
    """
    tokens, k = x.shape
    n = y.shape[1]
    blocks = blocks or backend.sms
    cut = cut or plan(n, k, tokens, bits, blocks, threads)
    space = space or workspace(backend, n, tokens, cut.pieces)
    if not 96 <= threads <= THREADS or threads % 32:
        raise ValueError(f"w4a16_gemv: {threads} threads, expected 3 to {MAX_CONSUMERS + 2} warps")
    kernel = backend.function("w4a16_gemv", "w4a16_gemv", defines(tokens, bits, element))
    kernel(blocks, threads, (params(backend, x, weights, y, bits, cut, space),), cut.shared)
