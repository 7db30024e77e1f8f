"""Launchers of this folder's own stages; each checks its arrays by name and returns nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ..backend import Struct, layout

if TYPE_CHECKING:
    from ..backend import Array, Backend

EMBED = layout(
    ("table", "u8"), ("text", "u8"), ("lengths", "u8"), ("h", "u8"), ("positions", "u8"),
    ("draft", "u8"), ("requests", "i4"), ("tokens", "i4"), ("width", "i4"), ("text_size", "i4"),
)  # fmt: skip
SPLIT_ROPE = layout(
    ("qkv", "u8"), ("positions", "u8"), ("turns", "u8"), ("q", "u8"), ("k", "u8"), ("v", "u8"),
    ("rows", "i4"), ("q_heads", "i4"), ("k_heads", "i4"),
)  # fmt: skip
RECORD = layout(
    ("tokens", "u8"), ("emitted", "u8"), ("positions", "u8"), ("text", "u8"),
    ("requests", "i4"), ("new_tokens", "i4"), ("text_size", "i4"),
)  # fmt: skip


def embed(
    backend: Backend,
    table: Array,
    text: Array,
    lengths: Array,
    h: Array,
    positions: Array,
    draft: Array,
) -> None:
    """Rows of *table* [V, width] for the step's tokens -> *h* [B * T, width], and what goes along.

    *text* int32 [B, text_size] and *lengths* [B] as in `DecoderState`; *positions* int32 [B * T],
    -1 for an idle request; *draft* int32 [B, T - 1]. Raises `ValueError` if a shape is off.
    """
    batch, text_size = text.shape
    tokens = draft.shape[1] + 1
    width = table.shape[1]
    if lengths.shape != (batch,) or draft.shape[0] != batch or width % 8:
        raise ValueError(f"embed: text {text.shape}, lengths {lengths.shape}, draft {draft.shape}")
    if h.shape != (batch * tokens, width) or positions.shape != (batch * tokens,):
        raise ValueError(f"embed: h {h.shape}, positions {positions.shape}, T {tokens}")
    params = Struct(
        backend, EMBED, table=table, text=text, lengths=lengths, h=h, positions=positions,
        draft=draft if draft.size else None, requests=batch, tokens=tokens, width=width,
        text_size=text_size,
    )  # fmt: skip
    _launch(backend, "embed", (), params, batch * tokens * width // 8, 256)


def split_rope(
    backend: Backend, qkv: Array, positions: Array, turns: Array, q: Array, k: Array, v: Array
) -> None:
    """Queries and keys of *qkv* [rows, (Hq + 2 Hkv) D] rotated -> *q*, *k*, and values -> *v*.

    *q* is [..., Hq, D], *k* and *v* [..., Hkv, D], of *rows* rows together; *turns* comes from
    `small_ops.launch.rope_turns`. Raises `ValueError` if a shape is off.
    """
    rows, width = qkv.shape
    (q_heads, size), k_heads = q.shape[-2:], k.shape[-2]
    if size not in (64, 128) or turns.shape != (size // 2, 2) or positions.shape != (rows,):
        raise ValueError(f"split_rope: q {q.shape}, turns {turns.shape}, rows {positions.shape}")
    sizes = (q.size, k.size, v.size)
    if width != (q_heads + 2 * k_heads) * size or v.shape != k.shape or sum(sizes) != qkv.size:
        raise ValueError(f"split_rope: qkv {qkv.shape}, q {q.shape}, k {k.shape}, v {v.shape}")
    params = Struct(
        backend, SPLIT_ROPE, qkv=qkv, positions=positions, turns=turns, q=q, k=k, v=v, rows=rows,
        q_heads=q_heads, k_heads=k_heads,
    )  # fmt: skip
    _launch(backend, "split_rope", (f"HEAD_DIM={size}",), params, qkv.size // 16, 128)


def record(backend: Backend, tokens: Array, emitted: Array, positions: Array, text: Array) -> None:
    """Puts *emitted* [B] tokens of *tokens* [B, T] into *text* behind where the step stood.

    *positions* are those that `embed` wrote. Raises `ValueError` if a shape is off.
    """
    batch, new_tokens = tokens.shape
    if emitted.shape != (batch,) or positions.shape != (tokens.size,) or len(text) != batch:
        raise ValueError(f"record: tokens {tokens.shape}, emitted {emitted.shape}, {text.shape}")
    params = Struct(
        backend, RECORD, tokens=tokens, emitted=emitted, positions=positions, text=text,
        requests=batch, new_tokens=new_tokens, text_size=text.shape[1],
    )  # fmt: skip
    _launch(backend, "record", (), params, tokens.size, 256)


def _launch(
    backend: Backend, name: str, macros: tuple[str, ...], params: Struct, items: int, threads: int
) -> None:
    kernel = backend.function("decoder", name, macros)
    kernel(int(np.clip(-(-items // threads), 1, 8 * backend.sms)), threads, (params,))
