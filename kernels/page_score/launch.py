"""Launcher of the page scores; checks its arrays by name and returns nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..backend import Struct, layout
from ..element import C_TYPES

if TYPE_CHECKING:
    from ..backend import Array, Backend

PARAMS = layout(
    ("q", "u8"),
    ("minmax", "u8"),
    ("table", "u8"),
    ("lengths", "u8"),
    ("scores", "u8"),
    ("requests", "i4"),
    ("tokens", "i4"),
    ("kv_heads", "i4"),
    ("max_pages", "i4"),
    ("score_pages", "i4"),
)
DTYPES = {"bf16": "uint16", "fp16": "float16"}
THREADS = 512


def page_scores(
    backend: Backend,
    q: Array,
    minmax: Array,
    table: Array,
    lengths: Array,
    scores: Array,
    *,
    page_tokens: int = 16,
    element: str = "bf16",
    reduce: str = "max",
    blocks: int | None = None,
    threads: int = THREADS,
) -> None:
    """Writes *scores* [requests, kv_heads, max_pages or more]; `ValueError` if a shape is off.

    *q* [requests, tokens, heads, head_dim] and *minmax* [physical pages, kv_heads, 2, head_dim] are
    of *element* (bf16 as uint16), *table* [requests, max_pages] and *lengths* [requests] int32:
    tokens before this step, negative for an idle slot. Scores behind a request's last page stay as
    they were.
    """
    struct = params(backend, q, minmax, table, lengths, scores, element=element)
    head_dim, group = q.shape[3], q.shape[2] // minmax.shape[1]
    if reduce not in ("max", "sum"):
        raise ValueError(f"page_scores: reduce {reduce!r}, expected 'max' or 'sum'")
    if threads % 32 or not 32 <= threads <= THREADS:
        raise ValueError(f"page_scores: threads {threads}, expected a multiple of 32 up to 512")
    names = macros(head_dim, group, page_tokens, element, reduce)
    kernel = backend.function("page_score", "page_score_pages", names)
    requests, kv_heads = scores.shape[:2]
    groups = requests * kv_heads * -(-table.shape[1] * head_dim // (16 * 128))
    grid = blocks or min(groups, backend.sms)
    kernel(grid, threads, (struct,), shared=shared_bytes(requests))


def macros(
    head_dim: int, group: int, page_tokens: int, element: str, reduce: str = "max"
) -> tuple[str, ...]:
    """The `-D` macros of the stage."""
    return (
        f"ELEMENT={C_TYPES[element]}",
        f"HEAD_DIM={head_dim}",
        f"GROUP={group}",
        f"PAGE_TOKENS={page_tokens}",
        f"REDUCE_SUM={int(reduce == 'sum')}",
    )


def shared_bytes(requests: int) -> int:
    """Dynamic shared memory of the stage."""
    return (requests + 1) * 4


def params(
    backend: Backend,
    q: Array,
    minmax: Array,
    table: Array,
    lengths: Array,
    scores: Array,
    *,
    element: str = "bf16",
) -> Struct:
    """The stage's parameters after a check of every shape; arrays as in `page_scores`."""
    if q.ndim != 4 or minmax.ndim != 4 or minmax.shape[2] != 2 or not minmax.shape[1]:
        raise ValueError(f"page_scores: q {q.shape}, minmax {minmax.shape}")
    requests, tokens, heads, head_dim = q.shape
    kv_heads = minmax.shape[1]
    if head_dim not in (64, 128) or minmax.shape[3] != head_dim or heads % kv_heads or not tokens:
        raise ValueError(f"page_scores: q {q.shape}, minmax {minmax.shape}: heads or head_dim")
    max_pages = table.shape[-1]
    expected = {
        "q": (q, DTYPES[element], q.shape),
        "minmax": (minmax, DTYPES[element], minmax.shape),
        "table": (table, "int32", (requests, max_pages)),
        "lengths": (lengths, "int32", (requests,)),
        "scores": (scores, "float32", (requests, kv_heads, max(max_pages, *scores.shape[2:]))),
    }
    for name, (array, dtype, shape) in expected.items():
        if array.dtype != dtype or array.shape != shape or not array.flags.c_contiguous:
            found = f"{name} {array.dtype} {array.shape}"
            raise ValueError(f"page_scores: {found}, expected contiguous {dtype} {shape}")
    return Struct(
        backend,
        PARAMS,
        q=q,
        minmax=minmax,
        table=table,
        lengths=lengths,
        scores=scores,
        requests=requests,
        tokens=tokens,
        kv_heads=kv_heads,
        max_pages=max_pages,
        score_pages=scores.shape[2],
    )
