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
    append,
    iteration_table,
    iterations_schema,
    request_table,
    requests_schema,
    transfer_table,
    with_replica,
)  # fmt: skip

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    import pyarrow as pa

    Columns = dict[str, np.ndarray]


class Records:
    """Writes requests, transfers where there are lower *tiers*, and *iterations* if asked for; of
    *several* replicas or of one."""

    def __init__(
        self, folder: Path, iterations: bool = True, tiers: bool = False, several: bool = False
    ) -> None:
        self.folder = folder
        self.several = several
        self._empty = {"requests": self._of_all(REQUESTS)}
        if iterations:
            self._empty["iterations"] = self._of_all(ITERATIONS)
        if tiers:
            self._empty["transfers"] = self._of_all(TRANSFERS)
        self._tables: dict[str, Table] = {}

    def _of_all(self, schema: pa.Schema) -> pa.Schema:
        return with_replica(schema) if self.several else schema

    def requests(self, columns: Columns) -> None:
        """Appends a slice of requests."""
        # Where ids come up after the first slice, the file goes on as it has begun.
        schema = self._of_all(requests_schema(columns))
        table, found = self._table("requests", schema), request_table(columns)
        table.write({name: found[name] for name in table.schema.names})

    def iterations(self, columns: Columns) -> None:
        """Appends a slice of iterations, if they are recorded, to those of its replica."""
        if "iterations" in self._empty:
            number = int(columns["replica"][0]) if self.several else 0
            table = self._table("iterations", iterations_schema(columns), number)
            table.write(iteration_table(columns, table.schema))

    def transfers(self, columns: Columns) -> None:
        """Appends a slice of transfers."""
        if "transfers" in self._empty:
            table = self._table("transfers", self._empty["transfers"])
            table.write(transfer_table(columns, table.schema))

    def _table(self, name: str, schema: pa.Schema, number: int = 0) -> Table:
        name = f"{name}.{number}" if number else name
        table = self._tables.get(name)
        if table is None:
            table = self._tables[name] = Table(self.folder / f"{name}.parquet", schema)
        return table

    def close(self) -> None:
        """Completes the files; those of which nothing happened have no row."""
        later = sorted((int(name.partition(".")[2]), name) for name in self._tables if "." in name)
        for _, name in later:
            part = self._tables.pop(name)
            part.close()
            append(self._table("iterations", part.schema), self.folder / f"{name}.parquet")
        for name, schema in self._empty.items():
            self._table(name, schema).close()
