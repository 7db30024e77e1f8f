"""Launchers of the small stages; each checks its arrays by name and returns nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ..backend import Struct, layout
from ..element import C_TYPES

if TYPE_CHECKING:
    from ..backend import Array, Backend

RMSNORM = layout(
    ("x", "u8"), ("residual", "u8"), ("weight", "u8"), ("y", "u8"),
    ("rows", "i4"), ("width", "i4"), ("epsilon", "f4"),
)  # fmt: skip
SILU_MUL = layout(("gate_up", "u8"), ("y", "u8"), ("rows", "i4"), ("width", "i4"))
ADD = layout(("a", "u8"), ("b", "u8"), ("y", "u8"), ("count", "i8"))
ROPE = layout(
    ("q", "u8"), ("k", "u8"), ("positions", "u8"), ("turns", "u8"),
    ("rows", "i4"), ("q_heads", "i4"), ("k_heads", "i4"), ("q_stride", "i4"), ("k_stride", "i4"),
)  # fmt: skip
SAMPLE = layout(
    ("logits", "u8"), ("temperatures", "u8"), ("uniforms", "u8"), ("tokens", "u8"),
    ("tiles", "u8"), ("tickets", "u8"), ("rows", "i4"), ("vocabulary", "i4"), ("parts", "i4"),
)  # fmt: skip
SHARED = 128
"""`small_ops::kShared`."""
BATCH, PAIRS = 4, 2
"""`small_ops::kBatch` and `kPairs`: 16-byte chunks that a thread takes at a time."""
TILE = 1024
"""`sample::kTile`: logits that a warp takes at a time."""


def rmsnorm(
    backend: Backend,
    x: Array,
    weight: Array,
    y: Array,
    epsilon: float = 1e-5,
    element: str = "bf16",
    residual: Array | None = None,
) -> None:
    """y = x / rms(x) * weight for *x* [rows, width].

    With *residual* [rows, width], x is added to it in place and y is made of the sum, as rounded.
    Raises `ValueError` if a shape is off.
    """
    rows, width = x.shape
    other = x.shape if residual is None else residual.shape
    if width % 8 or weight.shape != (width,) or y.shape != x.shape or other != x.shape:
        raise ValueError(
            f"rmsnorm: x {x.shape}, residual {other}, weight {weight.shape}, y {y.shape}; width % 8"
        )
    kernel = backend.function("small_ops", "rmsnorm", (f"ELEMENT={C_TYPES[element]}",))
    params = Struct(
        backend, RMSNORM, x=x, residual=residual, weight=weight, y=y,
        rows=rows, width=width, epsilon=epsilon,
    )  # fmt: skip
    # Few rows: all threads on one. Many: four chunks a thread, and more blocks on an SM.
    share = 1 if rows <= backend.sms else BATCH
    threads = _threads(-(-width // (8 * share)), 128, 512)
    kernel(min(rows, backend.sms * max(1, 1024 // threads)), threads, (params,), SHARED)


def silu_mul(backend: Backend, gate_up: Array, y: Array, element: str = "bf16") -> None:
    """y [rows, width] = silu(gate) * up of *gate_up* [rows, 2 width]; raises `ValueError`."""
    rows, width = y.shape
    if width % 8 or gate_up.shape != (rows, 2 * width):
        raise ValueError(f"silu_mul: gate_up {gate_up.shape}, y {y.shape}; width % 8")
    kernel = backend.function("small_ops", "silu_mul", (f"ELEMENT={C_TYPES[element]}",))
    params = Struct(backend, SILU_MUL, gate_up=gate_up, y=y, rows=rows, width=width)
    kernel(_grid(backend, rows * width // 8), 256, (params,))


def add(backend: Backend, a: Array, b: Array, y: Array, element: str = "bf16") -> None:
    """y = a + b, all of one shape; y may be a or b. Raises `ValueError` if a shape is off."""
    if a.size % 8 or a.shape != b.shape or y.shape != a.shape:
        raise ValueError(f"add: a {a.shape}, b {b.shape}, y {y.shape}; size % 8")
    kernel = backend.function("small_ops", "add", (f"ELEMENT={C_TYPES[element]}",))
    kernel(_grid(backend, a.size // 8), 256, (Struct(backend, ADD, a=a, b=b, y=y, count=a.size),))


def rope_turns(backend: Backend, head_dim: int, theta: float) -> Array:
    """Revolutions a position of each pair, float32 [head_dim / 2, 2]: rounded, and the rest."""
    half = head_dim // 2
    turns = theta ** (-np.arange(half) / half) / (2 * np.pi)
    high = turns.astype(np.float32)
    low = (turns - high).astype(np.float32)
    return backend.xp.asarray(np.stack([high, low], axis=1))


def rope(
    backend: Backend, q: Array, k: Array, positions: Array, turns: Array, element: str = "bf16"
) -> None:
    """Rotates *q* [rows, q_heads, size] and *k* [rows, k_heads, size] in place.

    Rows of q and k may lie apart (both views of one projection's output). *positions* int32 [rows],
    negative for a row to leave alone; *turns* as `rope_turns` makes them. Raises `ValueError`.
    """
    rows, q_heads, size = q.shape
    strides = q.strides[0] // q.itemsize, k.strides[0] // k.itemsize
    inner = (size * q.itemsize, q.itemsize)
    if k.shape[::2] != (rows, size) or size not in (64, 128) or turns.shape != (size // 2, 2):
        raise ValueError(f"rope: q {q.shape}, k {k.shape}, turns {turns.shape}; heads of 64 or 128")
    if q.strides[1:] != inner or k.strides[1:] != inner or any(s % 8 for s in strides):
        raise ValueError(f"rope: strides {q.strides} and {k.strides}; heads contiguous, rows % 8")
    if positions.shape != (rows,) or positions.dtype != np.int32:
        raise ValueError(f"rope: positions {positions.dtype} {positions.shape}, expected {rows}")
    macros = (f"ELEMENT={C_TYPES[element]}", f"HEAD_DIM={size}")
    kernel = backend.function("small_ops", "rope", macros)
    params = Struct(
        backend, ROPE, q=q, k=k, positions=positions, turns=turns, rows=rows, q_heads=q_heads,
        k_heads=k.shape[1], q_stride=strides[0], k_stride=strides[1],
    )  # fmt: skip
    items = rows * -(-(q_heads + k.shape[1]) // BATCH) * (size // 16)
    kernel(max(1, min(-(-items // 128), 8 * backend.sms)), 128, (params,))


def sample(
    backend: Backend,
    logits: Array,
    tokens: Array,
    temperatures: Array | None = None,
    uniforms: Array | None = None,
    *,
    space: tuple[Array, Array] | None = None,
    parts: int = 0,
) -> None:
    """One token of each row of *logits* [rows, vocabulary]: bf16 (uint16), float16 or float32.

    *temperatures* float32 [rows]: at most 0 takes the largest logit, the lowest index on ties; a
    positive one draws from softmax(logits / temperature) by *uniforms* float32 [rows] in [0, 1).
    None is greedy for all. *tokens* is int32 [rows]. *space* comes from `sample_space`. Raises
    `ValueError` if a shape is off.
    """
    rows, vocabulary = logits.shape
    shapes = [a.shape for a in (tokens, temperatures, uniforms) if a is not None]
    if vocabulary % 8 or vocabulary > 256 * TILE or any(shape != (rows,) for shape in shapes):
        raise ValueError(
            f"sample: logits {logits.shape}, others {shapes}; vocabulary % 8, up to {256 * TILE}"
        )
    if temperatures is not None and uniforms is None:
        raise ValueError("sample: temperatures without uniforms")
    tiles = -(-vocabulary // TILE)
    # As many warps as fit (`sample::kBlocks`), each with as long a run of tiles as that leaves.
    blocks = (2 if logits.itemsize == 4 else 3) * backend.sms
    parts = min(tiles, parts or max(1, 8 * blocks // rows))
    space = space or sample_space(backend, rows, vocabulary)
    kind = {"uint16": "bf16", "float16": "fp16"}.get(str(logits.dtype), "float32")
    kernel = backend.function("small_ops", "sample_token", (f"LOGIT={C_TYPES.get(kind, 'float')}",))
    params = Struct(
        backend, SAMPLE, logits=logits, temperatures=temperatures, uniforms=uniforms,
        tokens=tokens, tiles=space[0], tickets=space[1],
        rows=rows, vocabulary=vocabulary, parts=parts,
    )  # fmt: skip
    kernel(max(1, min(-(-rows * parts // 8), blocks)), 256, (params,))


def sample_space(backend: Backend, rows: int, vocabulary: int) -> tuple[Array, Array]:
    """Workspace of `sample`: `tiles` float32 and `tickets` uint32 (zero)."""
    xp = backend.xp
    tiles = xp.empty((rows, -(-vocabulary // TILE), 2), np.float32)
    return tiles, xp.zeros(rows, np.uint32)


def _threads(wanted: int, least: int, most: int) -> int:
    return max(least, min(most, -(-wanted // 32) * 32))


def _grid(backend: Backend, chunks: int) -> int:
    """Blocks of 256 threads for *chunks* of 16 bytes: one a thread until every SM is full."""
    blocks, full = -(-chunks // 256), 8 * backend.sms
    return max(1, min(blocks, max(full, -(-blocks // PAIRS))))
