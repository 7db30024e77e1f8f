"""Launcher of the append; checks its arrays by name and returns nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..backend import Struct, layout
from ..cache_layout import page_bytes
from ..element import C_TYPES

if TYPE_CHECKING:
    from ..backend import Array, Backend

PARAMS = layout(
    ("k", "u8"),
    ("v", "u8"),
    ("cache", "u8"),
    ("minmax", "u8"),
    ("tail", "u8"),
    ("table", "u8"),
    ("lengths", "u8"),
    ("requests", "i4"),
    ("tokens", "i4"),
    ("kv_heads", "i4"),
    ("max_pages", "i4"),
    ("most_tokens", "i4"),
)
DTYPES = {"bf16": "uint16", "fp16": "float16"}
THREADS = 128
BLOCKS_PER_SM = 8


def append(
    backend: Backend,
    k: Array,
    v: Array,
    cache: Array,
    minmax: Array,
    table: Array,
    lengths: Array,
    *,
    tail: Array | None = None,
    page_tokens: int = 16,
    element: str = "bf16",
    bits: int = 16,
    most_tokens: int | None = None,
    blocks: int | None = None,
    threads: int = THREADS,
) -> None:
    """Writes *k* and *v* [requests, tokens, kv_heads, head_dim] behind each request's tokens.

    *cache* is uint8 [physical pages, kv_heads, page_bytes] as `cache_layout` packs it, *minmax*
    [physical pages, kv_heads, 2, head_dim] of *element* (bf16 as uint16), *table* [requests,
    max_pages] and *lengths* [requests] int32; lengths + tokens must fit the table. With 4 *bits*,
    *tail* is uint8 [requests, 2, kv_heads, 16-bit page_bytes] and *most_tokens* (default: tokens)
    the most that any step appends. Raises `ValueError` if a shape is off.
    """
    struct = params(
        backend, k, v, cache, minmax, table, lengths, tail=tail, page_tokens=page_tokens,
        element=element, bits=bits, most_tokens=most_tokens,
    )  # fmt: skip
    if threads % 32 or not 32 <= threads <= THREADS:
        raise ValueError(f"kv_append: threads {threads}, expected a multiple of 32 up to {THREADS}")
    requests, tokens, kv_heads, head_dim = k.shape
    names = macros(head_dim, page_tokens, element, bits)
    kernel = backend.function("kv_append", "kv_append_tokens", names)
    touched = (tokens + page_tokens - 2) // page_tokens + 1
    warps = requests * kv_heads * (touched + (2 if bits == 4 else 0))
    grid = blocks or min(-(-warps // (threads // 32)), BLOCKS_PER_SM * backend.sms)
    kernel(grid, threads, (struct,), shared=shared_bytes(threads, head_dim, bits))


def macros(head_dim: int, page_tokens: int, element: str, bits: int) -> tuple[str, ...]:
    """The `-D` macros of the stage."""
    return (
        f"ELEMENT={C_TYPES[element]}",
        f"HEAD_DIM={head_dim}",
        f"PAGE_TOKENS={page_tokens}",
        f"KV_BITS={bits}",
    )


def shared_bytes(threads: int, head_dim: int, bits: int) -> int:
    """Dynamic shared memory of the stage: nibbles of 16 tokens a warp, for 4 bits."""
    return threads // 32 * 16 * head_dim if bits == 4 else 0


def params(
    backend: Backend,
    k: Array,
    v: Array,
    cache: Array,
    minmax: Array,
    table: Array,
    lengths: Array,
    *,
    tail: Array | None = None,
    page_tokens: int = 16,
    element: str = "bf16",
    bits: int = 16,
    most_tokens: int | None = None,
) -> Struct:
    """The stage's parameters after a check of every shape; arrays as in `append`."""
    if k.ndim != 4 or k.shape[3] not in (64, 128) or 0 in k.shape or table.ndim != 2:
        raise ValueError(f"kv_append: k {k.shape}, table {table.shape}")
    if bits not in (16, 8, 4) or page_tokens % 16:
        raise ValueError(f"kv_append: bits {bits}, page_tokens {page_tokens}")
    requests, tokens, kv_heads, head_dim = k.shape
    most = most_tokens or tokens
    pages, max_pages, dtype = len(cache), table.shape[1], DTYPES[element]
    expected = {
        "k": (k, dtype, k.shape),
        "v": (v, dtype, k.shape),
        "cache": (cache, "uint8", (pages, kv_heads, page_bytes(page_tokens, head_dim, bits))),
        "minmax": (minmax, dtype, (pages, kv_heads, 2, head_dim)),
        "table": (table, "int32", (requests, max_pages)),
        "lengths": (lengths, "int32", (requests,)),
    }
    if bits == 4:
        if tail is None or most < tokens or 2 * most > page_tokens:
            raise ValueError(
                f"kv_append: 4 bits need a tail and at most page_tokens / 2 = {page_tokens // 2} "
                f"tokens a step, here {tokens} of at most {most}"
            )
        shape = (requests, 2, kv_heads, page_bytes(page_tokens, head_dim, 16))
        expected["tail"] = (tail, "uint8", shape)
    for name, (array, wanted, shape) in expected.items():
        if array.dtype != wanted or array.shape != shape or not array.flags.c_contiguous:
            found = f"{name} {array.dtype} {array.shape}"
            raise ValueError(f"kv_append: {found}, expected contiguous {wanted} {shape}")
    return Struct(
        backend,
        PARAMS,
        k=k,
        v=v,
        cache=cache,
        minmax=minmax,
        tail=tail,
        table=table,
        lengths=lengths,
        requests=requests,
        tokens=tokens,
        kv_heads=kv_heads,
        max_pages=max_pages,
        most_tokens=most,
    )
