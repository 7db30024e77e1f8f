"""Launchers of the streams; each checks its arrays by name and returns nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..backend import Struct, layout

if TYPE_CHECKING:
    from ..backend import Array, Backend

READ = layout(
    ("source", "u8"),
    ("sums", "u8"),
    ("words", "i8"),
    ("passes", "i4"),
    ("slots", "i4"),
    ("slot_words", "i4"),
)
COPY = layout(("source", "u8"), ("target", "u8"), ("words", "i8"))


def read(
    backend: Backend,
    source: Array,
    sums: Array,
    passes: int = 1,
    threads: int = 512,
    loads: int = 4,
    fetch: int = 0,
) -> None:
    """Reads *source* *passes* times with one block an element of *sums* (uint32).

    *loads* 16-byte loads are in flight a thread; *fetch* 256 lets each ask L2 for 256 bytes.
    Raises `ValueError` if a shape is off.
    """
    _check_read("read", source, sums, threads)
    defines = (f"LOADS={loads}", f"FETCH={fetch}") if fetch else (f"LOADS={loads}",)
    kernel = backend.function("streams", "read_stream", defines)
    params = _read_struct(backend, source, sums, passes, 0, 0)
    kernel(len(sums), threads, (params,))


def read_bulk(
    backend: Backend,
    source: Array,
    sums: Array,
    passes: int = 1,
    threads: int = 288,
    slots: int = 8,
    slot_bytes: int = 16384,
) -> None:
    """The same through a ring of *slots* bulk copies of *slot_bytes* in shared memory."""
    _check_read("read_bulk", source, sums, threads)
    if threads < 64 or slots < 1 or slot_bytes < 16 or slot_bytes % 16:
        raise ValueError(f"read_bulk: threads {threads}, slots {slots}, slot_bytes {slot_bytes}")
    kernel = backend.function("streams", "read_bulk", ("LOADS=4",))
    params = _read_struct(backend, source, sums, passes, slots, slot_bytes // 16)
    kernel(len(sums), threads, (params,), shared=bulk_shared_bytes(slots, slot_bytes))


def copy(
    backend: Backend,
    source: Array,
    target: Array,
    blocks: int = 0,
    threads: int = 256,
    loads: int = 1,
) -> None:
    """Copies *source* to *target*, of equal size in bytes; raises `ValueError` if it differs.

    With 0 *blocks* a block does one tile of *threads* * *loads* * 16 bytes.
    """
    if source.nbytes != target.nbytes or source.nbytes % 16:
        raise ValueError(f"copy: source {source.nbytes} bytes, target {target.nbytes}; % 16")
    kernel = backend.function("streams", "copy_stream", (f"LOADS={loads}",))
    params = Struct(backend, COPY, source=source, target=target, words=source.nbytes // 16)
    blocks = blocks or -(-source.nbytes // (16 * threads * loads))
    kernel(blocks, threads, (params,))


def bulk_shared_bytes(slots: int, slot_bytes: int) -> int:
    """Dynamic shared memory of `read_bulk`: two barriers a slot, padded, and the ring."""
    return -(-slots * 16 // 128) * 128 + slots * slot_bytes


def _read_struct(
    backend: Backend, source: Array, sums: Array, passes: int, slots: int, slot_words: int
) -> Struct:
    return Struct(
        backend,
        READ,
        source=source,
        sums=sums,
        words=source.nbytes // 16,
        passes=passes,
        slots=slots,
        slot_words=slot_words,
    )


def _check_read(name: str, source: Array, sums: Array, threads: int) -> None:
    if source.nbytes % 16:
        raise ValueError(f"{name}: source has {source.nbytes} bytes, not a multiple of 16")
    if sums.ndim != 1 or sums.dtype != "uint32" or not len(sums):
        raise ValueError(f"{name}: sums {sums.dtype} {sums.shape}, expected uint32 [blocks]")
    if threads % 32 or not 32 <= threads <= 1024:
        raise ValueError(f"{name}: threads {threads}, expected a multiple of 32 up to 1024")
