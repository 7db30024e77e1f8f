"""The Parquet files of a run, each with the columns that the run turns out to have.

The one rule: a file's columns are those of its first slice, and a run that neither keeps KV for
reuse nor has tiers below HBM has the same files as one that knows nothing of either.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .parquet import (
    ITERATIONS,
    REQUESTS,
    TRANSFERS,
    Table,
    iteration_table,
    iterations_schema,
    request_table,
    requests_schema,
    transfer_table,
)  # fmt: skip

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    import pyarrow as pa

    Columns = dict[str, np.ndarray]


class Records:
    """Writes requests, transfers where there are lower *tiers*, and *iterations* if asked for."""

    def __init__(self, folder: Path, iterations: bool = True, tiers: bool = False) -> None:
        self.folder = folder
        self._empty = {"requests": REQUESTS}
        if iterations:
            self._empty["iterations"] = ITERATIONS
        if tiers:
            self._empty["transfers"] = TRANSFERS
        self._tables: dict[str, Table] = {}

    def requests(self, columns: Columns) -> None:
        """Appends a slice of requests."""
        # Where ids come up after the first slice, the file goes on as it has begun.
        schema = requests_schema(columns)
        table, found = self._table("requests", schema), request_table(columns)
        table.write({name: found[name] for name in table.schema.names})

    def iterations(self, columns: Columns) -> None:
        """Appends a slice of iterations, if they are recorded."""
        if "iterations" in self._empty:
            table = self._table("iterations", iterations_schema(columns))
            table.write(iteration_table(columns, table.schema))

    def transfers(self, columns: Columns) -> None:
        """Appends a slice of transfers."""
        if "transfers" in self._empty:
            self._table("transfers", TRANSFERS).write(transfer_table(columns))

    def _table(self, name: str, schema: pa.Schema) -> Table:
        table = self._tables.get(name)
        if table is None:
            table = self._tables[name] = Table(self.folder / f"{name}.parquet", schema)
        return table

    def close(self) -> None:
        """Completes the files; those of which nothing happened have no row."""
        for name, schema in self._empty.items():
            self._table(name, schema).close()
