"""Weights in the order in which the kernel reads them, and back.

A unit is 16 rows by 256 columns (4 bits) or 64 columns (16 bits). Within 64 columns, lane 4 g + t
of a warp holds rows g and g + 8, columns 16 t to 16 t + 15; of these, step j of the tensor core
takes columns 4 j to 4 j + 3. All functions take NumPy or CuPy arrays.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from ..backend import Array

GROUP = 128
"""Columns that share a scale and a zero point."""
UNIT_K = {4: 256, 16: 64}
UNIT_BYTES = {4: 2128, 16: 2048}


def pack4(xp: Any, nibbles: Array, scales: Array, zeros: Array) -> Array:
    """uint8 [strips, units, 2128] of W = scale * (nibble - zero).

    *nibbles* uint8 [n, k] and *zeros* uint8 [n, k / 128] hold 0 to 15, *scales* is float16 of the
    shape of *zeros*; k is a multiple of 128. Padding has scale zero.
    """
    n, k = nibbles.shape
    if k % GROUP or scales.shape != (n, k // GROUP) or zeros.shape != scales.shape:
        raise ValueError(f"pack4: nibbles {nibbles.shape}, scales {scales.shape}; {GROUP}")
    lanes = _to_lanes(xp, _padded(xp, nibbles, 4).astype(xp.uint32))
    shift = 4 * xp.arange(4, dtype=xp.uint32)[:, None] + 16 * xp.arange(2, dtype=xp.uint32)
    # [strip, 64 columns, lane, step, register, half] -> one word a step
    words = (lanes << shift).sum(axis=(-2, -1), dtype=xp.uint32)
    strips, blocks = words.shape[:2]
    body = xp.ascontiguousarray(words).view(xp.uint8).reshape(strips, blocks // 4, 2048)
    pairs = [_row_pairs(xp, part, n, k) for part in (scales, zeros)]
    scale_bytes = xp.ascontiguousarray(pairs[0]).view(xp.uint8).reshape(strips, blocks // 4, 64)
    zero_bytes = (pairs[1][..., 0] | pairs[1][..., 1] << 4).reshape(strips, blocks // 4, 16)
    return xp.concatenate([body, scale_bytes, zero_bytes], axis=2)


def pack16(xp: Any, weights: Array) -> Array:
    """uint8 [strips, units, 2048] of *weights* [n, k], any 16-bit type."""
    bits = weights.view(xp.uint16)
    lanes = _to_lanes(xp, _padded(xp, bits, 16)).transpose(0, 1, 3, 2, 4, 5)
    strips, blocks = lanes.shape[:2]
    return xp.ascontiguousarray(lanes).view(xp.uint8).reshape(strips, blocks, 2048)


def unpack(xp: Any, packed: Array, bits: int) -> Array:
    """float32 [16 * strips, padded k] of 4-bit weights, uint16 bit patterns of 16-bit ones."""
    strips, units = packed.shape[:2]
    if bits == 16:
        words = packed.reshape(-1).view(xp.uint16).reshape(strips, units, 4, 32, 4, 2)
        return _from_lanes(words.transpose(0, 1, 3, 2, 4, 5))
    body = xp.ascontiguousarray(packed[:, :, :2048]).view(xp.uint32)
    words = body.reshape(strips, units * 4, 32, 4, 1, 1)
    shift = 4 * xp.arange(4, dtype=xp.uint32)[:, None] + 16 * xp.arange(2, dtype=xp.uint32)
    nibbles = _from_lanes((words >> shift) & xp.uint32(15)).astype(xp.float32)
    scales = xp.ascontiguousarray(packed[:, :, 2048:2112]).view(xp.float16)
    scales = scales.reshape(strips, units, 8, 2, 2)
    pair = xp.ascontiguousarray(packed[:, :, 2112:]).reshape(strips, units, 8, 2)
    zeros = xp.stack([pair & 15, pair >> 4], axis=-1)
    # [strip, unit, g, group, high] -> [16 strip + 8 high + g, 2 unit + group]
    scales, zeros = (
        part.transpose(0, 4, 2, 1, 3).reshape(16 * strips, units * 2).astype(xp.float32)
        for part in (scales, zeros)
    )
    return (nibbles - zeros.repeat(GROUP, axis=1)) * scales.repeat(GROUP, axis=1)


def random4(xp: Any, rng: Any, n: int, k: int) -> Array:
    """What `pack4` would make of random weights of about unit norm a row, without packing."""
    strips, units = -(-n // 16), -(-k // UNIT_K[4])
    packed = rng.integers(0, 2**32, (strips * units, UNIT_BYTES[4] // 4), dtype=np.uint32)
    packed = packed.view(np.uint8)
    low, high = (0.5 * k**-0.5 / 4.6, 1.5 * k**-0.5 / 4.6)
    scales = rng.random((strips * units, 32), dtype=np.float32) * (high - low) + low
    packed[:, 2048:2112] = scales.astype(np.float16).view(np.uint8)
    return packed.reshape(strips, units, UNIT_BYTES[4])


def _padded(xp: Any, matrix: Array, bits: int) -> Array:
    """*matrix* with rows up to a multiple of 16 and columns up to whole units."""
    n, k = matrix.shape
    padded = xp.zeros((-(-n // 16) * 16, -(-k // UNIT_K[bits]) * UNIT_K[bits]), matrix.dtype)
    padded[:n, :k] = matrix
    return padded


def _row_pairs(xp: Any, part: Array, n: int, k: int) -> Array:
    """[n, k / 128] -> [strip, unit, g, group of the unit, row g or g + 8], padded with zeros."""
    strips, units = -(-n // 16), -(-k // UNIT_K[4])
    padded = xp.zeros((strips * 16, units * 2), part.dtype)
    padded[:n, : k // GROUP] = part
    return padded.reshape(strips, 2, 8, units, 2).transpose(0, 3, 2, 4, 1)


def _to_lanes(xp: Any, matrix: Array) -> Array:
    """[n, k] -> [strip, 64 columns, lane, step, register, half], as the fragments hold them."""
    n, k = matrix.shape
    # row 16 s + 8 high + g; column 64 b + 16 t + 4 j + 2 right + half; register high + 2 right
    parts = matrix.reshape(n // 16, 2, 8, k // 64, 4, 4, 2, 2)
    parts = parts.transpose(0, 3, 2, 4, 5, 6, 1, 7)
    return xp.ascontiguousarray(parts).reshape(n // 16, k // 64, 32, 4, 4, 2)


def _from_lanes(lanes: Array) -> Array:
    """The inverse of `_to_lanes`."""
    strips, blocks = lanes.shape[:2]
    parts = lanes.reshape(strips, blocks, 8, 4, 4, 2, 2, 2).transpose(0, 6, 2, 1, 3, 4, 5, 7)
    return parts.reshape(strips * 16, blocks * 64)
