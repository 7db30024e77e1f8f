"""Launchers of verification and commit; each checks its arrays by name and returns nothing."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np

from ..backend import Struct, layout

if TYPE_CHECKING:
    from ..backend import Array, Backend

POINTERS = (
    *("target", "draft", "draft_probs", "uniforms", "tokens", "emitted", "lengths", "remaining"),
    *("page_counts", "table", "free_ring", "free_head", "free_tail", "status"),
    *("best", "tile_stats", "tile_sums", "decisions", "tickets"),
)
SCALARS = ("batch", "new_tokens", "vocabulary", "max_pages", "ring_capacity", "mode")
PARAMS = layout(*((n, "u8") for n in POINTERS), *((n, "i4") for n in SCALARS), ("scale", "f4"))
MODES = {"greedy": 0, "logits": 1, "probabilities": 2}
TARGETS = {"bf16": "__nv_bfloat16", "fp32": "float"}
TILE_BYTES = 4096
MOST_BATCH = 256
SHARED_BYTES = 8816
"""sizeof(verify::Shared)."""


@dataclass(slots=True)
class Slots:
    """What a replica keeps of its requests on the device; all int32 but where said."""

    lengths: Array
    """[B] committed tokens; -1 idle; -2 - n: n tokens, but short of pages."""
    remaining: Array
    """[B] tokens still wanted."""
    page_counts: Array
    """[B] entries of the table row in use."""
    table: Array
    """[B, max_pages] physical pages."""
    free_ring: Array
    """[capacity] free pages; the capacity is a power of two that holds all pages."""
    free_head: Array
    """[1] uint32, pops so far."""
    free_tail: Array
    """[1] uint32, pushes so far."""
    status: Array
    """[2] uint32: requests short of pages after the last commit; waits given up, ever."""


@dataclass(slots=True)
class Workspace:
    """Scratch of `verify_commit`; zero where a kernel needs it, and left so."""

    best: Array
    tile_stats: Array
    tile_sums: Array
    decisions: Array
    tickets: Array


def workspace(backend: Backend, batch: int, new_tokens: int, vocabulary: int) -> Workspace:
    """For up to *batch* requests of *new_tokens* rows of *vocabulary*."""
    tiles, xp = -(-vocabulary * 4 // TILE_BYTES), backend.xp
    return Workspace(
        best=xp.zeros(batch * new_tokens, np.uint64),
        tile_stats=xp.zeros((batch * new_tokens, tiles, 2), np.float32),
        tile_sums=xp.zeros((batch, tiles), np.float32),
        decisions=xp.zeros((batch, 4), np.int32),
        tickets=xp.zeros(1 + 3 * batch, np.uint32),
    )


def defines(target: str, page_tokens: int) -> tuple[str, ...]:
    """Macros of the kernels; *target* is `bf16` or `fp32`."""
    return (f"TARGET={TARGETS[target]}", f"PAGE_TOKENS={page_tokens}")


def shared_bytes(batch: int, new_tokens: int, vocabulary: int = 0, itemsize: int = 2) -> int:
    """Dynamic shared memory of the stage, as `verify::shared_bytes` computes."""
    return SHARED_BYTES + 4 * batch * new_tokens - 4 * (-vocabulary * itemsize // TILE_BYTES)


def verify_commit(
    backend: Backend,
    target: Array,
    draft: Array,
    tokens: Array,
    emitted: Array,
    slots: Slots,
    space: Workspace,
    *,
    mode: str = "greedy",
    draft_probs: Array | None = None,
    uniforms: Array | None = None,
    temperature: float = 1.0,
    page_tokens: int = 16,
    threads: int = 512,
    grid: int | None = None,
    script: Array | None = None,
) -> None:
    """Verifies *draft* [B, T - 1] against *target* [B, T, V] and commits what it accepts.

    *target* is uint16 (bf16) or float32: logits, or probabilities in that *mode*. The sampling
    modes need *uniforms* [B, T] in [0, 1); without *draft_probs* [B, T - 1, V] the drafter counts
    as certain. *tokens* [B, T] and *emitted* [B] are written. With *script* uint8 [B, tokens of a
    table row] a greedy request of length n emits script[b, n] tokens, whatever its drafts are.
    Raises `ValueError` if a shape, a dtype or a size is off.
    """
    batch, new_tokens, vocabulary = target.shape
    sampling = mode != "greedy"
    element = "fp32" if target.dtype == np.float32 else "bf16"
    _check("target", target, target.shape, np.float32 if element == "fp32" else np.uint16)
    _check("draft", draft, (batch, new_tokens - 1), np.int32)
    if draft_probs is not None:
        _check("draft_probs", draft_probs, (batch, new_tokens - 1, vocabulary), np.float32)
    if sampling and uniforms is None:
        raise ValueError(f"verify_commit: mode {mode} needs uniforms")
    if uniforms is not None:
        _check("uniforms", uniforms, (batch, new_tokens), np.float32)
    if mode == "probabilities" and element != "fp32":
        raise ValueError("verify_commit: probabilities are float32")
    if not 1 <= new_tokens <= 32 or vocabulary % 8 or not temperature > 0:
        raise ValueError(
            f"verify_commit: {new_tokens} tokens (1 to 32), vocabulary {vocabulary} (a multiple "
            f"of 8), temperature {temperature} (above 0)"
        )
    macros = defines(element, page_tokens)
    if script is not None:
        _check("script", script, (batch, slots.table.shape[1] * page_tokens), np.uint8)
        if sampling:
            raise ValueError("verify_commit: a script replaces greedy verification only")
        uniforms, macros = script, (*macros, "SCRIPTED=1")
    tiles = -(-vocabulary * target.dtype.itemsize // TILE_BYTES)
    if (
        space.best.size < batch * new_tokens
        or space.tickets.size < 1 + 3 * batch
        or space.tile_stats.size < 2 * batch * new_tokens * tiles
    ):
        raise ValueError("verify_commit: the workspace is too small")
    values: dict[str, Any] = {field.name: getattr(space, field.name) for field in fields(space)}
    values |= {"target": target, "draft": draft if draft.size else None}
    values |= {"draft_probs": draft_probs if new_tokens > 1 else None, "uniforms": uniforms}
    values |= {
        "vocabulary": vocabulary,
        "mode": MODES[mode],
        "scale": math.log2(math.e) / temperature,
    }
    params = _params(backend, tokens, emitted, slots, values)
    name = "verify_commit" if sampling else "verify_greedy"
    kernel = backend.function("verify_commit", name, macros)
    # All blocks must run at once: a residual pass waits for other blocks' decisions.
    blocks = min(grid or backend.sms, backend.sms)
    size = shared_bytes(batch, new_tokens, vocabulary, target.dtype.itemsize)
    kernel(blocks, threads, (params,), size)


def commit(
    backend: Backend,
    tokens: Array,
    emitted: Array,
    slots: Slots,
    *,
    page_tokens: int = 16,
    threads: int = 512,
) -> None:
    """Commits *emitted* [B] tokens of *tokens* [B, T] for each request, clipped to what it wants.

    Both arrays are brought into the form that `verify_commit` leaves.
    """
    values: dict[str, Any] = dict.fromkeys((*POINTERS, *SCALARS, "scale"), 0)
    params = _params(backend, tokens, emitted, slots, values)
    kernel = backend.function("verify_commit", "commit", defines("bf16", page_tokens))
    kernel(1, threads, (params,), shared_bytes(*tokens.shape))


def _params(
    backend: Backend, tokens: Array, emitted: Array, slots: Slots, values: dict[str, Any]
) -> Struct:
    batch, new_tokens = tokens.shape
    if batch > MOST_BATCH:
        raise ValueError(f"commit: {batch} requests, expected at most {MOST_BATCH}")
    max_pages, capacity = slots.table.shape[1], slots.free_ring.size
    _check("tokens", tokens, (batch, new_tokens), np.int32)
    for name in ("lengths", "remaining", "page_counts"):
        _check(name, getattr(slots, name), (batch,), np.int32)
    _check("emitted", emitted, (batch,), np.int32)
    _check("table", slots.table, (batch, max_pages), np.int32)
    _check("free_ring", slots.free_ring, (capacity,), np.int32)
    for name, size in (("free_head", 1), ("free_tail", 1), ("status", 2)):
        _check(name, getattr(slots, name), (size,), np.uint32)
    if capacity & (capacity - 1):
        raise ValueError(f"commit: ring of {capacity} pages, expected a power of two")
    values |= {field.name: getattr(slots, field.name) for field in fields(slots)}
    values |= {"tokens": tokens, "emitted": emitted, "batch": batch, "new_tokens": new_tokens}
    values |= {"max_pages": max_pages, "ring_capacity": capacity}
    return Struct(backend, PARAMS, **values)


def _check(name: str, array: Array, shape: tuple[int, ...], dtype: Any) -> None:
    if array.shape != shape or array.dtype != dtype or not array.flags.c_contiguous:
        raise ValueError(
            f"verify_commit: {name} {array.dtype}{array.shape}, expected {np.dtype(dtype)}{shape}"
        )
