"""Our own Parquet, which holds everything a trace has: read back, it is the same trace.

The size of the blocks, and whether last blocks that are not full have ids, are in the metadata.
"""

from __future__ import annotations

from typing import IO, TYPE_CHECKING, Any

import numpy as np

from sim.trace.arrow import lists, numbers, texts
from sim.trace.formats.columns import AFTER, BLOCK_KEY, IDS, LAST_KEY, LINKS, NAMES, SESSION
from sim.trace.ragged import Ragged

from .ids import KeptIds
from .spool import unlinked

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sim.trace.chunk import Chunk

    from .target import Target

_GROUP_ROWS = 65536  # rows a row group, unless they have very many ids
_GROUP_IDS = 2**23


def write(chunks: Iterable[Chunk], file: IO[bytes], target: Target) -> int:
    """Write *chunks* to *file*; the number of requests."""
    table: _Table | None = None
    try:
        for chunk in chunks:
            if table is None:
                table = _Table(file, target)
            for part in chunk.split(_GROUP_ROWS):
                table.add(part)
        return 0 if table is None else table.finish()
    finally:
        if table is not None:
            table.close()


class _Table:
    """A Parquet file that grows, and gets further columns when a chunk has what they hold."""

    def __init__(self, file: IO[bytes], target: Target) -> None:
        self._file = file
        self._target = target
        self._rows = 0
        self._ids = False
        self._links = False
        self._block_ids = KeptIds(target)
        self._writer: Any = None
        self._held: list[Any] = []  # tables of the next row group
        self._held_rows = 0
        self._held_ids = 0

    def add(self, part: Chunk) -> None:
        """Take the next requests."""
        ids = self._ids or part.block_ids is not None
        links = self._links or part.links is not None
        if self._rows and (ids, links) != (self._ids, self._links):
            self._widen(ids, links)
        self._ids, self._links = ids, links
        table = self._table(part)
        self._held.append(table)
        self._rows += len(part)
        self._held_rows += len(part)
        self._held_ids += 0 if part.block_ids is None else len(part.block_ids.values)
        if self._held_rows >= _GROUP_ROWS or self._held_ids >= _GROUP_IDS:
            self._flush()

    def finish(self) -> int:
        """Complete the file; the number of requests."""
        self._flush()
        if self._ids:
            target = self._target
            size = target.block_tokens if self._block_ids.regrouped else target.source_tokens
            last = "partial" if self._block_ids.regrouped else target.source_last
            self._writer.add_key_value_metadata({BLOCK_KEY: str(size), LAST_KEY: last})
        self.close()
        return self._rows

    def close(self) -> None:
        """Let go of the file."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _open(self, schema: Any) -> None:
        """Begin the file. Ids that count up take hardly any room as differences, and less time."""
        import pyarrow.parquet as pq

        names = [SESSION] if SESSION in schema.names else []
        lists = {f"{name}.list.element": "DELTA_BINARY_PACKED" for name in (IDS, AFTER)}
        self._writer = pq.ParquetWriter(
            self._file, schema, compression="zstd", use_dictionary=names,
            column_encoding={k: v for k, v in lists.items() if k.split(".")[0] in schema.names},
        )  # fmt: skip

    def _schema(self, ids: bool, links: bool) -> Any:
        import pyarrow as pa

        whole, many = pa.int64(), pa.list_(pa.int64())
        kinds = dict(zip(NAMES, (pa.float64(), whole, whole), strict=True))
        if ids:
            kinds[IDS] = many
        if links:
            each = (pa.string(), many, pa.float64(), pa.float64())
            kinds |= dict(zip(LINKS, each, strict=True))
        return pa.schema(list(kinds.items()))

    def _table(self, part: Chunk) -> Any:
        import pyarrow as pa

        arrays = [numbers(c) for c in (part.arrival_s, part.prompt_tokens, part.output_tokens)]
        if self._ids:
            arrays.append(lists(self._block_ids.of(part)))
        if self._links:
            links = part.links or unlinked(len(part))
            known = ~np.isnan(links.recorded_s)
            arrays += [texts(links.session), lists(links.after), numbers(links.delay_s)]
            arrays.append(numbers(links.recorded_s, known))
        return pa.Table.from_arrays(arrays, schema=self._schema(self._ids, self._links))

    def _flush(self) -> None:
        """Write what is held as a row group."""
        import pyarrow as pa

        if not self._held:
            return
        whole = pa.concat_tables(self._held)
        if self._writer is None:
            self._open(whole.schema)
        self._writer.write_table(whole, row_group_size=len(whole))
        self._held, self._held_rows, self._held_ids = [], 0, 0

    def _widen(self, ids: bool, links: bool) -> None:
        """Give the rows so far empty values in the columns that come."""
        import pyarrow.parquet as pq

        self._flush()
        self.close()
        self._file.flush()
        self._file.seek(0)
        with self._target.scratch() as copy:
            while data := self._file.read(2**20):
                copy.write(data)
            copy.seek(0)
            self._file.seek(0)
            self._file.truncate()
            before, schema = self._schema(self._ids, self._links), self._schema(ids, links)
            self._open(schema)
            with pq.ParquetFile(copy) as file:
                for batch in file.iter_batches(batch_size=_GROUP_ROWS):
                    self._writer.write_table(_widened(batch, before, schema))


def _widened(batch: Any, before: Any, schema: Any) -> Any:
    import pyarrow as pa

    rows = batch.num_rows
    empty = {
        "session": texts([""] * rows),
        "delay_s": numbers(np.zeros(rows)),
        "recorded_s": numbers(np.zeros(rows), np.zeros(rows, dtype=np.bool_)),
    }
    none = lists(Ragged.empty(rows))
    arrays = [
        batch.column(name) if name in before.names else empty.get(name, none)
        for name in schema.names
    ]
    return pa.Table.from_arrays(arrays, schema=schema)
