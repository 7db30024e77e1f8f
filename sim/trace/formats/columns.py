"""Our own Parquet form of a trace: arrivals, lengths and, optional, block ids and links.

Read batch by batch; what Arrow raises about a damaged file becomes an `InputError`. Files with
links (sessions, and who waits for whom) are read by `linked`.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from sim.errors import InputError, shown
from sim.trace.bounds import MAX_BLOCK_TOKENS, MAX_STAMP_S, MAX_TOKENS
from sim.trace.lines import check_file, packed_as, unreadable
from sim.trace.naming import said
from sim.trace.ragged import Ragged
from sim.trace.rows import BadRowError, Findings, Rows, tokens

from .table import check_time

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from sim.trace.chunk import Tally

NAMES = ("arrival_s", "prompt_tokens", "output_tokens")
TIME = (NAMES[0], 1.0)
IDS = "block_ids"
SESSION, AFTER, DELAY, RECORDED = LINKS = ("session", "after", "delay_s", "recorded_s")
BLOCK_KEY = b"residentsim.block_tokens"
LAST_KEY = b"residentsim.last_block"
_REQUIRED = {*NAMES, IDS}  # columns in which no value may be missing


@contextmanager
def arrow_errors(path: Path) -> Iterator[None]:
    """What Arrow raises about the file at *path* becomes an `InputError`."""
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
    if kind := packed_as(path):
        raise InputError(
            f"{said(path)}: compressed with {kind}, but Parquet is read in place; "
            f"unpack it first: {kind} -d FILE"
        )
    with arrow_errors(path):
        file = pq.ParquetFile(path)
    try:
        with arrow_errors(path):
            _check_schema(path, file.schema_arrow)
    except InputError:
        file.close()
        raise
    return file


def _check_schema(path: Path, schema: Any) -> None:
    import pyarrow.types as types

    def real(kind: Any) -> bool:
        return bool(types.is_floating(kind) or types.is_integer(kind))

    def many(kind: Any) -> bool:
        if not (types.is_list(kind) or types.is_large_list(kind)):
            return False
        return bool(types.is_integer(kind.value_type) and kind.value_type != "uint64")

    def text(kind: Any) -> bool:
        kind = kind.value_type if types.is_dictionary(kind) else kind
        return bool(types.is_string(kind) or types.is_large_string(kind))

    there = ", ".join(f"{field.name} {field.type}" for field in schema)
    wanted: dict[str, Callable[[Any], bool]] = dict(
        zip(NAMES, (real, types.is_integer, types.is_integer), strict=True)
    )
    optional = dict(zip((IDS, *LINKS), (many, text, many, real, real), strict=True))
    if AFTER in schema.names:
        wanted[DELAY] = optional.pop(DELAY)
    for name, fits in (wanted | optional).items():
        count = schema.names.count(name)
        if count == 0 and name in optional:
            continue
        if count != 1 or not fits(schema.field(name).type):
            what = "occurs more than once" if count > 1 else "has the wrong type" if count else ""
            raise InputError(
                f"{said(path)}: {name}: {what or 'no such column'}; there are {shown(there, 200)}; "
                "write float64 seconds, int64 tokens and, optional, lists of int64 block_ids, "
                "session names, lists of int64 rows to come after, float64 delay_s and recorded_s"
            )


def block_tokens(path: Path) -> int | None:
    """Tokens of a prefix block as the file's metadata have it, else None."""
    with open_parquet(path) as file:
        return _stated(file)[0]


def _stated(file: Any) -> tuple[int | None, Literal["partial", "full"]]:
    """Block size and rounding as the file's metadata have them."""
    found = dict(file.schema_arrow.metadata or {}) | dict(file.metadata.metadata or {})
    text = found.get(BLOCK_KEY, b"")
    size = int(text) if text.isdigit() and len(text) <= 9 else 0
    last: Literal["partial", "full"] = "full" if found.get(LAST_KEY) == b"full" else "partial"
    return size if 1 <= size <= MAX_BLOCK_TOKENS else None, last


def has_links(path: Path) -> bool:
    """Whether the file has columns of links; raises `InputError` if it is not ours at all."""
    with open_parquet(path) as file:
        return any(name in file.schema_arrow.names for name in LINKS)


def batches(path: Path, tally: Tally, batch_rows: int) -> Iterator[tuple[int, Any]]:
    """The file batch by batch with our columns, after the number of its first row, from 1."""
    with open_parquet(path) as file:
        names = file.schema_arrow.names
        if IDS in names:
            tally.block_tokens, tally.last_block = _stated(file)
        ours = [name for name in (*NAMES, IDS, *LINKS) if name in names]
        if len(ours) < len(names):
            rest = ", ".join(name for name in names if name not in ours)
            tally.note(f"columns not read: {shown(rest, 200)}")
        stream = iter(file.iter_batches(batch_size=batch_rows, columns=ours))
        row = 1
        while True:
            with arrow_errors(path):
                batch = next(stream, None)
            if batch is None:
                return
            yield row, batch
            row += batch.num_rows


def parquet_rows(path: Path, findings: Findings, tally: Tally, batch_rows: int) -> Iterator[Rows]:
    """The good rows of the file, a batch at a time; bad ones go to *findings*."""
    for row, batch in batches(path, tally, batch_rows):
        with arrow_errors(path):
            rows, bad = plain_columns(batch, row)
        if bad.any():
            report(batch, np.nonzero(bad)[0].tolist(), rows, findings)
            rows = rows.take(np.nonzero(~bad)[0])
        yield rows


def plain_columns(batch: Any, first: int) -> tuple[Rows, NDArray[np.bool_]]:
    """All rows of a batch whose first is number *first*, and which are bad; links are left out."""
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
    for name in _REQUIRED & set(batch.schema.names):
        bad |= batch.column(name).is_null().to_numpy(zero_copy_only=False)
    ids = None
    if IDS in batch.schema.names:
        ids = whole_lists(batch.column(IDS), -1)
        bad |= any_in_row(ids, ids.values < 0)
    lines = np.arange(first, first + len(time), dtype=np.int64)
    return Rows(time, prompt, output, lines, ids), bad


def whole_lists(lists: Any, missing: int) -> Ragged:
    """A column of lists, *missing* in the place of a missing value; a missing list is empty."""
    import pyarrow.compute as pc

    values = lists.values
    if values.null_count:
        values = pc.fill_null(values, missing)
    offsets = lists.offsets.to_numpy().astype(np.int64)
    flat = values.to_numpy(zero_copy_only=False).astype(np.int64, copy=False)
    rows = Ragged(flat[offsets[0] : offsets[-1]], offsets - offsets[0])
    if lists.null_count and len(rows.values):  # what stands behind a missing list is anything
        there = lists.is_valid().to_numpy(zero_copy_only=False)
        keep = np.repeat(there, rows.lengths)
        lengths = np.where(there, rows.lengths, 0)
        rows = Ragged(rows.values[keep], np.concatenate([[0], np.cumsum(lengths)]))
    return rows


def any_in_row(rows: Ragged, which: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Which of *rows* have a value that *which* flags, [n]."""
    before = np.concatenate([[0], np.cumsum(which)])
    found: NDArray[np.bool_] = before[rows.offsets[1:]] > before[rows.offsets[:-1]]
    return found


def report(batch: Any, bad: list[int], rows: Rows, findings: Findings) -> None:
    """Say to *findings* what is wrong with the rows numbered *bad* of a batch."""
    for i in bad:
        try:
            for name in sorted(_REQUIRED & set(batch.schema.names), key=batch.schema.names.index):
                if not batch.column(name)[i].is_valid:
                    raise BadRowError("missing value", f"{name}: no value; fill or drop the row")
            time = float(rows.time[i])
            check_time(NAMES[0], time, time)
            tokens(NAMES[1], int(rows.prompt[i]), None, output=False)
            tokens(NAMES[2], int(rows.output[i]), None, output=True)
            raise BadRowError("bad block_ids", f"{IDS}: a missing or negative id; correct the row")
        except BadRowError as error:
            findings.add(int(rows.lines[i]), error)
