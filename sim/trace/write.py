"""Writing a trace: Mooncake JSON lines, Vidur CSV, or our own Parquet.

One rule: the file appears whole or not at all (written beside its place, then renamed).
"""

from __future__ import annotations

import os
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal

import numpy as np

from sim.errors import InputError, shown

from .bounds import MAX_BLOCK_TOKENS
from .formats.columns import BLOCK_KEY, IDS, NAMES
from .formats.table import VIDUR
from .names import WRITABLE
from .naming import said
from .ragged import Ragged

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from .chunk import Chunk

_GROUP_ROWS = 65536  # rows a Parquet row group


def write(
    chunks: Iterable[Chunk],
    path: Path,
    format: Literal["mooncake", "vidur", "parquet"],
    *,
    block_tokens: int = 512,
) -> int:
    """Write *chunks* to *path* in *format*, replacing what is there; the number of requests.

    Mooncake times are rounded to whole milliseconds; requests without ids get fresh ones, one for
    each *block_tokens* of the prompt. Parquet keeps *block_tokens* in its metadata. Raises
    `InputError` if the place cannot be written or if there are no requests.
    """
    writers: dict[str, Callable[[Iterable[Chunk], IO[bytes], int], int]] = {
        "mooncake": _mooncake,
        "vidur": _vidur,
        "parquet": _parquet,
    }
    if format not in writers:
        raise InputError(
            f"format: {shown(format)} cannot be written; write one of {', '.join(WRITABLE)}"
        )
    if not 1 <= block_tokens <= MAX_BLOCK_TOKENS:
        raise InputError(
            f"block tokens: {shown(block_tokens)} is no size; write 1 to {MAX_BLOCK_TOKENS}"
        )
    path = Path(path)
    with replacing(path) as file:
        rows = writers[format](chunks, file, block_tokens)
        if rows == 0:
            raise InputError(f"{said(path)}: no requests to write")
    return rows


@contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """A file that takes the place of *path* when the block ends well, and vanishes otherwise.

    A symbolic link stays, and what it leads to is replaced. Raises `InputError` for a place that
    cannot be written, and for a device or a pipe, which must never be replaced by a file.
    """
    target = _target(path)
    try:
        handle, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
    except OSError as error:
        raise InputError(
            f"{said(path)}: cannot be written: {error.strerror}; check the folder"
        ) from error
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
        umask = os.umask(0)
        os.umask(umask)
        Path(name).chmod(0o666 & ~umask)
        Path(name).replace(target)
    except BaseException as error:
        Path(name).unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise InputError(
                f"{said(path)}: cannot be written: {error.strerror or error}"
            ) from error
        raise


def _target(path: Path) -> Path:
    """The file that *path* leads to, or where it is to be; raises `InputError`."""
    try:
        target = path.resolve()
        there, regular = target.exists(), target.is_file()
    except (OSError, RuntimeError, ValueError) as error:  # no access, a loop of links, a NUL
        why = getattr(error, "strerror", None) or str(error)
        raise InputError(f"{said(path)}: cannot be written: {why}; name a file") from None
    if target.is_symlink():  # from Python 3.13 on, a loop of links resolves to itself
        raise InputError(f"{said(path)}: cannot be written: a loop of links; name a file")
    if target.is_dir():
        raise InputError(f"{said(path)}: is a directory; name a file")
    if there and not regular:
        raise InputError(f"{said(path)}: not a regular file; name a file")
    return target


def _mooncake(chunks: Iterable[Chunk], file: IO[bytes], block_tokens: int) -> int:
    rows = fresh = 0
    for chunk in chunks:
        lines = []
        columns = (chunk.arrival_s * 1e3, chunk.prompt_tokens, chunk.output_tokens)
        times = columns[0].round().astype("int64").tolist()
        known: Iterable[tuple[int, ...] | None]
        known = [None] * len(chunk) if chunk.block_ids is None else chunk.block_ids
        for at, prompt, output, ids in zip(
            times, columns[1].tolist(), columns[2].tolist(), known, strict=True
        ):
            if ids is None:
                after = fresh - (-prompt // block_tokens)
                text = ", ".join(map(str, range(fresh, after)))
                fresh = after
            else:
                text = ", ".join(map(str, ids))
            lines.append(
                f'{{"timestamp": {at}, "input_length": {prompt}, '
                f'"output_length": {output}, "hash_ids": [{text}]}}\n'
            )
        file.write("".join(lines).encode())
        rows += len(chunk)
    return rows


def _vidur(chunks: Iterable[Chunk], file: IO[bytes], block_tokens: int) -> int:
    del block_tokens  # the format has no blocks
    file.write((",".join(VIDUR) + "\n").encode())
    rows = 0
    for chunk in chunks:
        columns = (chunk.arrival_s, chunk.prompt_tokens, chunk.output_tokens)
        lines = zip(*(column.tolist() for column in columns), strict=True)
        file.write("".join(f"{at!r},{prompt},{output}\n" for at, prompt, output in lines).encode())
        rows += len(chunk)
    return rows


def _parquet(chunks: Iterable[Chunk], file: IO[bytes], block_tokens: int) -> int:
    import pyarrow as pa
    import pyarrow.parquet as pq

    writer: Any = None
    rows = 0
    with_ids = False
    try:
        for chunk in chunks:
            if writer is None:
                with_ids = chunk.block_ids is not None
                kinds = [pa.float64(), pa.int64(), pa.int64(), pa.list_(pa.int64())]
                names = (*NAMES, IDS)[: 4 if with_ids else 3]
                fields = [pa.field(n, k) for n, k in zip(names, kinds, strict=False)]
                schema = pa.schema(fields, metadata={BLOCK_KEY: str(block_tokens).encode()})
                writer = pq.ParquetWriter(file, schema, compression="zstd")
            columns = [chunk.arrival_s, chunk.prompt_tokens, chunk.output_tokens]
            arrays = [pa.array(column) for column in columns]
            if with_ids:
                ids = chunk.block_ids or Ragged.empty(len(chunk))
                offsets = pa.array(ids.offsets.astype(np.int32))
                arrays.append(pa.ListArray.from_arrays(offsets, pa.array(ids.values)))
            writer.write_table(
                pa.Table.from_arrays(arrays, schema=writer.schema), row_group_size=_GROUP_ROWS
            )
            rows += len(chunk)
    finally:
        if writer is not None:
            writer.close()
    return rows
