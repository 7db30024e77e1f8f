"""Our own Parquet form of a trace: columns of arrivals, lengths and, optional, block ids.

Read batch by batch; what Arrow raises about a damaged file becomes an `InputError`.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from sim.errors import InputError, shown
from sim.trace.bounds import MAX_BLOCK_TOKENS, MAX_STAMP_S, MAX_TOKENS
from sim.trace.lines import GZIP_MAGIC, check_file, first_bytes, unreadable
from sim.trace.naming import said
from sim.trace.ragged import Ragged
from sim.trace.rows import BadRowError, Findings, Rows, tokens

from .table import check_time

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from numpy.typing import NDArray

NAMES = ("arrival_s", "prompt_tokens", "output_tokens")
IDS = "block_ids"
BLOCK_KEY = b"residentsim.block_tokens"


@contextmanager
def _arrow(path: Path) -> Iterator[None]:
    import pyarrow as pa

    try:
        yield
    except InputError:
        raise
    except (pa.ArrowException, OSError, MemoryError, ValueError) as error:
        raise unreadable(path, error) from error


def open_parquet(path: Path) -> Any:
    """A pyarrow `ParquetFile` whose schema has our columns; raises `InputError`."""
    import pyarrow.parquet as pq

    check_file(path)
    if first_bytes(path).startswith(GZIP_MAGIC):
        raise InputError(
            f"{said(path)}: compressed with gzip, but Parquet is read in place; "
            "unpack it first: gzip -d FILE"
        )
    with _arrow(path):
        file = pq.ParquetFile(path)
    try:
        with _arrow(path):
            _check_schema(path, file.schema_arrow)
    except InputError:
        file.close()
        raise
    return file


def _check_schema(path: Path, schema: Any) -> None:
    import pyarrow.types as types

    there = ", ".join(f"{field.name} {field.type}" for field in schema)
    wanted: dict[str, Callable[[Any], bool]] = {
        "arrival_s": lambda kind: types.is_floating(kind) or types.is_integer(kind),
        "prompt_tokens": types.is_integer,
        "output_tokens": types.is_integer,
        IDS: lambda kind: (
            (types.is_list(kind) or types.is_large_list(kind)) and types.is_integer(kind.value_type)
        ),
    }
    for name, fits in wanted.items():
        count = schema.names.count(name)
        if count == 0 and name == IDS:
            continue
        if count != 1 or not fits(schema.field(name).type):
            what = "occurs more than once" if count > 1 else "has the wrong type" if count else ""
            raise InputError(
                f"{said(path)}: {name}: {what or 'no such column'}; there are {shown(there, 200)}; "
                "write float64 seconds, int64 tokens and, optional, a list of int64 block_ids"
            )


def block_tokens(path: Path) -> int | None:
    """Tokens of a prefix block as the file's metadata have it, else None."""
    with open_parquet(path) as file:
        text = (file.schema_arrow.metadata or {}).get(BLOCK_KEY, b"")
    size = int(text) if text.isdigit() and len(text) <= 9 else 0
    return size if 1 <= size <= MAX_BLOCK_TOKENS else None


def parquet_rows(path: Path, findings: Findings, batch_rows: int) -> Iterator[Rows]:
    """The good rows of the file, a batch at a time; bad ones go to *findings*."""
    with open_parquet(path) as file:
        there = [name for name in (*NAMES, IDS) if name in file.schema_arrow.names]
        stream = iter(file.iter_batches(batch_size=batch_rows, columns=there))
        row = 1
        while True:
            with _arrow(path):
                batch = next(stream, None)
                if batch is None:
                    return
                rows, bad = _columns(batch, row)
            row += batch.num_rows
            if bad.any():
                _report(batch, np.nonzero(bad)[0].tolist(), rows, findings)
                rows = rows.take(np.nonzero(~bad)[0])
            yield rows


def _columns(batch: Any, first: int) -> tuple[Rows, NDArray[np.bool_]]:
    import pyarrow.compute as pc

    def column(name: str, kind: type[np.generic]) -> NDArray[Any]:
        values = batch.column(name)
        # 0 in the place of a missing value; those rows are reported as missing
        return pc.fill_null(values, 0).to_numpy(zero_copy_only=False).astype(kind)  # type: ignore[no-any-return]

    time, prompt, output = (
        column(name, kind) for name, kind in zip(NAMES, (float, int, int), strict=True)
    )
    bad = ~(np.isfinite(time) & (time >= 0) & (time <= MAX_STAMP_S))
    for counts in (prompt, output):
        bad |= (counts < 1) | (counts > MAX_TOKENS)
    for name in batch.schema.names:
        bad |= batch.column(name).is_null().to_numpy(zero_copy_only=False)
    ids = None
    if IDS in batch.schema.names:
        lists = batch.column(IDS)
        values = pc.fill_null(lists.values, -1).to_numpy(zero_copy_only=False).astype(np.int64)
        offsets = lists.offsets.to_numpy().astype(np.int64)
        ids = Ragged(values[offsets[0] : offsets[-1]], offsets - offsets[0])
        negative = np.concatenate([[0], np.cumsum(ids.values < 0)])
        bad |= negative[ids.offsets[1:]] > negative[ids.offsets[:-1]]
    lines = np.arange(first, first + len(time), dtype=np.int64)
    return Rows(time, prompt, output, lines, ids), bad


def _report(batch: Any, bad: list[int], rows: Rows, findings: Findings) -> None:
    for i in bad:
        try:
            for name in batch.schema.names:
                if not batch.column(name)[i].is_valid:
                    raise BadRowError("missing value", f"{name}: no value; fill or drop the row")
            time = float(rows.time[i])
            check_time(NAMES[0], time, time)
            tokens(NAMES[1], int(rows.prompt[i]), None, output=False)
            tokens(NAMES[2], int(rows.output[i]), None, output=True)
            raise BadRowError("bad block_ids", f"{IDS}: a missing or negative id; correct the row")
        except BadRowError as error:
            findings.add(int(rows.lines[i]), error)
