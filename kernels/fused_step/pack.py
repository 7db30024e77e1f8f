"""The weights of a model as one tape a worker, in the order in which the fused stages read them.

A tape is a sequence of chunks (ring.cuh): layer by layer the worker's tiles of qkv, out,
gate_up and down, then its tiles of the head. Elements are 16 bits wide.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..backend import Array, Backend
    from ..decoder.shape import Shape
    from ..decoder.weights import Weights

WARPS = 16
UNIT_BYTES = 1024 * WARPS


def share(tiles: int, worker: int, workers: int) -> tuple[int, int]:
    """First tile and end of the tiles that fall to *worker*; the device's `Share`."""
    return worker * tiles // workers, (worker + 1) * tiles // workers


def chunk_units(shape: Shape) -> int:
    """Units that lie together for a warp; the device's `kChunkUnits`."""
    return 2 if shape.hidden % 2048 == 0 else 1


def tall_tiles(rows: Array, chunk: int = 1) -> Array:
    """Tiles of 16 weight rows, [tiles, elements], of *rows* [tiles * 16, inner]."""
    inner = rows.shape[1]
    cut = rows.reshape(-1, 2, 8, WARPS, inner // WARPS // 32 // chunk, chunk, 4, 8)
    return cut.transpose(0, 4, 3, 5, 1, 2, 6, 7).reshape(len(cut), -1)


def flat_tiles(rows: Array, chunk: int = 1) -> Array:
    """Tiles of 8 weight rows, [tiles, elements], of *rows* [tiles * 8, inner]."""
    inner = rows.shape[1]
    cut = rows.reshape(-1, 8, WARPS, inner // WARPS // 64 // chunk, chunk, 2, 4, 8)
    return cut.transpose(0, 3, 2, 4, 5, 1, 6, 7).reshape(len(cut), -1)


def qkv_order(shape: Shape) -> np.ndarray[Any, Any]:
    """Rows of the qkv matrix by tiles of 8: four channels of a head, and their rotary partners."""
    size = shape.head_dim
    head = np.arange(shape.q_heads + 2 * shape.kv_heads)[:, None, None, None] * size
    part = np.arange(size // 8)[None, :, None, None] * 4
    half = np.arange(2)[None, None, :, None] * (size // 2)
    return (head + part + half + np.arange(4)).reshape(-1)


def gate_up_order(shape: Shape) -> np.ndarray[Any, Any]:
    """Rows of the gate_up matrix by tiles of 16: eight gates, and the ups that belong to them."""
    eight = np.arange(shape.ffn).reshape(-1, 1, 8)
    return np.concatenate([eight, eight + shape.ffn], axis=1).reshape(-1)


def products(weights: Weights) -> Iterator[Array]:
    """The tiles of every product in order of use, [tiles, elements] each."""
    xp: Any = weights.backend.xp
    chunk = chunk_units(weights.shape)
    qkv, gate_up = (xp.asarray(order(weights.shape)) for order in (qkv_order, gate_up_order))
    for layer in weights.layers:
        yield flat_tiles(layer.qkv[qkv], chunk)
        yield tall_tiles(layer.out, chunk)
        yield tall_tiles(layer.gate_up[gate_up], chunk)
        yield tall_tiles(layer.down, chunk)
    yield tall_tiles(weights.head, chunk)


def tile_counts(shape: Shape) -> list[tuple[int, int]]:
    """(tiles, bytes of a tile) of the products in order of use."""
    layer = [
        ((shape.q_width + 2 * shape.kv_width) // 8, 16 * shape.hidden),
        (shape.hidden // 16, 32 * shape.q_width),
        (shape.ffn // 8, 32 * shape.hidden),
        (shape.hidden // 16, 32 * shape.ffn),
    ]
    return layer * shape.layers + [(shape.vocabulary // 16, 32 * shape.hidden)]


def tape_bytes(shape: Shape, workers: int) -> list[int]:
    """Bytes of each worker's tape."""

    def of(worker: int) -> int:
        spans = ((share(n, worker, workers), size) for n, size in tile_counts(shape))
        return sum((end - begin) * size for (begin, end), size in spans)

    return [of(worker) for worker in range(workers)]


def tape(backend: Backend, weights: Weights, workers: int) -> Array:
    """All tapes, uint16 [workers, elements]; the shorter ones end before their row does."""
    array = backend.xp.empty((workers, max(tape_bytes(weights.shape, workers)) // 2), np.uint16)
    at = [0] * workers
    for tiles in products(weights):
        for worker in range(workers):
            begin, end = share(len(tiles), worker, workers)
            size = (end - begin) * tiles.shape[1]
            array[worker, at[worker] : at[worker] + size] = tiles[begin:end].reshape(-1)
            at[worker] += size
    return array
